"""Steps x layers, drawn in fewer columns than there are records: pure NumPy."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
How = Literal["max", "min", "mean"]


class Bins(NamedTuple):
    """Columns of equal width in steps, and the records in each.

    A column without a record of its own repeats the one before it.

    Attributes:
        edges: Where columns begin and end, in steps: (columns + 1,).
        first, last: First and last recorded step of a column: (columns,).
        records: Number of records in it; 0 where it repeats the one before: (columns,).
        values: Maximum, minimum or mean of the finite values: (columns, layers). NaN where there
            are none.
        nonfinite: True where a value was NaN or infinite: (columns, layers).
        missing: True where there is nothing to show: (columns, layers).
        zero: True where the value is exactly zero: (columns, layers).
    """

    edges: Floats
    first: Ints
    last: Ints
    records: Ints
    values: Floats
    nonfinite: Bools
    missing: Bools
    zero: Bools


def bin_steps(
    steps: npt.ArrayLike,
    values: npt.ArrayLike,
    columns: int = 1200,
    how: How = "max",
    nonfinite: npt.ArrayLike | None = None,
) -> Bins:
    """Combine records into at most so many columns.

    Records at equal distances get one column each if there are not more than `columns`.

    Args:
        steps: Strictly increasing integers, (n,).
        values: (n, layers); NaN where a layer received no gradient.
        columns: Largest number of columns, a positive integer.
        how: Of several records, `"max"` keeps the spike of a single step, and hides a layer
            dead for a while; `"min"` keeps the dead layer; `"mean"` neither.
        nonfinite: (n, layers), where the gradient was not finite; infinite values count anyway.

    Raises:
        ValueError: If `columns` or `how` is not as described, or shapes do not fit.
    """
    steps, values = np.asarray(steps, np.int64), np.asarray(values, np.float64)
    broken = np.zeros(values.shape, bool) if nonfinite is None else np.asarray(nonfinite, bool)
    if values.ndim != 2 or steps.shape != values.shape[:1]:
        raise ValueError(
            "`values` must have a row for each step and a column for each layer. Received: "
            f"values of shape {values.shape} with steps of shape {steps.shape}."
        )
    return bin_blocks(steps, lambda rows: (values[rows], broken[rows]), columns, how)


def bin_blocks(
    steps: Ints,
    read: Callable[[slice], tuple[Floats, Bools]],
    columns: int = 1200,
    how: How = "max",
    most: int | None = None,
) -> Bins:
    """Bin values as `bin_steps` does, but read them block by block.

    Args:
        steps: Strictly increasing integers, (n,).
        read: Returns the values of a slice of records, and where the gradient was not finite.
        columns: Largest number of columns, a positive integer.
        how: As for `bin_steps`.
        most: Largest number of records of a block. A column is never parted: one of more
            records is a block of its own.

    Raises:
        ValueError: If `columns` or `how` is not as described.
    """
    if columns < 1:
        raise ValueError(f"`columns` must be a positive integer. Received: columns={columns!r}.")
    if how not in ("max", "min", "mean"):
        raise ValueError(f'`how` must be "max", "min" or "mean". Received: how={how!r}.')
    if not len(steps):
        none, empty = np.zeros(0, np.int64), read(slice(0, 0))[0]
        nowhere = np.zeros(empty.shape, bool)
        return Bins(np.zeros(1), none, none, none, empty, nowhere, nowhere, nowhere)
    edges, column = _columns(steps, columns)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], len(steps))
    combined, broken = [], []
    for rows, own in _blocks(starts, ends, most or len(steps)):
        values, nonfinite = read(rows)
        combined.append(_combine(values, own, how))
        broken.append(np.logical_or.reduceat(np.isinf(values) | nonfinite, own, axis=0))
    shown = np.searchsorted(column[starts], np.arange(len(edges) - 1), "right") - 1
    result, any_broken = np.concatenate(combined)[shown], np.concatenate(broken)[shown]
    return Bins(
        edges=edges,
        first=steps[starts][shown],
        last=steps[ends - 1][shown],
        records=np.bincount(column, minlength=len(edges) - 1),
        values=result,
        nonfinite=any_broken,
        missing=np.isnan(result) & ~any_broken,
        zero=result == 0,
    )


def bin_layers(bins: Bins, rows: int, how: How = "max") -> tuple[Bins, Ints, Ints]:
    """Combine neighbouring layers into at most so many rows of equal height.

    Args:
        bins: From `bin_steps`.
        rows: Largest number of rows, a positive integer.
        how: `"max"`, `"min"` or `"mean"` of several layers.

    Returns:
        The bins with a row in the place of each layer, and the first and last layer of each. A
        row is marked as zero, as it is as not finite, if one of its layers is.
    """
    layers = np.arange(bins.values.shape[1])
    if len(layers) <= rows:
        return bins, layers, layers
    across = bin_steps(layers, bins.values.T, rows, how, bins.nonfinite.T)
    zero = np.logical_or.reduceat(bins.zero, across.first, axis=1)
    combined = bins._replace(
        values=across.values.T, nonfinite=across.nonfinite.T, missing=across.missing.T, zero=zero
    )
    return combined, across.first, across.last


def extent(steps: Ints) -> tuple[float, float]:
    """Return the begin and end of the columns of all records, in steps."""
    return (float(steps[0]), float(steps[-1] + _unit(steps))) if len(steps) else (0.0, 1.0)


def _blocks(starts: Ints, ends: Ints, most: int) -> Iterator[tuple[slice, Ints]]:
    """Yield the records of whole columns, and the start of each column in them."""
    first = 0
    while first < len(starts):
        begin = int(starts[first])
        next_one = max(first + 1, int(np.searchsorted(ends, begin + most, "right")))
        yield slice(begin, int(ends[next_one - 1])), starts[first:next_one] - begin
        first = next_one


def _columns(steps: Ints, most: int) -> tuple[Floats, Ints]:
    """Return the edges of the columns, and the column of each step."""
    unit = _unit(steps)
    span = int(steps[-1] - steps[0]) // unit + 1
    columns = min(most, span)
    offset = (steps - steps[0]) // unit
    edges = steps[0] + np.arange(columns + 1) * span / columns * unit  # exact at whole steps
    return edges, offset * columns // span


def _unit(steps: Ints) -> int:
    """Return the largest common divisor of the distances between records."""
    return int(np.gcd.reduce(np.diff(steps))) if len(steps) > 1 else 1


def _combine(values: Floats, starts: Ints, how: str) -> Floats:
    finite = np.isfinite(values)

    def reduce(ufunc: np.ufunc, others: float) -> Any:
        return ufunc.reduceat(np.where(finite, values, others), starts, axis=0)

    some = np.logical_or.reduceat(finite, starts, axis=0)
    if how == "max":
        result = reduce(np.maximum, -np.inf)
    elif how == "min":
        result = reduce(np.minimum, np.inf)
    else:
        counts = np.add.reduceat(finite.astype(np.float64), starts, axis=0)
        # Divided first: the sum of large values may be infinite.
        row_of = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
        shares = np.where(finite, values, 0.0) / np.maximum(counts, 1)[row_of]
        result = np.add.reduceat(shares, starts, axis=0)
    return np.where(some, result, np.nan)
