"""Content of a log for TensorBoard's own dashboards: scalars, and histograms of log10 |g|."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE
from tensorboard.plugins.histogram.metadata import create_summary_metadata

from tensorboard_plugin_initkit.log.event_file import read_events
from tensorboard_plugin_initkit.log.uploaded_event_file import open_event_file
from tensorboard_plugin_initkit.record.chunk import Chunk, join
from tensorboard_plugin_initkit.record.layout import Layout
from tensorboard_plugin_initkit.record.statistics import (
    TOTAL_STATISTICS,
    per_layer,
    per_optimizer,
    recorded_statistics,
)

LAYER_GROUP = "gradients"
OPTIMIZER_GROUP = "optimizer"
HISTOGRAM_GROUP = "log10_gradient"

# Rows that the noise scale of a row is averaged over, but for itself.
_NOISE_ROWS = 49
_NOISE_SOURCES = ("norm", "nonfinite", "clip_ratio", "local_norm")


class Scalars:
    """Scalars of every n-th recorded step; 0 for none.

    - `gradients/<layer>/<statistic>`: each of the recorded statistics;
    - `optimizer/<name>`, or `optimizer/<optimizer>/<name>` where there are several: those of
      `TOTAL_STATISTICS` with something to say.

    NaN is left out.
    """

    def __init__(self, every: int) -> None:
        self._rows = _EveryNth(every)
        self._template: _Template | None = None
        self._key: Any = None
        self._before: Chunk | None = None

    def events(self, chunk: Chunk, wall_time: float) -> Iterator[bytes]:
        """Yield one serialised event for each due step."""
        rows = self._rows.of_next(len(chunk.steps))
        noise = self._noise_scale(chunk)[rows]
        chunk = chunk.select(rows)
        if not len(chunk.steps):
            return
        names = recorded_statistics(chunk.values)
        if self._template is None or self._key != (chunk.layout, names):
            self._template, self._key = _Template(_tags(chunk.layout, names)), (chunk.layout, names)
        layers = np.zeros((len(chunk.steps), 0))
        if names:
            statistics = np.stack([per_layer(chunk, name) for name in names], axis=2)
            layers = statistics.reshape(len(chunk.steps), -1)
        totals = np.concatenate([_total(chunk, name, noise) for name in TOTAL_STATISTICS], axis=1)
        yield from self._template.fill(chunk.steps, np.hstack([layers, totals]), wall_time)

    def _noise_scale(self, chunk: Chunk) -> np.ndarray:
        """Averaged over the chunks before as well."""
        if chunk.layout.replicas == 1 or "local_norm" not in chunk.values:
            return per_optimizer(chunk, "noise_scale")
        values = {name: chunk.values[name] for name in _NOISE_SOURCES if name in chunk.values}
        whole = Chunk(chunk.layout, chunk.steps, values)
        if self._before is not None and self._before.layout == chunk.layout:
            whole = join([self._before, whole])
        self._before = whole.select(slice(-_NOISE_ROWS, None))
        return per_optimizer(whole, "noise_scale")[-len(chunk.steps) :]


class Histograms:
    """Histograms `log10_gradient/<layer>` of every n-th recorded step; 0 for none.

    Bins are half decades. A sampled element counts for as many of its variable's as it stands
    for, so the counts of a layer add up to about the number of its elements other than
    zero.
    """

    def __init__(self, every: int) -> None:
        self._rows = _EveryNth(every)

    def events(
        self, chunk: Chunk, samples: Sequence[np.ndarray], wall_time: float
    ) -> Iterator[bytes]:
        """Yield one serialised event for each due step.

        Samples are, for each variable, a float32 array (n, k) of elements of its gradient.
        """
        rows = self._rows.of_next(len(chunk.steps))
        variables, layers = chunk.layout.variables, chunk.layout.layers
        widths = [array.shape[1] for array in samples]
        position = {layer: i for i, layer in enumerate(layers)}
        layer_of = np.repeat([position[variable.layer] for variable in variables], widths)
        weights = np.repeat(
            [v.size / max(k, 1) for v, k in zip(variables, widths, strict=True)], widths
        )
        for row in range(len(chunk.steps))[rows]:
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


class _EveryNth:
    """Every n-th of rows in pieces."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._seen = 0

    def of_next(self, length: int) -> slice:
        """Select the due rows among the next `length` ones."""
        if not self._n:
            return slice(0, 0)
        first = -self._seen % self._n
        self._seen += length
        return slice(first, None, self._n)


def _tags(layout: Layout, names: Sequence[str]) -> list[str]:
    several = len(layout.optimizers) > 1
    groups = [
        f"{OPTIMIZER_GROUP}/{name}" if several else OPTIMIZER_GROUP for name in layout.optimizers
    ]
    return [f"{LAYER_GROUP}/{layer}/{name}" for layer in layout.layers for name in names] + [
        f"{group}/{name}" for name in TOTAL_STATISTICS for group in groups
    ]


def _total(chunk: Chunk, name: str, noise: np.ndarray) -> np.ndarray:
    """Return a total, NaN where it says nothing."""
    if name == "noise_scale":
        return np.where(np.isfinite(noise), noise, np.nan)
    values = per_optimizer(chunk, name)
    if name == "loss_scale":
        return np.where((values != 1).any(axis=0), values, np.nan)
    if name == "batch_loss":  # "loss" is the same, of more batches
        return np.full_like(values, np.nan)
    if name in ("skipped", "penalty"):
        return np.where((values > 0).any(axis=0), values, np.nan)
    if name == "global_raw_norm" and "clip_ratio" not in chunk.values:
        return np.full_like(values, np.nan)
    return values


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
