"""Weights to hand inputs through."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.checks import check_count, check_number
from keras_initkit.connectivity.kernel_view import (
    KernelView,
    view_of_maps_side_by_side,
    view_of_shape,
)
from keras_initkit.initializers.base import KernelInitializer, check_call


def at_centre_tap(view: KernelView, matrices: Any) -> Any:
    """Put a matrix (inputs, outputs), or one for each map, at the centre tap of zero maps.

    Of an even number of taps the centre is the last one before the middle.
    """
    values = np.zeros(view.maps_shape, np.float32)
    centre: tuple[Any, ...] = tuple((taps - 1) // 2 for taps in view.maps_shape[1:-2])
    values[(slice(None), *centre)] = matrices
    return values


class FixedInitializer(KernelInitializer):
    """A `KernelInitializer` without random numbers.

    Args:
        gain: Number, the factor of all weights.
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = check_number("gain", gain, "the factor of all weights")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"gain": self.gain}


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

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of weights of a shape (*taps, inputs of a group, outputs)."""
        check_call(kwargs)
        if len(shape) < 2 or shape[-1] % self.groups:
            raise ValueError(
                "`shape` must be (*taps, inputs of a group, outputs), with outputs a multiple of "
                f"groups={self.groups}. Received: shape={tuple(shape)}"
            )
        return self.draw(_side_by_side(shape, self.groups), dtype)

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

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of weights of a shape (inputs, gates · units)."""
        check_call(kwargs)
        if len(shape) != 2 or shape[-1] % self.gates:
            raise ValueError(
                "`shape` must be that of a matrix (inputs, outputs), with outputs a multiple of "
                f"gates={self.gates}. Received: shape={tuple(shape)}. For convolutions use Dirac."
            )
        return self.draw(_side_by_side(shape, self.gates), dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "gates": self.gates}


def _side_by_side(shape: Sequence[int], count: int) -> KernelView:
    return view_of_maps_side_by_side(shape, count, view_of_shape(shape).fans)
