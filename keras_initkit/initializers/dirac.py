"""Convolutions that begin as the identity."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.initializers.base import check_call, floating


@keras.saving.register_keras_serializable(package="keras_initkit")
class Dirac(keras.initializers.Initializer):
    """Makes a convolution hand its input channels through.

    In each group output channel i is input channel i: its kernel is zero but for `gain` at the
    centre tap. Output channels beyond the inputs of a group are zero. Of an even number of taps
    the centre is the one that `padding="same"` puts above the output position. A matrix, as of
    `Dense`, is a kernel without taps.

    Examples:
    >>> layer = keras.layers.Conv2D(32, 3, padding="same", kernel_initializer=Dirac())

    Args:
        gain: Number, the weight of each channel.
        groups: Positive integer, the `groups` of the convolution.

    Raises:
        ValueError: If `groups` is not a positive integer; or, when called, if the shape has less
            than two axes or its last one is no multiple of `groups`, or if `dtype` is no floating
            type.

    Reference:
        Zagoruyko & Komodakis, 2017, DiracNets: Training Very Deep Neural Networks Without
        Skip-Connections.
    """

    def __init__(self, gain: float = 1.0, groups: int = 1) -> None:
        if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
            raise ValueError(
                "`groups` must be a positive integer, that of the convolution. "
                f"Received: groups={groups!r}"
            )
        self.gain = float(gain)
        self.groups = groups

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of weights of a shape (*taps, inputs of a group, outputs)."""
        check_call(kwargs)
        dtype = floating(dtype)
        if len(shape) < 2 or shape[-1] % self.groups:
            raise ValueError(
                "`shape` must be (*taps, inputs of a group, outputs), with outputs a multiple of "
                f"groups={self.groups}. Received: shape={tuple(shape)}"
            )
        centre = tuple((taps - 1) // 2 for taps in shape[:-2])
        values = np.zeros(shape, np.float32)
        for group in np.split(values, self.groups, axis=-1):
            np.fill_diagonal(group[centre], self.gain)
        return keras.ops.cast(keras.ops.convert_to_tensor(values), dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"gain": self.gain, "groups": self.groups}
