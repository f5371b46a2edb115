"""The record as TensorBoard events: how a chunk is written to a log, and read from it.

A log is a run directory, `<log_dir>/gradients`, with

- `initkit/layout`: the columns, as JSON; written before the first chunk and when they change;
- `initkit/<statistic>`, for each recorded statistic: one float32 tensor (n, 2 + variables) a
  chunk, logged at its first step. The first two columns are the step, high · 2²⁴ + low, exact in
  float32;
- `initkit/totals`, the end of a chunk: a tensor (n, 2 + statistics · optimizers) of `TOTALS`;
- `initkit/findings`: the findings, as JSON;
- `initkit/end`: written when a training ends; a log without it breaks off;
- scalars and histograms for TensorBoard's own dashboards: see `dashboards.py`.

The directory is a run of its own, since TensorBoard follows only the newest of several growing
event files in one directory.
"""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING

from tensorboard_plugin_initkit import PLUGIN_NAME
from tensorboard_plugin_initkit.log.dashboards import Histograms, Scalars, make_tensor
from tensorboard_plugin_initkit.log.event_file import event_files, read_events
from tensorboard_plugin_initkit.log.paths import path_at
from tensorboard_plugin_initkit.log.uploaded_event_file import open_event_file
from tensorboard_plugin_initkit.record.chunk import TOTALS, Chunk
from tensorboard_plugin_initkit.record.layout import SCHEMA_VERSION, Layout
from tensorboard_plugin_initkit.record.statistics import per_optimizer

RUN = "gradients"
LAYOUT_TAG = f"{PLUGIN_NAME}/layout"
TOTALS_TAG = f"{PLUGIN_NAME}/totals"
FINDINGS_TAG = f"{PLUGIN_NAME}/findings"
END_TAG = f"{PLUGIN_NAME}/end"
_STEP_BASE = 2**24


class LogWriter:
    """Writes chunks to the log of a directory or URL for TensorBoard: its run `gradients`.

    For TensorBoard's own dashboards, every `scalars`-th recorded step is also written as scalars,
    and every `histograms`-th one with samples as histograms of log10 |g|; 0 for none.

    Raises:
        OSError: If the log cannot be written or uploaded, now or later; earlier content stays.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str], scalars: int = 1, histograms: int = 0
    ) -> None:
        self._file = open_event_file(log_dir, RUN)
        self._scalars = Scalars(scalars)
        self._histograms = Histograms(histograms)
        self._layout: Layout | None = None
        self._last: int | None = None  # step that was written since the end before

    def write(self, chunk: Chunk, samples: Sequence[np.ndarray] | None = None) -> None:
        """Append a chunk. Samples are for the histograms.

        They are, for each variable, a float32 array (n, k) of elements of its gradient, NaN where
        there are none.
        """
        now = time.time()
        events = []
        if self._layout != chunk.layout:
            text = chunk.layout.to_json()
            events.append(_text_event(LAYOUT_TAG, text, int(chunk.steps[0]), now))
        events.extend(_tensor_events(chunk, now))
        events.extend(self._scalars.events(chunk, now))
        if samples is not None:
            events.extend(self._histograms.events(chunk, samples, now))
        self._file.write(events)
        self._layout, self._last = chunk.layout, int(chunk.steps[-1])

    def write_findings(self, text: str, step: int) -> None:
        """Append the findings up to a step, as JSON."""
        self._file.write([_text_event(FINDINGS_TAG, text, step, time.time())])

    def end(self) -> None:
        """Append a mark of completeness, if something was written; more may follow."""
        if self._last is not None:
            self._file.write([_text_event(END_TAG, "", self._last, time.time())])
            self._last = None

    def flush(self) -> None:
        """Upload the rest of a log at a URL: until then it is uploaded now and then only."""
        self._file.flush()


def read_records(log_dir: str | os.PathLike[str]) -> Iterator[Chunk | str]:
    """Yield the chunks of a log and the texts of its findings, in the order they were written in.

    The log is in the directory or URL given to the monitor, or is this run directory itself. The
    errors are those of `read_log`.
    """
    files = event_files(path_at(log_dir) / RUN) or event_files(log_dir)
    if not files:
        raise FileNotFoundError(
            f"`log_dir` must be a directory that a GradientMonitor has written to. Received: "
            f"log_dir={str(log_dir)!r}, which holds no such log. Train with "
            f"`callbacks=[GradientMonitor({str(log_dir)!r})]` first."
        )
    for file in files:
        yield from _read_file(file)


def _read_file(path: str | os.PathLike[str]) -> Iterator[Chunk | str]:
    layout = Layout(())
    values: dict[str, np.ndarray] = {}
    for event in read_events(path):
        for value in event.summary.value:
            prefix, _, statistic = value.tag.partition("/")
            if prefix != PLUGIN_NAME or value.tag == END_TAG:
                continue
            if value.tag == FINDINGS_TAG:
                yield value.tensor.string_val[0].decode()
                continue
            if value.tag == LAYOUT_TAG:
                layout = Layout.from_json(value.tensor.string_val[0])
                continue
            shape = [dim.size for dim in value.tensor.tensor_shape.dim]
            numbers = np.frombuffer(value.tensor.tensor_content, "<f4").reshape(shape)
            steps, table = split_table(numbers)
            if value.tag != TOTALS_TAG:
                values[statistic] = table
                continue
            yield Chunk(layout, steps, values, split_totals(table))
            values = {}


def split_table(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a table of a log, float32 (n, 2 + columns), into steps and columns."""
    high, low = table[:, :2].astype(np.int64).T
    return high * _STEP_BASE + low, table[:, 2:]


def split_totals(columns: np.ndarray) -> dict[str, np.ndarray]:
    """Split the columns of a table into `TOTALS`."""
    return dict(zip(TOTALS, np.split(columns, len(TOTALS), axis=1), strict=True))


def _event(tag: str, tensor: Any, step: int, wall_time: float) -> bytes:
    plugin = SummaryMetadata.PluginData(
        plugin_name=PLUGIN_NAME, content=b'{"version": %d}' % SCHEMA_VERSION
    )
    metadata = SummaryMetadata(plugin_data=plugin, data_class="DATA_CLASS_TENSOR")
    value = Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
    event = Event(step=step, wall_time=wall_time, summary=Summary(value=[value]))
    return event.SerializeToString()


def _text_event(tag: str, text: str, step: int, wall_time: float) -> bytes:
    tensor = TensorProto(
        dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[text.encode()]
    )
    return _event(tag, tensor, step, wall_time)


def _tensor_events(chunk: Chunk, wall_time: float) -> Iterator[bytes]:
    steps = np.stack(np.divmod(chunk.steps, _STEP_BASE), axis=1).astype(np.float32)
    tables = {f"{PLUGIN_NAME}/{name}": array for name, array in chunk.values.items()}
    totals = [per_optimizer(chunk, name) for name in TOTALS]
    tables[TOTALS_TAG] = np.concatenate(totals, axis=1)
    for tag, array in tables.items():
        table = np.concatenate([steps, array], axis=1).astype("<f4")
        # Of a training that goes on from an earlier step, TensorBoard drops what was logged at
        # later ones: by their first steps, these are the chunks of which nothing is left.
        yield _event(tag, make_tensor(table, DT_FLOAT), int(chunk.steps[0]), wall_time)
