"""What all our initializers have in common: arguments of a call, and drawing for a layer."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np

from keras_initkit.kernel_view import KernelView, view_of_shape


@runtime_checkable
class DrawsForLayers(Protocol):
    """An initializer that can be told what a weight is, beyond its shape."""

    def draw(self, view: KernelView, dtype: Any = None) -> Any:
        """Return a tensor of `view.shape`."""


class KernelInitializer(keras.initializers.Initializer):
    """An initializer that draws linear maps, and puts them where the weight has them.

    Called by Keras it sees a shape alone, and takes it for one map, (*window, inputs, outputs).
    `keras_initkit.reinitialize`, `layer_aware` and `defaults` know the layer, and call `draw`.

    Subclasses define `_maps`, and their `get_config` has their other arguments.

    Args:
        seed: As in `VarianceScaling`.
    """

    def __init__(self, seed: Any = None) -> None:
        self.seed = seed

    @property
    def seed(self) -> Any:
        """Integer or `keras.random.SeedGenerator`."""
        return self._random.seed

    @seed.setter
    def seed(self, seed: Any) -> None:
        # Keras's own keeps a seed in each of the forms that it has.
        self._random = keras.initializers.RandomNormal(0.0, 1.0, seed)

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

    def _normal(self, shape: Sequence[int]) -> np.ndarray:
        """Standard normal numbers, float32, on the host."""
        return np.array(keras.ops.convert_to_numpy(self._random(tuple(shape), "float32")))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"seed": self._random.get_config()["seed"]}


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


def check_choice(argument: str, value: object, choices: Any) -> None:
    """Raise a ValueError unless an argument is one of some strings."""
    if not isinstance(value, str) or value not in choices:
        names = ", ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"`{argument}` must be one of {names}. Received: {argument}={value!r}")
