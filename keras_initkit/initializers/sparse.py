"""Units with few inputs each."""

import math
from typing import Any

import keras
import numpy as np

from keras_initkit.checks import check_number
from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.initializers.base import GainedInitializer
from keras_initkit.theory.gains import Gain


@keras.saving.register_keras_serializable(package="keras_initkit")
class Sparse(GainedInitializer):
    """Draws weights with the same number of zeros in each unit, at random places.

    Of the n weights of a unit ceil(sparsity · n) are zero, but at most n - 1. The others are
    normal, of the variance

        gain²/fan_in · n/(n - zeros),

    so that units have the variance gain² of inputs with variance 1. With few inputs each, units
    differ more from each other than with many, and do not all saturate.

    Examples:
    >>> layer = keras.layers.Dense(64, "tanh", kernel_initializer=Sparse(0.8, "tanh", seed=0))

    Args:
        sparsity: Number from 0 to less than 1, the share of zeros.
        gain: As in `VarianceScaling`: a positive number, or an activation.
        seed: As in `VarianceScaling`.

    Raises:
        ValueError: If an argument is not one of the above; or, when called, if `dtype` is no
            floating type.

    Reference:
        Martens, 2010, Deep Learning via Hessian-free Optimization, section 5, where the number
        of inputs is 15.
    """

    def __init__(self, sparsity: float = 0.9, gain: Gain = 1.0, seed: Any = None) -> None:
        super().__init__(gain, seed)
        self.sparsity = check_number("sparsity", sparsity, "the share of zeros", least=0, below=1)

    def _maps(self, view: KernelView) -> Any:
        shape = view.matrix_shape
        weights = shape[1]
        # Rounded, since .55 · 100 is a little above 55.
        zeros = max(0, min(math.ceil(round(self.sparsity * weights, 6)), weights - 1))
        # At once: two calls with an integer seed would draw the same.
        values, order = self._normal((2, *shape))
        variance = weights / max(1, weights - zeros) / max(1.0, view.fans.fan_in)
        values *= np.float32(self._factor * math.sqrt(variance))
        places = np.argsort(order, axis=1)[:, :zeros]
        np.put_along_axis(values, places, np.float32(0.0), axis=1)
        return values

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return {"sparsity": self.sparsity, **super().get_config()}
