"""Sums of a number of any distribution and a Gaussian one, as functions of one Gaussian number."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_POINTS = np.linspace(-6.0, 6.0, 481)
_TABLE = 0.5 * (1.0 + np.vectorize(math.erf)(_POINTS / math.sqrt(2.0)))


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
    below = np.interp((sums[:, np.newaxis] - shifted) / stddev, _POINTS, _TABLE) @ weights
    table = np.interp(_TABLE, below / below[-1], sums)
    return lambda u: np.interp(u, _POINTS, table)
