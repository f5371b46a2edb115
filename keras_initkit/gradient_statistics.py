"""Magnitude of gradients and weights: pure functions on arrays, for any Keras backend.

Every function takes *stacks*: arrays of shape (k, size), each k tensors of one size, flattened.
One set of operations then serves all the small tensors of a shape, whatever their number.

Gradients of deep networks reach 1e-30 and 1e+30, whose squares are not float32 numbers. Sums are
taken plainly where that is exact, and otherwise relative to the largest magnitude:
‖x‖ = m · sqrt(Σ (x/m)²), m = max|x|. Ordinary gradients take the plain way, in fewer passes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

Array = Any

# A sum of squares in between lost no square to underflow that matters, and none to overflow.
_ORDINARY = (1e-20, 1e30)


class GradientStatistics(NamedTuple):
    """Statistics of each tensor of all stacks, in order: float32 arrays of shape (Σk,)."""

    norm: Array
    mean_abs: Array
    max_abs: Array
    zeros: Array
    nonfinite: Array


def sum_of_squares(stack: Array) -> Array:
    """Sum of the squares of each tensor of a stack: (k, size) -> (k,)."""
    return ops.sum(ops.square(stack), axis=1)


def gradient_statistics(
    stacks: Sequence[Array], squares: Callable[[Array], Array] = sum_of_squares
) -> GradientStatistics:
    """Measure gradients.

    Args:
        stacks: Arrays of shape (k, size), any float dtype; computed in float32.
        squares: What sums squares; a backend may know a faster way.

    Returns:
        `GradientStatistics`: `norm`, the L2 norm; `mean_abs` and `max_abs`, mean and maximum of
        |g|; `zeros`, the fraction of exact zeros, in [0, 1]; `nonfinite`, the number of NaN and
        infinities. A NaN makes the first three NaN; an infinity makes them infinite.
    """
    stacks = [ops.cast(stack, "float32") for stack in stacks]
    plain = [_plain_statistics(stack, squares(stack)) for stack in stacks]
    table = ops.concatenate(plain, axis=1)
    squared, mean, largest = table[0], table[1], table[2]
    ordinary = ops.logical_or(_is_ordinary(squared), largest == 0)
    table = ops.cond(
        ops.all(ops.logical_and(ordinary, ops.isfinite(mean))),
        lambda: ops.concatenate([ops.sqrt(table[:1]), table[1:]], axis=0),
        lambda: ops.concatenate([_careful_statistics(stack) for stack in stacks], axis=1),
    )
    return GradientStatistics(*(table[i] for i in range(5)))


def norms(stacks: Sequence[Array], squares: Callable[[Array], Array] = sum_of_squares) -> Array:
    """L2 norm of each tensor of all stacks, in order.

    Args:
        stacks: Arrays of shape (k, size), any float dtype; computed in float32.
        squares: What sums squares; a backend may know a faster way.

    Returns:
        float32 array of shape (Σk,).
    """
    stacks = [ops.cast(stack, "float32") for stack in stacks]
    squared = ops.concatenate([squares(stack) for stack in stacks], axis=0)
    return ops.cond(
        ops.all(_is_ordinary(squared)),
        lambda: ops.sqrt(squared),
        lambda: ops.concatenate([_careful_norm(*_scaled(stack)) for stack in stacks], axis=0),
    )


def _is_ordinary(squared: Array) -> Array:
    low, high = _ORDINARY
    return ops.logical_and(squared > low, squared < high)


def _plain_statistics(stack: Array, squared: Array) -> Array:
    magnitudes, size = ops.abs(stack), ops.cast(ops.shape(stack)[1], "float32")
    return ops.stack(
        [
            squared,
            ops.mean(magnitudes, axis=1),
            ops.max(magnitudes, axis=1),
            # Counts are exact up to 2²⁴: no gradient has 3e-8 zeros.
            ops.maximum(size - ops.sum(ops.sign(magnitudes), axis=1), 0) / size,
            ops.zeros_like(squared),
        ]
    )


def _careful_statistics(stack: Array) -> Array:
    scaled, scale = _scaled(stack)
    mean = scale * ops.mean(scaled, axis=1)
    largest = scale * ops.max(scaled, axis=1)
    return ops.stack(
        [
            _careful_norm(scaled, scale),
            mean,
            # XLA's max passes over NaN, a mean never does.
            ops.where(ops.isnan(mean), mean, largest),
            ops.mean(ops.cast(stack == 0, "float32"), axis=1),
            ops.sum(ops.cast(ops.logical_not(ops.isfinite(scaled)), "float32"), axis=1),
        ]
    )


def _careful_norm(scaled: Array, scale: Array) -> Array:
    return scale * ops.sqrt(sum_of_squares(scaled))


def _scaled(stack: Array) -> tuple[Array, Array]:
    """Return |x| / m, shape (k, size), and m, shape (k,): max |x|, or 1 if that is no scale."""
    magnitudes = ops.abs(stack)
    largest = ops.max(magnitudes, axis=1)
    usable = ops.logical_and(largest > 0, ops.isfinite(largest))
    scale = ops.where(usable, largest, ops.ones_like(largest))
    return magnitudes / ops.expand_dims(scale, 1), scale
