"""Mean and variance in one pass: a mergeable accumulator in pure NumPy."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_initkit.statistics.kernel import (
    CHUNK_ELEMENTS,
    FIRST_ROWS,
    FloatArray,
    IntArray,
    Summary,
    average_carefully,
    choose_shift,
    merge_summaries,
    summarize_block,
    summarize_nothing,
    summarize_weighted,
)


class Moments:
    """Count, mean, variance, minimum and maximum of each feature, in one pass.

    Every accumulator is float64. A block of n rows is reduced around a shift s,

        s1 = sum(x - s),   s2 = sum((x - s)²),
        mean_b = s + s1 / n,   M2_b = s2 - s1² / n,

    and merged into the N rows seen before by the pairwise update

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
        shape: Shape of one row.
        extremes: Whether minima and maxima are known.
        rows: Number of rows seen.

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

    __slots__ = ("_buffer", "_summary", "extremes", "rows", "shape")

    def __init__(self, shape: tuple[int, ...] = (), extremes: bool = True) -> None:
        self.shape = tuple(shape)
        self.extremes = bool(extremes)
        self.rows = 0
        self._summary = summarize_nothing(math.prod(self.shape), self.extremes)
        # Kept between calls: fresh memory costs a fault a page.
        self._buffer: FloatArray | None = None

    def __repr__(self) -> str:
        return f"<Moments shape={self.shape} rows={self.rows}>"

    def __reduce__(self) -> tuple[Callable[[Mapping[str, Any]], Self], tuple[Any]]:
        return type(self).from_state, (self.get_state(),)

    @property
    def count(self) -> IntArray:
        """Number of values neither masked nor of weight 0, int64 of shape `shape`."""
        return self._summary.count.reshape(self.shape)

    @property
    def weight(self) -> FloatArray:
        """Sum of the weights, float64 of shape `shape`; `count` where there were none."""
        return self._summary.weight.reshape(self.shape)

    @property
    def mean(self) -> FloatArray:
        """Mean of each feature, float64 of shape `shape`; NaN before any value."""
        mean = (self._summary.mean + self._summary.mean_rest).reshape(self.shape)
        return np.where(self.weight > 0, mean, np.nan)

    @property
    def m2(self) -> FloatArray:
        """Sum of squared deviations from the mean, float64 of shape `shape`."""
        return self._summary.m2.reshape(self.shape)

    @property
    def variance(self) -> FloatArray:
        """Population variance `M2 / weight` (ddof 0), float64; NaN before any value."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.m2 / self.weight)

    @property
    def min(self) -> FloatArray:
        """Smallest value (`inf` before any row), float64; NaN without `extremes`."""
        return self._summary.min.reshape(self.shape)

    @property
    def max(self) -> FloatArray:
        """Largest value (`-inf` before any row), float64; NaN without `extremes`."""
        return self._summary.max.reshape(self.shape)

    @property
    def nan_count(self) -> IntArray:
        """Number of NaN values. A feature with any has NaN statistics."""
        return self._summary.nan_count.reshape(self.shape)

    @property
    def inf_count(self) -> IntArray:
        """Number of infinite values."""
        return self._summary.inf_count.reshape(self.shape)

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
        """Take in the rows of a batch.

        Args:
            batch: Array of shape `(rows, *shape)`, of booleans, integers or real floating
                point numbers (float16, bfloat16 and the like included). It may be memory
                mapped or strided: it is read once, a chunk at a time.
            mask: Optional booleans, of shape `(rows,)` or the batch's: True where a value
                counts. Values elsewhere, NaN too, do not matter.
            sample_weight: Optional weights ≥ 0, of shape `(rows,)` or the batch's. A value of
                weight 0 is as if it were not there.

        Returns:
            This object.

        Raises:
            ValueError: If the shape of a row is not `shape`, or mask or weights do not fit.
            TypeError: If the values can't be cast to float64 without changing their kind.
        """
        batch = np.asarray(batch)
        self._check(batch)
        if not batch.size:
            return self
        features = math.prod(self.shape)
        if mask is not None or sample_weight is not None:
            mask = _check_leading("mask", mask, batch.shape)
            weight = _check_leading("sample_weight", sample_weight, batch.shape)
            with np.errstate(all="ignore"):
                for chunk, valid, weights in _cut(batch, mask, weight, features):
                    part = summarize_weighted(chunk, valid, weights, self.extremes)
                    self._add(len(chunk), part)
            return self
        # A reshape of strided rows would copy them all: a few chunks are copied at a time.
        step = len(batch) if batch.flags.c_contiguous else max(1, 4 * CHUNK_ELEMENTS // features)
        with np.errstate(all="ignore"):
            for start in range(0, len(batch), step):
                rows = np.ascontiguousarray(batch[start : start + step])
                self._update_table(rows.reshape(-1, features))
        return self

    def merge(self, other: "Moments") -> Self:
        """Take in all rows seen by another accumulator.

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
        if other.rows:
            self._add(other.rows, other._summary)
            self.extremes = self.extremes and other.extremes
        return self

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Return the state as plain arrays, to be saved or sent to another process.

        Returns:
            A dictionary of arrays for `from_state()`. `mean_rest` is the rest of the
            mean after its rounding to float64.
        """
        arrays = vars(self._summary).items()
        return {
            "rows": np.asarray(self.rows, np.int64),
            "extremes": np.asarray(self.extremes),
            **{name: array.reshape(self.shape).copy() for name, array in arrays},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build an accumulator that goes on where `get_state()` was called.

        Args:
            state: The dictionary returned by `get_state()`.

        Returns:
            A new object.
        """
        moments = cls(np.shape(state["mean"]), bool(state["extremes"]))
        moments.rows = int(state["rows"])
        moments._summary = Summary(
            *(
                np.array(state[name], empty.dtype).ravel()
                for name, empty in vars(moments._summary).items()
            )
        )
        return moments

    def _add(self, rows: int, summary: Summary) -> None:
        self._summary = merge_summaries(self._summary, summary)
        self.rows += rows

    def _update_table(self, table: NDArray[Any]) -> None:
        """Take in a contiguous table (rows, features), in blocks that at most double."""
        rows, features = table.shape
        if self._buffer is None:
            self._buffer = np.empty(max(CHUNK_ELEMENTS, features))
        first_rows = max(8, min(FIRST_ROWS, CHUNK_ELEMENTS // features))
        start = 0
        while start < rows:
            if self.rows < first_rows:
                block = table[start : start + first_rows]
                shift = average_carefully(block)
            else:
                block = table[start : start + self.rows]
                shift = choose_shift(block, self._summary)
            self._add(len(block), summarize_block(block, shift, self.extremes, self._buffer))
            start += len(block)

    def _check(self, batch: NDArray[Any]) -> None:
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


def is_real(dtype: np.dtype[Any]) -> bool:
    """Check for a real dtype: boolean, integer or floating point."""
    return dtype.names is None and np.can_cast(dtype, np.float64, "same_kind")


def _check_leading(name: str, array: Any, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Check a mask or weights against the shape of their batch."""
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


def _cut(
    batch: NDArray[Any], mask: NDArray[Any] | None, weight: NDArray[Any] | None, features: int
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield chunks of a batch as float64, with their mask and weights in the same shape."""
    step = max(1, CHUNK_ELEMENTS // features)

    def widen(array: NDArray[Any] | None, rows: slice) -> NDArray[Any] | None:
        if array is None:
            return None
        part = array[rows]
        return np.broadcast_to(part.reshape(len(part), -1), (len(part), features))

    for start in range(0, len(batch), step):
        rows = slice(start, start + step)
        chunk = np.asarray(batch[rows], np.float64).reshape(-1, features)
        yield chunk, widen(mask, rows), widen(weight, rows)
