"""What all our initializers have in common: arguments of a call, and drawing for a layer."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import keras

from keras_initkit.connectivity.kernel_view import KernelView, view_of_shape


@runtime_checkable
class DrawsForLayers(Protocol):
    """An initializer that can be told what a weight is, beyond its shape."""

    def draw(self, view: KernelView, dtype: Any = None) -> Any:
        """Return a tensor of `view.shape`."""


class KernelInitializer(keras.initializers.Initializer):
    """An initializer that draws linear maps, and puts them where the weight has them.

    Called by Keras it sees a shape alone, and takes it for one map, (*window, inputs, outputs).
    `keras_initkit.reinitialize`, `layer_aware` and `defaults` know the layer, and call `draw`.

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
        """Return new weights, of `view.shape`, each map of them for itself."""
        dtype = floating(dtype)
        maps = keras.ops.convert_to_tensor(self._maps(view), dtype="float32")
        return keras.ops.cast(view.to_weight(maps), dtype)

    def _maps(self, view: KernelView) -> Any:
        """Array of `view.maps_shape` or `view.matrix_shape`, float32."""
        raise NotImplementedError


def check_call(kwargs: Mapping[str, Any]) -> None:
    """Raise a TypeError if an initializer is called with what it does not know."""
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
    """Return the dtype that numbers of a dtype are computed in: half precision is too coarse."""
    return dtype if dtype in ("float32", "float64") else "float32"


def is_finite_number(value: object) -> bool:
    """Whether a value is a finite number, and no bool."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


def check_count(argument: str, value: object, meaning: str) -> None:
    """Raise a ValueError unless an argument is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"`{argument}` must be a positive integer, {meaning}. Received: {argument}={value!r}"
        )


def check_choice(argument: str, value: object, choices: Any) -> None:
    """Raise a ValueError unless an argument is one of some strings."""
    if not isinstance(value, str) or value not in choices:
        names = ", ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"`{argument}` must be one of {names}. Received: {argument}={value!r}")
