"""Magnitude of gradients and weights: pure functions on arrays, for any Keras backend.

Every function takes *stacks*: arrays of shape (k, size), each k tensors of one size, flattened.
One set of operations then serves all the small tensors of a shape, whatever their number.

Gradients of deep networks reach 1e-30 and 1e+30: their squares are not float32 numbers. Sums are
taken plainly where it is exact, and otherwise relative to the largest magnitude:
‖x‖ = m · sqrt(Σ (x/m)²), m = max|x|. Ordinary gradients take the plain way, in fewer passes.

Only wanted statistics are computed: each costs a pass over the gradients, next to the training
step. A count of non-finite elements is free: an ordinary sum of squares has none.
The elements are read in `reductions.Reductions` alone.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_initkit.callbacks.measures.reductions import PLAIN, Array, Reductions

# A sum of squares in between lost no square to underflow that matters, and none to overflow.
_ORDINARY = (1e-20, 1e30)


class _Scaled(NamedTuple):
    """A stack relative to the largest magnitude of each tensor."""

    stack: Array  # (k, size)
    scaled: Array  # |x| / scale, (k, size)
    scale: Array  # largest magnitudes, or 1 where it is no scale: (k,)
    largest: Array  # largest magnitudes, (k,)
    mean: Array  # means of |x|, (k,)
    squares: Array  # sums of scaled², (k,)


class _Statistic(NamedTuple):
    """The two ways to compute a statistic."""

    reduction: str
    plain: Callable[[Array, Array], Array]  # from the reduction and the sizes, if ordinary
    careful: Callable[[_Scaled], Array]  # of numbers of any size, or not finite


_STATISTICS = {
    "norm": _Statistic(
        "squares",
        lambda squares, sizes: ops.sqrt(squares),
        lambda s: s.scale * ops.sqrt(s.squares),
    ),
    "mean_abs": _Statistic("magnitudes", lambda total, sizes: total / sizes, lambda s: s.mean),
    "max_abs": _Statistic(
        "largest",
        lambda largest, sizes: largest,
        # XLA's max passes over NaN, a mean never does.
        lambda s: ops.where(ops.isnan(s.mean), s.mean, s.largest),
    ),
    "zeros": _Statistic(
        "nonzeros",
        # Counts are exact up to 2²⁴: no gradient has 3e-8 zeros.
        lambda count, sizes: ops.maximum(sizes - count, 0) / sizes,
        lambda s: ops.mean(ops.cast(s.stack == 0, "float32"), axis=1),
    ),
    "nonfinite": _Statistic(
        "squares",
        lambda squares, sizes: ops.zeros_like(squares),
        lambda s: ops.sum(ops.cast(ops.logical_not(ops.isfinite(s.scaled)), "float32"), axis=1),
    ),
}
GRADIENT_STATISTICS = tuple(_STATISTICS)


def gradient_statistics(
    stacks: Sequence[Array],
    wanted: Collection[str] = GRADIENT_STATISTICS,
    reductions: Reductions = PLAIN,
) -> dict[str, Array]:
    """Measure each tensor of all stacks, in order: float32 arrays (Σk,) by name.

    Args:
        stacks: Arrays of shape (k, size), any float dtype; computed in float32.
        wanted: Names out of `GRADIENT_STATISTICS`: `norm`, the L2 norm; `mean_abs` and `max_abs`,
            mean and maximum of |g|; `zeros`, the fraction of exact zeros, in [0, 1]; `nonfinite`,
            the number of NaN and infinities. A NaN makes the first three NaN; an infinity makes
            them infinite.
        reductions: The backend's way to reduce.
    """
    stacks = [as_float32(stack) for stack in stacks]
    if reductions.whole is not None:
        return reductions.whole(stacks, wanted)
    ways = {name: way for name, way in _STATISTICS.items() if name in wanted}

    sizes = _sizes(stacks)
    needed = dict.fromkeys(["squares", *(way.reduction for way in ways.values())])
    reduced = {name: getattr(reductions, name)(stacks) for name in needed}
    plain = {name: way.plain(reduced[way.reduction], sizes) for name, way in ways.items()}

    def careful(stacks: Sequence[Array]) -> tuple[Array, ...]:
        scaled = [_scaled(stack, reductions) for stack in stacks]
        columns = ([way.careful(stack) for stack in scaled] for way in ways.values())
        return tuple(ops.concatenate(column, axis=0) for column in columns)

    are_ordinary = _are_ordinary(reduced["squares"], plain)
    columns = reductions.choose(ops.all(are_ordinary), tuple(plain.values()), careful, stacks)
    return dict(zip(ways, columns, strict=True))


def norms(stacks: Sequence[Array], reductions: Reductions = PLAIN) -> Array:
    """Return the L2 norm of each tensor of all stacks, as `gradient_statistics` does."""
    return gradient_statistics(stacks, ("norm",), reductions)["norm"]


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


def _are_ordinary(squares: Array, plain: dict[str, Array]) -> Array:
    """Check for tensors with right plain statistics."""
    low, high = _ORDINARY
    ordinary = ops.logical_and(squares > low, squares < high)
    # Gradients that are all zero, as a dead layer's, are ordinary.
    if "max_abs" in plain:
        zero = plain["max_abs"] == 0
    elif "zeros" in plain:
        zero = plain["zeros"] == 1
    else:
        return ordinary
    return ops.logical_or(ordinary, ops.logical_and(squares == 0, zero))


def _scaled(stack: Array, reductions: Reductions) -> _Scaled:
    magnitudes = ops.abs(stack)
    largest = ops.max(magnitudes, axis=1)
    usable = ops.logical_and(largest > 0, ops.isfinite(largest))
    scale = ops.where(usable, largest, ops.ones_like(largest))
    scaled = magnitudes / ops.expand_dims(scale, 1)
    mean = scale * reductions.magnitudes([scaled]) / _sizes([stack])
    return _Scaled(stack, scaled, scale, largest, mean, reductions.squares([scaled]))
