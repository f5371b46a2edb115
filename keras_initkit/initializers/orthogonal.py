"""Weights whose maps are orthogonal matrices, each gate, head, group and channel for itself."""

import math
from typing import Any

import keras
import numpy as np

from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.initializers.gained import GainedInitializer
from keras_initkit.initializers.orthonormal import orthonormal_columns


@keras.saving.register_keras_serializable(package="keras_initkit")
class Orthogonal(GainedInitializer):
    """Draws orthogonal matrices.

    A matrix of n weights a unit and o units is

        W = gain · sqrt(n/fan_in) · Q,

    with Q drawn uniformly from all matrices with orthonormal columns or, if o > n, rows. The
    root is 1 but where a unit does not see all its weights at once: in an embedding, which
    looks one of them up, and in a transposed convolution whose stride does not divide the window.
    With o <= n the variance of weights is gain²/fan_in, as of `VarianceScaling`; with o > n it is
    n/o of that, since rows have the length that they have.

    Called by Keras with a shape it flattens (*window, inputs, outputs) to one matrix, as
    `keras.initializers.Orthogonal` does. Where the layer is known, by
    `keras_initkit.reinitialize`, `layer_aware` or `defaults`, every gate, head, group and
    depthwise channel is a matrix. Half precision is computed in float32.

    Examples:
    >>> layer = keras.layers.Dense(64, "tanh", kernel_initializer=Orthogonal("tanh", seed=0))

    Args:
        gain: As in `VarianceScaling`: a positive number, or an activation.
        seed: As in `VarianceScaling`.

    Raises:
        ValueError: If `gain` is not one of the above; or, when called, if `dtype` is no floating
            type.

    Reference:
        Saxe et al., 2014, Exact Solutions to the Nonlinear Dynamics of Learning in Deep Linear
        Neural Networks; Mezzadri, 2007, How to Generate Random Matrices from the Classical
        Compact Groups, for the uniform distribution.
    """

    def _maps(self, view: KernelView) -> Any:
        result = orthonormal_columns(self._normal(view.matrix_shape))
        return np.float32(self._scale(view)) * result

    def _scale(self, view: KernelView) -> float:
        weights = view.matrix_shape[1]
        return self._factor * math.sqrt(weights / max(1.0, view.fans.fan_in))


@keras.saving.register_keras_serializable(package="keras_initkit")
class ScaledOrthogonal(Orthogonal):
    """Draws orthogonal matrices whose weights have the variance gain²/fan_in, whatever the shape.

    `Orthogonal` times sqrt(max(1, o/n)), for n weights a unit and o units: with more units than
    inputs, too, units keep the variance gain² of inputs with variance 1.

    Examples:
    >>> layer = keras.layers.Dense(256, "relu", kernel_initializer=ScaledOrthogonal("relu"))

    Args:
        gain: As in `VarianceScaling`: a positive number, or an activation.
        seed: As in `VarianceScaling`.

    Raises:
        ValueError: As `Orthogonal`.

    Reference:
        Martens et al., 2021, Rapid Training of Deep Neural Networks without Skip Connections or
        Normalization Layers using Deep Kernel Shaping, for the factor.
    """

    def _scale(self, view: KernelView) -> float:
        _, weights, units = view.matrix_shape
        return super()._scale(view) * math.sqrt(max(1.0, units / max(1, weights)))
