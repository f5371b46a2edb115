"""`ActivationHistory`: the record of an `ActivationProbe`."""

from collections.abc import Iterator

import numpy as np

STATISTICS = ("mean", "variance", "zeros", "dead_units", "saturation", "nonfinite")


class ActivationHistory:
    """All records of an `ActivationProbe`: records x layers x statistic.

    `history[name]` is a float64 array of shape `(n, layers)`, for the names

    - `"mean"`, `"variance"`: of all the layer's outputs on the batch;
    - `"zeros"`: fraction of exact zeros among its outputs, in [0, 1];
    - `"dead_units"`: fraction of its units (features, or channels) with exact zeros for the whole
      batch, at every position;
    - `"saturation"`: fraction of its outputs in the flat part of a bounded activation, where the
      slope is below 1 % of the largest (tanh: |y| > .995; sigmoid: y outside (.0025, .9975)); NaN
      for layers without one, and for LSTM and GRU, whose outputs are no values of it;
    - `"nonfinite"`: number of NaN and infinite outputs; mean and variance are then not finite.

    A layer not called at a record is NaN there. `list(history)` names these statistics, and
    `len(history)` is the number of records.
    """

    def __init__(self) -> None:
        self._records: list[tuple[int, int, dict[str, np.ndarray]]] = []

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._records)

    @property
    def epochs(self) -> np.ndarray:
        """int64 array (n,): number of epochs trained before each record."""
        return np.array([epoch for epoch, _, _ in self._records], np.int64)

    @property
    def steps(self) -> np.ndarray:
        """int64 array (n,): `optimizer.iterations` at each record."""
        return np.array([step for _, step, _ in self._records], np.int64)

    @property
    def layers(self) -> list[str]:
        """Paths of the layers, in the order in which they end: a block follows its layers."""
        return list(dict.fromkeys(path for _, _, found in self._records for path in found))

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the statistics; none before the first record."""
        return iter(STATISTICS if self._records else ())

    def keys(self) -> list[str]:
        """Return the names of the statistics."""
        return list(self)

    def __getitem__(self, statistic: str) -> np.ndarray:
        """Return a statistic of every layer: float64 array (n, layers)."""
        if statistic not in STATISTICS:
            names = ", ".join(f'"{name}"' for name in STATISTICS)
            raise KeyError(f"The statistic must be one of {names}. Received: {statistic!r}.")
        layers, column = self.layers, STATISTICS.index(statistic)
        missing = np.full(len(STATISTICS), np.nan)
        table = [[found.get(p, missing)[column] for p in layers] for _, _, found in self._records]
        return np.array(table, np.float64).reshape(len(self), len(layers))

    def __repr__(self) -> str:
        return f"<ActivationHistory: {len(self)} records of {len(self.layers)} layers>"

    def append(self, epoch: int, step: int, found: dict[str, np.ndarray]) -> None:
        """Add a record: for the path of each layer the numbers of `STATISTICS`, float64."""
        self._records.append((epoch, step, found))
