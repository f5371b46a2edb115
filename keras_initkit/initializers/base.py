"""Bases of the initializers: the arguments of a call, and drawing for a known layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.anatomy.seeds import SeedOfAnother
from keras_initkit.checks import check_number
from keras_initkit.connectivity.kernel_view import KernelView, view_of_shape
from keras_initkit.theory.gains import Gain
from keras_initkit.theory.gains import gain as resolve_gain


class KernelInitializer(keras.initializers.Initializer):
    """An initializer of linear maps, drawn one by one and put in their places in the weight.

    Called by Keras it sees a shape alone, and takes it for one map, (*window, inputs, outputs).
    `keras_initkit.reinitialize` and `layer_aware` know the layer, and call `draw`.

    Subclasses define `_maps` and `get_config`.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of new weights.

        Args:
            shape: Shape of the weight.
            dtype: Floating dtype of the weight, or `None` for `keras.config.floatx()`. Half
                precision is computed in float32 and rounded once.
            **kwargs: `layout` is accepted and changes no value.
        """
        check_call(kwargs)
        return self.draw(self._view(shape), dtype)

    def draw(self, view: KernelView, dtype: Any = None) -> Any:
        """Return new weights of `view.shape`, with each map drawn for itself."""
        dtype = floating(dtype)
        maps = keras.ops.convert_to_tensor(self._maps(view), dtype="float32")
        return keras.ops.cast(view.to_weight(maps), dtype)

    def _view(self, shape: Sequence[int]) -> KernelView:
        """Return what a shape alone is taken for."""
        return view_of_shape(shape)

    def _maps(self, view: KernelView) -> Any:
        """Return a float32 array of `view.maps_shape` or `view.matrix_shape`."""
        raise NotImplementedError


class GainedInitializer(SeedOfAnother, KernelInitializer):
    """A `KernelInitializer` with the arguments `gain` and `seed`.

    Args:
        gain: As in `VarianceScaling`.
        seed: As in `VarianceScaling`.
    """

    def __init__(self, gain: Gain = 1.0, seed: Any = None) -> None:
        self._factor = resolve_gain(gain)
        # A saved model loads where a function does not exist.
        self.gain = gain if isinstance(gain, str) else self._factor
        self.initializer = keras.initializers.RandomNormal(0.0, 1.0, seed)

    def _normal(self, shape: Sequence[int]) -> np.ndarray:
        """Draw standard normal numbers, float32, on the host."""
        return np.array(keras.ops.convert_to_numpy(self.initializer(tuple(shape), "float32")))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return {"gain": self.gain, "seed": self.initializer.get_config()["seed"]}


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


def at_centre_tap(view: KernelView, matrices: Any) -> Any:
    """Put a matrix (inputs, outputs), or one for each map, at the centre tap of zero maps.

    Of an even number of taps the centre is the last one before the middle.
    """
    values = np.zeros(view.maps_shape, np.float32)
    centre: tuple[Any, ...] = tuple((taps - 1) // 2 for taps in view.maps_shape[1:-2])
    values[(slice(None), *centre)] = matrices
    return values


def check_call(kwargs: Mapping[str, Any]) -> None:
    """Raise a TypeError if an initializer is called with unknown keywords."""
    if unknown := kwargs.keys() - {"layout"}:
        raise TypeError(
            "An initializer must be called with `shape`, `dtype` and `layout` only. "
            f"Received: {', '.join(sorted(unknown))}"
        )


def floating(dtype: Any) -> str:
    """Return the name of a floating dtype; of `keras.config.floatx()` for `None`.

    Raises:
        ValueError: If it is no floating type.
    """
    name = str(keras.backend.standardize_dtype(dtype))
    if "float" not in name:
        raise ValueError(f"`dtype` must be a floating type. Received: dtype={name!r}")
    return name
