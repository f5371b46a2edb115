"""Signals and gradients: the statistics of a tensor that pass from layer to layer."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Pairs of positions further apart along an axis count as if they were this far apart.
REACH = 16


class Base(NamedTuple):
    """What a tensor is made from that is not Gaussian.

    Attributes:
        signal: A Gaussian signal.
        function: Function of its values, elementwise.
        slope: Of these values, the squared derivative of the last activation in `function`; `None`
            if the tensor is no activation's output, but a sum.
    """

    signal: "Signal"
    function: Callable[[Any], Any]
    slope: Callable[[Array], Array] | None = None


class Signal(NamedTuple):
    """The statistics of a tensor, over its units and over random examples.

    The last axis of the tensor has the units, the axes before it the positions: of a map, a
    sequence, heads.

    Attributes:
        shape: Shape without the batch.
        mean: Mean of all values.
        power: Array of the second moment at each position; an axis of size 1 stands for equal ones.
        pairs: Array of the correlations E h h' / E h² of the same unit at two places: its first
            axis is 0 for one example and 1 for two, the others are offsets between positions, the
            offset 0 in their middle.
        base: What the tensor is made from; `None` if it is Gaussian itself.
    """

    shape: tuple[int, ...]
    mean: float
    power: Array
    pairs: Array
    base: Base | None = None

    @property
    def second_moment(self) -> float:
        """Mean of the squares of all values."""
        return float(self.power.mean())

    @property
    def variance(self) -> float:
        """Variance over units, positions and examples."""
        return max(self.second_moment - self.mean**2, 0.0)

    @property
    def correlation(self) -> float:
        """Correlation E h h' / E h² between two examples, at the same unit and position."""
        return float(self.pairs[(1, *centre(self.pairs.shape[1:]))])

    @property
    def centred(self) -> Array:
        """Correlations of pairs, of values less their mean."""
        moment = self.second_moment
        pairs = (self.pairs * moment - self.mean**2) / max(moment - self.mean**2, 1e-300)
        return np.clip(pairs, -1.0, 1.0)

    @property
    def correlations(self) -> Array:
        """Correlations of pairs as at positions of equal variance."""
        variances = np.maximum(self.power - self.mean**2, 0.0)
        shared = np.maximum(overlap(variances, self.shape), 1e-9)
        return np.clip(self.centred / shared, -1.0, 1.0)

    def average(self, example: int) -> float:
        """Return E h h' over all pairs of positions of one example (0) or of two (1)."""
        weights = pair_weights(self.shape)
        return float((self.pairs[example] * weights).sum() * np.sqrt(self.power).mean() ** 2)

    def scale(self, factor: float) -> "Signal":
        """Multiply the values by a number."""
        return self._replace(mean=self.mean * factor, power=self.power * factor**2, base=None)

    def shift(self, mean: float, product: float) -> "Signal":
        """Add numbers to the mean, and to E h h' of all pairs and powers alike."""
        moment = self.second_moment
        total = max(moment + product, 1e-300)
        power = np.maximum(self.power + product, 0.0)
        pairs = (self.pairs * moment + product) / total
        return Signal(self.shape, self.mean + mean, power, pairs)

    def dilute(self, factor: float, is_shared: bool = False) -> "Signal":
        """Multiply the power by a factor with random numbers of mean 1, as dropout does.

        Args:
            factor: Mean of their squares.
            is_shared: Whether all positions of an example share them.
        """
        pairs = self.pairs / factor
        if is_shared:
            pairs[0] = self.pairs[0]
        pairs[(0, *centre(pairs.shape[1:]))] = 1.0
        return Signal(self.shape, self.mean, self.power * factor, pairs)

    def spread(self, shape: Sequence[int]) -> "Signal":
        """Return a signal of another shape, its power and correlations equal at all positions.

        Where there were positions before, pairs of positions have the mean correlation.
        """
        shape = tuple(shape)
        same = np.array([_mean_elsewhere(self, 0), _mean_elsewhere(self, 1)])
        pairs = np.empty((2, *window(shape)))
        pairs[:] = same.reshape(2, *([1] * (pairs.ndim - 1)))
        middle = centre(pairs.shape[1:])
        pairs[(0, *middle)], pairs[(1, *middle)] = 1.0, self.correlation
        power = np.full([1] * max(len(shape) - 1, 0), self.second_moment)
        return Signal(shape, self.mean, power, pairs)


class Gradient(NamedTuple):
    """The statistics of the gradient at a tensor; its mean and that over examples are zero.

    Attributes:
        power: Array of the second moment at each position.
        pairs: Array of the correlations of the same unit at two positions of an example, by offset.
        alignment: E g² f'² / (E g² E f'²) of the gradient g, where the tensor is made by an
            activation f: not 1 before what depends on f's values, as the largest of them does.
        gate: Function of the tensor's values, of mean 1, to which the mean square of the gradient
            is in proportion: before an activation its squared derivative. `None` if constant.
    """

    power: Array
    pairs: Array
    alignment: float = 1.0
    gate: Callable[[Array], Array] | None = None

    @property
    def second_moment(self) -> float:
        """Mean square of the gradient."""
        return float(self.power.mean())

    def scale(self, factor: Any) -> "Gradient":
        """Multiply the second moment by a number, or by an array of positions."""
        return Gradient(self.power * factor, self.pairs)


def gaussian(
    shape: Sequence[int], mean: float = 0.0, second_moment: float = 1.0, correlation: float = 0.0
) -> Signal:
    """Return a signal of independent positions, each pair of other places alike.

    Args:
        shape: Shape without the batch.
        mean: Mean of the values.
        second_moment: Mean of their squares.
        correlation: E h h' / E h² of two examples.
    """
    shape = tuple(shape)
    elsewhere = mean**2 / second_moment if second_moment else 0.0
    pairs = np.full((2, *window(shape)), elsewhere)
    middle = centre(pairs.shape[1:])
    pairs[(0, *middle)], pairs[(1, *middle)] = 1.0, max(correlation, elsewhere)
    return Signal(shape, mean, np.full([1] * max(len(shape) - 1, 0), second_moment), pairs)


def white_gradient(shape: Sequence[int], second_moment: float = 1.0) -> Gradient:
    """Return a gradient of independent elements."""
    pairs = np.zeros(window(shape))
    pairs[centre(pairs.shape)] = 1.0
    return Gradient(np.full([1] * max(len(shape) - 1, 0), second_moment), pairs)


def add_gradients(gradients: Sequence[Gradient]) -> Gradient:
    """Add independent gradients at one tensor."""
    if len(gradients) == 1:
        return gradients[0]
    weights = np.array([gradient.second_moment for gradient in gradients])
    total = max(float(weights.sum()), 1e-300)
    pairs = sum(w * gradient.pairs for w, gradient in zip(weights, gradients, strict=True)) / total
    aligned = sum(w * g.alignment for w, g in zip(weights, gradients, strict=True)) / total
    power = sum(gradient.power for gradient in gradients)
    gates = [gradient.gate or np.ones_like for gradient in gradients]

    def gate(values: Array) -> Array:
        return np.asarray(
            sum(w * own(values) for w, own in zip(weights / total, gates, strict=True))
        )

    is_gated = any(gradient.gate for gradient in gradients)
    return Gradient(
        np.asarray(power), np.asarray(pairs), float(aligned), gate if is_gated else None
    )


def sum_over_positions(
    gradient: Gradient, shape: Sequence[int], signal: Signal | None = None
) -> float:
    """Return the mean square of a gradient's sum over the positions of an example.

    Args:
        gradient: The gradient.
        shape: Shape of its tensor without the batch.
        signal: What the gradient is multiplied by at each position; `None` for ones.
    """
    positions = math.prod(shape[:-1])
    if signal is not None and signal.pairs[0].shape != gradient.pairs.shape:
        return positions * gradient.second_moment * signal.second_moment
    pairs = gradient.pairs if signal is None else gradient.pairs * signal.pairs[0]
    moment = 1.0 if signal is None else signal.second_moment
    mean = float((pairs * pair_weights(shape)).sum() * np.sqrt(gradient.power).mean() ** 2)
    return max(positions**2 * mean * moment, 0.0)


def window(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the number of offsets along each axis of positions of a shape."""
    return tuple(2 * min(size - 1, REACH) + 1 for size in shape[:-1])


def centre(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the index of the middle of an array."""
    return tuple(size // 2 for size in shape)


def overlap(power: Array, shape: Sequence[int]) -> Array:
    """Return the mean of √(q q') over pairs of positions, by offset, relative to that of q.

    Where borders have less power than the middle, pairs at a distance have more than the mean.

    Args:
        power: The second moments q, an axis of size 1 for equal ones.
        shape: Shape of the tensor without the batch.
    """
    if np.ptp(power) <= 1e-3 * power.max():
        return np.ones(window(shape))
    axes = tuple(range(1, power.ndim + 1))
    products = offset_products(np.sqrt(power)[np.newaxis, ..., np.newaxis], axes)[0]
    return np.asarray(np.broadcast_to(products / power.mean(), window(shape)))


def offset_products(values: Array, axes: Sequence[int]) -> Array:
    """Return for each example the sums over units of products at offsets, means over positions."""
    if not axes:
        return (values**2).sum(axis=-1)
    sizes = [values.shape[axis] for axis in axes]
    spectrum = np.fft.rfftn(values, [2 * size for size in sizes], axes)
    power = (np.abs(spectrum) ** 2).sum(axis=-1)
    summed = np.fft.irfftn(power, [2 * size for size in sizes], axes)
    for axis, size in zip(axes, sizes, strict=True):
        reach = min(size - 1, REACH)
        lags = np.arange(-reach, reach + 1)
        counts = (size - np.abs(lags)).reshape(-1, *[1] * (summed.ndim - 1 - axis))
        summed = np.take(summed, lags, axis=axis, mode="wrap") / counts
    return summed


def pair_weights(shape: Sequence[int]) -> Array:
    """Return for each offset its share of all pairs of positions of a shape."""
    weights = np.ones(())
    for size, count in zip(shape[:-1], window(shape), strict=True):
        distances = np.abs(np.arange(count) - count // 2)
        along = np.array([float(size - distance) for distance in distances])
        last = count // 2
        if last:
            along[[0, -1]] = (size - last) * (size - last + 1) / 2.0
        weights = np.multiply.outer(weights, along / along.sum())
    return weights


def _mean_elsewhere(signal: Signal, example: int) -> float:
    """Return the mean correlation of two different positions; that of distinct units if none."""
    weights = pair_weights(signal.shape)
    middle = centre(weights.shape)
    if weights.size == 1:
        return signal.mean**2 / max(signal.second_moment, 1e-300)
    weights[middle] = 0.0
    return float((signal.pairs[example] * weights).sum() / weights.sum())
