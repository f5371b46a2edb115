"""Layers of random noise, which act in training mode only."""

from typing import Any

import keras
import numpy as np

from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, centre

layers = keras.layers


@rule(layers.Dropout, layers.GaussianDropout)
def _dropout(call: Call) -> Effect:
    return _drop(call, is_shared=_is_shared(call))


@rule(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D)
def _spatial_dropout(call: Call) -> Effect:
    return _drop(call, is_shared=True)


@rule(layers.GaussianNoise)
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
