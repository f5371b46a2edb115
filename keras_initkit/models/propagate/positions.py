"""Linear maps along the axes of positions: windows, strides, padding, pooling, upsampling.

Along one axis a map is an array of shape (taps, outputs, inputs): the outputs of one tap depend
on its inputs by fixed numbers, and different taps have independent random weights. The second
moments at positions, and the mean products of pairs by their offset, follow by two matrices.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.signal import (
    REACH,
    Gradient,
    Signal,
    centre,
    offset_products,
    window,
)

Array = npt.NDArray[np.float64]

# Along longer axes borders count for nothing.
_LONG = 512
# Along longer axes pairs at borders count as others.
_SHORT = 32


class AxisMap(NamedTuple):
    """A linear map along one axis of positions, both ways.

    Attributes:
        power: Array (outputs, inputs): share of each input's second moment in an output's.
        offsets: Array (offsets of outputs, offsets of inputs), the same of pairs.
        back_power: `power` of the transposed map.
        back_offsets: `offsets` of the transposed map.
        total: Mean over outputs of the sum of the numbers.
        taps: The array of the map; `None` along a long axis.
    """

    power: Array
    offsets: Array
    back_power: Array
    back_offsets: Array
    total: float
    taps: Array | None


Maps = Sequence[AxisMap | None]


def axis_map(taps: Array, sizes: tuple[int, int] | None = None) -> AxisMap:
    """Return a linear map along an axis.

    Args:
        taps: Array of shape (taps, outputs, inputs).
        sizes: Numbers of outputs and inputs, if the array is of a shorter axis in their place.
    """
    power = (taps**2).sum(axis=0)
    back = taps.swapaxes(1, 2)
    outputs, inputs = sizes or taps.shape[1:]
    forth_power, back_power = power, power.T
    if sizes:
        forth_power = np.array([[power.sum() / power.shape[0]]])
        back_power = forth_power * outputs / inputs
    total = float(taps.sum() / taps.shape[1])
    offsets, back_offsets = _offsets(taps, outputs, inputs), _offsets(back, inputs, outputs)
    kept = taps if max(outputs, inputs) <= _SHORT else None
    return AxisMap(forth_power, offsets, back_power, back_offsets, total, kept)


@functools.lru_cache(maxsize=256)
def window_map(
    size: int,
    taps: int,
    stride: int = 1,
    dilation: int = 1,
    padding: str = "valid",
    shares: tuple[float, ...] | None = None,
) -> AxisMap:
    """Return the map of a convolution's window, of independent weights at its taps.

    Args:
        size: Number of input positions.
        taps: Number of taps.
        stride: Step between outputs.
        dilation: Step between taps.
        padding: "valid", "same" or "causal".
        shares: Share of each tap in the kernel's mean square; `None` for equal ones.
    """
    sizes = None
    if size > _LONG and (taps - 1) * dilation < _LONG // 2:
        outputs, _ = window_size(size, taps, stride, dilation, padding)
        sizes, size = (outputs, size), _LONG
    array = window_taps(size, taps, stride, dilation, padding)
    weights = np.full(taps, 1.0 / taps) if shares is None else np.asarray(shares)
    return axis_map(array * np.sqrt(weights)[:, np.newaxis, np.newaxis], sizes)


def window_size(size: int, taps: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    """Return the number of outputs of a window along an axis, and of positions padded before."""
    extent = (taps - 1) * dilation + 1
    if padding == "valid":
        return (size - extent) // stride + 1, 0
    if padding == "same":
        outputs = -(-size // stride)
        return outputs, max(0, (outputs - 1) * stride + extent - size) // 2
    return (size - 1) // stride + 1, extent - 1


def window_taps(size: int, taps: int, stride: int, dilation: int, padding: str) -> Array:
    """Return an array (taps, outputs, inputs) with ones where a tap of an output reads an input."""
    outputs, before = window_size(size, taps, stride, dilation, padding)
    array = np.zeros((taps, outputs, size))
    for tap in range(taps):
        read = np.arange(outputs) * stride - before + tap * dilation
        inside = (read >= 0) & (read < size)
        array[tap, np.arange(outputs)[inside], read[inside]] = 1.0
    return array


def move_signal(maps: Maps, signal: Signal, shape: Sequence[int], factor: float = 1.0) -> Signal:
    """Return a signal behind maps along its positions.

    Args:
        maps: For each axis of positions its map, `None` for one that stays.
        signal: The signal before.
        shape: Shape behind, without the batch.
        factor: A number that second moments and products are multiplied by.
    """
    steps = [axis and (axis.power, axis.offsets, axis.taps) for axis in maps]
    power, pairs = _move(steps, signal.power, signal.pairs)
    mean = signal.mean * float(np.prod([axis.total for axis in maps if axis]))
    return Signal(tuple(shape), mean, power * factor, pairs)


def move_gradient(maps: Maps, gradient: Gradient, factor: float = 1.0) -> Gradient:
    """Return a gradient before maps along the positions, of the one behind them."""
    steps = [axis and (axis.back_power, axis.back_offsets, _transpose(axis.taps)) for axis in maps]
    power, pairs = _move(steps, gradient.power, gradient.pairs[np.newaxis])
    return Gradient(power * factor, pairs[0])


def step_products(signal: Signal) -> Array:
    """Return E x x' of two steps of one example (0) or two (1): (2, steps, steps)."""
    power = np.broadcast_to(signal.power, signal.shape[0])
    return np.stack([from_offsets(pairs, power) for pairs in signal.pairs])


def from_offsets(pairs: Array, power: Array) -> Array:
    """Return a matrix of products of two steps, of their correlations by offset."""
    steps, reach = len(power), len(pairs) // 2
    offsets = np.clip(np.subtract.outer(np.arange(steps), np.arange(steps)), -reach, reach)
    return np.sqrt(np.outer(power, power)) * pairs[offsets + reach]


def by_offset(products: Array, power: Array, shape: Sequence[int]) -> Array:
    """Return mean correlations by offset, of a matrix of products of two steps."""
    (count,) = window(shape)
    scale = np.sqrt(np.outer(power, power))
    return np.array(
        [
            np.trace(products, offset) / max(np.trace(scale, offset), 1e-300)
            for offset in range(-(count // 2), count // 2 + 1)
        ]
    )


def _move(
    steps: Sequence[tuple[Array, Array, Array | None] | None], power: Array, pairs: Array
) -> tuple[Array, Array]:
    incoherent, before = 1.0, power
    for axis, step in enumerate(steps):
        if step is None:
            continue
        shares, offsets, taps = step
        if shares.shape == (1, 1):
            power = power.mean(axis=axis, keepdims=True) * shares[0, 0]
        else:
            size = shares.shape[1]
            if power.shape[axis] not in (1, size):
                power = power.mean(axis=axis, keepdims=True)
            full = np.broadcast_to(power, (*power.shape[:axis], size, *power.shape[axis + 1 :]))
            power = np.moveaxis(np.tensordot(shares, full, (1, axis)), 0, axis)
        along = before.mean(axis=tuple(i for i in range(before.ndim) if i != axis))
        if taps is not None and len(along) == taps.shape[2]:
            offsets = _weigh_offsets(offsets, taps, along)
        pairs = np.moveaxis(np.tensordot(offsets, pairs, (1, axis + 1)), 0, axis + 1)
        incoherent *= float(offsets[centre(offsets.shape)])
    own = float(pairs[(0, *centre(pairs.shape[1:]))])
    if own <= 0.0 or incoherent <= 0.0:
        return power * 0.0, pairs * 0.0
    # Taps that share their weights add up values, not powers.
    return power * (own / incoherent), pairs / own


def _weigh_offsets(offsets: Array, taps: Array, power: Array) -> Array:
    """Return the offsets of a map behind inputs of different second moments.

    A pair counts with the smaller one: at a border, padding takes the same inputs from both.
    """
    if np.ptp(power) <= 1e-3 * power.max():
        return offsets
    levels = np.unique([0.0, *power])
    steps = np.sqrt(np.diff(levels))[:, np.newaxis]
    inside = np.where(power > levels[:-1, np.newaxis], steps, 0.0)
    scaled = (taps[:, np.newaxis] * inside[:, np.newaxis]).reshape(-1, *taps.shape[1:])
    shared = offset_products(inside.T[np.newaxis], (1,))[0]
    # No pair at a distance may have any power.
    return _offsets(scaled, *taps.shape[1:]) / np.maximum(shared, 1e-9 * shared.max())


def _transpose(taps: Array | None) -> Array | None:
    return None if taps is None else taps.swapaxes(1, 2)


def _offsets(taps: Array, outputs: int, inputs: int) -> Array:
    """Return the mean products of two rows, by their offset and that of the inputs they share."""
    _, rows, size = taps.shape
    out_reach, in_reach = min(outputs - 1, REACH), min(inputs - 1, REACH)
    spectrum = np.fft.rfft(taps, 2 * size, axis=-1)
    lags = np.arange(-(size - 1), size)
    places = np.clip(lags, -in_reach, in_reach) + in_reach
    found = np.zeros((2 * out_reach + 1, 2 * in_reach + 1))
    for offset in range(out_reach + 1):
        first, second = spectrum[:, : rows - offset], spectrum[:, offset:]
        summed = np.fft.irfft((first.conj() * second).sum(axis=(0, 1)), 2 * size)
        values = summed[lags] / (rows - offset)
        np.add.at(found[out_reach + offset], places, values)
        found[out_reach - offset] = found[out_reach + offset, ::-1]
    return found
