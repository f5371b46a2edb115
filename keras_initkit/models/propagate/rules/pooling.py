"""Pooling by means, over windows and over all positions."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.models.propagate.positions import (
    AxisMap,
    axis_map,
    by_offset,
    move_gradient,
    move_signal,
    step_products,
    window_taps,
)
from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule, spatial_rank
from keras_initkit.models.propagate.signal import Gradient, Signal

layers = keras.layers


@rule(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D)
def _average(call: Call) -> Effect | None:
    maps = window_means(call)
    every = [*[None] * (len(call.shape) - 1 - len(maps)), *maps]
    output = move_signal(every, call.signal, call.shape)
    return effect(output, lambda gradient: move_gradient(every, gradient))


def _adaptive_average(call: Call) -> Effect | None:
    maps: list[AxisMap | None] = []
    for size, outputs in zip(call.signal.shape[:-1], call.shape[:-1], strict=True):
        ends = np.arange(outputs + 1) * size / outputs
        first, last = np.floor(ends[:-1]), np.ceil(ends[1:])
        places = np.arange(size)
        inside = (places >= first[:, np.newaxis]) & (places < last[:, np.newaxis])
        maps.append(axis_map((inside / inside.sum(axis=1, keepdims=True))[np.newaxis]))
    output = move_signal(maps, call.signal, call.shape)
    return effect(output, lambda gradient: move_gradient(maps, gradient))


for _name in ("AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D", "AdaptiveAveragePooling3D"):
    if hasattr(layers, _name):  # from Keras 3.13 on
        rule(getattr(layers, _name))(_adaptive_average)


@rule(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D)
def _global_average(call: Call) -> Effect | None:
    if "mask" in call.masks:
        return _average_kept(call, np.asarray(call.masks["mask"], float))
    rank = spatial_rank(call.operation)
    assert rank is not None
    return average_positions(
        call, range(len(call.signal.shape) - 1 - rank, len(call.signal.shape) - 1)
    )


def _average_kept(call: Call, mask: Any) -> Effect:
    """Average the steps of each example that its mask does not hide."""
    signal = call.signal
    weights = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1.0)
    mean, shared = weights.mean(axis=0), weights.T @ weights / len(weights)
    products = step_products(signal)
    moment = float((products[0] * shared).sum())
    ones = [1] * (len(call.shape) - 1)
    pairs = np.array([1.0, mean @ products[1] @ mean / max(moment, 1e-300)]).reshape(2, *ones)
    output = Signal(call.shape, signal.mean * float(mean.sum()), np.full(ones, moment), pairs)

    def back(gradient: Gradient) -> Gradient:
        power = np.diag(shared)
        pairs = by_offset(shared, power, signal.shape)
        kept = np.maximum(mask.mean(axis=0), 1e-9)
        return Gradient(power / kept * gradient.second_moment, pairs)

    return effect(output, back)


def average_positions(call: Call, axes: Sequence[int]) -> Effect:
    """Average over all positions along some axes, which are kept or left out in the output."""
    signal = call.signal
    maps = [mean_map(size) if axis in axes else None for axis, size in enumerate(signal.shape[:-1])]
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(signal.shape[:-1]))
    moved = move_signal(maps, signal, (*kept, signal.shape[-1]))
    power, pairs, gone = moved.power, moved.pairs, tuple(axes)
    if len(call.shape) == len(signal.shape):
        gone = ()
    output = Signal(
        call.shape, moved.mean, power.squeeze(gone), pairs.squeeze(tuple(1 + x for x in gone))
    )

    def back(gradient: Gradient) -> Gradient:
        before = np.expand_dims(gradient.power, gone), np.expand_dims(gradient.pairs, gone)
        return move_gradient(maps, Gradient(*before))

    return effect(output, back)


def mean_map(size: int) -> AxisMap:
    """Return the map of the mean over all positions along an axis."""
    return axis_map(np.full((1, 1, size), 1.0 / size))


def window_means(call: Call) -> list[AxisMap]:
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
