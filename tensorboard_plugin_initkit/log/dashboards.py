"""Content of a log for TensorBoard's own dashboards: scalars, and histograms of log10 |g|."""

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE
from tensorboard.plugins.histogram.metadata import create_summary_metadata

from tensorboard_plugin_initkit.log.event_file import read_events
from tensorboard_plugin_initkit.log.scalars import Scalars
from tensorboard_plugin_initkit.log.uploaded_event_file import open_event_file
from tensorboard_plugin_initkit.record.chunk import Chunk

HISTOGRAM_GROUP = "log10_gradient"
FINDINGS_TAG = "gradients/findings"


class ScalarEvents:
    """Scalars of each recorded step: those of `Scalars`, and the number of faults up to it.

    NaN is left out.

    Args:
        names: Of `STATISTICS` and `TOTAL_STATISTICS`; `None` for no scalars at all.
    """

    def __init__(self, names: Collection[str] | None) -> None:
        self._scalars = None if names is None else Scalars(names)
        self._template: _Template | None = None
        self._tags: list[str] = []
        self._faults = 0

    def of_chunk(self, chunk: Chunk, wall_time: float) -> Iterator[bytes]:
        """Yield one serialised event for each step."""
        if self._scalars is None or not len(chunk.steps):
            return
        tags, table = self._scalars.tabulate(chunk)
        if self._template is None or self._tags != tags:
            self._template, self._tags = _Template([*tags, FINDINGS_TAG]), tags
        faults = np.full((len(chunk.steps), 1), self._faults, np.float64)
        yield from self._template.fill(chunk.steps, np.hstack([table, faults]), wall_time)

    def of_faults(self, faults: int, step: int, wall_time: float) -> Iterator[bytes]:
        """Yield a serialised event with the number of faults found up to a step."""
        if self._scalars is not None:
            self._faults = faults
            value = Summary.Value(tag=FINDINGS_TAG, simple_value=faults)
            event = Event(step=step, wall_time=wall_time, summary=Summary(value=[value]))
            yield event.SerializeToString()


class Histograms:
    """Histograms `log10_gradient/<layer>` of every n-th recorded step; 0 for none.

    Bins are half decades. A sampled element counts for as many of its variable's as it stands
    for, so the counts of a layer add up to about the number of its elements other than
    zero.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._seen = 0

    def events(
        self, chunk: Chunk, samples: Sequence[np.ndarray], wall_time: float
    ) -> Iterator[bytes]:
        """Yield one serialised event for each due step.

        Samples are, for each variable, a float32 array (n, k) of elements of its gradient.
        """
        if not self._every:
            return
        due = range(-self._seen % self._every, len(chunk.steps), self._every)
        self._seen += len(chunk.steps)
        variables, layers = chunk.layout.variables, chunk.layout.layers
        widths = [array.shape[1] for array in samples]
        position = {layer: i for i, layer in enumerate(layers)}
        layer_of = np.repeat([position[variable.layer] for variable in variables], widths)
        weights = np.repeat(
            [v.size / max(k, 1) for v, k in zip(variables, widths, strict=True)], widths
        )
        for row in due:
            magnitude = np.abs(np.concatenate([array[row] for array in samples]))
            there = (magnitude > 0) & np.isfinite(magnitude)
            if not there.any():
                continue
            counts, edges = _half_decades(
                magnitude[there], layer_of[there], weights[there], len(layers)
            )
            values = [
                _histogram(f"{HISTOGRAM_GROUP}/{layer}", own, edges)
                for layer, own in zip(layers, counts, strict=True)
                if own.any()
            ]
            summary = Summary(value=values)
            step = int(chunk.steps[row])
            yield Event(step=step, wall_time=wall_time, summary=summary).SerializeToString()


class ScalarLog:
    """Appends scalars to a new event file: of a run, in a directory or at a URL.

    Raises:
        OSError: If the directory or file cannot be written or uploaded: now, or by a method.
    """

    def __init__(self, log_dir: str | os.PathLike[str], run: str) -> None:
        self._file = open_event_file(log_dir, run)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append one number for each tag; NaN is left out."""
        with np.errstate(over="ignore"):  # what exceeds float32 is written as infinite
            values = [
                Summary.Value(tag=tag, simple_value=float(np.float32(value)))
                for tag, value in scalars.items()
                if not np.isnan(value)
            ]
        event = Event(step=step, wall_time=time.time(), summary=Summary(value=values))
        self._file.write([event.SerializeToString()])

    def count_records(self) -> int:
        """Count the steps that are left in the file, which begins with its version."""
        return len(list(read_events(self._file.path, report=lambda error: None))) - 1

    def flush(self) -> None:
        """Upload the rest, if the run is at a URL."""
        self._file.flush()


class _Template:
    """The scalars of one step, serialised once; the numbers are then filled in.

    A thousand scalars a step cost 15 ms as protocol buffers, and 0.1 ms so: a serialised
    `Summary.Value` of a tag and a `simple_value` ends in the four bytes of the float.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        pieces = [
            Summary(value=[Summary.Value(tag=tag, simple_value=1.0)]).SerializeToString()
            for tag in tags
        ]
        self._lengths = np.array([len(piece) for piece in pieces], np.int64)
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8).copy()
        self._slots = np.cumsum(self._lengths)[:, None] + np.arange(-4, 0)

    def fill(self, steps: np.ndarray, table: np.ndarray, wall_time: float) -> Iterator[bytes]:
        """Yield one serialised event a row, without NaN."""
        with np.errstate(over="ignore"):  # an exploding layer's norm can exceed float32: inf
            table = table.astype("<f4")
        there = ~np.isnan(table)
        for step, row, kept in zip(steps, table, there, strict=True):
            self._bytes[self._slots] = row.view(np.uint8).reshape(-1, 4)
            whole = kept.all()
            summary = (
                self._bytes if whole else self._bytes[np.repeat(kept, self._lengths)]
            ).tobytes()
            # A serialised message field may be appended: Event {step, wall_time} + {summary}.
            head = Event(step=int(step), wall_time=wall_time).SerializeToString()
            yield head + b"\x2a" + _varint(len(summary)) + summary


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def make_tensor(table: np.ndarray, dtype: int) -> Any:
    """Return an array, of little-endian numbers, as a message."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in table.shape])
    return TensorProto(dtype=dtype, tensor_shape=shape, tensor_content=table.tobytes())


def _half_decades(
    magnitude: np.ndarray, layer_of: np.ndarray, weights: np.ndarray, layers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count (layers, bins) of log10 of magnitudes, and the bins + 1 edges."""
    bins = np.floor(2 * np.log10(magnitude.astype(np.float64))).astype(np.int64)
    first, count = bins.min(), np.ptp(bins) + 1
    flat = np.bincount(layer_of * count + bins - first, weights, layers * count)
    return flat.reshape(layers, count), (first + np.arange(count + 1)) / 2


def _histogram(tag: str, counts: np.ndarray, edges: np.ndarray) -> Any:
    """Return a summary for the histogram dashboard, from the first bin in use to the last."""
    used = np.flatnonzero(counts)
    bins = slice(used[0], used[-1] + 1)
    table = np.stack([edges[:-1][bins], edges[1:][bins], counts[bins]], axis=1).astype("<f8")
    tensor = make_tensor(table, DT_DOUBLE)
    metadata = create_summary_metadata(
        display_name=None,
        description="log10 |g| of a sample of the layer's gradient. Exact zeros are left out: "
        "their fraction is the scalar `zeros`.",
    )
    metadata.data_class = 2  # DATA_CLASS_TENSOR
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
