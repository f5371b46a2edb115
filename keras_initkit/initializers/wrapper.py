"""What initializers that wrap another one have in common."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.anatomy.seeds import SeedOfAnother
from keras_initkit.initializers.base import check_call, floating, wide_enough


class WrapperInitializer(SeedOfAnother, keras.initializers.Initializer):
    """An initializer that puts together what another one draws.

    Subclasses define `_draw`, and their `get_config` has their other arguments.

    Args:
        initializer: A Keras initializer, or what `keras.initializers.get` makes one of.
    """

    def __init__(self, initializer: Any) -> None:
        found = keras.initializers.get(initializer)
        if found is None:
            raise ValueError(
                "`initializer` must be a Keras initializer or the name of one. "
                f"Received: initializer={initializer!r}"
            )
        self.initializer = found

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of new weights.

        Args:
            shape: Shape of the weight.
            dtype: Floating dtype of the weight, or `None` for `keras.config.floatx()`. Half
                precision is computed in float32 and rounded once.
            **kwargs: `layout` is accepted and changes no value.
        """
        check_call(kwargs)
        dtype = floating(dtype)
        shape = tuple(int(size) for size in shape)
        return keras.ops.cast(self._draw(shape, wide_enough(dtype)), dtype)

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the initializer as its config."""
        return {"initializer": keras.saving.serialize_keras_object(self.initializer)}
