"""The statistics of a kernel and a bias, and what they do to signals and gradients."""

from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.signal import Signal

Array = npt.NDArray[np.float64]


class Kernel(NamedTuple):
    """The statistics of a kernel with random weights, as they are.

    Attributes:
        power: Mean over units of the sum of their squared weights.
        sums: Mean over units of the square of the sum of their weights.
        mean: Mean over units of the sum of their weights.
        back: Mean over inputs of the sum of their squared weights to all units.
    """

    power: float
    sums: float
    mean: float
    back: float


def to_array(weight: Any) -> Array:
    """Return a weight's values in float64."""
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32")), np.float64)


def kernel_of(matrix: Array, fan_in: float | None = None, fan_out: float | None = None) -> Kernel:
    """Return the statistics of a kernel (weights of a unit, units).

    Args:
        matrix: The weights.
        fan_in: Number of inputs of a unit, `None` for all rows.
        fan_out: Number of units of an input, `None` for all columns.
    """
    square = float((matrix**2).mean()) if matrix.size else 0.0
    rows, columns = matrix.shape
    sums = matrix.sum(axis=0) * ((rows if fan_in is None else fan_in) / max(rows, 1))
    return Kernel(
        square * (rows if fan_in is None else fan_in),
        float((sums**2).mean()),
        float(sums.mean()),
        square * (columns if fan_out is None else fan_out),
    )


def mix(kernel: Kernel, signal: Signal, moved: Signal | None = None) -> Signal:
    """Return the signal of units that sum independent inputs.

    Args:
        kernel: Statistics of the weights.
        signal: The inputs.
        moved: The inputs' signal at the positions of the outputs; `None` for the same.
    """
    moved = signal if moved is None else moved
    # Inputs have the mean in common: it is multiplied by the sum of a unit's weights.
    common = (kernel.sums - kernel.power) * signal.mean**2
    mixed = Signal(moved.shape, 0.0, moved.power * kernel.power, moved.pairs)
    return mixed.shift(kernel.mean * signal.mean, max(common, -0.99 * mixed.second_moment))


def add_bias(signal: Signal, bias: Any) -> Signal:
    """Add a bias, a weight or `None`."""
    if bias is None:
        return signal
    values = to_array(bias)
    mean = float(values.mean())
    return signal.shift(mean, float((values**2).mean()) + 2.0 * mean * signal.mean)
