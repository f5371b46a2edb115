"""Spikes: steps with gradients far above those of the steps before. Pure, on norms."""

import numpy as np

from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS

# A running median is of so many steps, a quarter of them at least, and taken anew as often.
WINDOW = int(THRESHOLDS["spike_window"].value)
_BLOCK = WINDOW // 4


class SpikeFinder:
    """Compares the norms of each step with those of the steps before it."""

    def __init__(self) -> None:
        self._before = np.zeros((0, 0))
        self._was_lost = False

    def add(self, norms: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """Return by how much the norms of the next n steps exceed their running medians.

        Args:
            norms: Of each layer, NaN without a gradient: float array (n, layers).
            lost: Whether a gradient is not finite: bool array (n,).

        Returns:
            For each step the largest ratio to its running median, of the layers' norms and that of
            them all, if it reaches `spike_factor`; infinity for the first of some steps that are
            not finite; NaN for all others: float32 (n,).
        """
        whole = np.sqrt(np.nansum(np.square(norms), axis=1, keepdims=True))
        table = np.concatenate([norms, whole], axis=1)
        if self._before.shape[1] != table.shape[1]:  # the columns are others
            self._before = table[:0]
        ratios = np.full(len(table), np.nan, np.float32)
        for begin in range(0, len(table), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            ratios[rows] = self._compare(table[rows])
            kept = table[rows][~lost[rows]]
            self._before = np.concatenate([self._before, kept])[-WINDOW:]
        is_first = lost & ~np.concatenate([[self._was_lost], lost[:-1]])
        self._was_lost = bool(lost[-1]) if len(lost) else self._was_lost
        return np.where(lost, np.where(is_first, np.inf, np.nan), ratios).astype(np.float32)

    def _compare(self, table: np.ndarray) -> np.ndarray:
        if len(self._before) < _BLOCK:
            return np.full(len(table), np.nan)
        middle = np.median(self._before, axis=0)
        usable = np.isfinite(middle) & (middle > 0)
        ratios = np.nan_to_num(table[:, usable]) / middle[usable]
        highest = ratios.max(axis=1, initial=0.0)
        return np.where(highest >= THRESHOLDS["spike_factor"].value, highest, np.nan)
