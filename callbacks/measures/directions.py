"""How gradients of successive records point: pure functions on samples of their elements."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Records over which the signal-to-noise ratio is taken.
WINDOW = 16


class Directions(NamedTuple):
    """Figures of each variable: float32 arrays (n, variables)."""

    cosine: np.ndarray
    snr: np.ndarray


def directions(samples: np.ndarray, before: np.ndarray, sizes: Sequence[int]) -> Directions:
    """Compare the gradients of successive records.

    Args:
        samples: float32 array (n, Σ sizes): the sampled elements of all variables, in a row.
        before: The same for the records just before; the last `WINDOW` - 1 are used.
        sizes: Number of sampled elements of each variable.

    Returns:
        `Directions`. `cosine`: of a gradient and that of the record before, in [-1, 1]; exact for
        a variable that is sampled whole, else an estimate. `snr`: ‖mean‖² / Σ variance over the
        last `WINDOW` records; where there is noise alone it is about 1 / `WINDOW`. Both are NaN
        as long as there are too few records, and where a gradient is zero or not finite.
    """
    missing = np.full((WINDOW - 1, samples.shape[1]), np.nan)
    table = np.concatenate([missing, before, samples]).astype(np.float64)
    table = table[len(table) - len(samples) - (WINDOW - 1) :]
    edges = np.cumsum([0, *sizes])
    parts = [table[:, start:end] for start, end in itertools.pairwise(edges)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return Directions(
            np.array([_cosine(part) for part in parts]).T.astype(np.float32),
            np.array([_snr(part) for part in parts]).T.astype(np.float32),
        )


def _cosine(table: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(table, axis=1)
    products = np.einsum("ij,ij->i", table[1:], table[:-1])
    cosine = np.clip(products / (norms[1:] * norms[:-1]), -1, 1)
    return cosine[WINDOW - 2 :]


def _snr(table: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(table, WINDOW, axis=0)
    signal = np.sum(np.square(np.mean(windows, axis=2)), axis=1)
    return signal / np.sum(np.var(windows, axis=2, ddof=1), axis=1)
