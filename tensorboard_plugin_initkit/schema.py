"""What one record of a training is: its statistics, its columns, and how they are put together."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

SCHEMA_VERSION = 1

# One column a variable, as measured on the device.
RECORDED = (
    "norm",
    "mean_abs",
    "max_abs",
    "zeros",
    "nonfinite",
    "weight_norm",
    "update_norm",
)
# What a reader is given: `update_norm` comes as `update_ratio`, relative to the weights.
STATISTICS = (*RECORDED[:-1], "update_ratio")


class Variable(NamedTuple):
    """A column of the record: a trainable variable and the layer that it is counted to."""

    path: str
    layer: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of a record, in the model's order (input first)."""

    variables: tuple[Variable, ...]

    @property
    def layers(self) -> list[str]:
        """Paths of the layers, each once, in order of first appearance."""
        return list(dict.fromkeys(variable.layer for variable in self.variables))

    def union(self, other: "Layout") -> "Layout":
        """All columns of both: in the order of the one that has them all, if one does."""
        first, second = self.variables, other.variables
        if set(first) < set(second):
            first, second = second, first
        return Layout(tuple(dict.fromkeys(first + second)))

    def columns_of(self, other: "Layout") -> list[int]:
        """Position here of each column of `other`."""
        position = {variable: i for i, variable in enumerate(self.variables)}
        return [position[variable] for variable in other.variables]

    def to_json(self) -> str:
        """Serialise."""
        columns = [variable._asdict() for variable in self.variables]
        return json.dumps({"version": SCHEMA_VERSION, "variables": columns})

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
        return cls(
            tuple(
                Variable(column["path"], column["layer"], tuple(column["shape"]))
                for column in content["variables"]
            )
        )


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some recorded steps of one layout.

    Attributes:
        layout: The columns.
        steps: int64 array (n,), strictly increasing: `optimizer.iterations` before the update.
        values: For each statistic of `RECORDED`, a float32 array (n, variables). A column is NaN
            in `nonfinite` where the variable received no gradient.
    """

    layout: Layout
    steps: np.ndarray
    values: Mapping[str, np.ndarray]

    def select(self, rows: np.ndarray) -> "Chunk":
        """The rows of an index or mask."""
        return Chunk(
            self.layout,
            self.steps[rows],
            {name: array[rows] for name, array in self.values.items()},
        )

    def spread(self, layout: Layout) -> "Chunk":
        """The same steps on the columns of a larger layout; new columns are NaN."""
        if layout == self.layout:
            return self
        columns = layout.columns_of(self.layout)
        shape = (len(self.steps), len(layout.variables))
        values = {}
        for name, array in self.values.items():
            values[name] = np.full(shape, np.nan, np.float32)
            values[name][:, columns] = array
        return Chunk(layout, self.steps, values)


def join(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk of all the steps, on the union of the columns."""
    layout = chunks[0].layout
    for chunk in chunks[1:]:
        layout = layout.union(chunk.layout)
    spread = [chunk.spread(layout) for chunk in chunks]
    return Chunk(
        layout,
        np.concatenate([chunk.steps for chunk in spread]),
        {name: np.concatenate([chunk.values[name] for chunk in spread]) for name in RECORDED},
    )


def per_variable(chunk: Chunk, statistic: str) -> np.ndarray:
    """A statistic of `STATISTICS` for every variable: float64 array (n, variables)."""
    if statistic != "update_ratio":
        return chunk.values[statistic].astype(np.float64)
    return _ratio(per_variable(chunk, "update_norm"), per_variable(chunk, "weight_norm"))


def per_layer(chunk: Chunk, statistic: str) -> np.ndarray:
    """A statistic of `STATISTICS` for every layer: float64 array (n, layers).

    A layer's variables count as one long vector. Variables that received no gradient are left
    out; a layer none of whose variables received one is NaN.
    """
    if statistic == "update_ratio":
        return _ratio(per_layer(chunk, "update_norm"), per_layer(chunk, "weight_norm"))
    values = chunk.values[statistic].astype(np.float64)
    has_gradient = ~np.isnan(chunk.values["nonfinite"])
    result = np.full((len(chunk.steps), len(chunk.layout.layers)), np.nan)
    for i, columns in enumerate(_columns_by_layer(chunk.layout)):
        present = has_gradient[:, columns]
        rows = present.any(axis=1)
        sizes = np.array([chunk.layout.variables[c].size for c in columns], np.float64)
        result[rows, i] = _COMBINE[statistic](
            np.where(present, values[:, columns], 0.0)[rows], (sizes * present)[rows]
        )
    return result


def _columns_by_layer(layout: Layout) -> list[list[int]]:
    columns: dict[str, list[int]] = {}
    for i, variable in enumerate(layout.variables):
        columns.setdefault(variable.layer, []).append(i)
    return list(columns.values())


def _ratio(update: np.ndarray, weight: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(update == 0, np.where(np.isnan(weight), weight, 0.0), update / weight)


def _root_sum_of_squares(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(np.square(values), axis=1))


def _weighted_mean(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.sum(values * sizes, axis=1) / np.sum(sizes, axis=1)


def _maximum(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.max(values, axis=1)


def _total(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.sum(values, axis=1)


_COMBINE = {
    "norm": _root_sum_of_squares,
    "mean_abs": _weighted_mean,
    "max_abs": _maximum,
    "zeros": _weighted_mean,
    "nonfinite": _total,
    "weight_norm": _root_sum_of_squares,
    "update_norm": _root_sum_of_squares,
}
