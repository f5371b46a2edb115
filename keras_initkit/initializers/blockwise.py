"""Initializers for layers that keep several matrices in one weight."""

from typing import Any

import keras

from keras_initkit.initializers.identity import check_count
from keras_initkit.initializers.wrapper import WrapperInitializer
from keras_initkit.seeds import derived_seed, with_seed


class _PartsInitializer(WrapperInitializer):
    """Draws each part of a weight for itself, with random numbers of its own.

    Args:
        initializer: As in `WrapperInitializer`.
        axis: Integer, the axis along which the parts lie.
    """

    def __init__(self, initializer: Any, axis: int) -> None:
        super().__init__(initializer)
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise ValueError(f"`axis` must be an integer. Received: axis={axis!r}")
        self.axis = axis

    def _check_axis(self, shape: tuple[int, ...]) -> int:
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(
                f"`axis` must be one of the {len(shape)} axes of the weight. "
                f"Received: axis={self.axis}, and a weight of shape {shape}"
            )
        return self.axis % len(shape)

    def _part(self, index: int, shape: tuple[int, ...], dtype: str) -> Any:
        seed = getattr(self.initializer, "seed", None)
        if isinstance(seed, int):
            return with_seed(self.initializer, derived_seed(seed, "part", index))(shape, dtype)
        # Without a seed, or with one that moves on from call to call.
        return self.initializer(shape, dtype)


@keras.saving.register_keras_serializable(package="keras_initkit")
class Blockwise(_PartsInitializer):
    """Splits a weight into equal blocks along an axis, and draws each with another initializer.

    That one sees the shape of a block. For layers that keep matrices side by side in one weight,
    such as queries, keys and values in a `Dense`, and whose initializer sees the shape of all.
    Each block has random numbers of its own, also if the initializer has an integer for a seed.

    Examples:
    >>> initializer = Blockwise("glorot_uniform", blocks=3)
    >>> queries_keys_values = keras.layers.Dense(3 * 64, kernel_initializer=initializer)

    Args:
        initializer: A Keras initializer, or what `keras.initializers.get` makes one of. Its
            `seed` is that of the whole.
        blocks: Positive integer, the number of blocks.
        axis: Integer, the axis that is split.

    Raises:
        ValueError: If an argument is not one of the above; or, when called, if the weight has no
            such axis or its size is no multiple of `blocks`, or if `dtype` is no floating type.
    """

    def __init__(self, initializer: Any, blocks: int, axis: int = -1) -> None:
        check_count("blocks", blocks, "the number of equal parts")
        super().__init__(initializer, axis)
        self.blocks = blocks

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        axis = self._check_axis(shape)
        if shape[axis] % self.blocks:
            raise ValueError(
                f"`shape` must have a multiple of {self.blocks}, the number of blocks, along axis "
                f"{self.axis}. Received: shape={shape}"
            )
        block = (*shape[:axis], shape[axis] // self.blocks, *shape[axis + 1 :])
        parts = [self._part(index, block, dtype) for index in range(self.blocks)]
        return keras.ops.concatenate(parts, axis=axis)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the initializer as its config."""
        return {**super().get_config(), "blocks": self.blocks, "axis": self.axis}


@keras.saving.register_keras_serializable(package="keras_initkit")
class PerGate(Blockwise):
    """Draws each gate of a recurrent layer with another initializer.

    Keras hands the kernels of all gates to an initializer as one matrix: an orthogonal one is
    then orthogonal in none of the gates, and a fan_out is that of all of them.

    Examples:
    >>> initializer = PerGate("orthogonal", gates=4)
    >>> layer = keras.layers.LSTM(64, recurrent_initializer=initializer)

    Args:
        initializer: As in `Blockwise`.
        gates: Positive integer: 4 in an LSTM, 3 in a GRU.

    Raises:
        ValueError: As `Blockwise`.
    """

    def __init__(self, initializer: Any, gates: int) -> None:
        check_count("gates", gates, "4 for an LSTM, 3 for a GRU")
        super().__init__(initializer, gates)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the initializer as its config."""
        config = super().get_config()
        return {"initializer": config["initializer"], "gates": self.blocks}


@keras.saving.register_keras_serializable(package="keras_initkit")
class PerHead(_PartsInitializer):
    """Draws each head of an attention layer with another initializer.

    The kernels of queries, keys and values are (inputs, heads, units): the other initializer sees
    the shape (inputs, units) of one head, and draws each with random numbers of its own. It is for
    attention layers whose projections have initializers of their own. `MultiHeadAttention` hands
    its one also to the output's kernel, (heads, units, outputs), which is a single matrix: there
    `keras_initkit.layer_aware(Orthogonal())` knows which is which.

    Examples:
    >>> initializer = PerHead("orthogonal")
    >>> kernel = initializer((64, 8, 16))

    Args:
        initializer: As in `Blockwise`.
        axis: Integer, the axis that numbers the heads.

    Raises:
        ValueError: If `axis` is no integer; or, when called, if the weight has no such axis, or
            if `dtype` is no floating type.
    """

    def __init__(self, initializer: Any, axis: int = 1) -> None:
        super().__init__(initializer, axis)

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        axis = self._check_axis(shape)
        head = shape[:axis] + shape[axis + 1 :]
        parts = [self._part(index, head, dtype) for index in range(shape[axis])]
        return keras.ops.stack(parts, axis=axis)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the initializer as its config."""
        return {**super().get_config(), "axis": self.axis}
