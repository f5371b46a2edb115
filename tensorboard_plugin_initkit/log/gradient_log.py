"""The record as TensorBoard events: how a chunk is written to a log, and read from it.

A log is a run directory, `<log_dir>/gradients` (of later trainings `gradients_2` …), with

- `initkit/layout`: the columns, as JSON; written before the first chunk and when they change;
- `initkit/<statistic>`, for each recorded statistic: one float32 tensor (n, 2 + variables) a
  chunk, logged at its first step. The first two columns are the step, high · 2²⁴ + low, exact in
  float32;
- `initkit/ports`, where they are known: a tensor (n, 2 + statistics · ports) of `PORT_STATISTICS`;
- `initkit/totals`, the end of a chunk: a tensor (n, 2 + statistics · optimizers) of `TOTALS`;
- `initkit/setup`: the model as it is built and compiled, as JSON;
- `initkit/findings`: the findings, as JSON;
- `initkit/end`: written when a training ends; a log without it breaks off;
- scalars and histograms for TensorBoard's own dashboards: see `dashboards.py`.

The directory is a run of its own, since TensorBoard follows only the newest of several growing
event files in one directory.
"""

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING

from tensorboard_plugin_initkit import PLUGIN_NAME
from tensorboard_plugin_initkit.diagnosis.finding import Finding, from_json
from tensorboard_plugin_initkit.log.content import (
    make_chunk,
    make_table,
    ports_of,
    read_text,
    values_of,
)
from tensorboard_plugin_initkit.log.dashboards import Histograms, ScalarEvents, make_tensor
from tensorboard_plugin_initkit.log.event_file import (
    event_files,
    raise_error,
    read_events,
)
from tensorboard_plugin_initkit.log.runs import find_runs
from tensorboard_plugin_initkit.log.uploaded_event_file import open_event_file
from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS, RECORDED, TOTALS, Chunk
from tensorboard_plugin_initkit.record.layout import SCHEMA_VERSION, Layout
from tensorboard_plugin_initkit.record.setup import Setup
from tensorboard_plugin_initkit.record.statistics import per_optimizer
from tensorboard_plugin_initkit.stored_json import refuse

RUN = "gradients"
LAYOUT_TAG = f"{PLUGIN_NAME}/layout"
TOTALS_TAG = f"{PLUGIN_NAME}/totals"
PORTS_TAG = f"{PLUGIN_NAME}/ports"
SETUP_TAG = f"{PLUGIN_NAME}/setup"
FINDINGS_TAG = f"{PLUGIN_NAME}/findings"
END_TAG = f"{PLUGIN_NAME}/end"
# That a reader keeps, as those that come again are not taken apart again.
_MOST_LAYOUTS = 16


class LogWriter:
    """Writes chunks to the log of a directory or URL for TensorBoard: a run in it.

    For TensorBoard's own dashboards, each recorded step is also written as scalars: of layers the
    statistics named by `scalars`, and totals, or nothing with `None`; and every `histograms`-th one
    with samples as histograms of log10 |g|; 0 for none.

    Raises:
        OSError: If the log cannot be written or uploaded, now or later; earlier content stays.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        scalars: Collection[str] | None = ("norm",),
        histograms: int = 0,
        run: str = RUN,
    ) -> None:
        self._file = open_event_file(log_dir, run)
        self._scalars = ScalarEvents(scalars)
        self._histograms = Histograms(histograms)
        self._layout: Layout | None = None
        self._content = b""
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
            self._content = _name_layout(text)
            events.append(_text_event(LAYOUT_TAG, text, int(chunk.steps[0]), now))
        events.extend(_tensor_events(chunk, self._content, now))
        events.extend(self._scalars.of_chunk(chunk, now))
        if samples is not None:
            events.extend(self._histograms.events(chunk, samples, now))
        self._file.write(events)
        self._layout, self._last = chunk.layout, int(chunk.steps[-1])

    def write_setup(self, text: str, step: int) -> None:
        """Append the setup of the model trained from a step on, as JSON."""
        self._file.write([_text_event(SETUP_TAG, text, step, time.time())])

    def write_findings(self, text: str, step: int, faults: int = 0) -> None:
        """Append the findings up to a step, as JSON; so many are more than notes."""
        now = time.time()
        last = step if self._last is None else self._last
        counted = self._scalars.of_faults(faults, last, now)
        self._file.write([_text_event(FINDINGS_TAG, text, step, now), *counted])

    def end(self) -> None:
        """Append a mark of completeness, if something was written; more may follow."""
        if self._last is not None:
            self._file.write([_text_event(END_TAG, "", self._last, time.time())])
            self._last = None

    def count_records(self) -> int:
        """Count the records that are left in the file."""
        items = read_records(self._file.path, report=lambda error: None)
        return sum(len(item.steps) for item in items if isinstance(item, Chunk))

    def flush(self) -> None:
        """Upload the rest of a log at a URL: until then it is uploaded now and then only."""
        self._file.flush()


def log_files(log_dir: str | os.PathLike[str]) -> list[list[Any]]:
    """List the files of each training in the directory or URL given to a monitor, oldest first.

    The directory may be a run itself. The errors are those of `read_log`.
    """
    runs = *find_runs(log_dir, RUN).values(), log_dir
    logs = [files for run in runs if (files := event_files(run))]
    if not logs:
        raise FileNotFoundError(
            f"`log_dir` must be a directory that a GradientMonitor has written to. Received: "
            f"log_dir={str(log_dir)!r}, which holds no such log. Train with "
            f"`callbacks=[GradientMonitor({str(log_dir)!r})]` first."
        )
    return logs


def read_records(
    file: Any, report: Callable[[ValueError], None] = raise_error
) -> Iterator[Chunk | Setup | list[Finding] | str]:
    """Yield the chunks of a file, setups, findings and `END_TAG`, in the order of the file.

    Damage is reported, and left out if the report returns.
    """
    for items in read_events(file, _FileReader().read, report):
        yield from items


class _FileReader:
    """Reader of the serialised events of a file, one after the other; each may be damaged."""

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._content = b""  # of the records of this layout
        self._layouts: dict[bytes | str, Layout] = {}  # the last ones: columns may come and go
        self._tables: dict[str, np.ndarray] = {}  # of the chunk that is to end

    def read(self, data: bytes) -> list[Chunk | Setup | list[Finding] | str]:
        """Return the chunk that an event ends, or its texts; raise ValueError if damaged."""
        items: list[Chunk | Setup | list[Finding] | str] = []
        for value in Event.FromString(data).summary.value:
            prefix, _, name = value.tag.partition("/")
            if value.tag == LAYOUT_TAG:
                self._layout = None  # unknown, if this one is damaged
                text = read_text(value.tensor.string_val)
                if text not in self._layouts:
                    while len(self._layouts) >= _MOST_LAYOUTS:
                        del self._layouts[next(iter(self._layouts))]
                    self._layouts[text] = Layout.from_json(text)
                self._layout, self._content = self._layouts[text], _name_layout(text)
            elif value.tag == FINDINGS_TAG:
                items.append(from_json(read_text(value.tensor.string_val)))
            elif value.tag == SETUP_TAG:
                items.append(Setup.from_json(read_text(value.tensor.string_val)))
            elif value.tag == END_TAG:
                items.append(END_TAG)
            elif value.tag == TOTALS_TAG:
                items.append(self._end_chunk(value))
            elif prefix == PLUGIN_NAME and (name in RECORDED or value.tag == PORTS_TAG):
                if name in self._tables:  # those before are of a chunk whose end is lost
                    self._tables = {}
                self._tables[name] = _read_numbers(value.tensor)
        return items

    def _end_chunk(self, value: Any) -> Chunk:
        tables, self._tables = self._tables, {}
        totals = _read_numbers(value.tensor)
        is_known = value.metadata.plugin_data.content == self._content
        chunk = make_chunk(self._layout if is_known else None, totals)
        ports: dict[str, np.ndarray] = {}
        if (table := tables.pop("ports", None)) is not None:
            ports = ports_of(table, chunk, totals)
        values = {name: values_of(table, chunk, totals) for name, table in tables.items()}
        return dataclasses.replace(chunk, values=values, ports=ports)


def _name_layout(text: bytes | str) -> bytes:
    """Return the metadata of a layout's records: none is read under the names of another."""
    data = text.encode() if isinstance(text, str) else text
    digest = hashlib.blake2b(data, digest_size=6).hexdigest()
    return json.dumps({"version": SCHEMA_VERSION, "layout": digest}).encode()


def _read_numbers(tensor: Any) -> np.ndarray:
    """Return an array of a message; raise ValueError if it is none of float32."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    length = len(tensor.tensor_content)
    if tensor.dtype != DT_FLOAT or min(shape, default=0) < 0 or 4 * math.prod(shape) != length:
        refuse("A table must be float32", f"dtype={tensor.dtype}, {shape} in {length} bytes")
    return np.frombuffer(tensor.tensor_content, "<f4").reshape(shape)


def _event(tag: str, tensor: Any, step: int, wall_time: float, content: bytes) -> bytes:
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content)
    metadata = SummaryMetadata(plugin_data=plugin, data_class="DATA_CLASS_TENSOR")
    value = Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
    event = Event(step=step, wall_time=wall_time, summary=Summary(value=[value]))
    return event.SerializeToString()


def _text_event(tag: str, text: str, step: int, wall_time: float) -> bytes:
    tensor = TensorProto(
        dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[text.encode()]
    )
    return _event(tag, tensor, step, wall_time, b'{"version": %d}' % SCHEMA_VERSION)


def _tensor_events(chunk: Chunk, content: bytes, wall_time: float) -> Iterator[bytes]:
    tables = {f"{PLUGIN_NAME}/{name}": array for name, array in chunk.values.items()}
    if chunk.ports:
        statistics = [chunk.ports_of(name) for name in PORT_STATISTICS]
        tables[PORTS_TAG] = np.concatenate(statistics, axis=1)
    totals = [per_optimizer(chunk, name) for name in TOTALS]
    tables[TOTALS_TAG] = np.concatenate(totals, axis=1)
    for tag, array in tables.items():
        tensor = make_tensor(make_table(chunk.steps, array), DT_FLOAT)
        # Of a training that goes on from an earlier step, TensorBoard drops what was logged at
        # later ones: by their first steps, these are the chunks of which nothing is left.
        yield _event(tag, tensor, int(chunk.steps[0]), wall_time, content)
