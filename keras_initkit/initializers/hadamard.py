"""Weights of zeros and ones, and of Hadamard's matrices."""

from typing import Any

import keras
import numpy as np

from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.initializers.base import FixedInitializer, at_centre_tap


@keras.saving.register_keras_serializable(package="keras_initkit")
class ZerO(FixedInitializer):
    """Sets weights to zeros, ones and a Hadamard matrix: the same ones each time.

    | a map has | weights |
    |---|---|
    | as many inputs as outputs | the identity |
    | more inputs | the identity of its first inputs; the others are not used |
    | more outputs | the first rows and columns of 2^(-m/2) · H |

    H is the Hadamard matrix of 1 and -1 with 2^m rows, 2^m the next power of two from the number
    of outputs on: `scipy.linalg.hadamard`. With the factor 2^(-m/2) it is orthonormal. If outputs
    are a power of two the rows of weights are, too; otherwise inputs have outputs/2^m of their
    squared length. All is multiplied by `gain`. In a convolution these are the weights of the
    centre tap, as in `Dirac`, and others are zero. Every gate and group is a map where the
    layer is known, as in `Orthogonal`.

    It is meant for networks with skip connections and branches ending in a layer of zeros.

    The factor is from the authors' code (https://github.com/jiaweizzhao/ZerO-initialization).
    The paper prints 2^(-(m-1)/2): the squared length of inputs would double.

    Examples:
    >>> layer = keras.layers.Dense(64, kernel_initializer=ZerO())

    Args:
        gain: Number, the factor of all weights.

    Raises:
        ValueError: If `gain` is no finite number; or, when called, if `dtype` is no floating type.

    Reference:
        Zhao, Schäfer & Anandkumar, 2021, ZerO Initialization: Initializing Neural Networks with
        only Zeros and Ones, https://arxiv.org/abs/2110.12661, algorithm 1, and algorithm 2 for
        convolutions.
    """

    def _maps(self, view: KernelView) -> Any:
        inputs, outputs = view.maps_shape[-2:]
        if inputs >= outputs:
            matrix = np.eye(inputs, outputs, dtype=np.float32)
        else:
            matrix = _hadamard(inputs, outputs) * 2.0 ** (-((outputs - 1).bit_length()) / 2)
        return at_centre_tap(view, np.float32(self.gain) * matrix)


def _hadamard(rows: int, columns: int) -> Any:
    """Return the first rows and columns of the Hadamard matrix of any larger power of two."""
    # An element is -1 where an odd number of bits is set in both of its indices.
    bits = np.arange(rows, dtype=np.int64)[:, None] & np.arange(columns)
    for shift in (32, 16, 8, 4, 2, 1):
        bits ^= bits >> shift
    return (1 - 2 * (bits & 1)).astype(np.float32)
