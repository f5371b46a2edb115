"""Base of the initializers: the arguments of a call, and drawing for a known layer."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import keras

from keras_initkit.connectivity.kernel_view import KernelView, view_of_shape


@runtime_checkable
class DrawsForLayers(Protocol):
    """An initializer with a method for weights of a known layer."""

    def draw(self, view: KernelView, dtype: Any = None) -> Any:
        """Return a tensor of `view.shape`."""


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
        return self.draw(view_of_shape(shape), dtype)

    def draw(self, view: KernelView, dtype: Any = None) -> Any:
        """Return new weights of `view.shape`, with each map drawn for itself."""
        dtype = floating(dtype)
        maps = keras.ops.convert_to_tensor(self._maps(view), dtype="float32")
        return keras.ops.cast(view.to_weight(maps), dtype)

    def _maps(self, view: KernelView) -> Any:
        """Return a float32 array of `view.maps_shape` or `view.matrix_shape`."""
        raise NotImplementedError


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


def wide_enough(dtype: str) -> str:
    """Return the dtype to compute in: float32 for half precision, otherwise the same."""
    return dtype if dtype in ("float32", "float64") else "float32"
