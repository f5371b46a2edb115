"""Arithmetic on tensors and constants, by layers and `keras.ops`: sums, products, means."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.rules.activations import activate
from keras_initkit.models.propagate.rules.merging import add, choose_largest, concatenate, multiply
from keras_initkit.models.propagate.rules.pooling import average_positions
from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, centre, white_gradient, window

layers = keras.layers
Array = npt.NDArray[np.float64]


@rule(layers.Add, "Add", is_free=True)
def _add(call: Call) -> Effect | None:
    count = len(call.signals)
    return add(call, [1.0] * count) if count > 1 else _with_constant(call)


@rule(layers.Average, is_free=True)
def _average(call: Call) -> Effect | None:
    return add(call, [1.0 / len(call.signals)] * len(call.signals))


@rule(layers.Subtract, "Subtract", is_free=True)
def _subtract(call: Call) -> Effect | None:
    return add(call, [1.0, -1.0]) if len(call.signals) > 1 else _with_constant(call)


@rule(layers.Multiply, "Multiply", is_free=True)
def _multiply(call: Call) -> Effect | None:
    return multiply(call) if len(call.signals) > 1 else _with_constant(call)


@rule(layers.Maximum, "Maximum", is_free=True)
def _maximum(call: Call) -> Effect | None:
    return choose_largest(call, 1.0) if len(call.signals) > 1 else _with_constant(call)


@rule(layers.Minimum, "Minimum", is_free=True)
def _minimum(call: Call) -> Effect | None:
    return choose_largest(call, -1.0) if len(call.signals) > 1 else _with_constant(call)


@rule("Divide", "TrueDivide", "Power")
def _binary(call: Call) -> Effect | None:
    return None if len(call.signals) > 1 else _with_constant(call)


@rule(layers.Concatenate, "Concatenate", is_free=True)
def _concatenate(call: Call) -> Effect | None:
    return concatenate(call, call.axis(call.operation.axis))


@rule("Mean", "Sum")
def _mean(call: Call) -> Effect | None:
    """Average or sum over positions, or over all units."""
    signal, rank = call.signal, len(call.signal.shape)
    if call.operation.axis is None:
        return None
    axes = list(map(call.axis, call.operation.axis))
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
    """Multiply two tensors as matrices."""
    if len(call.signals) != 2 or len(call.shape) < 2:
        return None
    return _contract(call, (len(call.signal.shape) - 1, len(call.signals[1].shape) - 2))


@rule(layers.Dot)
def _dot(call: Call) -> Effect | None:
    """Multiply two tensors along an axis of each, which may be divided by its norm before."""
    axes = call.operation.axes
    sizes = [len(signal.shape) for signal in call.signals]
    axes = [axes, axes] if isinstance(axes, int) else axes
    places = [axis - 1 if axis > 0 else axis + size for axis, size in zip(axes, sizes, strict=True)]
    if max(sizes) > 2 or call.signal is call.signals[1]:
        return None
    if not call.operation.normalize:
        return _contract(call, places)
    if any(place != size - 1 for place, size in zip(places, sizes, strict=True)):
        return None
    # Over many units the norm is the same for all examples.
    factors = [
        1.0 / max(signal.shape[place] * signal.second_moment, 1e-300)
        for signal, place in zip(call.signals, places, strict=True)
    ]
    signals = [x.scale(math.sqrt(f)) for x, f in zip(call.signals, factors, strict=True)]
    done = _contract(call._replace(signals=tuple(signals)), places)
    # Along itself a vector does not change.
    rest = max(1.0 - done.outputs[0].second_moment, 0.0)

    def back(gradients: Sequence[Gradient]) -> list[Gradient | None]:
        found = zip(done.back(gradients), factors, strict=True)
        return [gradient and gradient.scale(factor * rest) for gradient, factor in found]

    return done._replace(back=back)


def _contract(call: Call, axes: Sequence[int]) -> Effect:
    """Sum products of two independent tensors along one axis of each.

    The square of Σ x_i y_i is the sum of E x_i x_j E y_i y_j. At two places in the output, or of
    two examples, it is the same with the products of those.
    """
    first, second = (
        _products(signal, axis) for signal, axis in zip(call.signals, axes, strict=True)
    )
    size = call.signal.shape[axes[0]]
    counts = np.arange(size, 0, -1.0) * np.where(np.arange(size), 2.0, 1.0)
    # The places in the output differ along an axis of the first tensor, or for vectors not at all.
    own, other, elsewhere = (
        float(counts @ (first[i] * second[j])) for i, j in ((0, 0), (1, 1), (2, 0))
    )
    pairs = np.full((2, *window(call.shape)), elsewhere / max(own, 1e-300))
    middle: Any = centre(pairs.shape[1:])
    pairs[(0, *middle)], pairs[(1, *middle)] = 1.0, other / max(own, 1e-300)
    power = np.full([1] * (len(call.shape) - 1), own)
    output = Signal(call.shape, size * call.signal.mean * call.signals[1].mean, power, pairs)

    def back(gradients: Sequence[Gradient]) -> list[Gradient | None]:
        moment = gradients[0].second_moment * math.prod(call.shape) * size
        return [
            white_gradient(x.shape, moment / math.prod(x.shape) * y.second_moment)
            for x, y in (call.signals, call.signals[::-1])
        ]

    return Effect((output,), back)


def _products(signal: Signal, axis: int) -> Array:
    """Return E x_i x_j by the distance along an axis: of one example, two, and at other places."""
    size, rank = signal.shape[axis], len(signal.shape)
    apart = max(signal.spread((2, 1)).pairs[0, 0] * signal.second_moment, signal.mean**2)
    if axis == rank - 1:
        found = np.full((3, size), signal.mean**2)
        found[:, 0] = signal.second_moment, signal.correlation * signal.second_moment, apart
        return found
    along: Any = [
        slice(None) if i == axis else x for i, x in enumerate(centre(window(signal.shape)))
    ]
    lags = np.minimum(np.arange(size), window(signal.shape)[axis] // 2)
    pairs = signal.pairs[(slice(None), *along)]
    same, other = pairs[:, pairs.shape[1] // 2 + lags] * signal.second_moment
    return np.stack([same, other, np.full(size, signal.mean**2)])


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
