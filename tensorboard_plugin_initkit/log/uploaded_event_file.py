"""An event file in a directory that cannot be appended to."""

import contextlib
import os
import shutil
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorboard_plugin_initkit.log.event_file import EventFileWriter
from tensorboard_plugin_initkit.log.paths import path_at

# An upload takes at most a twentieth of the time, however large the file has grown.
_SECONDS_BETWEEN_UPLOADS = 30.0
_UPLOADS_SHARE = 1 / 20


class UploadedEventFile:
    """Appends serialised events to a local copy, uploaded whole from time to time.

    Object stores replace files, and cannot append to them. The directory, a `UPath`, is made if
    missing. The file is uploaded when it is made, so that an obstacle shows at once, at `flush`,
    and in between at most every 30 seconds; the next upload then makes up for a failed one.

    Raises:
        Exception: The file system's error if the file cannot be uploaded.
    """

    def __init__(self, directory: Any) -> None:
        directory.fs.makedirs(directory.path, exist_ok=True)
        local = tempfile.mkdtemp(prefix="keras-initkit-")
        self._file = EventFileWriter(local)
        self.path = self._file.path
        self._target = directory / self.path.name
        self._complete = threading.Event()  # set once all is uploaded
        # A training that is interrupted does not flush.
        self._leave = weakref.finalize(self, _leave, self._file.path, self._target, self._complete)
        self._complete.set()  # nothing is lost if the first upload fails
        self._due = 0.0
        self._upload()

    def write(self, events: Iterable[bytes]) -> None:
        """Append serialised events; raise OSError if the local copy cannot be written."""
        self._file.write(events)
        self._complete.clear()
        if time.monotonic() >= self._due:
            with contextlib.suppress(Exception):
                self._upload()

    def flush(self) -> None:
        """Upload the rest; raise OSError if that fails, and keep the local copy."""
        if self._complete.is_set():
            return
        try:
            self._upload()
        except Exception as error:
            self._leave.detach()
            raise OSError(f"{error!r}. The log up to now is kept as {self._file.path}") from error

    def _upload(self) -> None:
        start = time.monotonic()
        try:
            upload(self._file.path, self._target)
            self._complete.set()
        finally:
            end = time.monotonic()
            self._due = end + max(_SECONDS_BETWEEN_UPLOADS, (end - start) / _UPLOADS_SHARE)


def open_event_file(
    log_dir: str | os.PathLike[str], run: str
) -> EventFileWriter | UploadedEventFile:
    """Open a new event file for a run in a directory or URL."""
    directory = path_at(log_dir) / run
    local = isinstance(directory, Path)
    return EventFileWriter(directory) if local else UploadedEventFile(directory)


def upload(local: Path, target: Any) -> None:
    """Put a local file to a `UPath`, in place of an older one."""
    target.fs.put_file(str(local), target.path)


def _leave(path: Path, target: Any, complete: threading.Event) -> None:
    """Upload the rest, and remove the local copy; keep it if that fails."""
    if not complete.is_set():
        try:
            upload(path, target)
        except Exception as error:
            warnings.warn(f"{error!r}. The log up to now is kept as {path}.", stacklevel=1)
            return
    shutil.rmtree(path.parent, ignore_errors=True)
