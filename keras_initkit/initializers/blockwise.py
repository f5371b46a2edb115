"""Initializers for layers that keep several matrices in one weight."""

from typing import Any

import keras

from keras_initkit.anatomy.seeds import derived_seed, with_seed
from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.initializers.base import DrawsForLayers, check_count, floating, wide_enough
from keras_initkit.initializers.wrapper import WrapperInitializer


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

    def _of_part(self, index: int) -> Any:
        """The other initializer, with the seed of a part."""
        seed = getattr(self.initializer, "seed", None)
        if isinstance(seed, int):
            return with_seed(self.initializer, derived_seed(seed, "part", index))
        # Without a seed, or with one that moves on from call to call.
        return self.initializer

    def _draw_maps(self, view: KernelView, dtype: Any) -> Any:
        """Draw each map of a weight whose layer is known."""
        dtype = floating(dtype)
        wide, one = wide_enough(dtype), view.of_one_map()
        maps = [_drawn(self._of_part(i), one, wide) for i in range(view.maps_shape[0])]
        return keras.ops.cast(view.to_weight(keras.ops.stack(maps)), dtype)


def _drawn(initializer: Any, view: KernelView, dtype: str) -> Any:
    if isinstance(initializer, DrawsForLayers):
        return initializer.draw(view, dtype)
    return initializer(view.shape, dtype)


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
        parts = [self._of_part(index)(block, dtype) for index in range(self.blocks)]
        return keras.ops.concatenate(parts, axis=axis)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the initializer as its config."""
        return {**super().get_config(), "blocks": self.blocks, "axis": self.axis}


@keras.saving.register_keras_serializable(package="keras_initkit")
class PerGate(Blockwise):
    """Draws each gate of a recurrent layer with another initializer.

    Keras hands the kernels of all gates to an initializer as one matrix: an orthogonal one is
    then orthogonal in none of the gates, and a fan_out is that of all of them. The initializers
    of this package that are no wrappers need it only where the layer is not known.

    Examples:
    >>> initializer = PerGate("orthogonal", gates=4)
    >>> layer = keras.layers.LSTM(64, recurrent_initializer=initializer)

    Args:
        initializer: As in `Blockwise`.
        gates: Positive integer: 4 in an LSTM, 3 in a GRU. Where the layer is known and has
            several maps in its weight, their own count.

    Raises:
        ValueError: As `Blockwise`.
    """

    def __init__(self, initializer: Any, gates: int) -> None:
        check_count("gates", gates, "4 for an LSTM, 3 for a GRU")
        super().__init__(initializer, gates)

    def draw(self, view: KernelView, dtype: Any = None) -> Any:
        """Return new weights for one whose maps are known. See `KernelInitializer`."""
        # Of a layer without a view of its own, as of one with a rule for its fans alone, the
        # gates may still lie side by side.
        return self._draw_maps(view, dtype) if view.maps else self(view.shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the initializer as its config."""
        config = super().get_config()
        return {"initializer": config["initializer"], "gates": self.blocks}


@keras.saving.register_keras_serializable(package="keras_initkit")
class PerHead(_PartsInitializer):
    """Draws each head of an attention layer with another initializer.

    The kernels of queries, keys and values are (inputs, heads, units): the other initializer sees
    the shape (inputs, units) of one head, and draws each with random numbers of its own.

    The output's kernel, (heads, units, outputs), is one matrix. `MultiHeadAttention` hands it the
    same initializer, and no shape tells which is which. So give the layer an initializer of this
    package that is no wrapper, with `layer_aware`, or this one by `reinitialize`: both know the
    layer, and draw the output's kernel as a whole. Where only the shape is known, a weight that
    does not have its heads along `axis` is an error.

    Examples:
    >>> kernel = PerHead("orthogonal", heads=8)((64, 8, 16))
    >>> attention = keras.layers.MultiHeadAttention(8, 16)
    >>> attention.build((None, 5, 64), (None, 5, 64))
    >>> rules = {keras.layers.MultiHeadAttention: PerHead("orthogonal", heads=8)}
    >>> drawn = keras_initkit.reinitialize(attention, rules, seed=0)

    Args:
        initializer: As in `Blockwise`.
        heads: Positive integer, the number of heads. Where the layer is known, its own count.
        axis: Integer, the axis that numbers the heads. Where the layer is known, its own.

    Raises:
        ValueError: If an argument is not one of the above; or, when called, if the weight does
            not have the heads along the axis, or seems to have them along two, or if `dtype` is no
            floating type.
    """

    def __init__(self, initializer: Any, heads: int, axis: int = 1) -> None:
        check_count("heads", heads, "the number of heads of the attention layer")
        super().__init__(initializer, axis)
        self.heads = heads

    def draw(self, view: KernelView, dtype: Any = None) -> Any:
        """Return new weights for one whose maps are known. See `KernelInitializer`."""
        if view.maps:
            return self._draw_maps(view, dtype)
        dtype = floating(dtype)
        return keras.ops.cast(_drawn(self.initializer, view, wide_enough(dtype)), dtype)

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        axis = self._check_axis(shape)
        is_output = len(shape) == 3 and axis == 1 and shape[0] == self.heads
        if shape[axis] != self.heads or is_output:
            raise ValueError(
                f"`shape` must have {self.heads}, the number of heads, along axis {self.axis} "
                "alone, as in (inputs, heads, units). "
                f"Received: shape={shape}. If it is that of the output's kernel of an attention "
                "layer, which is one matrix, write `layer_aware(MultiHeadAttention(..., "
                "kernel_initializer=Orthogonal()))`, or draw the built layer with "
                "`reinitialize(layer, {MultiHeadAttention: PerHead(...)})`: they know the layer."
            )
        head = shape[:axis] + shape[axis + 1 :]
        parts = [self._of_part(index)(head, dtype) for index in range(self.heads)]
        return keras.ops.stack(parts, axis=axis)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, the initializer as its config."""
        return {**super().get_config(), "heads": self.heads, "axis": self.axis}
