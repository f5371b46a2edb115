"""Orthogonal weights: each gate, head, group and channel a matrix of its own."""

import math
from typing import Any

import keras
import numpy as np

from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.initializers.base import GainedInitializer
from keras_initkit.initializers.orthonormal import orthonormal_columns
from keras_initkit.theory.gains import Gain


@keras.saving.register_keras_serializable(package="keras_initkit")
class Orthogonal(GainedInitializer):
    """Draws orthogonal matrices.

    A matrix of n weights a unit and o units is

        W = gain · sqrt(n/fan_in) · Q,

    with Q drawn uniformly from all matrices with orthonormal columns or, if o > n, rows. The
    root is 1 but where a unit does not see all its weights at once: in an embedding, a look-up
    of one of them, and in a transposed convolution if its stride does not divide the window.
    With o <= n the variance of weights is gain²/fan_in, as of `VarianceScaling`; with o > n it is
    n/o of that, since rows have a length of 1, unless `scaled`.

    Called by Keras with a shape it flattens (*window, inputs, outputs) to one matrix, as
    `keras.initializers.Orthogonal` does, with the same arguments. Where the layer is known, by
    `keras_initkit.reinitialize` or `layer_aware`, every gate, head, group and depthwise channel
    is a matrix. Half precision is computed in float32.

    Examples:
    >>> layer = keras.layers.Dense(64, "tanh", kernel_initializer=Orthogonal("tanh", seed=0))
    >>> wide = keras.layers.Dense(256, "relu", kernel_initializer=Orthogonal("relu", scaled=True))

    Args:
        gain: As in `VarianceScaling`: a positive number, or an activation.
        seed: As in `VarianceScaling`.
        scaled: `True` for weights of variance gain²/fan_in, whatever the shape: W times
            sqrt(max(1, o/n)). With more units than inputs, too, units then keep the variance
            gain² of inputs with variance 1.

    Raises:
        ValueError: If `gain` is not one of the above; or, when called, if `dtype` is no floating
            type.

    Reference:
        Saxe et al., 2014, Exact Solutions to the Nonlinear Dynamics of Learning in Deep Linear
        Neural Networks; Mezzadri, 2007, How to Generate Random Matrices from the Classical
        Compact Groups, for the uniform distribution; Martens et al., 2021, Rapid Training of Deep
        Neural Networks without Skip Connections or Normalization Layers using Deep Kernel
        Shaping, for the factor of `scaled`.
    """

    def __init__(self, gain: Gain = 1.0, seed: Any = None, *, scaled: bool = False) -> None:
        super().__init__(gain, seed)
        self.scaled = bool(scaled)

    def _maps(self, view: KernelView) -> Any:
        count, weights, units = view.matrix_shape
        # Drawn tall, as Keras does: the same seed leads to the same matrix.
        matrices = orthonormal_columns(
            self._normal((count, max(weights, units), min(weights, units)))
        )
        if weights < units:
            matrices = np.swapaxes(matrices, 1, 2)
        scale = self._factor * math.sqrt(weights / max(1.0, view.fans.fan_in))
        if self.scaled:
            scale *= math.sqrt(max(1.0, units / max(1, weights)))
        return np.float32(scale) * matrices

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return {**super().get_config(), "scaled": self.scaled}
