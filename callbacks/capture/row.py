"""A recorded update as a flat vector on the device, and taken apart on the host."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class RowLayout(NamedTuple):
    """The order of a row's numbers: a table, totals, losses, samples."""

    variables: int  # rows of the table
    statistics: tuple[str, ...]  # columns of the table
    leaves: int  # number of optimizers; each has a learning rate and a loss scale
    has_loss: bool  # whether there are the sum and the count of the mean loss
    samples: tuple[int, ...]  # number of sampled gradient elements of each variable

    @property
    def table_size(self) -> int:
        """Numbers in the table."""
        return self.variables * len(self.statistics)

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return self.table_size + 2 * self.leaves + 2 * self.has_loss + sum(self.samples)

    def places(self, statistic: str) -> np.ndarray:
        """Return the places of a statistic in a row: (variables,)."""
        first = self.statistics.index(statistic)
        return np.arange(self.variables) * len(self.statistics) + first

    def loss_scale(self, leaf: int) -> int:
        """Return the place of an optimizer's loss scale in a row."""
        return self.table_size + 2 * leaf + 1

    @functools.lru_cache  # noqa: B019 (a layout is a value, and there are few)
    def order(self, columns: tuple[int, ...], leaf: int) -> np.ndarray:
        """Return indices that gather a row, without samples, from an update's output: int32.

        The output is one statistic after the other, each of the variables in `columns`; then
        learning rate, loss scale, losses; and last NaN, for all numbers unknown to the update.
        """
        count = len(self.statistics) * len(columns)
        last = count + 2 + 2 * self.has_loss
        table = np.full((self.variables, len(self.statistics)), last)
        table[list(columns)] = np.arange(count).reshape(len(self.statistics), len(columns)).T
        totals = np.full((self.leaves, 2), last)
        totals[leaf] = count, count + 1
        losses = count + 2 + np.arange(2 * self.has_loss)
        return np.concatenate([table.ravel(), totals.ravel(), losses]).astype(np.int32)

    def mask(self, columns: Sequence[int], leaf: int) -> np.ndarray:
        """Return a mask of the numbers of some variables and their optimizer: bool (size,)."""
        heard = np.isin(np.arange(self.variables), columns)
        return np.concatenate(
            [
                np.repeat(heard, len(self.statistics)),
                np.repeat(np.arange(self.leaves) == leaf, 2),
                np.repeat(True, 2 * self.has_loss),
                np.repeat(heard, self.samples),
            ]
        )


class Numbers(NamedTuple):
    """The numbers of n rows, taken apart: float32 arrays."""

    values: dict[str, np.ndarray]  # statistics by name, (n, variables)
    totals: dict[str, np.ndarray]  # learning rates and loss scales by name, (n, optimizers)
    loss: np.ndarray  # sum and count of the losses of the epoch so far, (n, 2); (n, 0) without
    samples: list[np.ndarray]  # for each variable, elements of its gradient, (n, elements)


def unpack(layout: RowLayout, rows: np.ndarray) -> Numbers:
    """Take rows apart: float32 array (n, size)."""
    ends = np.cumsum([layout.table_size, 2 * layout.leaves, 2 * layout.has_loss])
    table, totals, loss, samples = np.split(rows, ends, axis=1)
    table = table.reshape(len(rows), layout.variables, len(layout.statistics))
    totals = totals.reshape(len(rows), layout.leaves, 2)
    return Numbers(
        {name: table[:, :, i] for i, name in enumerate(layout.statistics)},
        {"learning_rate": totals[:, :, 0], "loss_scale": totals[:, :, 1]},
        loss,
        np.split(samples, np.cumsum(layout.samples)[:-1], axis=1),
    )
