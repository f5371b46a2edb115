"""Windows of records: a condition must last, and means are over windows."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def find_windows(
    steps: Ints, span: float, planned: int = 0, is_single: bool = False
) -> tuple[Ints, Bools]:
    """Find the first record of the window ending with each record, and if it is long enough.

    A window has at least so many steps, and `window_records` records. Where so few steps are
    planned, if that is known, that there were hardly two windows, half of them are enough, and
    two records. Batches of a single sample tell little: their windows have more of both.
    """
    records = int(THRESHOLDS["window_records"].value)
    if is_single:
        records = int(THRESHOLDS["single_records"].value)
        span *= THRESHOLDS["single_records"].value
    elif 0 < planned < 2 * span + records:
        span, records = max(records, planned // 2), int(THRESHOLDS["short_records"].value)
    start = np.minimum(np.searchsorted(steps, steps - span), np.arange(len(steps)) - records + 1)
    ready = (start >= 0) & (steps - steps[:1] >= span)
    return np.maximum(start, 0), ready


def find_thirds(steps: Ints) -> tuple[Ints, Ints]:
    """Return the first records of the middle and the last third of the training up to each."""
    elapsed = steps - steps[:1]
    middle, late = (
        np.searchsorted(steps, steps[:1] + elapsed * part / 3, "right") for part in (1, 2)
    )
    return middle, late


def rows_in_windows(steps: Ints, rows: Ints) -> Ints:
    """Return the rows of the longest windows ending with some rows, and the first row."""
    start, _ = find_windows(steps, THRESHOLDS["depth_window_steps"].value)
    edges = np.zeros(len(steps) + 1, np.int64)
    np.add.at(edges, start[rows], 1)
    np.add.at(edges, rows + 1, -1)
    inside = np.cumsum(edges[:-1]) > 0
    inside[:1] = True
    return np.flatnonzero(inside)


def persists(condition: Bools, start: Ints, ready: Bools) -> Bools:
    """Find where a condition, (n,) or (n, …), has held at all records of the window."""
    shape = (-1, *[1] * (condition.ndim - 1))
    index = np.arange(len(condition)).reshape(shape)
    last_miss = np.maximum.accumulate(np.where(condition, -1, index), axis=0)
    return (last_miss < start.reshape(shape)) & ready.reshape(shape)


def prevails(condition: Bools, start: Ints, ready: Bools) -> Bools:
    """Find where a condition, (n,), holds and has at most records of the window."""
    misses = np.concatenate([[0], np.cumsum(~condition)])
    end = np.arange(len(condition)) + 1
    share = 1 - (misses[end] - misses[start]) / (end - start)
    return condition & (share >= THRESHOLDS["window_share"].value) & ready


def window_mean(values: Floats, start: Ints) -> Floats:
    """Average over the window ending at each record, without unknown values, (n,)."""
    known = np.isfinite(values)
    # Not by differences of cumulative sums: a first loss of 1e20 would drown all others.
    edges = np.stack([start, np.arange(len(values)) + 1], axis=1).ravel()
    sums, counts = (
        np.add.reduceat(np.append(array, 0.0), edges)[::2]
        for array in (np.where(known, values, 0.0), known)
    )
    return quotient(sums, counts)


def mean_of_known(values: Floats) -> Floats:
    """Average over the known columns, (n, columns) to (n,)."""
    known = ~np.isnan(values)
    return quotient(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))


def quotient(part: Any, whole: Any) -> Floats:
    """Divide, 0 / 0 to NaN, without a warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(part, whole)


def find_first(condition: Any) -> int | None:
    """Return the position of the first True, if there is one."""
    return int(condition.argmax()) if condition.any() else None


def find_runs(mask: Bools) -> list[tuple[int, int]]:
    """Return the first and last position of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(begin), int(end) - 1) for begin, end in edges.reshape(-1, 2)]


def lower_median(values: Floats) -> Floats:
    """Return the median over columns, the lower of two in the middle: of two layers, the less."""
    middle = max(0, (values.shape[1] - 1) // 2)
    return np.sort(values, axis=1)[:, middle : middle + 1].reshape(-1)
