"""An event file in a directory that cannot be appended to."""

import contextlib
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable

from tensorboard_plugin_initkit import remote
from tensorboard_plugin_initkit.event_file import EventFileWriter

# An upload takes at most a twentieth of the time, however large the file has grown.
_SECONDS_BETWEEN_UPLOADS = 30.0
_UPLOADS_SHARE = 1 / 20


class UploadedEventFile:
    """Appends serialised events to a local copy, which is uploaded whole from time to time.

    Object stores replace files, and cannot append to them. The file is uploaded when it is made,
    so that what stands against it is known at once, at `flush`, and in between at most every 30
    seconds. An upload in between that fails is made up for by the next one.

    Args:
        directory: URL of the run's directory; made if missing.

    Raises:
        ImportError: If a package for the URL is missing.
        Exception: What the file system raises if the file cannot be uploaded.
    """

    def __init__(self, directory: str) -> None:
        remote.make_directory(directory)
        local = tempfile.mkdtemp(prefix="keras-initkit-")
        self._remove = weakref.finalize(self, shutil.rmtree, local, ignore_errors=True)
        self._file = EventFileWriter(local)
        self._url = remote.child(directory, self._file.path.name)
        self._complete = False
        self._due = 0.0
        self._upload()

    def write(self, events: Iterable[bytes]) -> None:
        """Append serialised events.

        Raises:
            OSError: If the local copy cannot be written.
        """
        self._file.write(events)
        self._complete = False
        if time.monotonic() >= self._due:
            with contextlib.suppress(Exception):
                self._upload()

    def flush(self) -> None:
        """Upload what has not been uploaded yet.

        Raises:
            OSError: If that fails; the local copy is then kept.
        """
        if self._complete:
            return
        try:
            self._upload()
        except Exception as error:
            self._remove.detach()
            raise OSError(f"{error!r}. The log up to now is kept as {self._file.path}") from error

    def _upload(self) -> None:
        start = time.monotonic()
        try:
            remote.upload(self._file.path, self._url)
            self._complete = True
        finally:
            end = time.monotonic()
            self._due = end + max(_SECONDS_BETWEEN_UPLOADS, (end - start) / _UPLOADS_SHARE)
