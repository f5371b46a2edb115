"""Chunks: several records as they travel, from the device to the history and the log."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tensorboard_plugin_initkit.record.layout import Layout, positions

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
# One number an optimizer.
TOTALS = ("loss", "learning_rate", "loss_scale", "skipped", "batch_loss", "penalty", "spike")
# One number a port, of the batch of a step.
PORT_STATISTICS = (
    "mean",
    "std",
    "min",
    "max",
    "nonfinite",
    "batch_std",
    "low_std",
    "high_std",
    "integers",
    "one_hot",
    # Of targets, over the batches recorded so far.
    "entropy",
    "binary_entropy",
    "variance",
    "classes",
)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some recorded steps of one layout.

    Attributes:
        layout: The columns.
        steps: int64 array (n,), strictly increasing: `optimizer.iterations` before the update.
        values: For each recorded statistic of `RECORDED`, a float32 array
            (n, variables). A column is NaN in all of them where the variable received no
            gradient. `LazyArrays` are read when they are asked for.
        totals: For each known one of `TOTALS`, a float32 array (n, optimizers).
        ports: For each known one of `PORT_STATISTICS`, a float32 array (n, ports).
    """

    layout: Layout
    steps: np.ndarray
    values: Mapping[str, np.ndarray]
    totals: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ports: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def values_of(self, name: str) -> np.ndarray:
        """Return one of `RECORDED`, NaN where it was not recorded: float32 array (n, variables)."""
        if name in self.values:
            return self.values[name]
        missing = np.full((len(self.steps), len(self.layout.variables)), np.nan, np.float32)
        if name == "clip_ratio":  # nothing was clipped
            missing[~np.isnan(self.values_of("nonfinite"))] = 1.0
        return missing

    def totals_of(self, name: str) -> np.ndarray:
        """Return one of `TOTALS`, NaN where it is not known: float32 array (n, optimizers)."""
        if name in self.totals:
            return self.totals[name]
        return np.full((len(self.steps), len(self.layout.optimizers)), np.nan, np.float32)

    def ports_of(self, name: str) -> np.ndarray:
        """Return one of `PORT_STATISTICS`, NaN where it is not known: float32 array (n, ports)."""
        if name in self.ports:
            return self.ports[name]
        return np.full((len(self.steps), len(self.layout.ports)), np.nan, np.float32)

    def select(self, rows: np.ndarray | slice) -> "Chunk":
        """Return the rows of an index, mask or slice; nothing is read for it."""
        values, totals, ports = (
            _Rows(arrays, rows)
            if isinstance(arrays, LazyArrays)
            else {name: array[rows] for name, array in arrays.items()}
            for arrays in (self.values, self.totals, self.ports)
        )
        return Chunk(self.layout, self.steps[rows], values, totals, ports)

    def spread(self, layout: Layout, names: Sequence[str] = RECORDED) -> "Chunk":
        """Return the same steps on the columns of a larger layout; new columns are NaN.

        Of values, only those named need be there.
        """
        if layout == self.layout:
            return self
        variables = layout.columns_of(self.layout)
        optimizers = positions(layout.optimizers, self.layout.optimizers)
        named = {name: self.values[name] for name in names if name in self.values}
        values = _widen(named, variables, len(layout.variables))
        totals = _widen(self.totals, optimizers, len(layout.optimizers))
        places = positions(layout.ports, self.layout.ports)
        ports = _widen(self.ports, places, len(layout.ports))
        return Chunk(layout, self.steps, values, totals, ports)


class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name, each read when it is asked for; `in` and `keys()` read nothing."""

    def take(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Return rows of an array, without reading more than needed."""
        return self[name][rows]


class _Rows(LazyArrays):
    """Rows of arrays, read when they are asked for."""

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
    """Append a chunk; it replaces the records from its first step on. Return their number."""
    first, replaced = chunk.steps[0], 0
    while chunks and chunks[-1].steps[-1] >= first:
        last = chunks.pop()
        kept = last.select(last.steps < first)
        replaced += len(last.steps) - len(kept.steps)
        if len(kept.steps):
            chunks.append(kept)
    chunks.append(chunk)
    return replaced


def join(chunks: Sequence[Chunk], names: Sequence[str] = RECORDED) -> Chunk:
    """Return one chunk of all the steps, on the union of the columns; of values those named."""
    layout = chunks[0].layout
    for chunk in chunks[1:]:
        if chunk.layout != layout:
            layout = layout.union(chunk.layout)
    spread = [chunk.spread(layout, names) for chunk in chunks]
    return Chunk(
        layout,
        np.concatenate([chunk.steps for chunk in spread]),
        {
            name: np.concatenate([chunk.values_of(name) for chunk in spread])
            for name in names
            if any(name in chunk.values for chunk in spread)
        },
        {
            name: np.concatenate([chunk.totals_of(name) for chunk in spread])
            for name in TOTALS
            if any(name in chunk.totals for chunk in spread)
        },
        {
            name: np.concatenate([chunk.ports_of(name) for chunk in spread])
            for name in PORT_STATISTICS
            if any(name in chunk.ports for chunk in spread)
        },
    )


def _widen(
    arrays: Mapping[str, np.ndarray], columns: list[int], width: int
) -> dict[str, np.ndarray]:
    wide = {}
    for name, array in arrays.items():
        wide[name] = np.full((len(array), width), np.nan, array.dtype)
        wide[name][:, columns] = array
    return wide
