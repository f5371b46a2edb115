"""The part of a record that a chart shows: its layers and steps, in so many columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorboard_plugin_initkit.charts.binning import Bins, How, bin_blocks
from tensorboard_plugin_initkit.charts.scales import SCALES
from tensorboard_plugin_initkit.diagnosis.depth import signal
from tensorboard_plugin_initkit.record.history import GradientHistory

# What is computed at a time: records x variables.
_MOST_VALUES = 250_000


def values_of(
    history: GradientHistory, statistic: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """A statistic of the layers, and where the gradient was not finite: (n, layers) each.

    Raises:
        KeyError: If there is no such statistic of layers.
        ValueError: If the statistic is one of optimizers.
    """
    values = signal(history) if statistic == "signal" else history[statistic]
    if statistic not in SCALES:
        names = ", ".join(f'"{name}"' for name in SCALES)
        raise ValueError(
            f"`statistic` must be one of layers: {names}. Received: statistic={statistic!r}."
        )
    broken = np.isinf(values)
    if statistic != "nonfinite":  # a number that says it by itself
        broken |= np.nan_to_num(history["nonfinite"]) > 0
    return values, broken


def binned(
    history: GradientHistory,
    statistic: str,
    *,
    layers: Sequence[int] | None = None,
    steps: tuple[int, int] | None = None,
    columns: int,
    how: How,
) -> Bins:
    """What `bin_steps` makes of a statistic, computed block by block.

    Args:
        history: The record.
        statistic: One of layers, or `"signal"`.
        layers: Positions of layers; by default all.
        steps: First and last step that is seen; by default all.
        columns: Largest number of columns.
        how: `"max"`, `"min"` or `"mean"`.
    """
    rows = rows_seen(history.steps, steps)

    def read(block: slice) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        part = history.select(slice(rows.start + block.start, rows.start + block.stop))
        values, broken = values_of(part, statistic)
        return (values, broken) if layers is None else (values[:, layers], broken[:, layers])

    block = max(1, _MOST_VALUES // max(1, len(history.variables)))
    return bin_blocks(history.steps[rows], read, columns, how, block)


def rows_seen(steps: npt.NDArray[np.int64], seen: tuple[int, int] | None) -> slice:
    """The records that are seen: from the last one up to the first step, to one more at the end."""
    if seen is None:
        return slice(0, len(steps))
    first, last = seen
    if first > last:
        raise ValueError(
            "`steps` must be the first and the last step to be shown. Received: "
            f"steps={tuple(seen)!r}. Write the smaller one first."
        )
    start = int(np.searchsorted(steps, first, "right")) - 1
    return slice(max(0, min(start, len(steps) - 1)), int(np.searchsorted(steps, last, "right")) + 1)


def positions(history: GradientHistory, layers: Sequence[str] | None) -> list[int]:
    """Where layers are in `history.layers`, in its order; by default all.

    Raises:
        ValueError: If the history has no such layer, or no layer is named.
    """
    known = {layer: i for i, layer in enumerate(history.layers)}
    if layers is None:
        return list(known.values())
    unknown = [layer for layer in layers if layer not in known]
    if unknown:
        raise ValueError(
            "`layers` must be paths of layers in `history.layers`. Received: "
            f"{unknown[0]!r}, which is none of its {len(known)}."
        )
    if not layers:
        raise ValueError("`layers` must name at least one layer. Received: layers=[].")
    return sorted({known[layer] for layer in layers})
