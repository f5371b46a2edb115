"""A line without its noise: pure NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt


def smooth(values: npt.ArrayLike, weight: float, log: bool = False) -> npt.NDArray[Any]:
    """Average over the records with exponential weights, as TensorBoard shows scalars.

    The average begins with the first finite value, and is debiased: early values count no more
    than their share. Values that are not finite are left out, and NaN in the result.

    Args:
        values: (n,) or (n, lines).
        weight: Of the average before each value, in [0, 1): 0 changes nothing.
        log: True to average logarithms, for a logarithmic axis: the result is a
            geometric mean: a single spike does not carry it away. Values without a logarithm
            are left out.

    Raises:
        ValueError: If `weight` is not as described.
    """
    if not 0 <= weight < 1:
        raise ValueError(
            f"`smoothing` must be at least 0 and less than 1. Received: smoothing={weight!r}."
        )
    values = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log(values) if log else values
    known = np.isfinite(shown)
    result = np.full(values.shape, np.nan)
    average, count = np.zeros(values.shape[1:]), np.zeros(values.shape[1:])
    for i, there in enumerate(known):
        count = count + there
        share = (1 - weight) / np.where(there, 1 - weight**count, 1)
        row = np.where(there, shown[i], average)
        # A line that is constant stays so exactly.
        average = np.where(row == average, average, average * (1 - share) + row * share)
        result[i] = np.where(there, average, np.nan)
    return np.exp(result) if log else result
