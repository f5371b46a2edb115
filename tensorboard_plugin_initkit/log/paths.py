"""Paths on this machine and at URLs: `gs://`, `s3://` and all others known to fsspec."""

import errno
import os
from pathlib import Path
from typing import Any


def path_at(place: str | os.PathLike[str]) -> Any:
    """Return a `pathlib.Path`, or for a URL a `UPath`, which has the same methods.

    `~` is the home directory. Nothing is connected to.

    Raises:
        ImportError: If universal_pathlib or fsspec's package for the protocol is missing.
        ValueError: If it is no path, or none of this system, or fsspec does not know the protocol.
    """
    url = str(place)
    if not url or not ("://" in url or isinstance(place, str | os.PathLike)):
        raise ValueError(
            f"`log_dir` must be the path or URL of a directory. Received: log_dir={place!r}. Write "
            'one such as "runs/first"; without it the records are in `monitor.history` only.'
        )
    if "://" not in url:
        return _check_name(Path(os.path.expanduser(place)))
    received = f"Received: log_dir={url!r}"
    try:
        from fsspec import get_filesystem_class  # type: ignore[import-untyped]
        from fsspec.utils import get_protocol  # type: ignore[import-untyped]
        from upath import UPath
    except ImportError:
        raise ImportError(
            "`log_dir` must be a local directory unless universal_pathlib is installed. "
            f"{received}. Run `pip install 'keras-initkit[fsspec]'`."
        ) from None
    try:
        get_filesystem_class(get_protocol(url))
    except ImportError as error:
        raise ImportError(
            f"`log_dir` must be of a protocol whose package is installed. {received}. {error}."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"`log_dir` must be of a protocol that fsspec knows. {received}. Write a local path, "
            "or a URL such as gs://bucket/runs."
        ) from error
    return UPath(url)


def _check_name(path: Path) -> Path:
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: of a null byte
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            raise ValueError(
                "`log_dir` must be a path that this system allows. Received: log_dir="
                f"{str(path)[:80]!r}, of {len(str(path))} characters: "
                f"{getattr(error, 'strerror', error)}. Choose a shorter, plain name."
            ) from None
    return path
