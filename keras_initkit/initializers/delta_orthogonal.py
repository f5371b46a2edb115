"""Convolutions with singular values of 1."""

from typing import Any

import keras
import numpy as np

from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.initializers.base import GainedInitializer, at_centre_tap
from keras_initkit.initializers.orthonormal import orthonormal_columns


@keras.saving.register_keras_serializable(package="keras_initkit")
class DeltaOrthogonal(GainedInitializer):
    """Draws kernels of zeros but for an orthogonal matrix at the centre tap.

    The matrix is gain · Q, of inputs x outputs, with Q drawn uniformly from all matrices with
    orthonormal rows or, if there are more inputs than outputs, columns. With gain 1, at least as
    many outputs as inputs, stride 1 and `padding="same"` all singular values of the convolution
    are exactly 1: signals and gradients neither grow nor decay over thousands of layers. Those of
    a convolution whose flattened kernel is orthogonal are not.

    The centre is as in `Dirac`. A matrix, as of `Dense`, is a kernel without window. Every gate
    and group is a matrix where the layer is known, as in `Orthogonal`.

    Examples:
    >>> initializer = DeltaOrthogonal(seed=0)
    >>> layer = keras.layers.Conv2D(32, 3, padding="same", kernel_initializer=initializer)

    Args:
        gain: As in `VarianceScaling`: a positive number, or an activation.
        seed: As in `VarianceScaling`.

    Raises:
        ValueError: As `Orthogonal`.

    Reference:
        Xiao et al., 2018, Dynamical Isometry and a Mean Field Theory of CNNs, section 4.
    """

    def _maps(self, view: KernelView) -> Any:
        count, *_, inputs, outputs = view.maps_shape
        centre = orthonormal_columns(self._normal((count, inputs, outputs)))
        return at_centre_tap(view, np.float32(self._factor) * centre)
