"""What one record of a training is: its statistics, its columns, and how they are put together."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from tensorboard_plugin_initkit.record.signal import shows_units, signal_of

SCHEMA_VERSION = 3

# One number a variable, as measured on the device where its gradient is applied.
MEASURED = (
    "norm",
    "mean_abs",
    "max_abs",
    "zeros",
    "nonfinite",
    "dead_units",
    "clip_ratio",
    "local_norm",
    "weight_norm",
    "update_norm",
)
# One number a variable, from a sample of its gradient's elements.
SAMPLED = ("cosine", "snr")
RECORDED = MEASURED + SAMPLED
# What a reader is given of variables and layers.
STATISTICS = (
    "norm",
    "rms",
    "signal",
    "mean_abs",
    "max_abs",
    "zeros",
    "nonfinite",
    "dead_units",
    "raw_norm",
    "clip_ratio",
    "local_norm",
    "weight_norm",
    "update_ratio",
    "cosine",
    "snr",
)

# One number an optimizer, as recorded, and what a reader is given.
TOTALS = ("loss", "learning_rate", "loss_scale", "skipped")
TOTAL_STATISTICS = (*TOTALS, "global_norm", "global_raw_norm", "noise_scale")


class Variable(NamedTuple):
    """A column of the record: a trainable variable and the layer that it is counted to.

    Attributes:
        path: Path in the model.
        layer: Path of the layer.
        shape: Its shape.
        optimizer: Name of the optimizer that trains it; a model's only one is called "".
        layer_type: Class of the layer, "" if it is not known.
        initializer: What it was drawn by, as it is written in Python; "" if that is not known.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    optimizer: str = ""
    layer_type: str = ""
    initializer: str = ""

    @property
    def key(self) -> tuple[str, str, tuple[int, ...], str]:
        """What makes two columns the same one: not what is only said of it."""
        return self[:4]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def units(self) -> int:
        """Number of units that the variable belongs to: of elements along its last axis."""
        return self.shape[-1] if self.shape else 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of a record.

    Attributes:
        variables: In the model's order (input first).
        optimizers: Names of the optimizers; a model's only one is called "".
        frozen: Paths of the layers whose weights are not trained.
        replicas: Number of replicas that each computed the gradient of a part of the batch.
    """

    variables: tuple[Variable, ...]
    optimizers: tuple[str, ...] = ("",)
    frozen: tuple[str, ...] = ()
    replicas: int = 1

    @property
    def layers(self) -> list[str]:
        """Paths of the layers, each once, in order of first appearance."""
        return list(dict.fromkeys(variable.layer for variable in self.variables))

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Number of elements of each variable: float64 array (variables,)."""
        return np.array([variable.size for variable in self.variables], np.float64)

    @functools.cached_property
    def columns_by_layer(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns sorted by layer, and where in them each layer starts."""
        layers = self.layers
        layer_of = np.array(_positions(layers, [v.layer for v in self.variables]), np.int64)
        order = np.argsort(layer_of, kind="stable")
        return order, np.searchsorted(layer_of[order], np.arange(len(layers)))

    def union(self, later: "Layout") -> "Layout":
        """All columns of both: in the order of the one that has them all, if one does."""
        first, second = ({v.key: v for v in layout.variables} for layout in (self, later))
        order = second | first if first.keys() < second.keys() else first | second
        newest = first | second
        return Layout(
            tuple(newest[key] for key in order),
            tuple(dict.fromkeys(self.optimizers + later.optimizers)),
            later.frozen,
            later.replicas,
        )

    def columns_of(self, other: "Layout") -> list[int]:
        """Position here of each column of `other`."""
        return _positions([v.key for v in self.variables], [v.key for v in other.variables])

    def to_json(self) -> str:
        """Serialise."""
        content = dataclasses.asdict(self) | {
            "version": SCHEMA_VERSION,
            "variables": [variable._asdict() for variable in self.variables],
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If it was written by another version of the schema.
        """
        content = json.loads(text)
        if content["version"] != SCHEMA_VERSION:
            raise ValueError(
                f"The log must have schema version {SCHEMA_VERSION}. Received: version "
                f"{content['version']}. Read it with the keras-initkit that wrote it."
            )
        variables = (
            Variable(**(column | {"shape": tuple(column["shape"])}))
            for column in content["variables"]
        )
        return cls(
            tuple(variables),
            tuple(content["optimizers"]),
            tuple(content["frozen"]),
            content["replicas"],
        )


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some recorded steps of one layout.

    Attributes:
        layout: The columns.
        steps: int64 array (n,), strictly increasing: `optimizer.iterations` before the update.
        values: For each statistic of `RECORDED` that was recorded, a float32 array
            (n, variables). A column is NaN in all of them where the variable received no
            gradient. `LazyArrays` are read when they are asked for.
        totals: For each of `TOTALS` that is known, a float32 array (n, optimizers).
    """

    layout: Layout
    steps: np.ndarray
    values: Mapping[str, np.ndarray]
    totals: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def select(self, rows: np.ndarray | slice) -> "Chunk":
        """The rows of an index, mask or slice; what was not read yet is not read now."""
        return Chunk(
            self.layout, self.steps[rows], _select(self.values, rows), _select(self.totals, rows)
        )

    def spread(self, layout: Layout) -> "Chunk":
        """The same steps on the columns of a larger layout; new columns are NaN."""
        if layout == self.layout:
            return self
        variables = layout.columns_of(self.layout)
        optimizers = _positions(layout.optimizers, self.layout.optimizers)
        return Chunk(
            layout,
            self.steps,
            {
                name: _widened(array, variables, len(layout.variables))
                for name, array in self.values.items()
            },
            {
                name: _widened(array, optimizers, len(layout.optimizers))
                for name, array in self.totals.items()
            },
        )


class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name, each read when it is asked for; `in` and `keys()` read nothing."""

    def take(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Rows of an array, of which no more is needed."""
        return self[name][rows]


def _select(arrays: Mapping[str, np.ndarray], rows: np.ndarray | slice) -> Mapping[str, np.ndarray]:
    if isinstance(arrays, LazyArrays):
        return _Rows(arrays, rows)
    return {name: array[rows] for name, array in arrays.items()}


class _Rows(LazyArrays):
    """Rows of arrays that are read when they are asked for."""

    def __init__(self, arrays: LazyArrays, rows: np.ndarray | slice) -> None:
        self._arrays, self._rows = arrays, rows

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays.take(name, self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def append_chunk(chunks: list[Chunk], chunk: Chunk) -> int:
    """Append a chunk to others; it replaces the records from its first step on.

    Returns:
        The number of records that were replaced.
    """
    first, replaced = chunk.steps[0], 0
    while chunks and chunks[-1].steps[-1] >= first:
        last = chunks.pop()
        kept = last.select(last.steps < first)
        replaced += len(last.steps) - len(kept.steps)
        if len(kept.steps):
            chunks.append(kept)
    chunks.append(chunk)
    return replaced


def join(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk of all the steps, on the union of the columns."""
    layout = chunks[0].layout
    for chunk in chunks[1:]:
        if chunk.layout != layout:
            layout = layout.union(chunk.layout)
    spread = [chunk.spread(layout) for chunk in chunks]
    return Chunk(
        layout,
        np.concatenate([chunk.steps for chunk in spread]),
        {
            name: np.concatenate([_recorded(chunk, name) for chunk in spread])
            for name in RECORDED
            if any(name in chunk.values for chunk in spread)
        },
        {
            name: np.concatenate([_total(chunk, name) for chunk in spread])
            for name in TOTALS
            if any(name in chunk.totals for chunk in spread)
        },
    )


# What a statistic is computed from, where that is not its own record.
_SOURCES = {
    "rms": {"norm"},
    "signal": {"norm"},
    "raw_norm": {"clip_ratio"},
    "update_ratio": {"update_norm", "weight_norm"},
}


def recorded_statistics(values: Mapping[str, np.ndarray]) -> list[str]:
    """Those of `STATISTICS` that can be computed from the values of a chunk."""
    return [name for name in STATISTICS if _SOURCES.get(name, {name}) <= values.keys()]


def per_variable(chunk: Chunk, statistic: str) -> np.ndarray:
    """A statistic of `STATISTICS` for every variable: float64 array (n, variables)."""
    if statistic == "rms":
        return _ratio(per_variable(chunk, "norm"), np.sqrt(chunk.layout.sizes))
    if statistic == "signal":
        paths = [variable.path for variable in chunk.layout.variables]
        values = signal_of(per_variable(chunk, "rms"), _recorded(chunk, "zeros"))
        return np.where(shows_units(paths, _recorded(chunk, "dead_units")), values, np.nan)
    if statistic == "raw_norm":
        return _ratio(per_variable(chunk, "norm"), per_variable(chunk, "clip_ratio"))
    if statistic == "update_ratio":
        return _ratio(per_variable(chunk, "update_norm"), per_variable(chunk, "weight_norm"))
    return _recorded(chunk, statistic).astype(np.float64)


def per_layer(chunk: Chunk, statistic: str) -> np.ndarray:
    """A statistic of `STATISTICS` for every layer: float64 array (n, layers).

    A layer's variables count as one long vector. Variables that received no gradient are left
    out; a layer none of whose variables received one is NaN.
    """
    if statistic == "clip_ratio":
        norm, raw = per_layer(chunk, "norm"), per_layer(chunk, "raw_norm")
        return np.where(raw == 0, 1.0, _ratio(norm, raw))
    if statistic == "update_ratio":
        return _ratio(per_layer(chunk, "update_norm"), per_layer(chunk, "weight_norm"))
    order, starts = chunk.layout.columns_by_layer
    if statistic == "signal":
        return np.fmax.reduceat(per_variable(chunk, "signal")[:, order], starts, axis=1)
    present, values, weights = (
        np.take(array, order, axis=1)
        for array in (
            ~np.isnan(_recorded(chunk, "nonfinite")),
            per_variable(chunk, statistic),
            _weights(chunk, statistic),
        )
    )
    everywhere = present.all()
    if not everywhere:
        values, weights = np.where(present, values, 0.0), np.where(present, weights, 0.0)
    result = _COMBINE[statistic](values, weights, starts)
    if everywhere:
        return result
    return np.where(np.logical_or.reduceat(present, starts, axis=1), result, np.nan)


def per_optimizer(chunk: Chunk, statistic: str) -> np.ndarray:
    """A statistic of `TOTAL_STATISTICS` for every optimizer: float64 array (n, optimizers)."""
    if statistic == "global_norm":
        return np.sqrt(_sum_of_squares(chunk, "norm"))
    if statistic == "global_raw_norm":
        return np.sqrt(_sum_of_squares(chunk, "raw_norm"))
    if statistic == "noise_scale":
        return _noise_scale(chunk)
    return _total(chunk, statistic).astype(np.float64)


def _noise_scale(chunk: Chunk) -> np.ndarray:
    """tr(Σ) / |G|² of McCandlish et al. 2018, appendix A.1, with the global batch as its unit.

    NaN where the noise is so large that the estimate of |G|² is not positive.
    """
    replicas = chunk.layout.replicas
    if replicas == 1:
        return np.full((len(chunk.steps), len(chunk.layout.optimizers)), np.nan)
    whole, part = _sum_of_squares(chunk, "raw_norm"), _sum_of_squares(chunk, "local_norm")
    with np.errstate(invalid="ignore"):
        squared_gradient = (replicas * whole - part) / (replicas - 1)
        noise = (part - whole) / (replicas - 1)
    # Each is noisy and unbiased, their ratio is not: it is taken of averages.
    noise, squared_gradient = _trailing_mean(noise), _trailing_mean(squared_gradient)
    return _ratio(np.maximum(noise, 0), np.where(squared_gradient > 0, squared_gradient, np.nan))


def _trailing_mean(array: np.ndarray, window: int = 50) -> np.ndarray:
    """Mean over the rows up to each, as far as they are finite."""
    finite = np.isfinite(array)
    padding = ((window, 0), (0, 0))
    values = np.pad(np.where(finite, array, 0.0), padding)
    counts = np.pad(finite.astype(np.float64), padding)
    windows = (np.lib.stride_tricks.sliding_window_view(a, window, 0) for a in (values, counts))
    total, count = (view[1:].sum(axis=-1) for view in windows)
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def _sum_of_squares(chunk: Chunk, statistic: str) -> np.ndarray:
    """Sum over each optimizer's variables: float64 array (n, optimizers)."""
    present = ~np.isnan(_recorded(chunk, "nonfinite"))
    squares = np.where(present, np.square(per_variable(chunk, statistic)), 0.0)
    result = np.full((len(chunk.steps), len(chunk.layout.optimizers)), np.nan)
    for i, columns in enumerate(_columns_by_optimizer(chunk.layout)):
        rows = present[:, columns].any(axis=1)
        result[rows, i] = squares[rows][:, columns].sum(axis=1)
    return result


def _columns_by_optimizer(layout: Layout) -> list[list[int]]:
    columns: dict[str, list[int]] = {name: [] for name in layout.optimizers}
    for i, variable in enumerate(layout.variables):
        columns[variable.optimizer].append(i)
    return list(columns.values())


def _weights(chunk: Chunk, statistic: str) -> np.ndarray:
    """What a variable counts in a mean over its layer: float64 array (n, variables)."""
    if statistic in SAMPLED:
        return np.square(per_variable(chunk, "norm"))
    if statistic == "dead_units":
        weights = np.array([variable.units for variable in chunk.layout.variables], np.float64)
    else:
        weights = chunk.layout.sizes
    return np.broadcast_to(weights, (len(chunk.steps), len(weights)))


def _recorded(chunk: Chunk, name: str) -> np.ndarray:
    if name in chunk.values:
        return chunk.values[name]
    missing = np.full((len(chunk.steps), len(chunk.layout.variables)), np.nan, np.float32)
    if name == "clip_ratio":  # nothing was clipped
        missing[~np.isnan(_recorded(chunk, "nonfinite"))] = 1.0
    return missing


def _total(chunk: Chunk, name: str) -> np.ndarray:
    if name in chunk.totals:
        return chunk.totals[name]
    return np.full((len(chunk.steps), len(chunk.layout.optimizers)), np.nan, np.float32)


def _positions(here: Sequence[Any], others: Sequence[Any]) -> list[int]:
    position = {item: i for i, item in enumerate(here)}
    return [position[item] for item in others]


def _widened(array: np.ndarray, columns: list[int], width: int) -> np.ndarray:
    wide = np.full((len(array), width), np.nan, array.dtype)
    wide[:, columns] = array
    return wide


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(part == 0, np.where(np.isnan(whole), whole, 0.0), part / whole)


# Values and weights are arrays (n, variables), sorted by layer; a layer's begin at its start.


def _sum(values: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts, axis=1)


def _maximum(values: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.maximum.reduceat(values, starts, axis=1)


def _root_sum_of_squares(values: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.sqrt(_sum(np.square(values), weights, starts))


def _root_mean_square(values: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.sqrt(_mean(np.square(values), weights, starts))


def _mean(values: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return _sum(values * weights, weights, starts) / _sum(weights, weights, starts)


def _mean_of_defined(values: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    return _mean(np.where(defined, values, 0.0), np.where(defined, weights, 0.0), starts)


_COMBINE = {
    "norm": _root_sum_of_squares,
    "rms": _root_mean_square,
    "mean_abs": _mean,
    "max_abs": _maximum,
    "zeros": _mean,
    "nonfinite": _sum,
    "dead_units": _mean_of_defined,
    "raw_norm": _root_sum_of_squares,
    "local_norm": _root_sum_of_squares,
    "weight_norm": _root_sum_of_squares,
    "update_norm": _root_sum_of_squares,
    "cosine": _mean_of_defined,
    "snr": _mean_of_defined,
}
