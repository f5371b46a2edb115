"""Quantiles in one pass: a mergeable accumulator on the sketches of Apache DataSketches."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_initkit.moments import FloatArray, checked_leading, checked_table

# Single-sided rank error .27 %, about 25 KB a feature.
DEFAULT_K = 1024

_CHUNK_ELEMENTS = 1 << 18


class Quantiles:
    """Quantiles, minimum and maximum of each feature, in one pass and a little memory.

    Each feature has a KLL sketch of float64 values: a random sample of them that is denser than
    one drawn blindly. Up to `k` values it holds all of them, and quantiles are exact: those of
    `np.quantile`. Beyond, what `quantile(q)` gives is a value of the data whose rank lies, with
    a probability of 99 %, within `rank_error` of q: .27 % for the default `k`, whatever the
    number of values, their distribution, and how they were cut and merged. Minimum and maximum
    are always exact.

    The sketch throws coins, which DataSketches seeds by the clock and offers no way to set:
    beyond `k` values a second pass over the same data gives slightly other quantiles, within
    the same bounds. State that is saved and loaded is the same.

    It needs the package `datasketches`: `pip install 'keras-initkit[robust]'`.

    Args:
        features: Number of columns.
        k: Integer from 8 to 65535, the size of a sketch. The rank error is about 2.3 / k^.97,
            memory about 25 bytes · k a feature. Defaults to `1024`.

    Attributes:
        features: Number of columns.
        k: Size of a sketch.
        count: Number of values taken in, int64 of shape `(features,)`: those that are not
            masked.
        min: Smallest value (`inf` before any), float64 of shape `(features,)`.
        max: Largest value (`-inf` before any), float64 of shape `(features,)`.
        nan_count: Number of NaN values, int64 of shape `(features,)`. A feature that has one has
            NaN quantiles.
        inf_count: Number of infinite values, int64 of shape `(features,)`. They are values like
            others: larger, or smaller, than all.

    Raises:
        ImportError: If `datasketches` is not installed.
        ValueError: If `k` is out of range.

    Example:
    >>> first = Quantiles(2).update(np.array([[1, 10], [3, 10]], dtype="uint8"))
    >>> second = Quantiles(2).update(np.array([[5.0, 13.0]]))
    >>> first.merge(second).quantile(0.5).tolist()
    [3.0, 10.0]

    Reference:

    - [Karnin, Lang & Liberty (2016), Optimal quantile approximation in
      streams](https://arxiv.org/abs/1603.05346)
    - [Apache DataSketches, KLL sketch](https://apache.github.io/datasketches-python), whose
      measured constants the rank error is
    """

    __slots__ = ("_sketches", "count", "features", "inf_count", "k", "max", "min", "nan_count")

    def __init__(self, features: int, k: int = DEFAULT_K) -> None:
        if not 8 <= k <= 65535:
            raise ValueError(
                f"`k` must lie in [8, 65535]. Received: k={k!r}. The rank error is about "
                "2.3 / k^.97."
            )
        make = _sketch_class()
        self.features = features
        self.k = k
        self.count: NDArray[np.int64] = np.zeros(features, np.int64)
        self.min: FloatArray = np.full(features, np.inf)
        self.max: FloatArray = np.full(features, -np.inf)
        self.nan_count: NDArray[np.int64] = np.zeros(features, np.int64)
        self.inf_count: NDArray[np.int64] = np.zeros(features, np.int64)
        self._sketches: list[Any] = [make(k) for _ in range(features)]

    def __repr__(self) -> str:
        return f"<Quantiles features={self.features} k={self.k}>"

    def __getstate__(self) -> dict[str, Any]:
        return self.get_state()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._set_state(state)

    @property
    def rank_error(self) -> float:
        """How far a quantile's rank may be off, as a part of all values, at 99 % confidence."""
        return float(_sketch_class().get_normalized_rank_error(self.k, False))

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Whether a feature has one value only, booleans (features,)."""
        return np.asarray(self.min == self.max)

    def update(
        self,
        batch: NDArray[Any],
        mask: NDArray[np.bool_] | None = None,
        sample_weight: NDArray[Any] | None = None,
    ) -> Self:
        """Takes in the rows of a batch.

        Args:
            batch: Array of shape `(rows, features)`, of booleans, integers or real floating
                point numbers (float16, bfloat16 and the like included). It may be memory
                mapped or strided: it is read once, a chunk at a time.
            mask: Optional booleans, of shape `(rows,)` or the batch's: True where a value
                counts. What the others are, NaN too, does not matter.
            sample_weight: Not supported: must be `None`.

        Returns:
            This object.

        Raises:
            ValueError: If a row does not have as many values as there are features, the mask
                does not fit, or there are weights.
            TypeError: If the values can't be cast to float64 without changing their kind.
        """
        if sample_weight is not None:
            raise ValueError(
                "`sample_weight` must be None: the quantiles here are those of values that all "
                f"count the same. Received: weights of shape {np.shape(sample_weight)}. Leave "
                "them out, e.g. `dataset.map(lambda x, y, sample_weight: x)`, and rows that must "
                "not count by `mask`."
            )
        batch = checked_table(batch, self.features)
        valid = checked_leading("mask", mask, batch.shape)
        step = max(1, _CHUNK_ELEMENTS // max(1, self.features))
        for start in range(0, len(batch), step):
            rows = slice(start, start + step)
            columns = np.array(batch[rows].T, np.float64, order="C")
            counted = None
            if valid is not None:
                part = valid[rows].reshape(columns.shape[1], -1).T
                counted = np.broadcast_to(part, columns.shape)
            self._update_columns(columns, counted)
        return self

    def merge(self, other: Quantiles) -> Self:
        """Takes in all the rows that another accumulator has seen.

        Args:
            other: Quantiles of as many features and the same `k`; it is left as it is.

        Returns:
            This object.

        Raises:
            ValueError: If the numbers of features or the sizes of sketches differ.
        """
        if (other.features, other.k) != (self.features, self.k):
            raise ValueError(
                f"`other` must have {self.features} features and k={self.k}. Received: "
                f"{other.features} features and k={other.k}. Merge quantiles of the same features "
                "and accuracy only."
            )
        for mine, theirs in zip(self._sketches, other._sketches, strict=True):
            mine.merge(theirs)
        self.count = self.count + other.count
        self.min = np.minimum(self.min, other.min)
        self.max = np.maximum(self.max, other.max)
        self.nan_count = self.nan_count + other.nan_count
        self.inf_count = self.inf_count + other.inf_count
        return self

    def quantile(self, q: ArrayLike) -> FloatArray:
        """Quantiles of each feature.

        Args:
            q: Number or array of numbers in [0, 1]; 0.5 is the median.

        Returns:
            Float64 array of shape `(*q.shape, features)`; NaN for a feature without values or
            with a NaN.

        Raises:
            ValueError: If a number does not lie in [0, 1].
        """
        ranks = np.asarray(q, np.float64)
        if not ((ranks >= 0) & (ranks <= 1)).all():
            raise ValueError(f"`q` must lie in [0, 1]. Received: q={q!r}.")
        result = np.full((ranks.size, self.features), np.nan)
        for index, sketch in enumerate(self._sketches):
            if not self.nan_count[index] and self.count[index]:
                result[:, index] = _quantiles_of(sketch, ranks.reshape(-1))
        flat = ranks.reshape(-1)
        known = (self.nan_count == 0) & (self.count > 0)
        result[np.ix_(flat == 0, known)] = self.min[known]
        result[np.ix_(flat == 1, known)] = self.max[known]
        return result.reshape(*ranks.shape, self.features)

    def get_state(self) -> dict[str, Any]:
        """The state as plain arrays and bytes, to be saved or sent to another process.

        Returns:
            A dictionary that `from_state()` takes: arrays, and in `sketches` the bytes of each
            feature's sketch, in DataSketches's own format.
        """
        return {
            "k": np.asarray(self.k, np.int64),
            "count": self.count.copy(),
            "min": self.min.copy(),
            "max": self.max.copy(),
            "nan_count": self.nan_count.copy(),
            "inf_count": self.inf_count.copy(),
            "sketches": [sketch.serialize() for sketch in self._sketches],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Builds an accumulator that goes on where `get_state()` was called.

        Args:
            state: What `get_state()` returned.

        Returns:
            A new object.
        """
        quantiles = cls(0, int(state["k"]))
        quantiles._set_state(state)
        return quantiles

    def _set_state(self, state: Mapping[str, Any]) -> None:
        load = _sketch_class().deserialize
        self.features = len(state["count"])
        self.k = int(state["k"])
        self.count = np.array(state["count"], np.int64)
        self.min = np.array(state["min"], np.float64)
        self.max = np.array(state["max"], np.float64)
        self.nan_count = np.array(state["nan_count"], np.int64)
        self.inf_count = np.array(state["inf_count"], np.int64)
        self._sketches = [load(bytes(sketch)) for sketch in state["sketches"]]

    def _update_columns(self, columns: FloatArray, counted: NDArray[np.bool_] | None) -> None:
        """Takes in a table whose rows are features, and sorts it; a sketch leaves NaN out."""
        with np.errstate(invalid="ignore"):
            if counted is None:
                self.count = self.count + columns.shape[1]
                low, high = columns.min(axis=1), columns.max(axis=1)
            else:
                self.count = self.count + counted.sum(axis=1)
                low = np.where(counted, columns, np.inf).min(axis=1)
                high = np.where(counted, columns, -np.inf).max(axis=1)
            self.min, self.max = np.minimum(self.min, low), np.maximum(self.max, high)
            if not (np.isfinite(low) & np.isfinite(high)).all():
                nans, infs = np.isnan(columns), np.isinf(columns)
                if counted is not None:
                    nans, infs = nans & counted, infs & counted
                self.nan_count = self.nan_count + nans.sum(axis=1)
                self.inf_count = self.inf_count + infs.sum(axis=1)
        for index, sketch in enumerate(self._sketches):
            column = columns[index] if counted is None else columns[index][counted[index]]
            column.sort()  # The sketch sorts again, and sorted values it sorts much faster.
            sketch.update(column)


def _quantiles_of(sketch: Any, ranks: FloatArray) -> FloatArray:
    """Quantiles of one feature: exact ones while the sketch holds all values."""
    if sketch.is_estimation_mode():
        return np.asarray(sketch.get_quantiles(ranks.tolist(), True), np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.quantile([value for value, _ in sketch], ranks), np.float64)


def _sketch_class() -> Any:
    try:
        return importlib.import_module("datasketches").kll_doubles_sketch
    except ImportError:
        raise ImportError(
            "`Quantiles` needs the package `datasketches`, which is not installed. Install it: "
            "`pip install 'keras-initkit[robust]'`."
        ) from None
