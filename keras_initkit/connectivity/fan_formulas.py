"""Fans of a weight: how many inputs feed a unit, and how many units an input feeds.

Pure functions of shapes. Where units differ, as at borders and under strides, a fan is the mean.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from keras_initkit.checks import check_choice


class Fans(NamedTuple):
    """Fans of a weight; floats, since means over units need not be whole.

    Attributes:
        fan_in: Number of inputs of one unit.
        fan_out: Number of units fed by one input.
    """

    fan_in: float
    fan_out: float


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
        input_axes: Axes of `shape` to sum over, or `None`.
        output_axes: Axes of `shape` kept in the output, or `None`. Both kinds of
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


def convolution_fans(
    kernel_size: Sequence[int],
    inputs: int,
    outputs: int,
    strides: Sequence[int],
    connections: Sequence["Connections"] | None = None,
) -> Fans:
    """Return the fans of a convolution's kernel.

    In the interior of a map each output sees all Π k taps, and each input is seen by Π (k/s)
    of them, whatever the dilation: fan_in = inputs · Π k, fan_out = outputs · Π (k/s).

    Args:
        kernel_size: Number of taps along each axis, k.
        inputs: Input channels of an output channel: those of a group.
        outputs: Output channels of an input channel.
        strides: Steps between outputs along each axis, s.
        connections: Those of `connections_of_window` for each axis of a map of known size, for
            the mean over all of it, its borders included. `None` for the interior.
    """
    if connections is None:
        taps = float(math.prod(kernel_size))
        return Fans(taps * inputs, taps / math.prod(strides) * outputs)
    number = math.prod(axis.connections for axis in connections)
    return Fans(
        number / math.prod(axis.outputs for axis in connections) * inputs,
        number / math.prod(axis.inputs for axis in connections) * outputs,
    )


class Connections(NamedTuple):
    """How a window connects the positions along one axis of a map.

    Attributes:
        inputs: Number of input positions.
        outputs: Number of output positions.
        connections: Number of pairs of an input and an output joined by a tap.
    """

    inputs: int
    outputs: int
    connections: int


def connections_of_window(
    size: int, taps: int, stride: int = 1, dilation: int = 1, padding: str = "valid"
) -> Connections:
    """Count the connections of a sliding window along one axis.

    Args:
        size: Number of input positions.
        taps: Number of taps of the window.
        stride: Step between outputs.
        dilation: Step between taps.
        padding: "valid", "same" or "causal", as in `keras.layers.Conv1D`.

    Raises:
        ValueError: If the window does not fit, or `padding` is none of these.
    """
    check_choice("padding", padding, ("valid", "same", "causal"))
    extent = (taps - 1) * dilation + 1
    if padding == "valid":
        outputs, before = (size - extent) // stride + 1, 0
    elif padding == "same":
        outputs = -(-size // stride)
        before = max(0, (outputs - 1) * stride + extent - size) // 2
    else:
        outputs, before = (size - 1) // stride + 1, extent - 1
    if outputs < 1 or size < 1:
        raise ValueError(
            f"`size` must be at least {extent}, the extent of the window. Received: size={size}"
        )
    read = np.arange(outputs)[:, None] * stride - before + np.arange(taps) * dilation
    return Connections(size, outputs, int(np.count_nonzero((read >= 0) & (read < size))))


def einsum_fans(equation: str, sizes: Mapping[str, int]) -> Fans:
    """Return the fans of the second operand of an einsum, as a map from the first.

    fan_in is the product of the sizes of the summed axes, fan_out of those of the output
    and the weight alone. An axis of all three divides them into separate maps.

    Examples:
    >>> einsum_fans("bhi,hio->bho", {"h": 4, "i": 8, "o": 16})
    Fans(fan_in=8.0, fan_out=16.0)

    Args:
        equation: "inputs,weight->outputs", as in `keras.layers.EinsumDense`.
        sizes: Size of each axis of the weight, and of the summed axes.
    """
    inputs, weight, outputs = _labels(equation)
    summed = (inputs | weight) - outputs
    return Fans(
        float(math.prod(sizes[label] for label in summed)),
        float(math.prod(sizes[label] for label in (weight & outputs) - inputs)),
    )


def _labels(equation: str) -> tuple[set[str], set[str], set[str]]:
    operands, _, outputs = equation.replace(" ", "").replace("...", "").partition("->")
    inputs, _, weight = operands.partition(",")
    return set(inputs), set(weight), set(outputs)


def _product(shape: tuple[int, ...], axes: Sequence[int], argument: str) -> int:
    rank = len(shape)
    if not all(-rank <= axis < rank for axis in axes):
        raise ValueError(
            f"`{argument}` must be axes of the weight: from {-rank} to {rank - 1} for the "
            f"shape {shape}. Received: {argument}={axes}"
        )
    return math.prod(shape[axis] for axis in axes)
