"""Normalizations, by the batch's statistics, by those that are stored, and by an example's own."""

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.kernel import to_array
from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, centre

layers = keras.layers
Array = npt.NDArray[np.float64]

# On larger maps borders count for little.
_POSITIONS = 400
# Of an integral over s > 0 with the weight exp(-s).
_POINTS, _WEIGHTS = np.polynomial.laguerre.laggauss(32)


@rule(layers.BatchNormalization, is_free=True)
def _batch(call: Call) -> Effect | None:
    layer, signal = call.operation, call.signal
    if call.axis(layer.axis) != len(signal.shape) - 1:
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
        if not is_training:
            return _scale(centred, factor, layer, factor)
        pairs, inverse = _normalize_units(centred.pairs, variance, _drift(signal), layer.epsilon)
        return _scale(centred._replace(pairs=pairs), factor, layer, inverse)
    factor = 1.0 / (float(variances.mean()) + layer.epsilon)
    mean = float(means.mean())
    moved = signal.shift(-mean, mean**2 - 2.0 * mean * signal.mean)
    done = _scale(moved, factor, layer, factor)
    scale = math.sqrt(done.outputs[0].variance / max(signal.variance, 1e-300))

    def back(gradient: Gradient) -> Gradient:
        (found,), gate = done.back([gradient]), gradient.gate
        assert found is not None
        if gate is None:
            return found
        return found._replace(gate=lambda x: gate((x - signal.mean) * scale + done.outputs[0].mean))

    return effect(done.outputs[0], back)


def _drift(signal: Signal) -> tuple[float, float]:
    """Return how the common part of all examples varies over positions, as behind padding.

    Returns:
        Its variance, the mean over units; and the number k of independent normal numbers: over
        units the variance is spread as χ² of k numbers is.
    """
    sizes = signal.shape[:-1]
    if not 1 < math.prod(sizes) <= _POSITIONS:
        return 0.0, 1.0
    roots = np.sqrt(np.broadcast_to(signal.power, sizes)).ravel()
    places = np.indices(sizes).reshape(len(sizes), -1)
    middle = np.array(centre(signal.pairs.shape[1:]))[:, np.newaxis, np.newaxis]
    offsets = np.clip(places[:, :, np.newaxis] - places[:, np.newaxis], -middle, middle)
    products = np.outer(roots, roots) * signal.pairs[1][tuple(offsets + middle)]
    products -= products.mean(axis=0)
    products -= products.mean(axis=1, keepdims=True)
    variance = max(float(np.trace(products)), 0.0)
    squares = max(float((products**2).sum()), 1e-300)
    return variance / len(roots), max(variance**2 / squares, 1.0)


def _normalize_units(
    pairs: Array, variance: float, drift: tuple[float, float], epsilon: float
) -> tuple[Array, float]:
    """Return correlations behind a division of each unit by its own variance, and E 1/variance.

    A unit's variance is a + b χ²/k: the one between examples, a, is the same for all wide units,
    the one of its mean over positions is not. So E 1/variance is the integral over t of
    exp(-ta) (1 + 2tb/k)^(-k/2).
    """
    common, freedom = drift
    common = min(common, 0.99 * variance)
    own, total = variance - common + epsilon, variance + epsilon
    factors = (1.0 + 2.0 * _POINTS * common / (freedom * own)) ** (-freedom / 2.0)
    inverse = float(_WEIGHTS @ factors) / own
    if common <= 1e-6 * variance:
        return pairs, inverse
    between = pairs[1] * ((1.0 - own * inverse) * total / common)
    return np.stack([between + (pairs[0] - pairs[1]) * inverse * total, between]), inverse


@rule(layers.LayerNormalization, layers.RMSNormalization, layers.UnitNormalization, is_free=True)
def _units(call: Call) -> Effect | None:
    layer, signal = call.operation, call.signal
    axis = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if list(map(call.axis, axis)) != [len(signal.shape) - 1]:
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


@rule(layers.GroupNormalization, is_free=True)
def _groups(call: Call) -> Effect | None:
    layer, signal = call.operation, call.signal
    if call.axis(layer.axis) != len(signal.shape) - 1:
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
