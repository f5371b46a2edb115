"""Normalizations, by the batch's statistics, by those that are stored, and by an example's own."""

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
    units = signal.shape[-1]
    if isinstance(layer, layers.UnitNormalization):
        return _normalize(signal, 0.0, signal.second_moment * units, layer)
    if isinstance(layer, layers.RMSNormalization) or getattr(layer, "rms_scaling", False):
        return _normalize(signal, 0.0, signal.second_moment, layer)
    moved = signal.shift(-signal.mean, -(signal.mean**2)).scale(float(np.sqrt(1.0 - 1.0 / units)))
    return _normalize(moved, 0.0, moved.second_moment, layer)


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
    variance = max(signal.second_moment - common, 0.0)
    return _normalize(signal._replace(pairs=pairs), common, variance, layer, False)


def _normalize(
    signal: Signal, common: float, variance: float, layer: Any, is_own: bool = True
) -> Effect:
    """Subtract a mean of the square `common`, divide by the standard deviation.

    Args:
        signal: The inputs.
        common: Mean square of the means.
        variance: The variance divided by, without epsilon.
        layer: The layer, for its epsilon, scale and offset.
        is_own: Whether each position has a variance of its own.
    """
    epsilon = float(getattr(layer, "epsilon", None) or 0.0)
    factor = 1.0 / max(variance + epsilon, 1e-300)
    is_own = is_own and not isinstance(layer, layers.BatchNormalization)
    mean = 0.0 if common else signal.mean
    moved = signal.shift(mean - signal.mean, -common)
    if not is_own or signal.power.size == 1:
        return _scale(moved, factor, layer, factor)
    factors = 1.0 / np.maximum(
        moved.power * (variance / max(moved.second_moment, 1e-300)) + epsilon, 1e-300
    )
    levelled = moved._replace(power=moved.power * factors, mean=moved.mean * float(np.sqrt(factor)))
    return _scale(levelled, 1.0, layer, factors)


def _scale(signal: Signal, factor: float, layer: Any, back: Any) -> Effect:
    """Multiply by a number and by a layer's scale, and add its offset."""
    gamma = getattr(layer, "gamma", None)
    gamma = getattr(layer, "scale", None) if isinstance(layer, layers.RMSNormalization) else gamma
    beta = getattr(layer, "beta", None)
    squares, scale, offset, offsets = 1.0, 1.0, 0.0, 0.0
    if gamma is not None and not isinstance(gamma, bool):
        squares, scale = float((to_array(gamma) ** 2).mean()), float(to_array(gamma).mean())
    if beta is not None:
        offset, offsets = float(to_array(beta).mean()), float((to_array(beta) ** 2).mean())
    output = signal._replace(
        mean=signal.mean * scale * float(np.sqrt(factor)),
        power=signal.power * factor * squares,
        base=None,
    )
    output = output.shift(offset, offsets + 2.0 * offset * output.mean)
    return effect(output, lambda gradient: gradient.scale(back * squares))
