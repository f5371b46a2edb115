"""The record as TensorBoard events: how a chunk is written to a log, and read from it.

A log is a run directory, `<log_dir>/gradients`, that holds

- `initkit/layout`: the columns, as JSON; written before the first chunk and when they change;
- `initkit/<statistic>`, for each recorded statistic: one float32 tensor (n, 2 + variables) a
  chunk. The first two columns are the step, high · 2²⁴ + low, which float32 holds exactly;
- `gradients/<layer>/<statistic>`: scalars, for TensorBoard's own dashboards.

The directory is a run of its own, since TensorBoard follows only the newest of several event
files that grow in one directory.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING

from tensorboard_plugin_initkit.event_file import EventFileWriter, event_files, read_events
from tensorboard_plugin_initkit.schema import (
    RECORDED,
    SCHEMA_VERSION,
    STATISTICS,
    Chunk,
    Layout,
    per_layer,
)

PLUGIN_NAME = "initkit"
RUN = "gradients"
LAYOUT_TAG = f"{PLUGIN_NAME}/layout"
_STEP_BASE = 2**24


class LogWriter:
    """Writes chunks to the log of a directory.

    Args:
        log_dir: Directory that TensorBoard is pointed at; the log is its run `gradients`.
        scalars: Whether to write scalars for TensorBoard's own dashboards as well.

    Raises:
        OSError: If the directory or file cannot be written.
    """

    def __init__(self, log_dir: str | os.PathLike[str], scalars: bool = True) -> None:
        self._file = EventFileWriter(Path(log_dir) / RUN)
        self._scalars = scalars
        self._layout = Layout(())
        self._template = _ScalarTemplate(self._layout)

    def write(self, chunk: Chunk) -> None:
        """Append a chunk."""
        now = time.time()
        events = []
        if self._layout != chunk.layout:
            self._layout = chunk.layout
            self._template = _ScalarTemplate(chunk.layout)
            events.append(_layout_event(chunk.layout, int(chunk.steps[0]), now))
        events.extend(_tensor_events(chunk, now))
        if self._scalars:
            events.extend(self._template.fill(chunk, now))
        self._file.write(events)


def read_chunks(log_dir: str | os.PathLike[str]) -> Iterator[Chunk]:
    """Yield the chunks of a log, in the order in which they were written.

    Args:
        log_dir: The directory given to the monitor, or its run directory.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If the log is damaged, or of another schema version.
    """
    files = event_files(Path(log_dir) / RUN) or event_files(log_dir)
    if not files:
        raise FileNotFoundError(
            f"`log_dir` must be a directory that a GradientMonitor has written to. Received: "
            f"log_dir={str(log_dir)!r}, which holds no such log. Train with "
            f"`callbacks=[GradientMonitor({str(log_dir)!r})]` first."
        )
    for file in files:
        yield from _read_file(file)


def _read_file(path: Path) -> Iterator[Chunk]:
    layout = Layout(())
    values: dict[str, np.ndarray] = {}
    for event in read_events(path):
        for value in event.summary.value:
            prefix, _, statistic = value.tag.partition("/")
            if prefix != PLUGIN_NAME:
                continue
            if value.tag == LAYOUT_TAG:
                layout = Layout.from_json(value.tensor.string_val[0])
                continue
            values[statistic] = _array(value.tensor)
            if len(values) == len(RECORDED):
                steps = _steps(values["norm"])
                yield Chunk(layout, steps, {name: values[name][:, 2:] for name in RECORDED})
                values = {}


def _array(tensor: Any) -> np.ndarray:
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    return np.frombuffer(tensor.tensor_content, "<f4").reshape(shape)


def _steps(table: np.ndarray) -> np.ndarray:
    high, low = table[:, :2].astype(np.int64).T
    return high * _STEP_BASE + low


def _metadata() -> Any:
    return SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(
            plugin_name=PLUGIN_NAME, content=b'{"version": %d}' % SCHEMA_VERSION
        ),
        data_class="DATA_CLASS_TENSOR",
    )


def _event(tag: str, tensor: Any, step: int, wall_time: float) -> bytes:
    value = Summary.Value(tag=tag, tensor=tensor, metadata=_metadata())
    event = Event(step=step, wall_time=wall_time, summary=Summary(value=[value]))
    return event.SerializeToString()


def _layout_event(layout: Layout, step: int, wall_time: float) -> bytes:
    tensor = TensorProto(
        dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[layout.to_json().encode()]
    )
    return _event(LAYOUT_TAG, tensor, step, wall_time)


def _tensor_events(chunk: Chunk, wall_time: float) -> Iterator[bytes]:
    steps = np.stack(np.divmod(chunk.steps, _STEP_BASE), axis=1).astype(np.float32)
    for name in RECORDED:
        table = np.concatenate([steps, chunk.values[name]], axis=1).astype("<f4")
        dims = [TensorShapeProto.Dim(size=size) for size in table.shape]
        tensor = TensorProto(
            dtype=DT_FLOAT,
            tensor_shape=TensorShapeProto(dim=dims),
            tensor_content=table.tobytes(),
        )
        yield _event(f"{PLUGIN_NAME}/{name}", tensor, int(chunk.steps[-1]), wall_time)


class _ScalarTemplate:
    """The scalars of one step, serialised once; the numbers are then filled in.

    A thousand scalars a step cost 15 ms as protocol buffers, and 0.1 ms so: a serialised
    `Summary.Value` of a tag and a `simple_value` ends in the four bytes of that float.
    """

    def __init__(self, layout: Layout) -> None:
        pieces, ends, size = [], [], 0
        for layer in layout.layers:
            for statistic in STATISTICS:
                value = Summary.Value(tag=f"gradients/{layer}/{statistic}", simple_value=1.0)
                pieces.append(Summary(value=[value]).SerializeToString())
                size += len(pieces[-1])
                ends.append(size)
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8).copy()
        self._slots = np.array(ends, np.int64)[:, None] + np.arange(-4, 0)

    def fill(self, chunk: Chunk, wall_time: float) -> Iterator[bytes]:
        """Yield one serialised event a step."""
        table = np.stack([per_layer(chunk, name) for name in STATISTICS], axis=2)
        with np.errstate(over="ignore"):  # an exploding layer's norm can exceed float32: inf
            table = table.reshape(len(chunk.steps), -1).astype("<f4")
        for step, row in zip(chunk.steps, table, strict=True):
            self._bytes[self._slots] = row.view(np.uint8).reshape(-1, 4)
            # A serialised message field may be appended: Event {step, wall_time} + {summary}.
            head = Event(step=int(step), wall_time=wall_time).SerializeToString()
            summary = self._bytes.tobytes()
            yield head + b"\x2a" + _varint(len(summary)) + summary


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
