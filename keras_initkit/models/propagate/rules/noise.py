"""Layers of random noise, which act in training mode only."""

from typing import Any

import keras
import numpy as np

from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, centre

layers = keras.layers

# Of SELU, the limit of small values.
_SELU_LIMIT = 1.6732632423543772 * 1.0507009873554805


@rule(layers.Dropout, layers.GaussianDropout, is_free=True)
def _dropout(call: Call) -> Effect:
    return _drop(call, is_shared=_is_shared(call))


@rule(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D)
def _spatial_dropout(call: Call) -> Effect:
    return _drop(call, is_shared=True)


@rule(layers.AlphaDropout, is_free=True)
def _alpha_dropout(call: Call) -> Effect:
    """Set values to one number a, then keep mean and variance of standard values by a line."""
    signal, rate = call.signal, float(call.operation.rate)
    if not call.is_training or not rate:
        return effect(signal, lambda gradient: gradient)
    kept, dropped = 1.0 - rate, -_SELU_LIMIT
    factor = (kept * (1.0 + rate * dropped**2)) ** -0.5
    # Of two values both are kept, or one, or none; of a value with itself, both or none.
    products = kept**2 * signal.second_moment * signal.pairs
    products += 2.0 * kept * rate * dropped * signal.mean + (rate * dropped) ** 2
    power = kept * signal.power + rate * dropped**2
    moment = float(power.mean())
    pairs = products / moment
    pairs[(0, *centre(pairs.shape[1:]))] = 1.0
    mean = kept * signal.mean + rate * dropped
    output = Signal(signal.shape, mean, power, pairs).scale(factor)
    offset = -factor * dropped * rate
    output = output.shift(offset, offset**2 + 2.0 * offset * output.mean)

    def back(gradient: Gradient) -> Gradient:
        pairs = np.array(gradient.pairs * kept)
        pairs[centre(pairs.shape)] = 1.0
        return Gradient(gradient.power * (kept * factor**2), pairs)

    return effect(output, back)


@rule(layers.GaussianNoise, is_free=True)
def _noise(call: Call) -> Effect:
    signal = call.signal
    if not call.is_training:
        return effect(signal, lambda gradient: gradient)
    return effect(_add_noise(signal, float(call.operation.stddev) ** 2), lambda gradient: gradient)


def _drop(call: Call, is_shared: bool) -> Effect:
    signal, rate = call.signal, float(call.operation.rate)
    if not call.is_training or not rate:
        return effect(signal, lambda gradient: gradient)
    factor = 1.0 / (1.0 - rate)

    def back(gradient: Gradient) -> Gradient:
        pairs = np.array(gradient.pairs / (1.0 if is_shared else factor))
        pairs[centre(pairs.shape)] = 1.0
        return Gradient(gradient.power * factor, pairs)

    return effect(signal.dilute(factor, is_shared), back)


def _is_shared(call: Call) -> bool:
    """Check for a noise shape in which all positions have the same number."""
    shape: Any = getattr(call.operation, "noise_shape", None) or [None]
    return all(size == 1 for size in shape[1:-1]) and len(shape) > 2


def _add_noise(signal: Signal, power: float) -> Signal:
    """Add independent numbers of mean zero."""
    moment = signal.second_moment
    total = max(moment + power, 1e-300)
    pairs = signal.pairs * moment / total
    pairs[(0, *centre(pairs.shape[1:]))] = 1.0
    return Signal(signal.shape, signal.mean, signal.power + power, pairs)
