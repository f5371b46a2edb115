"""Texts and tables of a log, for all its readers: what they must be, as a log comes from anywhere.

A table is a float32 array (n, 2 + columns) of n records. Its first two columns are their steps,
as high · 2²⁴ + low, exact in float32.
"""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.record.chunk import TOTALS, Chunk
from tensorboard_plugin_initkit.record.layout import Layout

_STEP_BASE = 2**24
_FIX = "Copy the log again from where it was written."


def read_text(strings: Sequence[Any]) -> bytes | str:
    """Return the one text of a tensor; raise ValueError if there is none."""
    if len(strings) != 1 or not isinstance(strings[0], bytes | str):
        raise ValueError(
            f"A text of a log must be one string. Received: {reprlib.repr(strings)}. {_FIX}"
        )
    return strings[0]


def note_damage(errors: Sequence[object]) -> list[str]:
    """Say in a sentence what is left out of a log as damaged, if there is something."""
    if not errors:
        return []
    parts = "1 damaged part" if len(errors) == 1 else f"{len(errors)} damaged parts"
    return [f"Left out of the log: {parts}. The first: {errors[0]}"]


def make_table(steps: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Make a table of steps and columns."""
    halves = np.stack(np.divmod(steps, _STEP_BASE), axis=1)
    return np.concatenate([halves, columns], axis=1).astype("<f4")


def split_table(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a table into steps, int64 (n,), and columns.

    Raises:
        ValueError: If it is no table, or its steps do not increase.
    """
    if table.ndim != 2 or table.shape[1] < 2 or not len(table) or table.dtype != np.float32:
        raise ValueError(
            "A table of a log must be float32 (records, 2 + columns). Received: "
            f"{table.dtype} of shape {table.shape}. {_FIX}"
        )
    halves = table[:, :2]
    if not ((halves >= 0) & (halves < _STEP_BASE) & (halves == np.floor(halves))).all():
        raise ValueError(
            f"The steps of a table must be integers. Received: {reprlib.repr(halves.tolist())}, "
            f"each step in two parts. {_FIX}"
        )
    high, low = halves.astype(np.int64).T
    steps = high * _STEP_BASE + low
    if (np.diff(steps) <= 0).any():
        raise ValueError(
            f"The steps of a table must increase. Received: {reprlib.repr(steps.tolist())}. {_FIX}"
        )
    return steps, table[:, 2:]


def make_chunk(layout: Layout | None, totals: np.ndarray) -> Chunk:
    """Make a chunk of the table that ends it, without values.

    Raises:
        ValueError: If it is no such table, or none of this layout.
    """
    steps, columns = split_table(totals)
    if layout is None or columns.shape[1] != len(TOTALS) * len(layout.optimizers):
        raise ValueError(
            "Records must have a layout, with the names of their columns. Received: none for the "
            f"{columns.shape[1]} totals at step {steps[0]}. {_FIX}"
        )
    split = np.split(columns, len(TOTALS), axis=1)
    return Chunk(layout, steps, {}, dict(zip(TOTALS, split, strict=True)))


def values_of(table: np.ndarray, chunk: Chunk, totals: np.ndarray) -> np.ndarray:
    """Return the columns of a table with a statistic of a chunk, which this table of totals ends.

    Raises:
        ValueError: If it is no table, or of other steps or columns than the chunk.
    """
    shape = len(totals), 2 + len(chunk.layout.variables)
    fits = table.shape == shape and table.dtype == np.float32
    if not fits or not np.array_equal(table[:, :2], totals[:, :2]):
        raise ValueError(
            f"A table of the steps {chunk.steps[0]} to {chunk.steps[-1]} must be float32 {shape}. "
            f"Received: {table.dtype} {table.shape}, or other steps. {_FIX}"
        )
    return table[:, 2:]
