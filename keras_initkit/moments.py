"""Mean and variance in one pass: a mergeable accumulator in pure NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Measured: the float64 buffer stays in the second-level cache, and rows widened to about
# 1,000 elements keep NumPy's inner loops long.
_CHUNK_ELEMENTS = 1 << 16
_ROW_ELEMENTS = 1 << 10
# A first block no larger than this is reduced around its own mean.
_FIRST_ROWS = 256


class _Sums(NamedTuple):
    """Sums over the rows of a table, of deviations from a shift and of their squares."""

    first: FloatArray
    second: FloatArray
    low: FloatArray
    high: FloatArray


class Moments:
    """Count, mean, variance, minimum and maximum of each feature, in one pass.

    Every accumulator is float64. A block of n rows is reduced around a shift s,

        s1 = sum(x - s),   s2 = sum((x - s)²),
        mean_b = s + s1 / n,   M2_b = s2 - s1² / n,

    and merged into what was seen before (N rows) by the pairwise update

        δ = mean_b - mean,   mean += δ n / (N + n),   M2 += M2_b + δ² N n / (N + n).

    The shift is the running mean (or 0, where the mean is within 8 standard deviations of
    it) and a block has at most N rows, so the subtraction in M2_b loses at most two digits:
    the result is as good as that of two passes, in any order
    and however the rows are cut, for means up to millions of standard deviations. The mean
    is kept as an unevaluated sum of two float64 numbers, so that δ is not spoilt by the
    rounding of a large mean.

    Memory is a few arrays of one number per feature and one chunk of 65,536 numbers (or one
    row where a row is longer); the data are never copied whole.

    Args:
        shape: Shape of one row: the features. `()` for a column of scalars.

    Attributes:
        count: Number of rows seen.
        m2: Sum of squared deviations from the mean, float64 of shape `shape`.
        min: Smallest value (`inf` before any row), float64 of shape `shape`.
        max: Largest value (`-inf` before any row), float64 of shape `shape`.
        nan_count: Number of NaN values, int64 of shape `shape`. A feature that has one has
            NaN statistics.
        inf_count: Number of infinite values, int64 of shape `shape`.

    Example:
    >>> first = Moments((2,)).update(np.array([[1, 10], [3, 10]], dtype="uint8"))
    >>> second = Moments((2,)).update(np.array([[5.0, 13.0]]))
    >>> total = first.merge(second)
    >>> total.count, total.mean.tolist(), total.m2.tolist()
    (3, [3.0, 11.0], [8.0, 6.0])

    Reference:

    - [Chan, Golub & LeVeque (1983), Algorithms for computing the sample
      variance](https://doi.org/10.1080/00031305.1983.10483115), equations (1.5) and (1.7)
    """

    __slots__ = (
        "_mean_high",
        "_mean_low",
        "_scratch",
        "count",
        "inf_count",
        "m2",
        "max",
        "min",
        "nan_count",
        "shape",
    )

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.shape = tuple(shape)
        self.count = 0
        self._mean_high: FloatArray = np.zeros(shape)
        self._mean_low: FloatArray = np.zeros(shape)
        self.m2: FloatArray = np.zeros(shape)
        self.min: FloatArray = np.full(shape, np.inf)
        self.max: FloatArray = np.full(shape, -np.inf)
        self.nan_count: NDArray[np.int64] = np.zeros(shape, np.int64)
        self.inf_count: NDArray[np.int64] = np.zeros(shape, np.int64)
        self._scratch: FloatArray | None = None

    def __repr__(self) -> str:
        return f"<Moments shape={self.shape} count={self.count}>"

    @property
    def mean(self) -> FloatArray:
        """Mean of each feature, float64 of shape `shape`; NaN before any row."""
        if not self.count:
            return np.full(self.shape, np.nan)
        return np.asarray(self._mean_high + self._mean_low)

    @property
    def variance(self) -> FloatArray:
        """Population variance `M2 / count` (ddof 0), float64; NaN before any row."""
        if not self.count:
            return np.full(self.shape, np.nan)
        return np.asarray(self.m2 / self.count)

    def update(self, batch: NDArray[Any]) -> Self:
        """Takes in the rows of a batch.

        Args:
            batch: Array of shape `(rows, *shape)`, of booleans, integers or real floating
                point numbers (float16, bfloat16 and the like included). It may be memory
                mapped or strided: it is read once, a chunk at a time.

        Returns:
            This object.

        Raises:
            ValueError: If the shape of a row is not `shape`.
            TypeError: If the values can't be cast to float64 without changing their kind.
        """
        batch = np.asarray(batch)
        if batch.ndim == 0 or batch.shape[1:] != self.shape:
            wanted = ", ".join(["rows", *map(str, self.shape)])
            raise ValueError(
                f"`batch` must have the shape ({wanted}). "
                f"Received: batch.shape={batch.shape}. Move the axes to be reduced to the "
                "front and reshape them into one."
            )
        if not is_real(batch.dtype):
            raise TypeError(
                "`batch` must hold booleans, integers or real floating point numbers. "
                f"Received: batch.dtype={batch.dtype}. Convert it first, e.g. with "
                "`batch.astype('float32')`."
            )
        if not batch.size:
            return self
        features = int(np.prod(self.shape, dtype=np.int64))
        # A reshape of strided rows would copy them all.
        pieces = [batch] if batch.flags.c_contiguous else _copies(batch, features)
        for piece in pieces:
            self._update_table(piece.reshape(-1, features))
        return self

    def merge(self, other: Moments) -> Self:
        """Takes in all the rows that another accumulator has seen.

        Args:
            other: Moments of the same shape; it is left as it is.

        Returns:
            This object.

        Raises:
            ValueError: If the shapes differ.
        """
        if other.shape != self.shape:
            raise ValueError(
                f"`other` must have the shape {self.shape}. Received: "
                f"other.shape={other.shape}. Merge moments of the same features only."
            )
        if not other.count:
            return self
        total = self.count + other.count
        with np.errstate(all="ignore"):
            if not self.count:
                self._mean_high = other._mean_high.copy()
                self._mean_low = other._mean_low.copy()
                self.m2 = other.m2.copy()
            else:
                delta = (other._mean_high - self._mean_high) + (other._mean_low - self._mean_low)
                self.m2 = self.m2 + (
                    other.m2 + delta * delta * (self.count * (other.count / total))
                )
                self._mean_high, self._mean_low = _two_sum(
                    self._mean_high, self._mean_low + delta * (other.count / total)
                )
            self.min = np.minimum(self.min, other.min)
            self.max = np.maximum(self.max, other.max)
        self.nan_count = self.nan_count + other.nan_count
        self.inf_count = self.inf_count + other.inf_count
        self.count = total
        return self

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The state as plain arrays, to be saved or sent to another process.

        Returns:
            A dictionary of arrays that `from_state()` takes. `mean_rest` is what the
            rounding of `mean` to float64 has left.
        """
        return {
            "count": np.asarray(self.count, np.int64),
            "mean": self._mean_high.copy(),
            "mean_rest": self._mean_low.copy(),
            "m2": self.m2.copy(),
            "min": self.min.copy(),
            "max": self.max.copy(),
            "nan_count": self.nan_count.copy(),
            "inf_count": self.inf_count.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Builds an accumulator that goes on where `get_state()` was called.

        Args:
            state: What `get_state()` returned.

        Returns:
            A new object.
        """
        moments = cls(np.shape(state["mean"]))
        moments.count = int(state["count"])
        moments._mean_high = np.array(state["mean"], np.float64)
        moments._mean_low = np.array(state["mean_rest"], np.float64)
        moments.m2 = np.array(state["m2"], np.float64)
        moments.min = np.array(state["min"], np.float64)
        moments.max = np.array(state["max"], np.float64)
        moments.nan_count = np.array(state["nan_count"], np.int64)
        moments.inf_count = np.array(state["inf_count"], np.int64)
        return moments

    def _update_table(self, table: NDArray[Any]) -> None:
        """Takes in a contiguous table (rows, features), in blocks that at most double."""
        rows, features = table.shape
        first_rows = max(8, min(_FIRST_ROWS, _CHUNK_ELEMENTS // features))
        start = 0
        with np.errstate(all="ignore"):
            while start < rows:
                if self.count < first_rows:
                    block = table[start : start + first_rows]
                    shift = _careful_mean(block)
                else:
                    block = table[start : start + self.count]
                    shift = self._shift()
                self.merge(self._moments_around(block, shift))
                start += len(block)

    def _shift(self) -> FloatArray:
        """The running mean, or 0 (a pass less) where that costs no more than two digits."""
        mean = self.mean.reshape(-1)
        if (mean * mean * self.count <= 64 * self.m2.reshape(-1)).all():
            return np.zeros_like(mean)
        return mean

    def _moments_around(self, block: NDArray[Any], shift: FloatArray) -> Moments:
        """Moments of a block of rows, by sums of deviations from a shift."""
        sums = self._reduce(block, shift)
        count = len(block)
        moments = Moments(self.shape)
        moments.count = count
        high, low = _two_sum(shift, sums.first / count)
        moments._mean_high, moments._mean_low = (
            high.reshape(self.shape),
            low.reshape(self.shape),
        )
        # Both sums carry rounding errors: a constant feature must not get M2 = -1e-30.
        m2 = np.maximum(sums.second - sums.first * (sums.first / count), 0)
        moments.m2 = m2.reshape(self.shape)
        moments.min = sums.low.reshape(self.shape)
        moments.max = sums.high.reshape(self.shape)
        if not np.isfinite(sums.first).all():
            nans, infs = _count_non_finite(block)
            moments.nan_count = nans.reshape(self.shape)
            moments.inf_count = infs.reshape(self.shape)
        return moments

    def _reduce(self, block: NDArray[Any], shift: FloatArray) -> _Sums:
        """Sums over the rows of a block; short rows are joined into wide ones."""
        rows, features = block.shape
        joined = max(1, min(_ROW_ELEMENTS // features, rows))
        even = rows - rows % joined
        wide = block[:even].reshape(-1, joined * features)
        sums = _fold(self._sweep(wide, np.tile(shift, joined)), joined)
        if even == rows:
            return sums
        rest = self._sweep(block[even:], shift)
        return _Sums(
            sums.first + rest.first,
            sums.second + rest.second,
            np.minimum(sums.low, rest.low),
            np.maximum(sums.high, rest.high),
        )

    def _sweep(self, table: NDArray[Any], shift: FloatArray) -> _Sums:
        """Reads a table once, a chunk of rows at a time, through a float64 buffer."""
        rows, columns = table.shape
        step = max(1, min(_CHUNK_ELEMENTS // columns, rows))
        scratch = self._buffer(step * columns).reshape(step, columns)
        ones = np.ones(step)
        sums = _Sums(
            np.zeros(columns),
            np.zeros(columns),
            np.full(columns, np.inf),
            np.full(columns, -np.inf),
        )
        # NumPy has fast minima of its own types only; of float16 it has none.
        native = table.dtype.kind in "biu" or table.dtype in (np.float32, np.float64)
        shifted = bool(shift.any())
        for start in range(0, rows, step):
            chunk = table[start : start + step]
            work, weights = scratch[: len(chunk)], ones[: len(chunk)]
            values = chunk
            if table.dtype != np.float64:
                np.copyto(work, chunk, casting="same_kind")
                values = work
            source = chunk if native else values
            np.minimum(sums.low, source.min(axis=0), out=sums.low)
            np.maximum(sums.high, source.max(axis=0), out=sums.high)
            if shifted:
                values = np.subtract(values, shift, out=work)
            np.add(sums.first, weights @ values, out=sums.first)
            np.multiply(values, values, out=work)
            np.add(sums.second, weights @ work, out=sums.second)
        return sums

    def _buffer(self, size: int) -> FloatArray:
        """A float64 buffer kept between calls: fresh memory costs a fault a page."""
        if self._scratch is None or len(self._scratch) < size:
            self._scratch = np.empty(size)
        return self._scratch[:size]


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether values of a type are real numbers: booleans, integers or floating point."""
    return dtype.names is None and np.can_cast(dtype, np.float64, "same_kind")


def _fold(sums: _Sums, joined: int) -> _Sums:
    """Folds wide rows of `joined` rows each back into one."""
    if joined == 1:
        return sums
    first, second, low, high = (part.reshape(joined, -1) for part in sums)
    return _Sums(first.sum(axis=0), second.sum(axis=0), low.min(axis=0), high.max(axis=0))


def _careful_mean(rows: NDArray[Any]) -> FloatArray:
    """Mean of a few rows around the first: exact where a feature is constant."""
    first = rows[0].astype(np.float64)
    return np.asarray(first + (rows.astype(np.float64) - first).mean(axis=0))


def _two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rounded sum and its rounding error, exactly (Knuth)."""
    total = np.asarray(a + b)
    b_part = total - a
    return total, np.asarray((a - (total - b_part)) + (b - b_part))


def _count_non_finite(table: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of NaN and of infinite values in each column."""
    rows, columns = table.shape
    nans, infs = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
    step = max(1, _CHUNK_ELEMENTS // columns)
    for start in range(0, rows, step):
        chunk = table[start : start + step]
        nans += np.isnan(chunk).sum(axis=0)
        infs += np.isinf(chunk).sum(axis=0)
    return nans, infs


def _copies(batch: NDArray[Any], features: int) -> Iterator[NDArray[Any]]:
    """Contiguous copies of a strided batch, a few chunks of rows at a time."""
    step = max(1, 4 * _CHUNK_ELEMENTS // features)
    for start in range(0, len(batch), step):
        yield np.ascontiguousarray(batch[start : start + step])
