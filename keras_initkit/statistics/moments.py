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

    Values may be left out by a mask and count more or less by a weight w ≥ 0; n and N are then
    sums of weights. Such rows are reduced in two passes over each chunk.

    Args:
        shape: Shape of one row: the features. `()` for a column of scalars.
        extremes: Whether to find minima and maxima too, a fifth of the work.

    Attributes:
        rows: Number of rows seen.
        count: Number of values taken in, int64 of shape `shape`: those that are not masked and
            whose weight is not 0.
        weight: Sum of their weights, float64 of shape `shape`; `count` where there were none.
        m2: Sum of squared deviations from the mean, float64 of shape `shape`.
        min: Smallest value (`inf` before any row), float64 of shape `shape`; NaN without
            `extremes`.
        max: Largest value (`-inf` before any row), likewise.
        nan_count: Number of NaN values, int64 of shape `shape`. A feature that has one has
            NaN statistics.
        inf_count: Number of infinite values, int64 of shape `shape`.

    Example:
    >>> first = Moments((2,)).update(np.array([[1, 10], [3, 10]], dtype="uint8"))
    >>> second = Moments((2,)).update(np.array([[5.0, 13.0]]))
    >>> total = first.merge(second)
    >>> total.count, total.mean.tolist(), total.m2.tolist()
    (array([3, 3]), [3.0, 11.0], [8.0, 6.0])

    Reference:

    - [Chan, Golub & LeVeque (1983), Algorithms for computing the sample
      variance](https://doi.org/10.1080/00031305.1983.10483115), equations (1.5) and (1.7)
    """

    __slots__ = (
        "_mean_high",
        "_mean_low",
        "_scratch",
        "count",
        "extremes",
        "inf_count",
        "m2",
        "max",
        "min",
        "nan_count",
        "rows",
        "shape",
        "weight",
    )

    def __init__(self, shape: tuple[int, ...] = (), extremes: bool = True) -> None:
        self.shape = tuple(shape)
        self.extremes = bool(extremes)
        self.rows = 0
        self.count: NDArray[np.int64] = np.zeros(shape, np.int64)
        self.weight: FloatArray = np.zeros(shape)
        self._mean_high: FloatArray = np.zeros(shape)
        self._mean_low: FloatArray = np.zeros(shape)
        self.m2: FloatArray = np.zeros(shape)
        self.min: FloatArray = np.full(shape, np.inf if extremes else np.nan)
        self.max: FloatArray = np.full(shape, -np.inf if extremes else np.nan)
        self.nan_count: NDArray[np.int64] = np.zeros(shape, np.int64)
        self.inf_count: NDArray[np.int64] = np.zeros(shape, np.int64)
        self._scratch: FloatArray | None = None

    def __repr__(self) -> str:
        return f"<Moments shape={self.shape} rows={self.rows}>"

    def __getstate__(self) -> dict[str, NDArray[Any]]:
        return self.get_state()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._set_state(state)

    @property
    def mean(self) -> FloatArray:
        """Mean of each feature, float64 of shape `shape`; NaN before any value."""
        return np.where(self.weight > 0, self._mean_high + self._mean_low, np.nan)

    @property
    def variance(self) -> FloatArray:
        """Population variance `M2 / weight` (ddof 0), float64; NaN before any value."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.m2 / self.weight)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Whether a feature has one value only, booleans of shape `shape`.

        Its deviations are exactly zero: they are from that value itself.
        """
        return np.asarray((self.m2 == 0) & (self.count > 0))

    def update(
        self,
        batch: NDArray[Any],
        mask: NDArray[np.bool_] | None = None,
        sample_weight: NDArray[Any] | None = None,
    ) -> Self:
        """Takes in the rows of a batch.

        Args:
            batch: Array of shape `(rows, *shape)`, of booleans, integers or real floating
                point numbers (float16, bfloat16 and the like included). It may be memory
                mapped or strided: it is read once, a chunk at a time.
            mask: Optional booleans, of shape `(rows,)` or the batch's: True where a value
                counts. What the others are, NaN too, does not matter.
            sample_weight: Optional weights ≥ 0, of shape `(rows,)` or the batch's. A value of
                weight 0 is as if it were not there.

        Returns:
            This object.

        Raises:
            ValueError: If the shape of a row is not `shape`, or mask or weights do not fit.
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
        _check_real(batch)
        if not batch.size:
            return self
        features = int(np.prod(self.shape, dtype=np.int64))
        if mask is not None or sample_weight is not None:
            valid = checked_leading("mask", mask, batch.shape)
            weights = checked_leading("sample_weight", sample_weight, batch.shape)
            self._update_weighted(batch, valid, weights, features)
            return self
        # A reshape of strided rows would copy them all.
        pieces = [batch] if batch.flags.c_contiguous else _copies(batch, features)
        for piece in pieces:
            self._update_table(piece.reshape(-1, features))
        return self

    def merge(self, other: Moments) -> Self:
        """Takes in all the rows that another accumulator has seen.

        Args:
            other: Moments of the same shape; it is left as it is. If it was made without
                `extremes`, those of both are NaN.

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
        if not other.rows:
            return self
        weight = self.weight + other.weight
        with np.errstate(all="ignore"):
            if not self.weight.any():
                self._mean_high = other._mean_high.copy()
                self._mean_low = other._mean_low.copy()
                self.m2 = other.m2.copy()
            else:
                share = other.weight / weight
                if not weight.all():
                    share = np.where(weight == 0, 0, share)
                delta = (other._mean_high - self._mean_high) + (other._mean_low - self._mean_low)
                self.m2 = self.m2 + (other.m2 + delta * delta * (self.weight * share))
                self._mean_high, self._mean_low = two_sum(
                    self._mean_high, self._mean_low + delta * share
                )
            self.min = np.minimum(self.min, other.min)
            self.max = np.maximum(self.max, other.max)
        self.nan_count = self.nan_count + other.nan_count
        self.inf_count = self.inf_count + other.inf_count
        self.count = self.count + other.count
        self.weight = weight
        self.rows += other.rows
        self.extremes = self.extremes and other.extremes
        return self

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The state as plain arrays, to be saved or sent to another process.

        Returns:
            A dictionary of arrays that `from_state()` takes. `mean_rest` is what the
            rounding of `mean` to float64 has left.
        """
        return {
            "rows": np.asarray(self.rows, np.int64),
            "extremes": np.asarray(self.extremes),
            "count": self.count.copy(),
            "weight": self.weight.copy(),
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
        moments = cls()
        moments._set_state(state)
        return moments

    def _set_state(self, state: Mapping[str, Any]) -> None:
        self.shape = np.shape(state["mean"])
        self.rows = int(state["rows"])
        self.extremes = bool(state["extremes"])
        self.count = np.array(state["count"], np.int64)
        self.weight = np.array(state["weight"], np.float64)
        self._mean_high = np.array(state["mean"], np.float64)
        self._mean_low = np.array(state["mean_rest"], np.float64)
        self.m2 = np.array(state["m2"], np.float64)
        self.min = np.array(state["min"], np.float64)
        self.max = np.array(state["max"], np.float64)
        self.nan_count = np.array(state["nan_count"], np.int64)
        self.inf_count = np.array(state["inf_count"], np.int64)
        self._scratch = None

    def _update_table(self, table: NDArray[Any]) -> None:
        """Takes in a contiguous table (rows, features), in blocks that at most double."""
        rows, features = table.shape
        first_rows = max(8, min(_FIRST_ROWS, _CHUNK_ELEMENTS // features))
        start = 0
        with np.errstate(all="ignore"):
            while start < rows:
                if self.rows < first_rows:
                    block = table[start : start + first_rows]
                    shift = _careful_mean(block)
                else:
                    block = table[start : start + self.rows]
                    shift = self._shift(block)
                self.merge(self._moments_around(block, shift))
                start += len(block)

    def _update_weighted(
        self,
        batch: NDArray[Any],
        mask: NDArray[Any] | None,
        weights: NDArray[Any] | None,
        features: int,
    ) -> None:
        """Takes in rows of which not all values count the same, a chunk at a time."""
        step = max(1, _CHUNK_ELEMENTS // features)

        def part_of(array: NDArray[Any] | None, rows: slice) -> NDArray[Any] | None:
            if array is None:
                return None
            part = array[rows]
            return np.broadcast_to(part.reshape(len(part), -1), (len(part), features))

        with np.errstate(all="ignore"):
            for start in range(0, len(batch), step):
                rows = slice(start, start + step)
                chunk = np.asarray(batch[rows], np.float64).reshape(-1, features)
                self.merge(
                    self._weighted_moments(chunk, part_of(mask, rows), part_of(weights, rows))
                )

    def _weighted_moments(
        self, chunk: FloatArray, mask: NDArray[Any] | None, weights: NDArray[Any] | None
    ) -> Moments:
        """Moments of a chunk in two passes: means, then deviations from them."""
        counted = np.ones(chunk.shape, bool) if mask is None else mask.astype(bool)
        if weights is None:
            weights = counted.astype(np.float64)
        else:
            counted = counted & (weights > 0)
            weights = np.where(counted, weights, 0.0)
        total = weights.sum(axis=0)
        divisor = np.where(total > 0, total, 1.0)
        # Around the first value that counts: exact where a feature is constant.
        first = chunk[counted.argmax(axis=0), np.arange(chunk.shape[1])]
        first = np.where(counted.any(axis=0), first, 0.0)
        deviations = np.where(counted, chunk - first, 0.0)
        offset = (weights * deviations).sum(axis=0) / divisor
        deviations = np.where(counted, deviations - offset, 0.0)
        weighted = weights * deviations
        rest = weighted.sum(axis=0)
        m2 = np.maximum((weighted * deviations).sum(axis=0) - rest * (rest / divisor), 0)
        high, low = two_sum(first, offset)
        high, low = two_sum(high, low + rest / divisor)

        moments = Moments(self.shape, self.extremes)
        moments.rows = len(chunk)
        moments.count = counted.sum(axis=0).reshape(self.shape)
        moments.weight = total.reshape(self.shape)
        moments._mean_high, moments._mean_low = high.reshape(self.shape), low.reshape(self.shape)
        moments.m2 = m2.reshape(self.shape)
        if self.extremes:
            moments.min = np.where(counted, chunk, np.inf).min(axis=0).reshape(self.shape)
            moments.max = np.where(counted, chunk, -np.inf).max(axis=0).reshape(self.shape)
        moments.nan_count = (np.isnan(chunk) & counted).sum(axis=0).reshape(self.shape)
        moments.inf_count = (np.isinf(chunk) & counted).sum(axis=0).reshape(self.shape)
        return moments

    def _shift(self, block: NDArray[Any]) -> FloatArray:
        """The running mean, or 0 (a pass less) where that costs no more than two digits."""
        weight, mean = self.weight.reshape(-1), (self._mean_high + self._mean_low).reshape(-1)
        if not weight.all():  # features of which no value has counted yet
            return np.where(weight == 0, _careful_mean(block[:_FIRST_ROWS]), mean)
        if (mean * mean * weight <= 64 * self.m2.reshape(-1)).all():
            return np.zeros_like(mean)
        return mean

    def _moments_around(self, block: NDArray[Any], shift: FloatArray) -> Moments:
        """Moments of a block of rows, by sums of deviations from a shift."""
        sums = self._reduce(block, shift)
        count = len(block)
        moments = Moments(self.shape, self.extremes)
        moments.rows = count
        moments.count = np.full(self.shape, count)
        moments.weight = np.full(self.shape, float(count))
        high, low = two_sum(shift, sums.first / count)
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
        low, high = (np.inf, -np.inf) if self.extremes else (np.nan, np.nan)
        sums = _Sums(
            np.zeros(columns), np.zeros(columns), np.full(columns, low), np.full(columns, high)
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
            if self.extremes:
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


def checked_table(batch: Any, features: int) -> NDArray[Any]:
    """A batch as an array, if it is a table of real numbers with so many columns."""
    batch = np.asarray(batch)
    if batch.ndim != 2 or batch.shape[1] != features:
        raise ValueError(
            f"`batch` must have the shape (rows, {features}). Received: batch.shape={batch.shape}. "
            "Move the axis of the features to the end and reshape the others into one."
        )
    _check_real(batch)
    return batch


def _check_real(batch: NDArray[Any]) -> None:
    if not is_real(batch.dtype):
        raise TypeError(
            "`batch` must hold booleans, integers or real floating point numbers. "
            f"Received: batch.dtype={batch.dtype}. Convert it first, e.g. with "
            "`batch.astype('float32')`."
        )


def checked_leading(name: str, array: Any, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """A mask or weights, checked against the shape of their batch."""
    if array is None:
        return None
    array = np.asarray(array)
    if array.shape not in {shape, shape[:1]}:
        raise ValueError(
            f"`{name}` must have the shape {shape[:1]} or {shape} for this batch. Received: "
            f"{name}.shape={array.shape}. Give one value for each row, or for each value."
        )
    if name == "mask" and array.dtype != bool:
        raise ValueError(
            f"`mask` must be booleans, True where a value counts. Received: dtype={array.dtype}. "
            "Compare it first, e.g. `mask=mask != 0`."
        )
    if name == "sample_weight" and not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(
            "`sample_weight` must be finite and not negative. Received: values between "
            f"{array.min()} and {array.max()}. Use 0 for what must not count."
        )
    return array


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


def two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
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
