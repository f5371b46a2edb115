"""Convolutions: plain, grouped, dilated, depthwise, separable and transposed."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.kernel import Kernel, add_bias, kernel_of, mix, to_array
from keras_initkit.models.propagate.positions import (
    AxisMap,
    Maps,
    axis_map,
    move_gradient,
    move_signal,
    window_map,
    window_size,
    window_taps,
)
from keras_initkit.models.propagate.rules.activations import (
    align_slopes,
    align_squares,
    with_activation,
)
from keras_initkit.models.propagate.rules.registry import Call, Effect, chain, effect, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, centre, white_gradient
from keras_initkit.theory.maps import map_of_values

layers = keras.layers
Array = npt.NDArray[np.float64]

# A tap counts as another if its share of the kernel's squares is off by more than this.
_EVEN = 0.5


def tap_shares(kernel: Array, rank: int) -> list[tuple[float, ...] | None]:
    """Return along each axis of a window the shares of its taps; `None` where they are alike."""
    squares = (kernel**2).sum(axis=tuple(range(rank, kernel.ndim)))
    total = squares.sum()
    found: list[tuple[float, ...] | None] = []
    for axis in range(rank):
        shares = squares.sum(axis=tuple(i for i in range(rank) if i != axis)) / (total or 1.0)
        is_even = not total or np.abs(shares * len(shares) - 1.0).max() < _EVEN
        found.append(None if is_even else tuple(float(share) for share in shares))
    return found


def window_maps(
    layer: Any, size: Sequence[int], shares: Sequence[tuple[float, ...] | None]
) -> list[AxisMap]:
    """Return the maps of a convolution along the axes of its window."""
    return [
        window_map(positions, taps, stride, dilation, layer.padding, share)
        for positions, taps, stride, dilation, share in zip(
            size, layer.kernel_size, layer.strides, layer.dilation_rate, shares, strict=True
        )
    ]


def convolve(
    signal: Signal, maps: Maps, kernel: Kernel, bias: Any, shape: tuple[int, ...]
) -> Effect:
    """Return the effect of a kernel with maps along the last axes of positions.

    The kernel's `back` is without the steps of the window: as for one output a position.
    """
    every = [*[None] * (len(shape) - 1 - len(maps)), *maps]
    output = add_bias(mix(kernel, signal, move_signal(every, signal, shape)), bias)

    def back(gradient: Gradient) -> Gradient:
        return move_gradient(every, gradient, kernel.back)

    return effect(output, back)


@rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def _convolution(call: Call) -> Effect | None:
    layer = call.operation
    values = to_array(layer.kernel)
    *window, _, filters = values.shape
    rank = len(window)
    taps = int(np.prod(window))
    # The back way's map carries the share of a tap: all taps together see an input.
    kernel = kernel_of(values.reshape(-1, filters), fan_out=taps * filters / layer.groups)
    maps = window_maps(layer, call.signal.shape[-1 - rank : -1], tap_shares(values, rank))
    done = convolve(call.signal, maps, kernel, layer.bias, call.shape)
    return with_activation(layer, done)


@rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def _depthwise(call: Call) -> Effect | None:
    layer = call.operation
    return with_activation(layer, _convolve_channels(call, layer.kernel, layer.bias, call.shape))


@rule(layers.SeparableConv1D, layers.SeparableConv2D)
def _separable(call: Call) -> Effect | None:
    layer = call.operation
    pointwise = to_array(layer.pointwise_kernel)
    kernel = kernel_of(pointwise.reshape(pointwise.shape[-2:]))
    shape = (*call.shape[:-1], pointwise.shape[-2])
    depthwise = _convolve_channels(call, layer.depthwise_kernel, None, shape)

    def mix_channels(signal: Signal) -> Effect:
        output = add_bias(mix(kernel, signal), layer.bias)._replace(shape=call.shape)
        return effect(output, lambda gradient: gradient.scale(kernel.back))

    return with_activation(layer, chain(depthwise, mix_channels))


def _convolve_channels(call: Call, weight: Any, bias: Any, shape: tuple[int, ...]) -> Effect:
    values = to_array(weight)
    *window, _, multiplier = values.shape
    rank, taps = len(window), int(np.prod(window))
    kernel = kernel_of(values.reshape(taps, -1), fan_out=float(taps * multiplier))
    maps = window_maps(call.operation, call.signal.shape[-1 - rank : -1], tap_shares(values, rank))
    done = convolve(call.signal, maps, kernel, bias, shape)

    def back(gradient: Gradient) -> Gradient:
        (found,) = done.back([gradient])
        assert found is not None
        return _add_coupling(found, gradient, call, done.outputs[0])

    return effect(done.outputs[0], back)


def _add_coupling(found: Gradient, gradient: Gradient, call: Call, output: Signal) -> Gradient:
    """Add to a gradient behind depthwise kernels what their weights have in common with slopes.

    Two windows with outputs x and x' of correlation ρ read inputs h and h' by weights w and w'. Of
    few taps, n, w w' is not independent of the slopes f'(x) f'(x'):

        E w w' f'(x) f'(x') = E w² r/n · d/dρ E f'(x) f'(x')

    by integration by parts, for a rectifier f or its like. If inputs have correlations ρ and, at
    twice the offset, ρ², r is 1 - ρ² where h is h', and ρ (1 - ρ) for others. As it has the factor
    h h', it is larger where inputs are not zero.
    """
    gate, layer, signal = gradient.gate, call.operation, call.signal
    if gate is None or gradient.pairs.ndim != len(layer.kernel_size):
        return found
    mapped = map_of_values(lambda x: np.sqrt(gate(x)), output.mean, output.variance)
    correlations = output.pairs[0]
    coupled = mapped.slope_product(correlations) * mapped.variance * gradient.pairs
    coupled /= np.maximum(mapped.product(correlations), 1e-300) * math.prod(layer.kernel_size)
    sums = []
    for size, taps, stride, dilation in zip(
        signal.shape, layer.kernel_size, layer.strides, layer.dilation_rate, strict=False
    ):
        array = window_taps(size, taps, stride, dilation, layer.padding)
        sums.append(axis_map(array.sum(axis=0, keepdims=True)))
    plain, same, others = (
        move_gradient(sums, Gradient(gradient.power, pairs))
        for pairs in (
            white_gradient(output.shape).pairs,
            coupled * (1.0 - correlations**2),
            coupled * correlations * (1.0 - correlations),
        )
    )
    # Shares of the power, and of it behind an activation in front.
    share, other_share = (x.second_moment / plain.second_moment for x in (same, others))
    aligned = align_squares(signal)
    alignment = (1.0 + share * aligned) / (1.0 + share)
    pairs = found.pairs + aligned * other_share * others.pairs / align_slopes(signal)
    pairs /= 1.0 + aligned * share
    pairs[centre(pairs.shape)] = 1.0
    return Gradient(found.power * (1.0 + share), pairs, alignment)


@rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def _transposed(call: Call) -> Effect | None:
    layer = call.operation
    values = to_array(layer.kernel)
    *window, filters, _ = values.shape
    rank, taps = len(window), int(np.prod(window))
    flat = np.moveaxis(values, -1, -2).reshape(-1, filters)
    kernel = kernel_of(flat, fan_out=float(taps * filters))
    # All taps see an output only where strides are 1: the share is in the map.
    kernel = kernel._replace(sums=kernel.power, mean=kernel.mean / float(np.prod(layer.strides)))
    sizes = zip(call.signal.shape[-1 - rank : -1], call.shape[-1 - rank : -1], strict=True)
    shares = tap_shares(values, rank)
    maps = [
        _transposed_map(size, outputs, taps_along, stride, dilation, layer.padding, share)
        for (size, outputs), taps_along, stride, dilation, share in zip(
            sizes, window, layer.strides, layer.dilation_rate, shares, strict=True
        )
    ]
    done = convolve(call.signal, maps, kernel, layer.bias, call.shape)
    return with_activation(layer, done)


def _transposed_map(
    size: int,
    outputs: int,
    taps: int,
    stride: int,
    dilation: int,
    padding: str,
    shares: tuple[float, ...] | None,
) -> AxisMap:
    """Return the transposed map of a window, which leads from the outputs to the inputs."""
    weights = np.full(taps, 1.0 / taps) if shares is None else np.asarray(shares)
    if window_size(outputs, taps, stride, dilation, padding)[0] != size:
        padding = "valid"
        outputs = max(outputs, (size - 1) * stride + (taps - 1) * dilation + 1)
    array = window_taps(outputs, taps, stride, dilation, padding).swapaxes(1, 2)
    return axis_map(array * np.sqrt(weights)[:, np.newaxis, np.newaxis])
