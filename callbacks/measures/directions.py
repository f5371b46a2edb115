"""How gradients of successive records point: pure functions on samples of their elements."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Records over which the signal-to-noise ratio is taken.
WINDOW = 16


class Directions(NamedTuple):
    """Figures of each variable: float32 arrays (n, variables).

    Both are NaN as long as there are too few records, and where a gradient is zero or not finite.

    Attributes:
        cosine: Of a gradient and the one of the record before, in [-1, 1]; exact for a variable
            sampled whole, else an estimate.
        snr: ‖mean‖² / Σ variance over the last `WINDOW` records; where there is noise alone it is
            about 1 / `WINDOW`.
    """

    cosine: np.ndarray
    snr: np.ndarray


class DirectionTracker:
    """Compares the gradients of each record with those of the records before it."""

    def __init__(self) -> None:
        self._before: list[np.ndarray] | None = None

    def add(self, samples: Sequence[np.ndarray]) -> Directions:
        """Compare the gradients of the next n records.

        Args:
            samples: For each variable, sampled elements of its gradient: float32 arrays (n, size).
        """
        before = self._before or [array[:0] for array in samples]
        pairs = list(zip(before, samples, strict=True))
        self._before = [np.concatenate(pair)[1 - WINDOW :] for pair in pairs]
        tables = [_with_records_before(*pair) for pair in pairs]
        with np.errstate(invalid="ignore", divide="ignore"):
            return Directions(
                np.array([_cosine(table) for table in tables]).T.astype(np.float32),
                np.array([_snr(table) for table in tables]).T.astype(np.float32),
            )


def _with_records_before(before: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Put `WINDOW` - 1 records before the first one; missing ones are NaN."""
    missing = np.full((WINDOW - 1, samples.shape[1]), np.nan)
    table = np.concatenate([missing, before, samples]).astype(np.float64)
    return table[len(table) - len(samples) - (WINDOW - 1) :]


def _cosine(table: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(table, axis=1)
    products = np.einsum("ij,ij->i", table[1:], table[:-1])
    cosine = np.clip(products / (norms[1:] * norms[:-1]), -1, 1)
    return cosine[WINDOW - 2 :]


def _snr(table: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(table, WINDOW, axis=0)
    signal = np.sum(np.square(np.mean(windows, axis=2)), axis=1)
    return signal / np.sum(np.var(windows, axis=2, ddof=1), axis=1)
