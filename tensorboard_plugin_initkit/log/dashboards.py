"""Content of a log for TensorBoard's own dashboards: scalars, and histograms of log10 |g|."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE
from tensorboard.plugins.histogram.metadata import create_summary_metadata

from tensorboard_plugin_initkit.diagnosis.depth import fit_trend
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

TOTAL_GROUP = "gradients"
HISTOGRAM_GROUP = "log10_gradient"

# Rows that the noise scale of a row is averaged over, but for itself.
_NOISE_ROWS = 49
_NOISE_SOURCES = ("norm", "nonfinite", "clip_ratio", "local_norm")
_ALWAYS = ("global_norm", "learning_rate")
# Of what a gradient is no part; the tags of the other statistics begin with "gradient_".
_OTHERS = ("dead_units", "weight_norm", "update_ratio")


class Scalars:
    """Scalars of each recorded step, for the dashboards that know nothing of layers.

    - `gradient_<statistic>/<layer>`: of each layer the statistics asked for, so that a group of
      cards is a statistic; without `gradient_` where it is not one of the gradient;
    - `gradients/<total>`, or `gradients/<optimizer>/<total>` where there are several: always
      `global_norm`, `learning_rate`, `first_to_last` (the change of the signal over all of the
      depth, as the depth profile has it), `largest_share` (of the squared global norm, the part
      of the layer that has most) and `nonfinite` (elements that are NaN or infinite); and those
      of `TOTAL_STATISTICS` asked for, where they have something to say;
    - `gradients/findings`: how many faults were found up to this step.

    NaN is left out.

    Args:
        names: Of `STATISTICS` and `TOTAL_STATISTICS`; `None` for no scalars at all.
    """

    def __init__(self, names: Collection[str] | None) -> None:
        self._names = names
        self._template: _Template | None = None
        self._key: Any = None
        self._before: Chunk | None = None
        self._found = 0

    def events(self, chunk: Chunk, wall_time: float) -> Iterator[bytes]:
        """Yield one serialised event for each step."""
        if self._names is None or not len(chunk.steps):
            return
        names = [name for name in recorded_statistics(chunk.values) if name in self._names]
        totals = [name for name in TOTAL_STATISTICS if name in (*self._names, *_ALWAYS)]
        if self._template is None or self._key != (chunk.layout, names):
            self._template = _Template(_tags(chunk.layout, names, [*totals, *_OVERVIEW]))
            self._key = (chunk.layout, names)
        columns = [per_layer(chunk, name) for name in names]
        columns += [self._total(chunk, name) for name in totals]
        columns += [_over_layers(chunk, summarise) for summarise in _OVERVIEW.values()]
        columns.append(np.full((len(chunk.steps), 1), self._found, np.float64))
        yield from self._template.fill(chunk.steps, np.hstack(columns), wall_time)

    def count(self, found: int, step: int, wall_time: float) -> Iterator[bytes]:
        """Yield a serialised event with the number of faults found up to a step."""
        if self._names is not None:
            self._found = found
            value = Summary.Value(tag=_FINDINGS_TAG, simple_value=found)
            event = Event(step=step, wall_time=wall_time, summary=Summary(value=[value]))
            yield event.SerializeToString()

    def _total(self, chunk: Chunk, name: str) -> np.ndarray:
        """Return a total, NaN where it says nothing."""
        if name == "noise_scale":
            noise = self._noise_scale(chunk)
            return np.where(np.isfinite(noise), noise, np.nan)
        values = per_optimizer(chunk, name)
        if name == "loss_scale":
            return np.where((values != 1).any(axis=0), values, np.nan)
        if name in ("skipped", "penalty"):
            return np.where((values > 0).any(axis=0), values, np.nan)
        if name == "global_raw_norm" and "clip_ratio" not in chunk.values:
            return np.full_like(values, np.nan)
        return values

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


def _tags(layout: Layout, names: Sequence[str], totals: Sequence[str]) -> list[str]:
    several = len(layout.optimizers) > 1
    groups = [f"{TOTAL_GROUP}/{name}" if several else TOTAL_GROUP for name in layout.optimizers]
    return [
        *(f"{_name_group(name)}/{layer}" for name in names for layer in layout.layers),
        *(f"{group}/{name}" for name in totals for group in groups),
        _FINDINGS_TAG,
    ]


def _name_group(statistic: str) -> str:
    return statistic if statistic in _OTHERS else f"gradient_{statistic}"


def _over_layers(chunk: Chunk, summarise: Callable[[Chunk, list[int]], np.ndarray]) -> np.ndarray:
    """Summarise the layers of each optimizer: float64 array (n, optimizers)."""
    optimizers = {variable.layer: variable.optimizer for variable in chunk.layout.variables}
    result = np.full((len(chunk.steps), len(chunk.layout.optimizers)), np.nan)
    for i, name in enumerate(chunk.layout.optimizers):
        own = [j for j, layer in enumerate(chunk.layout.layers) if optimizers[layer] == name]
        if own:
            result[:, i] = summarise(chunk, own)
    return result


def _first_to_last(chunk: Chunk, layers: list[int]) -> np.ndarray:
    signal = per_layer(chunk, "signal")[:, layers]
    trend = fit_trend(signal[:, ~np.isnan(signal).all(axis=0)][:, :-1])
    return np.array([trend.line_at(row).total for row in range(len(signal))])


def _largest_share(chunk: Chunk, layers: list[int]) -> np.ndarray:
    norms = per_layer(chunk, "norm")[:, layers]
    # Relative to the largest: the square of a norm may be too large for a number, or too small.
    largest = np.fmax.reduce(norms, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 / np.nansum(np.square(norms / largest[:, None]), axis=1)


def _nonfinite(chunk: Chunk, layers: list[int]) -> np.ndarray:
    return np.nansum(per_layer(chunk, "nonfinite")[:, layers], axis=1)


_OVERVIEW = {
    "first_to_last": _first_to_last,
    "largest_share": _largest_share,
    "nonfinite": _nonfinite,
}
_FINDINGS_TAG = f"{TOTAL_GROUP}/findings"


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
