"""Statistics of a layer's outputs: pure functions on arrays, for any Keras backend."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

Array = Any


class ActivationStatistics(NamedTuple):
    """Statistics of one layer's outputs: float32 scalars. Fractions are in [0, 1]."""

    mean: Array  # of all outputs; not finite where an output is not
    std: Array  # population standard deviation of them, likewise
    zeros: Array  # fraction of exact zeros
    dead_units: Array  # fraction of units with exact zeros at every sample and position
    saturation: Array  # fraction of outputs in the flat part of the activation: see `saturation`
    nonfinite: Array  # number of NaN and infinities


# An activation is flat where its slope is below this part of its largest one. Error signals that
# pass there are weakened a hundred times; and the outputs where that begins, .995 for tanh and
# .9975 for sigmoid, can still be told from the limit, or be the last before it, in bfloat16.
_FLAT = 0.01
# What fast approximations of an activation may exceed its bounds by.
_SLACK = 1e-3


def activation_statistics(
    outputs: Array, activation: str | None = None, unit_axis: int = -1
) -> ActivationStatistics:
    """Measure the outputs of a layer on a batch.

    Computed in float32 and, for mean and standard deviation, relative to the largest magnitude:
    neither half precision nor outputs of 1e-30 or 1e+30 lose anything.

    Args:
        outputs: Array of shape (batch, …), any float dtype.
        activation: Name of the activation function of the outputs.
        unit_axis: Axis of the units: features or channels.
    """
    is_zero = ops.equal(outputs, 0)
    others = [axis for axis in range(len(outputs.shape)) if axis != unit_axis % len(outputs.shape)]
    values = ops.cast(outputs, "float32")
    scaled, scale = _scaled(values)
    mean = ops.mean(scaled)
    std = ops.sqrt(ops.mean(ops.square(scaled - mean)))
    return ActivationStatistics(
        mean=scale * mean,
        std=scale * std,
        zeros=_fraction(is_zero),
        dead_units=_fraction(ops.all(is_zero, axis=others)),
        saturation=saturation(values, activation),
        nonfinite=ops.sum(ops.cast(ops.logical_not(ops.isfinite(outputs)), "float32")),
    )


def saturation(outputs: Array, activation: str | None) -> Array:
    """Return the fraction of outputs where the slope of an activation is below 1 % of its largest.

    The slope is taken from the output itself: 1 - y² for tanh, y (1 - y) for sigmoid, (1 - |y|)²
    for softsign. Saturated is

    - tanh: |y| > .99499, or |x| > 2.99; sigmoid: y outside (.00251, .99749), |x| > 5.99;
    - softsign: |y| > .9, |x| > 9;
    - hard_tanh, hard_sigmoid, sparse_sigmoid, relu6: at either bound, where the slope is 0.

    SageMaker Debugger's bounds, |x| > 9.4999 for tanh and x outside (-23, 17) for sigmoid, are
    those where float32 has no slope left at all. Of relu and its like the zeros tell; softmax
    is meant to saturate.

    It is NaN where the activation is not one of these, and where the outputs are not values of it,
    for they exceed its bounds.
    """
    if activation not in _SLOPES:
        return ops.full((), float("nan"), "float32")
    low, high, slope = _SLOPES[activation]
    is_flat = slope(outputs) < _FLAT
    # A NaN is in no part of the activation, and exceeds no bound.
    exceeds = ops.any(ops.logical_or(outputs < low - _SLACK, outputs > high + _SLACK))
    return ops.where(exceeds, float("nan"), _fraction(is_flat))


# Bounds, and slope relative to the largest as a function of the output.
_SLOPES: dict[str | None, tuple[float, float, Callable[[Array], Array]]] = {
    "tanh": (-1.0, 1.0, lambda y: (1 - y) * (1 + y)),
    "sigmoid": (0.0, 1.0, lambda y: 4 * y * (1 - y)),
    "softsign": (-1.0, 1.0, lambda y: ops.square(1 - ops.abs(y))),
    # Sign of the product: 0 at the bounds, 1 between them.
    "hard_tanh": (-1.0, 1.0, lambda y: ops.sign((1 - y) * (1 + y))),
    "hard_sigmoid": (0.0, 1.0, lambda y: ops.sign(y) * ops.sign(1 - y)),
    "sparse_sigmoid": (0.0, 1.0, lambda y: ops.sign(y) * ops.sign(1 - y)),
    "relu6": (0.0, 6.0, lambda y: ops.sign(y) * ops.sign(6 - y)),
}


def _fraction(mask: Array) -> Array:
    return ops.mean(ops.cast(mask, "float32"))


def _scaled(values: Array) -> tuple[Array, Array]:
    """Return x / m and m: max |x|, or 1 for want of a scale."""
    largest = ops.max(ops.abs(values))
    usable = ops.logical_and(largest > 0, ops.isfinite(largest))
    scale = ops.where(usable, largest, ops.ones_like(largest))
    return values / scale, scale
