"""Statistics of the rows of a table, and how two are merged: the numbers behind `Moments`."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Measured: the float64 buffer stays in the second-level cache, and rows widened to about
# 1,000 elements keep NumPy's inner loops long.
CHUNK_ELEMENTS = 1 << 16
_ROW_ELEMENTS = 1 << 10
# A first block no larger than this is reduced around its own mean.
FIRST_ROWS = 256


@dataclass(frozen=True)
class Summary:
    """Statistics of some rows, one number for each feature; the arrays are never changed.

    Attributes:
        count: Number of values neither masked nor of weight 0.
        weight: Sum of their weights.
        mean: Mean, rounded to float64.
        mean_rest: Rest of the mean after rounding.
        m2: Sum of squared deviations from the mean.
        min: Smallest value, or NaN if extremes are not wanted.
        max: Largest value, likewise.
        nan_count: Number of NaN values.
        inf_count: Number of infinite values.
    """

    count: IntArray
    weight: FloatArray
    mean: FloatArray
    mean_rest: FloatArray
    m2: FloatArray
    min: FloatArray
    max: FloatArray
    nan_count: IntArray
    inf_count: IntArray


class _Sums(NamedTuple):
    """Sums over the rows of a table, of deviations from a shift and of their squares."""

    first: FloatArray
    second: FloatArray
    low: FloatArray
    high: FloatArray


def summarize_nothing(features: int, extremes: bool) -> Summary:
    """Return the summary of no rows."""
    none, zero = np.zeros(features, np.int64), np.zeros(features)
    low, high = _start_extremes(features, extremes)
    return Summary(none, zero, zero, zero, zero, low, high, none, none)


def merge_summaries(first: Summary, second: Summary) -> Summary:
    """Merge two summaries by the pairwise update of Chan, Golub & LeVeque."""
    weight = first.weight + second.weight
    with np.errstate(all="ignore"):
        if first.weight.any():
            share = second.weight / weight
            if not weight.all():
                share = np.where(weight == 0, 0, share)
            delta = (second.mean - first.mean) + (second.mean_rest - first.mean_rest)
            m2 = first.m2 + (second.m2 + delta * delta * (first.weight * share))
            mean, rest = two_sum(first.mean, first.mean_rest + delta * share)
        else:
            mean, rest, m2 = second.mean, second.mean_rest, second.m2
        low, high = np.minimum(first.min, second.min), np.maximum(first.max, second.max)
    return Summary(
        first.count + second.count,
        weight,
        mean,
        rest,
        m2,
        low,
        high,
        first.nan_count + second.nan_count,
        first.inf_count + second.inf_count,
    )


def summarize_block(
    block: NDArray[Any], shift: FloatArray, extremes: bool, buffer: FloatArray
) -> Summary:
    """Summarize a contiguous block (rows, features) by sums of deviations from a shift.

    The shift are numbers near the means; the buffer is working memory of 65,536 elements, or of a
    row where that is longer.
    """
    rows, features = block.shape
    sums = _reduce(block, shift, extremes, buffer)
    mean, rest = two_sum(shift, sums.first / rows)
    # Both sums carry rounding errors: a constant feature must not get M2 = -1e-30.
    m2 = np.maximum(sums.second - sums.first * (sums.first / rows), 0)
    nans = infs = np.zeros(features, np.int64)
    if not np.isfinite(sums.first).all():
        nans, infs = _count_non_finite(block)
    count = np.full(features, rows)
    return Summary(count, count.astype(float), mean, rest, m2, sums.low, sums.high, nans, infs)


def summarize_weighted(
    chunk: FloatArray, mask: NDArray[Any] | None, weights: NDArray[Any] | None, extremes: bool
) -> Summary:
    """Summarize a chunk (rows, features) in two passes: means, then deviations from them.

    The mask is true where a value counts; it and the weights have the chunk's shape.
    """
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
    left = weighted.sum(axis=0)
    m2 = np.maximum((weighted * deviations).sum(axis=0) - left * (left / divisor), 0)
    mean, rest = two_sum(first, offset)
    mean, rest = two_sum(mean, rest + left / divisor)
    low, high = _start_extremes(chunk.shape[1], extremes)
    if extremes:
        low = np.where(counted, chunk, np.inf).min(axis=0)
        high = np.where(counted, chunk, -np.inf).max(axis=0)
    nans, infs = ((test(chunk) & counted).sum(axis=0) for test in (np.isnan, np.isinf))
    return Summary(counted.sum(axis=0), total, mean, rest, m2, low, high, nans, infs)


def choose_shift(block: NDArray[Any], seen: Summary) -> FloatArray:
    """Return the mean seen so far, or 0 (a pass less) where that costs no more than two digits."""
    mean = seen.mean + seen.mean_rest
    if not seen.weight.all():  # features of which no value has counted yet
        return np.where(seen.weight == 0, average_carefully(block[:FIRST_ROWS]), mean)
    if (mean * mean * seen.weight <= 64 * seen.m2).all():
        return np.zeros_like(mean)
    return mean


def average_carefully(rows: NDArray[Any]) -> FloatArray:
    """Average a few rows around the first: exact where a feature is constant."""
    first = rows[0].astype(np.float64)
    return np.asarray(first + (rows.astype(np.float64) - first).mean(axis=0))


def two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the rounded sum and its rounding error, exactly (Knuth)."""
    total = np.asarray(a + b)
    b_part = total - a
    return total, np.asarray((a - (total - b_part)) + (b - b_part))


def _reduce(block: NDArray[Any], shift: FloatArray, extremes: bool, buffer: FloatArray) -> _Sums:
    """Sum over the rows of a block; short rows are joined into wide ones."""
    rows, features = block.shape
    joined = max(1, min(_ROW_ELEMENTS // features, rows))
    even = rows - rows % joined
    wide = block[:even].reshape(-1, joined * features)
    sums = _sweep(wide, np.tile(shift, joined), extremes, buffer)
    if joined > 1:
        first, second, low, high = (part.reshape(joined, -1) for part in sums)
        sums = _Sums(first.sum(axis=0), second.sum(axis=0), low.min(axis=0), high.max(axis=0))
    if even == rows:
        return sums
    rest = _sweep(block[even:], shift, extremes, buffer)
    return _Sums(
        sums.first + rest.first,
        sums.second + rest.second,
        np.minimum(sums.low, rest.low),
        np.maximum(sums.high, rest.high),
    )


def _sweep(table: NDArray[Any], shift: FloatArray, extremes: bool, buffer: FloatArray) -> _Sums:
    """Read a table once, a chunk of rows at a time, through a float64 buffer."""
    rows, columns = table.shape
    step = max(1, min(CHUNK_ELEMENTS // columns, rows))
    scratch, ones = buffer[: step * columns].reshape(step, columns), np.ones(step)
    sums = _Sums(np.zeros(columns), np.zeros(columns), *_start_extremes(columns, extremes))
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
        if extremes:
            source = chunk if native else values
            np.minimum(sums.low, source.min(axis=0), out=sums.low)
            np.maximum(sums.high, source.max(axis=0), out=sums.high)
        if shifted:
            values = np.subtract(values, shift, out=work)
        np.add(sums.first, weights @ values, out=sums.first)
        np.multiply(values, values, out=work)
        np.add(sums.second, weights @ work, out=sums.second)
    return sums


def _start_extremes(features: int, extremes: bool) -> tuple[FloatArray, FloatArray]:
    low, high = (np.inf, -np.inf) if extremes else (np.nan, np.nan)
    return np.full(features, low), np.full(features, high)


def _count_non_finite(table: NDArray[Any]) -> tuple[IntArray, IntArray]:
    """Count the NaN and the infinite values in each column."""
    rows, columns = table.shape
    nans, infs = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
    step = max(1, CHUNK_ELEMENTS // columns)
    for start in range(0, rows, step):
        chunk = table[start : start + step]
        nans += np.isnan(chunk).sum(axis=0)
        infs += np.isinf(chunk).sum(axis=0)
    return nans, infs
