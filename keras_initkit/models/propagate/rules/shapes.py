"""Layers that move, repeat, cut or pad values."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.models.propagate.positions import (
    AxisMap,
    axis_map,
    move_gradient,
    move_signal,
)
from keras_initkit.models.propagate.rules.merging import broadcast, reduce_gradient
from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule
from keras_initkit.models.propagate.sampling import measure
from keras_initkit.models.propagate.signal import Gradient, Signal, white_gradient

layers = keras.layers


@rule(
    *(layers.Identity, layers.ActivityRegularization),
    *("Identity", "Cast", "Copy", "ConvertToTensor"),
    is_free=True,
)
def _identity(call: Call) -> Effect:
    return effect(call.signal, lambda gradient: gradient)


@rule(layers.Masking)
def _mask(call: Call) -> Effect:
    """Leave out the steps that are padding, where data tell: they are zeros."""
    signal, kept = call.signal, call.masks.get("output")
    if kept is not None:
        share = measure(kept[..., np.newaxis])
        moment = signal.second_moment / max(share.second_moment, 1e-300)
        pairs = signal.pairs * signal.second_moment
        pairs /= np.maximum(share.pairs * share.second_moment, 1e-300) * moment
        signal = Signal(
            signal.shape, signal.mean / max(share.mean, 1e-300), np.full([1], moment), pairs
        )
    return effect(signal, lambda gradient: gradient)


@rule("StopGradient")
def _stop(call: Call) -> Effect:
    return Effect((call.signal,), lambda gradients: [None])


@rule(layers.Flatten, layers.Reshape, "Reshape", "Flatten", "Ravel", "ExpandDims", "Squeeze")
def _reshape(call: Call) -> Effect:
    return reshape(call.signal, call.shape)


@rule(layers.Permute, "Transpose", "Swapaxes", "Moveaxis")
def _permute(call: Call) -> Effect:
    return reshape(call.signal, call.shape)


@rule(layers.RepeatVector)
def _repeat(call: Call) -> Effect:
    signal = call.signal
    output = broadcast(signal, call.shape)

    def back(gradient: Gradient) -> Gradient:
        return reduce_gradient(gradient, call.shape, signal.shape)

    return effect(output, back)


@rule(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
def _pad(call: Call) -> Effect | None:
    return _resize(call, _pairs(call.operation.padding), lambda n, out, x: np.eye(out, n, -x[0]))


@rule(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)
def _crop(call: Call) -> Effect | None:
    return _resize(call, _pairs(call.operation.cropping), lambda n, out, x: np.eye(out, n, x[0]))


@rule(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D)
def _upsample(call: Call) -> Effect | None:
    kind = getattr(call.operation, "interpolation", "nearest")
    times = list(np.atleast_1d(call.operation.size))
    if kind == "nearest":
        return _resize(call, times, lambda n, out, x: np.repeat(np.eye(n), x, axis=0))
    return _resize(call, times, _interpolate) if kind == "bilinear" else None


def _interpolate(size: int, outputs: int, times: int) -> Any:
    """Return the matrix of straight lines between the middles of positions along an axis."""
    places = np.clip((np.arange(outputs) + 0.5) / times - 0.5, 0.0, size - 1.0)
    return np.maximum(1.0 - np.abs(places[:, np.newaxis] - np.arange(size)), 0.0)


def reshape(signal: Signal, shape: Sequence[int]) -> Effect:
    """Return the effect of another order of the same values.

    Positions that become units, and units that become positions, are all alike behind it.
    """
    shape = tuple(shape)
    if (
        _drop_ones(shape) == _drop_ones(signal.shape)
        and len(shape)
        and shape[-1:] == signal.shape[-1:]
    ):
        power_shape = _insert_ones(signal.power.shape, signal.shape, shape)
        output = Signal(
            shape,
            signal.mean,
            signal.power.reshape(power_shape),
            signal.pairs.reshape(2, *_insert_ones(signal.pairs.shape[1:], signal.shape, shape)),
        )

        def back(gradient: Gradient) -> Gradient:
            return Gradient(
                gradient.power.reshape(_insert_ones(gradient.power.shape, shape, signal.shape)),
                gradient.pairs.reshape(signal.pairs.shape[1:]),
            )

        return effect(output, back)
    return effect(
        signal.spread(shape),
        lambda gradient: white_gradient(signal.shape, gradient.second_moment),
    )


def _drop_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape[:-1] if size != 1]


def _insert_ones(sizes: Sequence[int], shape: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Return sizes along the positions of a shape for another with other axes of size 1."""
    remaining = iter(size for size, own in zip(sizes, shape[:-1], strict=True) if own != 1)
    return [1 if size == 1 else next(remaining) for size in wanted[:-1]]


def _pairs(amounts: Any) -> list[tuple[int, int]]:
    """Return the amounts before and behind each axis; those of one axis come alone."""
    return [amounts] if isinstance(amounts[0], int) else list(amounts)


def _resize(
    call: Call, amounts: Sequence[Any], matrix: Callable[[int, int, Any], Any]
) -> Effect | None:
    """Return the effect of a matrix along each axis of a map."""
    rank, count = len(call.signal.shape) - 1, len(amounts)
    maps: list[AxisMap | None] = [None] * (rank - count)
    before, behind = call.signal.shape[rank - count : rank], call.shape[rank - count : rank]
    for size, out, amount in zip(before, behind, amounts, strict=True):
        maps.append(axis_map(matrix(size, out, amount)[np.newaxis]))
    output = move_signal(maps, call.signal, call.shape)
    return effect(output, lambda gradient: move_gradient(maps, gradient))
