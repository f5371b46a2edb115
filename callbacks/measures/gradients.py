"""Magnitude of gradients and weights: pure functions on arrays, for any Keras backend.

Every function takes *stacks*: arrays of shape (k, size), each k tensors of one size, flattened.
One set of operations then serves all the small tensors of a shape, whatever their number.

Gradients of deep networks reach 1e-30 and 1e+30: their squares are not float32 numbers. There are
two ways around:

- elements are taken relative to the largest magnitude: ‖x‖ = m · sqrt(Σ (x/m)²), m = max|x|;
- sums are taken in float64.

Nearly always squares are ordinary numbers. Where it can be chosen in the step, at no cost, sums are
taken plainly, and again in one of these ways if they turn out not to be.

Only wanted statistics are computed: each costs a pass over the gradients, next to the training
step. The elements are read in `Reductions` alone, where the time goes.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

GRADIENT_STATISTICS = ("norm", "mean_abs", "max_abs", "zeros", "nonfinite")
# What is measured between records, for spikes.
OF_SPIKES = frozenset(("norm", "nonfinite"))
Array = Any
Reduction = Callable[[Sequence[Array]], Array]
Measured = dict[str, Array]
Measure = Callable[[Sequence[Array], Collection[str]], Measured]

# Largest magnitudes to which the others are taken relative: both they and 1/m are float32 numbers.
_SCALES = 1e-37, 1e37
# A sum of squares below the second number lost none to overflow; above the first, times the number
# of elements, squares that were lost to underflow do not matter: each was below 1.2e-38.
_ORDINARY = 1e-31, 1e30
# Tensors of up to so many elements can lie together in rows of such a width: few rows for each, as
# their numbers are summed one by one.
WIDTHS = (2**14, 256), (2**20, 4096)
# Compilers turn sums over fewer elements than 32 into plain vector loops.
_FOLD = 16


def each(reduce: Callable[[Array], Array]) -> Reduction:
    """Make a reduction of stacks, (k, size) -> (Σk,), of one of a stack, (k, size) -> (k,)."""

    def reduce_stacks(stacks: Sequence[Array]) -> Array:
        parts = [reduce(stack) for stack in stacks]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)

    return reduce_stacks


class Reductions(NamedTuple):
    """Reductions of stacks; of elements that are not finite only `squares` must show it."""

    squares: Reduction  # sums of squares; relative error at most 1e-6 for any size
    largest: Reduction  # largest magnitudes
    magnitudes: Reduction  # sums of magnitudes
    nonzeros: Reduction  # numbers of nonzero elements, float32: exact up to 2²⁴, where it counts


# For any Keras backend.
PLAIN = Reductions(
    each(lambda x: ops.sum(ops.square(x), axis=1)),
    each(lambda x: ops.max(ops.abs(x), axis=1)),
    each(lambda x: ops.sum(ops.abs(x), axis=1)),
    each(lambda x: ops.sum(ops.cast(x != 0, "float32"), axis=1)),
)


def _folded(elements: Callable[[Array], Array], reduce: Callable[..., Array]) -> Reduction:
    """Reduce each tensor as (16, size/16), rows first, element by element."""

    def fold(x: Array) -> Array:
        size = x.shape[1]
        if size is None or size < 2 * _FOLD:
            return reduce(elements(x), axis=1)
        if size % _FOLD:
            # Zeros add nothing to any of these.
            x = ops.pad(x, [[0, 0], [0, -size % _FOLD]])
        rows = reduce(elements(ops.reshape(x, (x.shape[0], _FOLD, -1))), axis=1)
        # `abs` changes nothing, but keeps the compiler from merging the two steps; a maximum
        # with 0 would too, but loses NaN outside XLA.
        return reduce(ops.abs(rows), axis=1)

    return each(fold)


# For TensorFlow's XLA: on its CPU backend a long sum is a slow chain of scalars; this is a vector
# loop, and more exact.
FOLDED = Reductions(
    _folded(ops.square, ops.sum),
    _folded(ops.abs, ops.max),
    _folded(ops.abs, ops.sum),
    _folded(lambda x: ops.cast(x != 0, "float32"), ops.sum),
)


class _Sheets(NamedTuple):
    """Tensors as rows of some arrays, so that one loop of a compiler reduces many tensors."""

    arrays: list[Array]  # of shapes (rows, width)
    tensors: list[np.ndarray]  # the tensor of each row of each array

    def times(self, factors: Array) -> "_Sheets":
        """Multiply each tensor by a factor of its own."""
        pairs = zip(self.arrays, self.tensors, strict=True)
        arrays = [a * ops.expand_dims(ops.take(factors, rows, axis=0), 1) for a, rows in pairs]
        return self._replace(arrays=arrays)

    def reduce(
        self, reduction: Reduction, combine: Callable[..., Array] = ops.segment_sum
    ) -> Array:
        """Reduce rows, and then the rows of each tensor."""
        tensors = np.concatenate(self.tensors)
        count = int(tensors.max()) + 1
        rows = reduction(self.arrays)
        return rows if np.array_equal(tensors, range(count)) else combine(rows, tensors, count)


def _lay_out(stacks: Sequence[Array], widths: Sequence[tuple[int, int]]) -> _Sheets:
    """Write tensors of known sizes into rows of such widths, zeros behind them; others as is."""
    sheets: dict[int, tuple[list[Array], list[np.ndarray]]] = {}
    first = 0
    for stack in stacks:
        count, size = stack.shape
        numbers = np.arange(first, first + count)
        first += count
        width = next((width for most, width in widths if size is not None and size <= most), 0)
        if width:
            padded = ops.pad(stack, [[0, 0], [0, -size % width]])
            stack = ops.reshape(padded, (-1, width))
            numbers = np.repeat(numbers, -(-size // width))
        arrays, tensors = sheets.setdefault(width or -first, ([], []))
        arrays.append(stack)
        tensors.append(numbers)
    joined = [rows[0] if len(rows) == 1 else ops.concatenate(rows) for rows, _ in sheets.values()]
    return _Sheets(joined, [np.concatenate(tensors) for _, tensors in sheets.values()])


def measure_scaled(
    stacks: Sequence[Array],
    wanted: Collection[str],
    reductions: Reductions = PLAIN,
    widths: Sequence[tuple[int, int]] = (),
) -> Measured:
    """Measure relative to the largest magnitude of each tensor; see `gradient_statistics`.

    With `widths`, such as `WIDTHS`, tensors are copied into rows, of which a compiler makes a few
    loops, not some for each tensor.
    """
    sheets = _lay_out(stacks, widths)
    largest = sheets.reduce(reductions.largest, ops.segment_max)
    scales = ops.where(ops.isfinite(largest), ops.clip(largest, *_SCALES), 1)
    scaled = sheets.times(1 / scales)
    measured = {"norm": scales * ops.sqrt(scaled.reduce(reductions.squares))}
    if "mean_abs" in wanted:
        measured["mean_abs"] = scales * scaled.reduce(reductions.magnitudes) / _sizes(stacks)
    if "max_abs" in wanted:  # XLA's maximum passes over NaN
        measured["max_abs"] = _pass_on_nan(measured["norm"], largest)
    if "zeros" in wanted:
        measured["zeros"] = _share_of_zeros(sheets.reduce(reductions.nonzeros), stacks)
    if "nonfinite" in wanted:
        measured["nonfinite"] = sheets.reduce(_count_nonfinite)
    return {name: array for name, array in measured.items() if name in wanted}


def measure_twice(
    stacks: Sequence[Array],
    wanted: Collection[str],
    reductions: Reductions,
    choose: Callable[..., tuple[Array, ...]],
    again: Measure,
) -> Measured:
    """Measure by plain sums, and again if need be; see `gradient_statistics`.

    `choose(is_ordinary, plain, careful, stacks)` returns `plain` if ordinary, as nearly always;
    else `careful(stacks)`, which measures `again`.
    """
    names = [name for name in GRADIENT_STATISTICS if name in wanted]
    squares = reductions.squares(stacks)
    plain = {"norm": ops.sqrt(squares), "nonfinite": ops.zeros_like(squares)}
    if "max_abs" in wanted:
        plain["max_abs"] = reductions.largest(stacks)
    if "zeros" in wanted:
        plain["zeros"] = _share_of_zeros(reductions.nonzeros(stacks), stacks)
    if "mean_abs" in wanted:
        plain["mean_abs"] = reductions.magnitudes(stacks) / _sizes(stacks)

    def careful(stacks: Sequence[Array]) -> tuple[Array, ...]:
        measured = again(stacks, names)
        return tuple(measured[name] for name in names)

    is_ordinary = ops.all(_are_ordinary(squares, plain, stacks))
    columns = choose(is_ordinary, tuple(plain[name] for name in names), careful, stacks)
    return dict(zip(names, columns, strict=True))


def measure_wide(
    stacks: Sequence[Array], wanted: Collection[str], reductions: Reductions
) -> Measured:
    """Measure in float64; see `gradient_statistics`."""
    wide = [ops.cast(stack, "float64") for stack in stacks]
    measured = {"norm": ops.sqrt(reductions.squares(wide))}
    if "mean_abs" in wanted:
        sizes = ops.cast(_sizes(stacks), "float64")
        measured["mean_abs"] = reductions.magnitudes(wide) / sizes
    measured = {name: ops.cast(array, "float32") for name, array in measured.items()}
    if "max_abs" in wanted:
        measured["max_abs"] = _pass_on_nan(measured["norm"], reductions.largest(stacks))
    if "zeros" in wanted:
        measured["zeros"] = _share_of_zeros(PLAIN.nonzeros(stacks), stacks)
    if "nonfinite" in wanted:
        measured["nonfinite"] = _count_nonfinite(stacks)
    return measured


# In rows of all tensors: quick to compile, for what is rarely run.
MEASURE_IN_ROWS = functools.partial(measure_scaled, reductions=FOLDED, widths=WIDTHS)


def gradient_statistics(
    stacks: Sequence[Array],
    wanted: Collection[str] = GRADIENT_STATISTICS,
    measure: Measure = measure_scaled,
) -> Measured:
    """Measure each tensor of all stacks, in order: float32 arrays (Σk,) by name.

    Args:
        stacks: Arrays of shape (k, size), any float dtype; computed in float32.
        wanted: Names out of `GRADIENT_STATISTICS`: `norm`, the L2 norm; `mean_abs` and `max_abs`,
            mean and maximum of |g|; `zeros`, the fraction of exact zeros, in [0, 1]; `nonfinite`,
            the number of NaN and infinities. A NaN makes the first three NaN; an infinity makes
            them infinite.
        measure: The backend's way to measure.
    """
    return measure([as_float32(stack) for stack in stacks], wanted)


def as_float32(array: Array) -> Array:
    """Cast to float32, if need be: even a cast to the same type costs in eager steps."""
    if array.dtype == np.float32 or keras.backend.standardize_dtype(array.dtype) == "float32":
        return array
    return ops.cast(array, "float32")


def _sizes(stacks: Sequence[Array]) -> Array:
    """Return the size of each tensor of all stacks; sparse gradients' are known in the step."""
    counts = [stack.shape[0] for stack in stacks]
    sizes = [stack.shape[1] for stack in stacks]
    if None not in sizes:
        return ops.convert_to_tensor(np.repeat(np.array(sizes, np.float32), counts))
    sizes = [ops.cast(ops.shape(stack)[1], "float32") for stack in stacks]
    return ops.repeat(ops.stack(sizes), counts)


def _share_of_zeros(nonzeros: Array, stacks: Sequence[Array]) -> Array:
    sizes = _sizes(stacks)
    # Counts are exact up to 2²⁴: no gradient has 3e-8 zeros.
    return ops.maximum(sizes - nonzeros, 0) / sizes


def _pass_on_nan(norms: Array, largest: Array) -> Array:
    return ops.where(ops.isnan(norms), norms, largest)


def _count(x: Array) -> Array:
    return ops.sum(ops.cast(ops.logical_not(ops.isfinite(x)), "float32"), axis=1)


_count_nonfinite = each(_count)


def _are_ordinary(squares: Array, plain: Measured, stacks: Sequence[Array]) -> Array:
    """Check for tensors with right plain statistics."""
    low, high = _ORDINARY
    ordinary = ops.logical_and(squares > low * _sizes(stacks), squares < high)
    # Gradients that are all zero, as a dead layer's, are ordinary.
    if "max_abs" in plain:
        zero = plain["max_abs"] == 0
    elif "zeros" in plain:
        zero = plain["zeros"] == 1
    else:
        return ordinary
    return ops.logical_or(ordinary, ops.logical_and(squares == 0, zero))
