"""Convolutions whose filters look for different patterns."""

import math
from typing import Any

import keras
import numpy as np

from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.initializers.gained import GainedInitializer
from keras_initkit.initializers.orthonormal import orthonormal_columns
from keras_initkit.initializers.variance_scaling import Gain


@keras.saving.register_keras_serializable(package="keras_initkit")
class ConvolutionAware(GainedInitializer):
    """Draws filters that are orthogonal to each other in the Fourier domain.

    A unit of a convolution has a filter for each of its inputs, of k taps, 9 in a 3x3 window.
    The filters of k inputs one after the other are the rows of

        gain · sqrt(k/fan_in) · Q,

    with Q drawn uniformly from all orthogonal k x k matrices, anew for the next k inputs and for
    the next unit. So filters are orthogonal and of the same length, in the Fourier domain as in
    space, for the Fourier transform changes no angle; and the mean square of weights is exactly
    gain²/fan_in. A kernel without window, or of a single tap, is that of `ScaledOrthogonal`.

    The idea is Aghajanyan's, the drawing is not. What is published, `ConvolutionAware` of
    keras-contrib, also takes an orthogonal matrix, anew for each unit and as many inputs as it has
    rows, and scales to the variance 2/fan_in. But its rows are real coefficients of the half
    spectrum that the Fourier transform of real numbers has, 6 in a 3x3 window. So

    - filters are symmetric about their first tap, which normal noise of .05 then breaks;
    - each 6 of them lie in the 5 dimensions that symmetric ones have, where they cannot be
      orthogonal: their cosines reach .6;
    - the variance is met by the filters of all units together, here by each filter.

    Examples:
    >>> layer = keras.layers.Conv2D(32, 3, kernel_initializer=ConvolutionAware(seed=0))

    Args:
        gain: As in `VarianceScaling`: a positive number, or an activation.
        seed: As in `VarianceScaling`.

    Raises:
        ValueError: As `Orthogonal`.

    Reference:
        Aghajanyan, 2017, Convolution Aware Initialization, https://arxiv.org/abs/1702.06295.
    """

    def __init__(self, gain: Gain = "relu", seed: Any = None) -> None:
        super().__init__(gain, seed)

    def _maps(self, view: KernelView) -> Any:
        count, *window, inputs, outputs = view.maps_shape
        taps = math.prod(window)
        scale = np.float32(self._factor / math.sqrt(max(1.0, view.fans.fan_in)))
        if taps == 1:
            _, weights, units = view.matrix_shape
            matrices = orthonormal_columns(self._normal((count, weights, units)))
            return scale * np.float32(math.sqrt(max(weights, units))) * matrices
        blocks = -(-inputs // taps)
        normal = self._normal((count * outputs * blocks, taps, taps))
        filters = orthonormal_columns(normal).reshape(count, outputs, blocks * taps, taps)
        filters = filters[:, :, :inputs].transpose(0, 3, 2, 1)
        return scale * np.float32(math.sqrt(taps)) * filters.reshape(view.matrix_shape)
