"""Weights to hand inputs through."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.checks import check_count
from keras_initkit.connectivity.kernel_view import (
    KernelView,
    view_of_maps_side_by_side,
    view_of_shape,
)
from keras_initkit.initializers.base import FixedInitializer, at_centre_tap


class _IdentityMaps(FixedInitializer):
    def _maps(self, view: KernelView) -> Any:
        inputs, outputs = view.maps_shape[-2:]
        return at_centre_tap(view, self.gain * np.eye(inputs, outputs, dtype=np.float32))


@keras.saving.register_keras_serializable(package="keras_initkit")
class Dirac(_IdentityMaps):
    """Makes a convolution hand its input channels through.

    In each group output channel i is input channel i: its kernel is zero but for `gain` at the
    centre tap. Output channels beyond the inputs of a group are zero. Of an even number of taps
    the centre is the one that `padding="same"` puts above the output position. A matrix, as of
    `Dense`, is a kernel without taps.

    Examples:
    >>> layer = keras.layers.Conv2D(32, 3, padding="same", kernel_initializer=Dirac())

    Args:
        gain: Number, the weight of each channel.
        groups: Positive integer, the `groups` of the convolution. Where the layer is known, its
            own count.

    Raises:
        ValueError: If an argument is not one of the above; or, when called, if the shape has less
            than two axes or its last one is no multiple of `groups`, or if `dtype` is no floating
            type.

    Reference:
        Zagoruyko & Komodakis, 2017, DiracNets: Training Very Deep Neural Networks Without
        Skip-Connections.
    """

    def __init__(self, gain: float = 1.0, *, groups: int = 1) -> None:
        super().__init__(gain)
        self.groups = check_count("groups", groups, "that of the convolution")

    def _view(self, shape: Sequence[int]) -> KernelView:
        if len(shape) < 2 or shape[-1] % self.groups:
            raise ValueError(
                "`shape` must be (*taps, inputs of a group, outputs), with outputs a multiple of "
                f"groups={self.groups}. Received: shape={tuple(shape)}"
            )
        return view_of_maps_side_by_side(shape, self.groups, view_of_shape(shape).fans)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "groups": self.groups}


@keras.saving.register_keras_serializable(package="keras_initkit")
class Identity(_IdentityMaps):
    """Makes a matrix hand its inputs through: unit i is `gain` times input i.

    With Keras's argument it is `keras.initializers.Identity`, except that integer dtypes are
    refused; `gates` is added. A matrix need not be square: units beyond the inputs are zero. A
    recurrent layer with ReLU keeps its state with it (IRNN). In a layer with gates each gate has
    its own identity.

    Examples:
    >>> rnn = keras.layers.SimpleRNN(100, "relu", recurrent_initializer=Identity())
    >>> gru = keras.layers.GRU(100, recurrent_initializer=Identity(gates=3))

    Args:
        gain: Number, the weight of each input.
        gates: Positive integer, how many matrices lie side by side: 4 in an LSTM, 3 in a GRU.
            Where the layer is known, its own count.

    Raises:
        ValueError: If an argument is not one of the above; or, when called, if the shape is not
            (inputs, gates · units), or if `dtype` is no floating type.

    Reference:
        Le, Jaitly & Hinton, 2015, A Simple Way to Initialize Recurrent Networks of Rectified
        Linear Units.
    """

    def __init__(self, gain: float = 1.0, *, gates: int = 1) -> None:
        super().__init__(gain)
        self.gates = check_count("gates", gates, "1 for a matrix, 3 for a GRU, 4 for an LSTM")

    def _view(self, shape: Sequence[int]) -> KernelView:
        if len(shape) != 2 or shape[-1] % self.gates:
            raise ValueError(
                "`shape` must be that of a matrix (inputs, outputs), with outputs a multiple of "
                f"gates={self.gates}. Received: shape={tuple(shape)}. For convolutions use Dirac."
            )
        return view_of_maps_side_by_side(shape, self.gates, view_of_shape(shape).fans)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "gates": self.gates}
