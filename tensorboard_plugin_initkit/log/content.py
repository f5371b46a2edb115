"""Texts and tables of a log, for all its readers: what they must be, as a log comes from anywhere.

A table is a float32 array (n, 2 + columns) of n records. Its first two columns are their steps,
as high · 2²⁴ + low, exact in float32. All functions raise ValueError for anything else.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS, TOTALS, Chunk
from tensorboard_plugin_initkit.record.layout import SCHEMA_VERSION, Layout
from tensorboard_plugin_initkit.stored_json import refuse

_STEP_BASE = 2**24


def read_text(strings: Sequence[Any]) -> bytes | str:
    """Return the one text of a tensor."""
    if len(strings) != 1 or not isinstance(strings[0], bytes | str):
        refuse("A text of a log must be one string", list(strings))
    return strings[0]


def make_table(steps: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Make a table of steps and columns."""
    halves = np.stack(np.divmod(steps, _STEP_BASE), axis=1)
    return np.concatenate([halves, columns], axis=1).astype("<f4")


def split_table(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a table into steps, int64 (n,), which must increase, and columns."""
    if table.ndim != 2 or table.shape[1] < 2 or not len(table) or table.dtype != np.float32:
        shape = f"{table.dtype} of shape {table.shape}"
        refuse("A table of a log must be float32 (records, 2 + columns)", shape)
    halves = table[:, :2]
    if not ((halves >= 0) & (halves < _STEP_BASE) & (halves == np.floor(halves))).all():
        refuse("The steps of a table must be integers, each in two parts", halves.tolist())
    high, low = halves.astype(np.int64).T
    steps = high * _STEP_BASE + low
    if (np.diff(steps) <= 0).any():
        refuse("The steps of a table must increase", steps.tolist())
    return steps, table[:, 2:]


def make_chunk(layout: Layout | None, totals: np.ndarray) -> Chunk:
    """Make a chunk of a layout and the table that ends it, without values."""
    steps, columns = split_table(totals)
    if layout is None:
        received = f"none for the {columns.shape[1]} totals at step {steps[0]}"
        refuse("Records must have a layout, with the names of their columns", received)
    width, received = len(TOTALS) * len(layout.optimizers), f"{columns.shape[1]} at step {steps[0]}"
    if columns.shape[1] != width:
        rule = (
            f"A record of a log of version {SCHEMA_VERSION} must have {width} totals of optimizers"
        )
        refuse(rule, received)
    split = np.split(columns, len(TOTALS), axis=1)
    return Chunk(layout, steps, {}, dict(zip(TOTALS, split, strict=True)))


def values_of(table: np.ndarray, chunk: Chunk, totals: np.ndarray) -> np.ndarray:
    """Return the columns of a statistic's table, of the chunk which this table of totals ends."""
    return _columns_of(table, chunk, totals, len(chunk.layout.variables))


def ports_of(table: np.ndarray, chunk: Chunk, totals: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics of ports by name, of the chunk which this table of totals ends."""
    width = len(PORT_STATISTICS) * len(chunk.layout.ports)
    columns = _columns_of(table, chunk, totals, width)
    split = np.split(columns, len(PORT_STATISTICS), axis=1)
    return dict(zip(PORT_STATISTICS, split, strict=True))


def _columns_of(table: np.ndarray, chunk: Chunk, totals: np.ndarray, width: int) -> np.ndarray:
    shape = len(totals), 2 + width
    fits = table.shape == shape and table.dtype == np.float32
    if not fits or not np.array_equal(table[:, :2], totals[:, :2]):
        rule = f"A table of the steps from {chunk.steps[0]} on must be float32 {shape}"
        refuse(rule, f"{table.dtype} {table.shape}, or other steps")
    return table[:, 2:]


def note_damage(errors: Sequence[object]) -> list[str]:
    """Say in a sentence what is left out of a log as damaged, if there is something."""
    if not errors:
        return []
    parts = "1 damaged part" if len(errors) == 1 else f"{len(errors)} damaged parts"
    return [f"Left out of the log: {parts}. The first: {errors[0]}"]


def note_gaps(recorded: Sequence[np.ndarray]) -> list[str]:
    """Say in a sentence which steps are missing between the files of a log, if there are any.

    A training that is resumed begins a new file. There is a gap if that begins later than the
    schedule would have it, judged by the steps in both files.
    """
    gaps = []
    for before, after in itertools.pairwise(recorded):
        distances = {int(np.diff(steps).max(initial=0)) for steps in (before, after)}
        missing = range(before[-1] + 1, after[0])
        if 0 < sum(distances) <= len(missing):
            gaps.append(f"{missing[0]:,} to {missing[-1]:,}")
    if not gaps:
        return []
    return [f"Steps {' and '.join(gaps)} are not in the log: the training stopped and resumed."]
