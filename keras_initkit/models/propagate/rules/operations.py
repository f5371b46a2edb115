"""Arithmetic on tensors and constants, by layers and `keras.ops`: sums, products, means."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.models.propagate.rules.activations import activate
from keras_initkit.models.propagate.rules.merging import add, choose_largest, concatenate, multiply
from keras_initkit.models.propagate.rules.pooling import average_positions
from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, white_gradient

layers = keras.layers


@rule(layers.Add, "Add")
def _add(call: Call) -> Effect | None:
    count = len(call.signals)
    return add(call, [1.0] * count) if count > 1 else _with_constant(call)


@rule(layers.Average)
def _average(call: Call) -> Effect | None:
    return add(call, [1.0 / len(call.signals)] * len(call.signals))


@rule(layers.Subtract, "Subtract")
def _subtract(call: Call) -> Effect | None:
    return add(call, [1.0, -1.0]) if len(call.signals) > 1 else _with_constant(call)


@rule(layers.Multiply, "Multiply")
def _multiply(call: Call) -> Effect | None:
    return multiply(call) if len(call.signals) > 1 else _with_constant(call)


@rule(layers.Maximum, "Maximum")
def _maximum(call: Call) -> Effect | None:
    return choose_largest(call, 1.0) if len(call.signals) > 1 else _with_constant(call)


@rule(layers.Minimum, "Minimum")
def _minimum(call: Call) -> Effect | None:
    return choose_largest(call, -1.0) if len(call.signals) > 1 else _with_constant(call)


@rule("Divide", "TrueDivide", "Power")
def _binary(call: Call) -> Effect | None:
    return None if len(call.signals) > 1 else _with_constant(call)


@rule(layers.Concatenate, "Concatenate")
def _concatenate(call: Call) -> Effect | None:
    return concatenate(call, call.operation.axis)


@rule("Mean", "Sum")
def _mean(call: Call) -> Effect | None:
    """Average or sum over positions, or over all units."""
    signal, rank = call.signal, len(call.signal.shape)
    if call.operation.axis is None:
        return None
    axes = [axis - 1 if axis > 0 else axis + rank for axis in call.operation.axis]
    sizes = [signal.shape[axis] for axis in axes if 0 <= axis < rank]
    if len(sizes) < len(axes) or (rank - 1 in axes and axes != [rank - 1]):
        return None
    factor = float(np.prod(sizes)) if type(call.operation).__name__ == "Sum" else 1.0
    if axes == [rank - 1]:
        return _mean_of_units(call, factor)
    done = average_positions(call, axes)
    output = done.outputs[0].scale(factor)
    return Effect((output,), lambda gradients: done.back([gradients[0].scale(factor**2)]))


@rule("Matmul")
def _matmul(call: Call) -> Effect | None:
    """Multiply two independent tensors as matrices."""
    if len(call.signals) != 2 or len(call.shape) < 2:
        return None
    first, second = call.signals
    inner = first.shape[-1]
    # The mean of a row of the first adds up what all rows of the second have in common.
    shared = second.spread((2, 1)).pairs[0, 0] * second.second_moment
    common = inner * (inner - 1) * first.mean**2 * shared
    moment = common + inner * first.second_moment * second.second_moment
    output = first.spread(call.shape)._replace(
        mean=inner * first.mean * second.mean,
        power=np.full([1] * (len(call.shape) - 1), moment),
    )
    rows, columns = call.shape[-2:]

    def back(gradients: Sequence[Gradient]) -> list[Gradient | None]:
        power = gradients[0].second_moment
        return [
            white_gradient(first.shape, power * columns * second.second_moment),
            white_gradient(second.shape, power * rows * first.second_moment),
        ]

    return Effect((output,), back)


def _mean_of_units(call: Call, factor: float) -> Effect | None:
    signal, units = call.signal, call.signal.shape[-1]
    if not call.operation.keepdims:
        return None
    square = signal.mean**2
    total = max(square + signal.variance / units, 1e-300)
    pairs = ((signal.pairs * signal.second_moment - square) / units + square) / total
    power = np.full([1] * (len(call.shape) - 1), total * factor**2)
    output = Signal(call.shape, signal.mean * factor, power, pairs)

    def back(gradient: Gradient) -> Gradient:
        return white_gradient(signal.shape, gradient.second_moment * (factor / units) ** 2)

    return effect(output, back)


def _with_constant(call: Call) -> Effect | None:
    """Apply an operation of a tensor and a constant, a number or one for each element."""
    values = [*call.args, *call.kwargs.values()]
    if len(values) != 2:
        return None
    place = next(i for i, value in enumerate(values) if isinstance(value, keras.KerasTensor))
    constant = np.asarray(keras.ops.convert_to_numpy(values[1 - place]), np.float64)
    kind = type(call.operation).__name__
    if constant.size > 1 and kind not in ("Add", "Subtract", "Multiply"):
        return None
    if constant.size == 1:
        number = float(constant.reshape(()))

        def function(x: Any) -> Any:
            return call.operation.call(*((x, number) if place == 0 else (number, x)))

        return activate(call.signal, function)
    mean, power = float(constant.mean()), float((constant**2).mean())
    signal = call.signal
    if kind == "Multiply":
        output = Signal(call.shape, signal.mean * mean, signal.power * power, signal.pairs)
        return effect(output, lambda gradient: gradient.scale(power))
    sign = -1.0 if kind == "Subtract" and place == 0 else 1.0
    signal = signal.scale(-1.0) if kind == "Subtract" and place == 1 else signal
    shifted = signal.shift(sign * mean, power + 2.0 * sign * mean * signal.mean)
    return effect(shifted, lambda gradient: gradient)
