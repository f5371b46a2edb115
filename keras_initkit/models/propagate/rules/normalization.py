"""Normalizations, by the batch's statistics, by those that are stored, and by an example's own."""

import math
from typing import Any

import keras
import numpy as np

from keras_initkit.models.propagate.kernel import to_array
from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule
from keras_initkit.models.propagate.signal import Signal

layers = keras.layers


@rule(layers.BatchNormalization)
def _batch(call: Call) -> Effect | None:
    layer, signal = call.operation, call.signal
    if layer.axis not in (-1, len(signal.shape)):
        return None
    is_training = call.is_training and layer.trainable
    means, variances = to_array(layer.moving_mean), to_array(layer.moving_variance)
    if is_training or np.ptp(means) or np.ptp(variances):
        # Over many examples, the mean of a unit is what they have in common.
        common = signal.average(1)
        variance = max(signal.second_moment - common, 0.0)
        roots = np.sqrt(signal.power)
        # At a border, where values are smaller, the mean is not theirs.
        power = signal.power - 2.0 * roots / max(float(roots.mean()), 1e-300) * common + common
        factor = 1.0 / ((variance if is_training else float(variances.mean())) + layer.epsilon)
        centred = signal.shift(-signal.mean, -common)._replace(power=np.maximum(power, 0.0))
        return _scale(centred, factor, layer, factor)
    factor = 1.0 / (float(variances.mean()) + layer.epsilon)
    mean = float(means.mean())
    moved = signal.shift(-mean, mean**2 - 2.0 * mean * signal.mean)
    return _scale(moved, factor, layer, factor)


@rule(layers.LayerNormalization, layers.RMSNormalization, layers.UnitNormalization)
def _units(call: Call) -> Effect | None:
    layer, signal = call.operation, call.signal
    axis = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if list(axis) not in ([-1], [len(signal.shape)]):
        return None
    units, times = signal.shape[-1], 1.0
    if isinstance(layer, layers.UnitNormalization):
        times = float(units)
    elif isinstance(layer, layers.LayerNormalization):
        signal = signal.shift(-signal.mean, -(signal.mean**2)).scale(math.sqrt(1.0 - 1.0 / units))
    epsilon = float(getattr(layer, "epsilon", 0.0))
    # Each position has a variance of its own.
    factors = 1.0 / np.maximum(signal.power * times + epsilon, 1e-300)
    mean = signal.mean * math.sqrt(float(factors.mean()))
    return _scale(signal._replace(power=signal.power * factors, mean=mean), 1.0, layer, factors)


@rule(layers.GroupNormalization)
def _groups(call: Call) -> Effect | None:
    layer, signal = call.operation, call.signal
    if layer.axis not in (-1, len(signal.shape)):
        return None
    units = signal.shape[-1] if layer.groups == -1 else signal.shape[-1] // layer.groups
    # The square of a group's mean, over its units and all positions of an example.
    unit = signal.average(0) if len(signal.shape) > 1 else signal.second_moment
    common = signal.mean**2 + max(unit - signal.mean**2, 0.0) / max(units, 1)
    between = signal.mean**2 + (signal.average(1) - signal.mean**2) / max(units, 1)
    pairs = np.stack([signal.pairs[0], signal.pairs[1] + (common - between) / signal.second_moment])
    moved = signal._replace(pairs=pairs).shift(-signal.mean, -common)
    factor = 1.0 / max(moved.second_moment + layer.epsilon, 1e-300)
    return _scale(moved, factor, layer, factor)


def _scale(signal: Signal, factor: float, layer: Any, back: Any) -> Effect:
    """Multiply by a number and by a layer's scale, and add its offset."""
    weights = {weight.name: to_array(weight) for weight in layer.weights}
    scales = weights.get("gamma", weights.get("scale", np.ones(1)))
    offsets = weights.get("beta", np.zeros(1))
    squares, offset = float((scales**2).mean()), float(offsets.mean())
    output = signal._replace(
        mean=signal.mean * float(scales.mean()) * math.sqrt(factor),
        power=signal.power * factor * squares,
        base=None,
    )
    output = output.shift(offset, float((offsets**2).mean()) + 2.0 * offset * output.mean)
    return effect(output, lambda gradient: gradient.scale(back * squares))
