"""Remote directories: `gs://`, `s3://` and all others known to fsspec."""

import os
from typing import Any


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Check for a path with a protocol, as in `gs://bucket/runs`."""
    return "://" in str(path)


def require(url: str) -> None:
    """Check for the packages of a URL; nothing is connected to.

    Raises:
        ImportError: If fsspec or its package for the protocol is missing.
        ValueError: If fsspec does not know the protocol.
    """
    received = f"Received: log_dir={url!r}"
    try:
        from fsspec import get_filesystem_class  # type: ignore[import-untyped]
        from fsspec.utils import get_protocol  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError(
            "`log_dir` must be the path of a local directory where fsspec is not installed. "
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
            "or a URL as gs://bucket/runs."
        ) from error


def child(url: str, name: str) -> str:
    """Return the URL of an entry of a directory."""
    protocol, _, path = url.partition("://")
    return f"{protocol}://{path.rstrip('/')}/{name}"


def make_directory(url: str) -> None:
    """Make a directory and its parents, where the file system has directories."""
    system, path = _connect(url)
    system.makedirs(path, exist_ok=True)


def list_directory(url: str) -> list[str]:
    """List the URLs in a directory; none if it does not exist."""
    system, path = _connect(url)
    system.invalidate_cache()
    try:
        paths = system.ls(path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [child(url, str(one).rstrip("/").rpartition("/")[2]) for one in paths]


def open_to_read(url: str) -> Any:
    """Open a file for reading bytes."""
    system, path = _connect(url)
    return system.open(path, "rb")


def upload(local: str | os.PathLike[str], url: str) -> None:
    """Put a local file there, in place of an older one."""
    system, path = _connect(url)
    system.put_file(os.fspath(local), path)


def _connect(url: str) -> tuple[Any, str]:
    require(url)
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    system, path = url_to_fs(url)
    return system, path
