"""The largest of correlated Gaussian numbers, as max pooling takes it; sums with a Gaussian one."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_initkit.theory.maps import ActivationMap, map_of_values

Array = npt.NDArray[np.float64]

# In standard deviations: the values of the largest number, and those of a sum.
_POINTS, _POINTS_OF_SUM = np.linspace(-8.0, 8.0, 320), np.linspace(-6.0, 6.0, 481)
# The normal distribution there.
_TABLE, _TABLE_OF_SUM = (
    0.5 * (1.0 + np.vectorize(math.erf)(points / math.sqrt(2.0)))
    for points in (_POINTS, _POINTS_OF_SUM)
)


class Largest(NamedTuple):
    """Expectations of a function of the largest of some numbers.

    Attributes:
        map: The map of a Gaussian input u, that all have in common, to the mean given u.
        second_moment: Mean of the squares.
        slope: Mean of the squared derivatives that are given.
        shares: For each group of numbers, the probability that the largest is one of them.
    """

    map: ActivationMap
    second_moment: float
    slope: float
    shares: Array


def largest(
    function: Callable[[Array], Array],
    scales: Array,
    counts: Array,
    correlation: float,
    slope: Callable[[Array], Array] = np.ones_like,
) -> Largest:
    """Return the expectations of a function of the largest of normal numbers of mean 0.

    The numbers are a (√r u + √(1 - r) e) with their scale a, their correlation r, and independent
    normal u and e.

    Examples:
    >>> two = largest(lambda x: x, np.ones(1), np.array([2]), 0.0)
    >>> print(f"{two.map.mean:.2f} {two.second_moment:.2f}")  # 1/√π, 1
    0.56 1.00

    Args:
        function: Of NumPy arrays of one axis.
        scales: Positive standard deviations, one for a group of numbers.
        counts: Numbers in each group.
        correlation: From 0 to 1, of any two.
        slope: Of arrays, too: the squared derivative, for its mean.
    """
    r = float(np.clip(correlation, 1e-6, 1.0 - 1e-6))
    points = _POINTS * float(scales.max())
    values = function(points)
    edges = np.concatenate([[-np.inf], (points[1:] + points[:-1]) / 2.0, [np.inf]])

    def below(u: Array) -> Array:
        """Return the probabilities (groups, inputs, edges) that one number is below an edge."""
        shifted = edges / scales[:, np.newaxis, np.newaxis] - math.sqrt(r) * u[:, np.newaxis]
        return np.asarray(np.interp(shifted / math.sqrt(1.0 - r), _POINTS, _TABLE))

    def weights(u: Array) -> Array:
        """Return the probabilities (inputs, points) of the largest number."""
        groups = below(u) ** counts[:, np.newaxis, np.newaxis]
        return np.diff(groups.prod(axis=0), axis=-1)

    nodes, node_weights = np.polynomial.hermite_e.hermegauss(64)
    node_weights = node_weights / node_weights.sum()
    found = node_weights @ weights(nodes)
    each = below(nodes)
    one = np.diff(each, axis=-1) * counts[:, np.newaxis, np.newaxis]
    middle = np.maximum((each[..., 1:] + each[..., :-1]) / 2.0, 1e-300)
    others = (middle ** counts[:, np.newaxis, np.newaxis]).prod(axis=0) / middle
    shares = (one * others).sum(axis=-1) @ node_weights
    return Largest(
        map_of_values(lambda u: weights(u) @ values),
        float(found @ values**2),
        float(found @ slope(points)),
        np.asarray(shares / shares.sum()),
    )


def sum_as_function(
    values: Array, weights: Array, mean: float, stddev: float
) -> Callable[[Array], Array]:
    """Return the increasing function T for which T(u), u ~ N(0, 1), is distributed as the sum.

    Examples:
    >>> function = sum_as_function(np.zeros(1), np.ones(1), 1.0, 2.0)  # of 0 and N(1, 4)
    >>> print(f"{function(np.array([0.5]))[0]:.3f}")
    2.000

    Args:
        values: Values of the first number.
        weights: Their probabilities.
        mean: Mean of the Gaussian number.
        stddev: Positive number, its standard deviation.
    """
    shifted = values + mean
    sums = np.linspace(shifted.min() - 6.0 * stddev, shifted.max() + 6.0 * stddev, 801)
    scaled = (sums[:, np.newaxis] - shifted) / stddev
    below = np.interp(scaled, _POINTS_OF_SUM, _TABLE_OF_SUM) @ weights
    table = np.interp(_TABLE_OF_SUM, below / below[-1], sums)
    return lambda u: np.interp(u, _POINTS_OF_SUM, table)
