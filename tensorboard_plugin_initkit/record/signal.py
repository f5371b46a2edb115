"""The signal: the RMS gradient at the units of a layer, the measure to compare layers with.

A kernel's gradient is the product of this signal and of the layer's inputs: in a ReLU network of
badly scaled weights, where one falls over depth as the other grows, it is the same in all layers.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def is_bias(path: str) -> bool:
    """Check by its name for a variable with one element a unit, added to the unit's input."""
    return path.rpartition("/")[2] in ("bias", "beta")


def shows_units(paths: Sequence[str], dead_units: Floats) -> npt.NDArray[np.bool_]:
    """Choose the variables with gradients that show the units of their layers.

    These are the biases, and the kernels of layers without a bias: for these, as for biases, the
    share of dead units, (n, variables), is recorded. Elsewhere it is NaN.
    """
    named = np.array([is_bias(path) for path in paths], bool)
    return named | ~np.isnan(dead_units).all(axis=0)


def signal_of(rms: npt.ArrayLike, zeros: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the RMS over the elements of a gradient other than zero.

    Of an embedding most rows are in no sample, and of a ReLU layer some units are inactive for a
    whole batch: the others count. An unknown share of `zeros`, NaN, counts as 0.
    """
    zeros = np.nan_to_num(np.asarray(zeros, np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(zeros == 1, 0.0, np.asarray(rms) / np.sqrt(1 - zeros))
