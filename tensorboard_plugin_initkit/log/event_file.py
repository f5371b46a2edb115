"""TensorBoard event files, written without TensorFlow, and read from wherever they are.

A file is a sequence of records, each `u64 length, u32 masked crc of the length, data, u32 masked
crc of the data`, little-endian; the data is a serialised `Event`. Every write reaches the
operating system before it returns, so a killed process loses nothing that was written.
"""

import contextlib
import io
import itertools
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import google_crc32c
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event

from tensorboard_plugin_initkit.log.paths import path_at

_PATTERN = "events.out.tfevents.*.initkit"
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_serial = itertools.count()
_TOO_LONG = 2**31  # for a protocol buffer
# A header with such a length, and the tag of `Event.wall_time`.
_BEGINNING = re.compile(rb"(?s)(?=.{3}[\0-\x7f]\0{4}.{4}\x09)")
_BLOCK = 2**14
_DAMAGED = (
    "An event file must hold whole events that match their checksums. Received: other bytes. "
    "Copy the file again from where it was written."
)


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
        OSError: If the directory or file cannot be written: also by `write`.
        FileNotFoundError: By `write`, if the file is gone, or was cut.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        now = time.time()
        # TensorBoard reads the files of a run in the order of their names. Others look for their
        # own by second and host, such as Weights & Biases.
        second, fraction = f"{now:.6f}".split(".")
        name = (
            f"events.out.tfevents.{second}.{socket.gethostname()}.{fraction}"
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
            end, length = self._size, file.seek(0, os.SEEK_END)
            if length < end:
                # What is appended would follow half a record.
                raise FileNotFoundError(f"{self.path} was cut: {length} of {end} bytes are left")
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


def raise_error(error: ValueError) -> None:
    """Raise an error: what is done about damage by default."""
    raise error


def read_events(
    path: str | os.PathLike[str],
    parse: Callable[[bytes], Any] = Event.FromString,
    report: Callable[[ValueError], None] = raise_error,
) -> Iterator[Any]:
    """Yield the events of a file, each as it is parsed, up to an incomplete one at the end.

    The last record may be cut while a file is written, or after its writer was killed. What is
    damaged, or refused by `parse`, is reported with file and offset; if the report returns, the
    next whole record is looked for. No more memory is taken than the file is long.
    """
    with path_at(path).open("rb") as file:
        start, size = 0, file.seek(0, os.SEEK_END)
        while start < size:
            items, end = [], 0
            try:
                data = _read_record(file, start, size)
                end = start + _HEADER.size + len(data) + _FOOTER.size
                items = [parse(data)]
            except (ValueError, DecodeError) as error:
                end = end or _find_record(file, start + 1, size)
                if end == size and isinstance(error, _CutError):
                    return
                why = _DAMAGED if isinstance(error, DecodeError) else error
                report(ValueError(f"{why} This is the record at byte {start} of {path}."))
            yield from items
            start = end


class _CutError(ValueError):
    """A record that goes on behind the end of its file."""


def _read_record(file: Any, start: int, size: int) -> bytes:
    file.seek(start)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise _CutError(_DAMAGED)
    length, crc = _HEADER.unpack(header)
    if _masked_crc(header[:8]) != crc or length >= _TOO_LONG:
        raise ValueError(_DAMAGED)
    if length > size - start - _HEADER.size - _FOOTER.size:
        raise _CutError(_DAMAGED)
    data: bytes = file.read(length)
    if _FOOTER.pack(_masked_crc(data)) != file.read(_FOOTER.size):
        raise ValueError(_DAMAGED)
    return data


def _find_record(file: Any, start: int, size: int) -> int:
    """Find the next whole record at or behind an offset; return the file's size if there is none.

    Only records that begin as a serialised `Event` with a time are found.
    """
    for block in range(start, size, _BLOCK):
        file.seek(block)
        for found in _BEGINNING.finditer(file.read(_BLOCK + _HEADER.size)):
            offset = block + found.start()
            with contextlib.suppress(ValueError):
                _read_record(file, offset, size)
                return offset
    return size
