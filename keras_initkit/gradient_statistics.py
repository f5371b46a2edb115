"""Magnitude of gradients and weights: pure functions on arrays, for any Keras backend.

Every function takes a *stack*, an array of shape (k, size): k tensors of one size, flattened.
One set of operations then serves all the tensors of a shape, whatever their number.

Gradients of deep networks reach 1e-30 and 1e+30, whose squares are not float32 numbers. All
sums are therefore taken relative to the largest magnitude: ‖x‖ = m · sqrt(Σ (x/m)²), m = max|x|.
"""

from typing import Any, NamedTuple

from keras import ops

Array = Any


class GradientStatistics(NamedTuple):
    """Statistics of each tensor of a stack: float32 arrays of shape (k,)."""

    norm: Array
    mean_abs: Array
    max_abs: Array
    zeros: Array
    nonfinite: Array


def _scaled_magnitudes(stack: Array) -> tuple[Array, Array]:
    """Return |x| / m, shape (k, size), and m, shape (k, 1): max |x|, or 1 if that is no scale."""
    magnitudes = ops.abs(ops.cast(stack, "float32"))
    largest = ops.max(magnitudes, axis=1, keepdims=True)
    usable = ops.logical_and(largest > 0, ops.isfinite(largest))
    scale = ops.where(usable, largest, ops.ones_like(largest))
    return magnitudes / scale, scale


def gradient_statistics(stack: Array) -> GradientStatistics:
    """Measure gradients.

    Args:
        stack: Array of shape (k, size), any float dtype; computed in float32.

    Returns:
        `GradientStatistics`: `norm`, the L2 norm; `mean_abs` and `max_abs`, mean and maximum of
        |g|; `zeros`, the fraction of exact zeros, in [0, 1]; `nonfinite`, the number of NaN and
        infinities. A NaN makes the first three NaN; an infinity makes them infinite.
    """
    scaled, scale = _scaled_magnitudes(stack)
    scale = ops.squeeze(scale, axis=1)
    mean = scale * ops.mean(scaled, axis=1)
    largest = scale * ops.max(scaled, axis=1)
    return GradientStatistics(
        norm=scale * ops.sqrt(ops.sum(ops.square(scaled), axis=1)),
        mean_abs=mean,
        # XLA's max passes over NaN, a mean never does.
        max_abs=ops.where(ops.isnan(mean), mean, largest),
        zeros=ops.mean(ops.cast(scaled == 0, "float32"), axis=1),
        nonfinite=ops.sum(ops.cast(ops.logical_not(ops.isfinite(scaled)), "float32"), axis=1),
    )


def norms(stack: Array) -> Array:
    """L2 norm of each tensor of a stack of shape (k, size): float32 array of shape (k,)."""
    scaled, scale = _scaled_magnitudes(stack)
    return ops.squeeze(scale, axis=1) * ops.sqrt(ops.sum(ops.square(scaled), axis=1))
