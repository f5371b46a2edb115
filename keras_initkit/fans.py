"""Fans of a weight: how many inputs feed a unit, and how many units an input feeds."""

import math
from collections.abc import Sequence


def fans_from_shape(
    shape: Sequence[int],
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
) -> tuple[int, int]:
    """Return `(fan_in, fan_out)` of a weight, as far as its shape tells.

    Without axes, the shape is read in Keras's way:

    | shape | fan_in | fan_out |
    |---|---|---|
    | `()` | 1 | 1 |
    | `(n,)` | n | n |
    | `(inputs, outputs)` | inputs | outputs |
    | `(*window, inputs, outputs)` | inputs · Π window | outputs · Π window |

    With both axes, each fan is the product of the sizes of its axes. A shape knows
    nothing of strides, groups, gates or transposed convolutions.

    Examples:
    >>> fans_from_shape((3, 3, 16, 32))
    (144, 288)
    >>> fans_from_shape((64, 8, 4), input_axes=[0], output_axes=[1, 2])
    (64, 32)

    Args:
        shape: Sequence of non-negative integers, the shape of the weight.
        input_axes: Axes of `shape` that are summed over, or `None`.
        output_axes: Axes of `shape` that the output keeps, or `None`. Both kinds of
            axes are given, or neither.

    Returns:
        Two integers. A fan is 0 where one of its sizes is 0.

    Raises:
        ValueError: If one kind of axes is given without the other, or an axis lies
            outside the shape.
    """
    shape = tuple(int(size) for size in shape)
    check_axes(input_axes, output_axes)
    if input_axes is not None and output_axes is not None:
        return (
            _product(shape, input_axes, "input_axes"),
            _product(shape, output_axes, "output_axes"),
        )
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def check_axes(
    input_axes: Sequence[int] | None,
    output_axes: Sequence[int] | None,
) -> None:
    """Raise a ValueError unless both kinds of axes are given, or neither."""
    if (input_axes is None) != (output_axes is None):
        raise ValueError(
            "`input_axes` and `output_axes` must be given together, or not at all. "
            f"Received: input_axes={input_axes}, output_axes={output_axes}"
        )


def _product(shape: tuple[int, ...], axes: Sequence[int], argument: str) -> int:
    rank = len(shape)
    if not all(-rank <= axis < rank for axis in axes):
        raise ValueError(
            f"`{argument}` must be axes of the weight: from {-rank} to {rank - 1} for the "
            f"shape {shape}. Received: {argument}={axes}"
        )
    return math.prod(shape[axis] for axis in axes)
