"""TensorBoard event files, written without TensorFlow, and read from wherever they are.

A file is a sequence of records, each `u64 length, u32 masked crc of the length, data, u32 masked
crc of the data`, little-endian; the data is a serialised `Event`. Every write reaches the
operating system before it returns, so a killed process loses nothing that was written.
"""

import contextlib
import io
import itertools
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event

from tensorboard_plugin_initkit.log.paths import path_at

_PATTERN = "events.out.tfevents.*.initkit"
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_serial = itertools.count()


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, _FOOTER.pack(_masked_crc(length)), data, _FOOTER.pack(_masked_crc(data)))
    )


class EventFileWriter:
    """Appends serialised events to a new event file in a directory, which is made if missing.

    The file is open only while it is written: nothing has to be closed, whatever ends a training.
    It holds whole records only, also after a write that failed half way, as on a full disk.

    Raises:
        OSError: If the directory or file cannot be written, or the file is gone: also by `write`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        now = time.time()
        # TensorBoard reads the files of a run in the order of their names.
        name = (
            f"events.out.tfevents.{now:.6f}.{socket.gethostname()}"
            f".{os.getpid()}.{next(_serial)}.initkit"
        )
        self.path = directory / name
        version = Event(wall_time=now, file_version="brain.Event:2")
        self._size = 0
        self.path.touch()
        self.write([version.SerializeToString()])

    def write(self, events: Iterable[bytes]) -> None:
        """Append serialised events."""
        data = b"".join(map(_record, events))
        with open(self.path, "r+b", buffering=0) as file:
            end = min(file.seek(0, os.SEEK_END), self._size)
            file.truncate(end)  # what a failed write has left, if it could not be taken back then
            file.seek(end)
            try:
                _write_all(file, data)
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
        self._size = end + len(data)

    def flush(self) -> None:
        """Do nothing: all was handed to the system already."""


def _write_all(file: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def event_files(directory: str | os.PathLike[str]) -> list[Any]:
    """List the paths of keras-initkit's event files in a directory or URL, oldest first."""
    path = path_at(directory)
    if not isinstance(path, Path):
        path.fs.invalidate_cache()
    try:
        return sorted(file for file in path.iterdir() if fnmatch(file.name, _PATTERN))
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_events(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Yield the `Event`s of a file, up to the first incomplete record.

    The last record may be cut while a file is written, or after its writer was killed. A whole
    record that does not match its checksum raises ValueError.
    """
    with path_at(path).open("rb") as file:
        start = 0
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, _ = _HEADER.unpack(header)
            if _FOOTER.pack(_masked_crc(header[:8])) != header[8:]:
                raise ValueError(_damaged(path, start))
            data, footer = file.read(length), file.read(_FOOTER.size)
            if len(footer) < _FOOTER.size:
                return
            if _FOOTER.pack(_masked_crc(data)) != footer:
                raise ValueError(_damaged(path, start))
            yield Event.FromString(data)
            start = file.tell()


def _damaged(path: str | os.PathLike[str], offset: int) -> str:
    return (
        f"The records of an event file must match their checksums. Received: {path}, damaged "
        f"in the record at byte {offset}. Copy the file again from where it was written."
    )
