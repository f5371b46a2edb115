"""Pooling by maxima, over windows and over all positions."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.positions import AxisMap, axis_map, move_signal, window_size
from keras_initkit.models.propagate.rules.pooling import mean_map, window_means
from keras_initkit.models.propagate.rules.registry import Call, Effect, effect, rule, spatial_rank
from keras_initkit.models.propagate.signal import Base, Gradient, Signal, centre, overlap
from keras_initkit.theory.combined import Largest, largest
from keras_initkit.theory.gains import evaluate

layers = keras.layers
Array = npt.NDArray[Any]

# So many different scales of the positions in a window are told apart.
_GROUPS = 9


@rule(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)
def _max(call: Call) -> Effect | None:
    layer, rank = call.operation, len(call.operation.pool_size)
    if rank != len(call.shape) - 1:
        return None
    sizes = zip(call.signal.shape, layer.pool_size, layer.strides, strict=False)
    reads = [_reads(*along, layer.padding) for along in sizes]
    return _take_largest(call, window_means(call), reads)


@rule(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)
def _global_max(call: Call) -> Effect | None:
    sizes = call.signal.shape[:-1]
    if spatial_rank(call.operation) != len(sizes):
        return None
    reads = [np.arange(size)[np.newaxis] for size in sizes]
    return _take_largest(call, [mean_map(size) for size in sizes], reads)


def _adaptive_max(call: Call) -> Effect | None:
    """Take the largest of windows of one size; others, of sizes that do not divide, are sampled."""
    sizes = list(zip(call.signal.shape[:-1], call.shape[:-1], strict=True))
    if any(size % outputs for size, outputs in sizes):
        return None
    reads = [np.arange(size).reshape(outputs, -1) for size, outputs in sizes]
    means = [np.repeat(np.eye(len(read)), read.shape[1], 1) / read.shape[1] for read in reads]
    return _take_largest(call, [axis_map(mean[np.newaxis]) for mean in means], reads)


for _name in ("AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D"):
    if hasattr(layers, _name):  # from Keras 3.13 on
        rule(getattr(layers, _name))(_adaptive_max)


def _reads(size: int, taps: int, stride: int, padding: str) -> Array:
    """Return the positions (outputs, taps) that a window reads, at borders some of them twice."""
    outputs, before = window_size(size, taps, stride, 1, padding)
    places = np.arange(outputs)[:, np.newaxis] * stride - before + np.arange(taps)
    return np.clip(places, 0, size - 1)


def _take_largest(call: Call, maps: Sequence[AxisMap], reads: Sequence[Array]) -> Effect:
    """Return the effect of taking the largest values within windows.

    The largest value of an increasing function is the function's of the largest input.
    """
    base, function, slope = call.signal, None, None
    if call.signal.base is not None and _increases(call.signal.base):
        base, function, slope = call.signal.base
    count = int(np.prod([read.shape[1] for read in reads]))
    windows = _windows(np.broadcast_to(base.power, base.shape[:-1]), reads)
    centred = Signal(base.shape, 0.0, base.power, base.centred)
    moved = move_signal(maps, centred, (*[len(read) for read in reads], base.shape[-1]))
    # Correlation of two places in one window.
    sums, own = np.sqrt(windows).sum(axis=-1) ** 2, float(windows.sum(axis=-1).mean())
    within = (moved.second_moment * count**2 - own) / max(float(sums.mean()) - own, 1e-300)
    within = float(np.clip(within, 1e-6, 1.0 - 1e-6))
    scales, counts = _group_scales(windows)
    stddev = np.sqrt(base.variance)

    def values(x: Array) -> Array:
        z = base.mean + stddev * x
        return z if function is None else evaluate(function, z)

    def slopes(x: Array) -> Array:
        return np.ones_like(x) if slope is None else slope(base.mean + stddev * x)

    found = largest(values, scales, counts, within, slopes)
    between = moved.pairs * (moved.second_moment * count**2 / (within * float(sums.mean())))
    between /= overlap(sums, moved.shape)
    pairs = found.map.product(between) / max(found.second_moment, 1e-300)
    profile = np.asarray(windows.max(axis=-1))
    pairs *= overlap(profile, moved.shape)
    pairs[(0, *centre(pairs.shape[1:]))] = 1.0
    power = found.second_moment * profile / max(profile.mean(), 1e-300)
    kept = len(call.shape) - 1
    output = Signal(
        call.shape,
        found.map.mean,
        power.reshape(power.shape[:kept]),
        pairs.reshape(2, *pairs.shape[1 : 1 + kept]),
    )
    usual = largest(values, np.ones(1), np.ones(1), within, slopes).slope
    alignment = found.slope / max(usual, 1e-300)

    def back(gradient: Gradient) -> Gradient:
        outputs = [len(read) for read in reads]
        arriving = np.broadcast_to(
            gradient.power.reshape([-1] if not kept else gradient.power.shape), outputs
        )
        power = _scatter(windows, arriving, found, counts, reads, call.signal.shape[:-1])
        pairs = np.zeros(call.signal.pairs.shape[1:])
        pairs[centre(pairs.shape)] = 1.0
        return Gradient(power, pairs, alignment)

    return effect(output, back)


def _windows(power: Array, reads: Sequence[Array]) -> Array:
    """Return the second moments (outputs, places in the window) at all positions read."""
    rank = len(reads)
    index = [
        read.reshape(
            [1] * i + [len(read)] + [1] * (rank - 1) + [read.shape[1]] + [1] * (rank - 1 - i)
        )
        for i, read in enumerate(reads)
    ]
    found = power[tuple(index)]
    return found.reshape(*found.shape[:rank], -1)


def _group_scales(windows: Array) -> tuple[Array, Array]:
    """Return the standard deviations within a window, in its sum's unit, and how many have each."""
    places = np.sort(windows.reshape(-1, windows.shape[-1]), axis=1).mean(axis=0)
    scales = np.sqrt(np.maximum(places / max(float(places.mean()), 1e-300), 1e-6))
    if np.ptp(scales) < 1e-2:
        return np.ones(1), np.array([len(scales)])
    parts = np.array_split(scales, min(_GROUPS, len(scales)))
    return np.array([part.mean() for part in parts]), np.array([len(part) for part in parts])


def _scatter(
    windows: Array,
    arriving: Array,
    found: Largest,
    counts: Array,
    reads: Sequence[Array],
    shape: Sequence[int],
) -> Array:
    """Return the gradient's second moment at each input: an output's goes to one of its window."""
    each = np.repeat(found.shares / counts, counts)
    ranks = np.argsort(np.argsort(windows, axis=-1), axis=-1)
    parts = each[ranks] * arriving[..., np.newaxis]
    power = np.zeros(shape)
    for place, along in enumerate(itertools.product(*[range(read.shape[1]) for read in reads])):
        inputs = np.ix_(*[read[:, i] for read, i in zip(reads, along, strict=True)])
        np.add.at(power, inputs, parts[..., place])
    return power


def _increases(base: Base) -> bool:
    """Check if a function of a signal is larger at the upper end of its values."""
    ends = base.signal.mean + np.sqrt(base.signal.variance) * np.array([-2.0, 2.0])
    low, high = evaluate(base.function, ends)
    return bool(high > low)
