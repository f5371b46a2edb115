"""A recorded update as a flat vector on the device, and taken apart on the host."""

import functools
from typing import NamedTuple

import numpy as np


class RowLayout(NamedTuple):
    """The order of the numbers of an optimizer's row: a table, totals, losses, samples."""

    variables: int  # rows of the table
    statistics: tuple[str, ...]  # columns of the table
    has_loss: bool  # whether there are the sum and the count of the mean loss
    samples: tuple[int, ...]  # number of sampled gradient elements of each variable

    @property
    def table_size(self) -> int:
        """Numbers in the table."""
        return self.variables * len(self.statistics)

    @property
    def size(self) -> int:
        """Numbers in a row: there are a learning rate and a loss scale, too."""
        return self.table_size + 2 + 2 * self.has_loss + sum(self.samples)

    def places(self, statistic: str) -> np.ndarray:
        """Return the places of a statistic in a row: (variables,)."""
        first = self.statistics.index(statistic)
        return np.arange(self.variables) * len(self.statistics) + first

    @property
    def loss_scale(self) -> int:
        """Place of the loss scale in a row."""
        return self.table_size + 1

    @functools.lru_cache  # noqa: B019 (a layout is a value, and there are few)
    def order(self, columns: tuple[int, ...]) -> np.ndarray:
        """Return indices that gather a row, without samples, from an update's output: int32.

        The output is one statistic after the other, each of the variables in `columns`; then
        learning rate, loss scale, losses; and last NaN, for all numbers unknown to the update.
        """
        count, totals = len(self.statistics) * len(columns), 2 + 2 * self.has_loss
        table = np.full((self.variables, len(self.statistics)), count + totals)
        table[list(columns)] = np.arange(count).reshape(len(self.statistics), len(columns)).T
        return np.concatenate([table.ravel(), count + np.arange(totals)]).astype(np.int32)


class Numbers(NamedTuple):
    """The numbers of n rows, taken apart: float32 arrays."""

    values: dict[str, np.ndarray]  # statistics by name, (n, variables)
    totals: dict[str, np.ndarray]  # learning rates and loss scales by name, (n, 1)
    loss: np.ndarray  # sum and count of the losses of the epoch so far, (n, 2); (n, 0) without
    samples: list[np.ndarray]  # for each variable, elements of its gradient, (n, elements)


def unpack(layout: RowLayout, rows: np.ndarray) -> Numbers:
    """Take rows apart: float32 array (n, size)."""
    ends = np.cumsum([layout.table_size, 1, 1, 2 * layout.has_loss])
    table, rates, scales, loss, samples = np.split(rows, ends, axis=1)
    table = table.reshape(len(rows), layout.variables, len(layout.statistics))
    return Numbers(
        {name: table[:, :, i] for i, name in enumerate(layout.statistics)},
        {"learning_rate": rates, "loss_scale": scales},
        loss,
        np.split(samples, np.cumsum(layout.samples)[:-1], axis=1),
    )
