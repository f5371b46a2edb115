"""Paths on this machine and at URLs: `gs://`, `s3://` and all others known to fsspec."""

import os
from pathlib import Path
from typing import Any


def path_at(place: str | os.PathLike[str]) -> Any:
    """Return a `pathlib.Path`, or for a URL a `UPath`, which has the same methods.

    Nothing is connected to.

    Raises:
        ImportError: If universal_pathlib or fsspec's package for the protocol is missing.
        ValueError: If fsspec does not know the protocol.
    """
    url = str(place)
    if "://" not in url:
        return Path(place)
    received = f"Received: log_dir={url!r}"
    try:
        from fsspec import get_filesystem_class  # type: ignore[import-untyped]
        from fsspec.utils import get_protocol  # type: ignore[import-untyped]
        from upath import UPath
    except ImportError:
        raise ImportError(
            "`log_dir` must be the path of a local directory where universal_pathlib is not "
            f"installed. {received}. Run `pip install 'keras-initkit[fsspec]'`."
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
            "or a URL as gs://bucket/runs."
        ) from error
    return UPath(url)
