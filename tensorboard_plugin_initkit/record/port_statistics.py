"""Statistics of targets over all batches so far, for the loss of the best constant prediction."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# The last ones of `PORT_STATISTICS`.
TARGET_STATISTICS = ("entropy", "binary_entropy", "variance", "classes")


class TargetBatch(NamedTuple):
    """A batch of targets, as features or as classes.

    Attributes:
        mean: Mean of each feature, (features,).
        variance: Variance of each feature over the rows, (features,).
        distributions: Fraction of rows that are distributions: not negative, with a sum of 1.
        frequencies: Fraction of the rows of each class; empty if targets are no classes.
    """

    mean: Floats
    variance: Floats
    distributions: float
    frequencies: Floats


class TargetStatistics:
    """Statistics of targets over batches, all of one weight."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Floats = np.zeros(0)
        self._spread: Floats = np.zeros(0)  # sums of squared deviations
        self._frequencies: Floats = np.zeros(0)
        self._distributions = 1.0

    def add(self, batch: TargetBatch) -> list[float]:
        """Take in a batch; return `TARGET_STATISTICS` up to it, NaN where one is not defined."""
        if not self._count:
            self._mean, self._spread = np.zeros((2, *batch.mean.shape))
            self._frequencies = np.zeros(batch.frequencies.shape)
        # Chan, Golub and LeVeque 1979: exact for any mean.
        delta = batch.mean - self._mean
        self._spread = (
            self._spread + batch.variance + np.square(delta) * (self._count / (self._count + 1))
        )
        self._count += 1
        self._mean = self._mean + delta / self._count
        self._frequencies = self._frequencies + batch.frequencies
        self._distributions = min(self._distributions, batch.distributions)
        if self._frequencies.size:
            return self._of_classes(self._frequencies / max(self._frequencies.sum(), 1e-30))
        binary, entropy, classes = np.nan, np.nan, np.nan
        if self._mean.min() >= 0 and self._mean.max() <= 1:
            binary = float(np.mean(_entropy_terms(self._mean) + _entropy_terms(1 - self._mean)))
        if self._distributions > 1 - 1e-6:
            entropy, _, _, classes = self._of_classes(self._mean)
        return [entropy, binary, float(np.mean(self._spread)) / self._count, classes]

    @staticmethod
    def _of_classes(shares: Floats) -> list[float]:
        entropy = float(np.sum(_entropy_terms(shares)))
        return [entropy, np.nan, np.nan, float(np.count_nonzero(shares))]


def _entropy_terms(shares: Floats) -> Floats:
    """Return -p ln p of each share, 0 for a share of 0."""
    return -shares * np.log(np.where(shares > 0, shares, 1))
