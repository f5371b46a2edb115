"""Pooling: means and maxima over windows and over all positions."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.positions import (
    AxisMap,
    axis_map,
    move_gradient,
    move_signal,
    window_taps,
)
from keras_initkit.models.propagate.rules.convolutions import can_convolve
from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, centre
from keras_initkit.theory.gains import evaluate
from keras_initkit.theory.maps import largest_of, map_of_values

layers = keras.layers
Array = npt.NDArray[np.float64]


@rule(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D)
def _average(call: Call) -> Effect | None:
    if not can_convolve(call):
        return None
    maps = _window_means(call)
    every = [*[None] * (len(call.shape) - 1 - len(maps)), *maps]
    output = move_signal(every, call.signal, call.shape)
    return effect(output, lambda gradient: move_gradient(every, gradient))


@rule(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D)
def _global_average(call: Call) -> Effect | None:
    if not can_convolve(call):
        return None
    rank = _rank(call.operation)
    return average_positions(
        call, range(len(call.signal.shape) - 1 - rank, len(call.signal.shape) - 1)
    )


@rule(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)
def _max(call: Call) -> Effect | None:
    if not can_convolve(call):
        return None
    maps = _window_means(call)
    count = int(np.prod(call.operation.pool_size))
    return _take_largest(call, maps, count)


@rule(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)
def _global_max(call: Call) -> Effect | None:
    rank = _rank(call.operation)
    if not can_convolve(call) or call.operation.keepdims or rank != len(call.signal.shape) - 1:
        return None
    sizes = call.signal.shape[:-1]
    maps = [_mean_map(size) for size in sizes]
    return _take_largest(call, maps, int(np.prod(sizes)))


def average_positions(call: Call, axes: Sequence[int]) -> Effect:
    """Average over all positions along some axes, which are kept or left out in the output."""
    signal = call.signal
    maps = [
        _mean_map(size) if axis in axes else None for axis, size in enumerate(signal.shape[:-1])
    ]
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(signal.shape[:-1]))
    moved = move_signal(maps, signal, (*kept, signal.shape[-1]))
    rest = [
        axis
        for axis in range(len(kept))
        if axis not in axes or len(call.shape) > 1 + len(kept) - len(axes)
    ]
    power = moved.power.reshape([moved.power.shape[axis] for axis in rest])
    pairs = moved.pairs.reshape(2, *[moved.pairs.shape[1 + axis] for axis in rest])
    output = Signal(call.shape, moved.mean, power, pairs)

    def back(gradient: Gradient) -> Gradient:
        size = [
            1 if axis in axes or axis not in rest else gradient.power.shape[rest.index(axis)]
            for axis in range(len(kept))
        ]
        offsets = [moved.pairs.shape[1 + axis] for axis in range(len(kept))]
        before = Gradient(gradient.power.reshape(size), gradient.pairs.reshape(offsets))
        return move_gradient(maps, before)

    return effect(output, back)


def _mean_map(size: int) -> AxisMap:
    return axis_map(np.full((1, 1, size), 1.0 / size))


def _rank(layer: Any) -> int:
    """Return the number of axes that a layer pools over, by its name."""
    return next(int(cls.__name__[-2]) for cls in type(layer).__mro__ if cls.__name__.endswith("D"))


def _window_means(call: Call) -> list[AxisMap]:
    """Return the maps of means over windows; padded positions do not count."""
    layer = call.operation
    rank = len(layer.pool_size)
    maps = []
    for size, taps, stride in zip(
        call.signal.shape[-1 - rank : -1], layer.pool_size, layer.strides, strict=True
    ):
        array = window_taps(size, taps, stride, 1, layer.padding).sum(axis=0)
        maps.append(axis_map((array / array.sum(axis=1, keepdims=True))[np.newaxis]))
    return maps


def _take_largest(call: Call, maps: Sequence[AxisMap], count: int) -> Effect:
    """Return the effect of taking the largest of `count` values within windows.

    The largest of normal numbers of correlation r is √r u + √(1 - r) M, where M is the largest of
    independent ones and u is normal; and the largest value of an increasing function is the
    function's of the largest.
    """
    base, function = call.signal, None
    if call.signal.base is not None and _increases(*call.signal.base):
        base, function = call.signal.base
    rank = len(call.signal.shape) - 1
    every = [*[None] * (rank - len(maps)), *maps]
    centred = Signal(base.shape, 0.0, np.ones([1] * rank), base.centred)
    moved = move_signal(every, centred, call.shape)
    # Mean correlation of two places in one window, and of two windows.
    within = (moved.second_moment * count - 1.0) / max(count - 1, 1)
    within = float(np.clip(within, 1e-6, 1.0 - 1e-6))
    points, weights = largest_of(count)
    stddev, wide, narrow = np.sqrt(base.variance), np.sqrt(within), np.sqrt(1.0 - within)

    def values_at(u: Array) -> Array:
        x = base.mean + stddev * (wide * u[:, np.newaxis] + narrow * points)
        return x if function is None else evaluate(function, x.ravel()).reshape(x.shape)

    mapped = map_of_values(lambda u: values_at(u) @ weights)
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(64)
    node_weights = node_weights / node_weights.sum()
    second_moment = float(node_weights @ values_at(nodes) ** 2 @ weights)
    between = moved.pairs * moved.second_moment / within
    pairs = mapped.product(between) / max(second_moment, 1e-300)
    pairs[(0, *centre(pairs.shape[1:]))] = 1.0
    slope = None
    if function is not None:
        steps = 1e-3 / (stddev * wide)
        change = (values_at(nodes + steps) - values_at(nodes - steps)) / 2e-3
        slope = float(node_weights @ change**2 @ weights)
    power = np.full([1] * (len(call.shape) - 1), second_moment)
    output = Signal(
        call.shape, mapped.mean, power, pairs.reshape(2, *pairs.shape[1:][: power.ndim])
    )
    share = float(np.prod(call.shape) / np.prod(call.signal.shape))

    def back(gradient: Gradient) -> Gradient:
        power = np.full([1] * rank, gradient.second_moment * share)
        pairs = np.zeros(call.signal.pairs.shape[1:])
        pairs[centre(pairs.shape)] = 1.0
        return Gradient(power, pairs, slope)

    return effect(output, back)


def _increases(signal: Signal, function: Any) -> bool:
    """Check if a function of a signal is larger at the upper end of its values."""
    ends = signal.mean + np.sqrt(signal.variance) * np.array([-2.0, 2.0])
    low, high = evaluate(function, ends)
    return bool(high > low)
