"""A table in shards, and what workers run; they import this file, which is no test."""

import itertools
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_initkit.statistics.moments import Moments

FEATURES = 3
# Empty, uneven, of a single row.
_CUTS = [0, 0, 1, 2, 1000, 1000, 1300, 4000, 4321, 4321]


class Joined:
    """A state that remembers its order: a list of what was reduced."""

    def __init__(self, item: Any) -> None:
        self.items = [item]

    def merge(self, other: "Joined") -> "Joined":
        self.items += other.items
        return self


def reduce_to_process(shard: Any) -> Joined:
    return Joined(os.getpid())


def reduce_to_moments(shard: Any) -> Moments:
    """An array, a data frame, the path of one, a list of rows, or a function that returns it."""
    if callable(shard):
        shard = shard()
    if isinstance(shard, str):
        shard = np.load(shard)
    rows = np.reshape(np.asarray(shard), (-1, FEATURES))
    if np.isnan(rows).any():
        raise ValueError("`data` must be finite. Received: NaN.")
    return Moments((FEATURES,)).update(rows)


def table(offset: float = 1e6) -> NDArray[Any]:
    """Rows whose mean is `offset` times their standard deviation, of three scales."""
    rows = np.random.default_rng(0).normal(offset, 1.0, (4321, FEATURES))
    return rows * np.array([1.0, 1e-3, 1e3])


def cut(rows: NDArray[Any]) -> list[NDArray[Any]]:
    return [rows[start:end] for start, end in itertools.pairwise(_CUTS)]
