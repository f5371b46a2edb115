"""A weight as linear maps, whatever the order of its axes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_initkit.connectivity.fan_formulas import Fans, fans_from_shape


class KernelView(NamedTuple):
    """The meaning of the axes of a weight.

    A weight holds one or more separate linear maps: the gates of a recurrent layer, the groups
    of a convolution, the channels of a depthwise one, the heads of an attention layer. As *maps*
    it is an array of shape (maps, *window, inputs, outputs).

    Attributes:
        shape: Shape of the weight.
        split: The same, with each axis of several things, as of gates and units, split. Axes below
            are axes of it.
        maps: Axes that number the maps.
        window: Axes of the taps of a convolution.
        inputs: Axes that are summed over.
        outputs: Axes that number the units.
        fans: True fans of a unit and of an input: between maps they need not be separate.
    """

    shape: tuple[int, ...]
    split: tuple[int, ...]
    maps: tuple[int, ...]
    window: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    fans: Fans

    @property
    def maps_shape(self) -> tuple[int, ...]:
        """(maps, *window, inputs, outputs)."""
        return (
            self._size(self.maps),
            *(self.split[axis] for axis in self.window),
            self._size(self.inputs),
            self._size(self.outputs),
        )

    @property
    def is_elementwise(self) -> bool:
        """Whether each weight multiplies an input of its own, as a scale does."""
        return not (self.inputs or self.window or self.outputs)

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """(maps, weights of a unit, units): the maps with their windows flattened."""
        count, *window, inputs, outputs = self.maps_shape
        return count, math.prod(window) * inputs, outputs

    def to_weight(self, maps: Any) -> Any:
        """Bring maps, any array of `maps_shape` or `matrix_shape`, into the shape of the weight."""
        order = self._order
        array = ops.reshape(maps, [self.split[axis] for axis in order])
        back = sorted(range(len(order)), key=order.__getitem__)
        return ops.reshape(ops.transpose(array, back), self.shape)

    def to_maps(self, weight: Any) -> Any:
        """Bring a weight into the shape `maps_shape`."""
        array = ops.transpose(ops.reshape(weight, self.split), self._order)
        return ops.reshape(array, self.maps_shape)

    @property
    def _order(self) -> tuple[int, ...]:
        return self.maps + self.window + self.inputs + self.outputs

    def _size(self, axes: Sequence[int]) -> int:
        return math.prod(self.split[axis] for axis in axes)


def view_of_shape(shape: Sequence[int], fans: Fans | None = None) -> KernelView:
    """View a weight as Keras's initializers do: as one map of axes (*window, inputs, outputs).

    Args:
        shape: Shape of the weight. With one axis, (n,), it is n inputs of one unit.
        fans: Its fans; `None` for those of `fans_from_shape`.
    """
    shape = tuple(int(size) for size in shape)
    axes = tuple(range(len(shape)))
    fans = Fans(*map(float, fans_from_shape(shape))) if fans is None else fans
    return KernelView(shape, shape, (), axes[:-2], axes[-2:][:1], axes[1:][-1:], fans)


def view_of_maps_side_by_side(shape: Sequence[int], count: int, fans: Fans) -> KernelView:
    """View a weight (*window, inputs, count · outputs) as the maps of gates or groups."""
    shape = tuple(shape)
    split = (*shape[:-1], count, shape[-1] // count)
    last = len(split) - 1
    return KernelView(shape, split, (last - 1,), tuple(range(last - 2)), (last - 2,), (last,), fans)


def view_of_depthwise(shape: Sequence[int], fans: Fans) -> KernelView:
    """View a weight (*window, channels, multiplier) as a map of each channel."""
    shape = tuple(shape)
    last = len(shape) - 1
    return KernelView(shape, shape, (last - 1,), tuple(range(last - 1)), (), (last,), fans)


def view_of_transposed(shape: Sequence[int], strides: Sequence[int], fans: Fans) -> KernelView:
    """View a weight (*window, outputs, inputs) of a transposed convolution.

    Where strides divide the window, outputs at different places between two inputs see different
    taps: each such phase is a map of its own.
    """
    *window, outputs, inputs = shape
    if any(taps % stride for taps, stride in zip(window, strides, strict=True)):
        strides = (1,) * len(window)
    pairs = [(taps // stride, stride) for taps, stride in zip(window, strides, strict=True)]
    split = (*(size for pair in pairs for size in pair), outputs, inputs)
    last = len(split) - 1
    taps, phases = tuple(range(0, last - 1, 2)), tuple(range(1, last - 1, 2))
    return KernelView(tuple(shape), split, phases, taps, (last,), (last - 1,), fans)


def view_of_scale(shape: Sequence[int], fans: Fans) -> KernelView:
    """View a scale, multiplied element by element: each element is a map."""
    shape = tuple(shape)
    return KernelView(shape, shape, tuple(range(len(shape))), (), (), (), fans)


def view_of_einsum(equation: str, shape: Sequence[int], fans: Fans) -> KernelView:
    """View the second operand of an einsum: axes that all three share number maps.

    Args:
        equation: "inputs,weight->outputs".
        shape: Shape of the weight.
        fans: Its fans.
    """
    operands, _, outputs = equation.replace(" ", "").partition("->")
    inputs, _, weight = operands.partition(",")
    shared, summed, kept = [], [], []
    for axis, label in enumerate(weight):
        if label in inputs and label in outputs:
            shared.append(axis)
        elif label in outputs:
            kept.append(axis)
        else:
            summed.append(axis)
    return KernelView(
        tuple(shape), tuple(shape), tuple(shared), (), tuple(summed), tuple(kept), fans
    )
