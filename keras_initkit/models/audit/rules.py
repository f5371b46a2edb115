"""Rules for the start of weights: pure functions of arrays and numbers."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS

Array = npt.NDArray[Any]

# By which factor a variance may be off without a note. Below 2, which is what Glorot's and LeCun's
# initializers miss before a ReLU; a depth of 50 makes 1e-15 of it. Above sqrt(2): little changes.
_FACTOR = 1.7
# Usual activations intend from 1 (linear) to 5.5 (softsign).
_LARGEST_INTENDED = 5.5
# A normalization whose epsilon takes more than a tenth of the variance does not normalize.
_NORMALIZED = 0.9

# How many of a weight's numbers are compared with another's.
_LENGTHS = (64, 256, 1024, 4096)
_SAME = 0.999
# Standard deviations of the correlation of independent numbers, 1/sqrt(length).
_BY_CHANCE = 8.0


class Likeness(NamedTuple):
    """The correlation of two weights with dependent numbers, by their indices."""

    first: int
    second: int
    correlation: float

    @property
    def is_same(self) -> bool:
        """Whether they are equal, up to a factor and a sum."""
        return self.correlation > _SAME


def is_off(
    variance: float, intended: float | None, size: int, of_small_signals: float | None = None
) -> bool:
    """Check if a variance is not the intended one, allowing for few random numbers, `size`.

    If none is known, a variance is off that no usual activation intends. Between the intended one
    and that for signals so small that the activation is linear, it suits some signal.
    """
    low, high = (1.0, _LARGEST_INTENDED) if intended is None else (intended, intended)
    if of_small_signals is not None:
        low, high = min(low, of_small_signals), max(high, of_small_signals)
    factor = _FACTOR * (1.0 + 2.0 * np.sqrt(2.0 / size))
    return not low / factor <= variance <= high * factor


def is_extreme(variance: float, intended: float) -> bool:
    """Check if a variance alone is as far off as all of a depth may be."""
    limit = THRESHOLDS["start_ratio"].value
    return not limit < variance / intended < 1 / limit


def is_swallowed(variance: float, epsilon: float) -> bool:
    """Check if a normalization's epsilon is no longer small against a variance."""
    return epsilon > 0.0 and variance < _NORMALIZED * (variance + epsilon)


def has_like_units(maps: Array) -> bool:
    """Check if all units of each map are alike, in maps (maps, *window, inputs, outputs)."""
    if maps.shape[-1] < 2:
        return False
    first = maps[..., :1]
    # Most weights differ in the first two units already.
    return bool(np.array_equal(maps[..., 1:2], first) and np.all(maps == first))


def likenesses(weights: Sequence[Array]) -> list[Likeness]:
    """List pairs of weights with equal or correlated numbers.

    Compared are as many of their first numbers as both have, up to 4096, zeros left out: those of
    a sparse weight say nothing. Weights of few different numbers are patterns, such as the
    identity, and not compared.
    """
    prefixes = [_prefix(np.asarray(weight, np.float32).ravel()) for weight in weights]
    return sorted(
        likeness
        for length, longer in zip(_LENGTHS, (*_LENGTHS[1:], None), strict=True)
        for likeness in _likenesses(prefixes, length, longer)
    )


def _prefix(values: Array) -> Array:
    most = _LENGTHS[-1]
    numbers = values[:most]
    if not numbers.all():
        numbers = values[values != 0.0][:most]
    is_pattern = np.unique(numbers).size < numbers.size / 8
    return numbers[:0] if is_pattern or not np.isfinite(numbers).all() else numbers


def _likenesses(prefixes: list[Array], length: int, longer: int | None) -> Iterator[Likeness]:
    """Yield pairs with `length` numbers or more, and at least one with fewer than `longer`."""
    indices = np.array([i for i, prefix in enumerate(prefixes) if prefix.size >= length], int)
    if indices.size < 2:
        return
    numbers = np.stack([prefixes[i][:length] for i in indices]).astype(np.float64)
    numbers -= numbers.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(numbers, axis=1, keepdims=True)
    numbers /= np.where(norms > 0.0, norms, 1.0)
    correlations = numbers @ numbers.T
    limit = min(max(0.1, _BY_CHANCE / np.sqrt(length)), _SAME)
    is_long = np.array([longer is not None and prefixes[i].size >= longer for i in indices])
    is_like = (np.abs(correlations) > limit) & ~np.outer(is_long, is_long)
    for first, second in np.argwhere(np.triu(is_like, 1)):
        correlation = float(correlations[first, second])
        yield Likeness(int(indices[first]), int(indices[second]), correlation)
