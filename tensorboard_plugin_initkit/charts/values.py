"""The values of a chart: some layers and steps, in a limited number of columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorboard_plugin_initkit.charts.binning import Bins, bin_blocks
from tensorboard_plugin_initkit.charts.scales import SCALES
from tensorboard_plugin_initkit.charts.view import View
from tensorboard_plugin_initkit.diagnosis.depth import Folded, fold_layers
from tensorboard_plugin_initkit.record.history import GradientHistory

# Lines of a chart whose layers nobody has chosen.
MOST_LINES = 10
# What is computed at a time: records x variables.
_MOST_VALUES = 250_000


def values_of(
    history: GradientHistory, statistic: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return a statistic of the layers, and where the gradient was not finite: (n, layers) each.

    Raises:
        KeyError: If there is no such statistic of layers.
        ValueError: If the statistic is one of optimizers.
    """
    values = history[statistic]
    if statistic not in SCALES:
        names = ", ".join(f'"{name}"' for name in SCALES)
        raise ValueError(
            f"`statistic` must be one of those of layers: {names}. Received: {statistic!r}."
        )
    broken = np.isinf(values)
    if statistic != "nonfinite":  # a number that says it by itself
        broken |= np.nan_to_num(history["nonfinite"]) > 0
    return values, broken


def bin_statistic(history: GradientHistory, view: View, layers: Sequence[int]) -> Bins:
    """Bin the statistic of a view at the layers of these positions, block by block."""
    rows = rows_seen(history.steps, view.steps)

    def read(block: slice) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        part = history.select(slice(rows.start + block.start, rows.start + block.stop))
        values, broken = values_of(part, view.statistic)
        return values[:, layers], broken[:, layers]

    block = max(1, _MOST_VALUES // max(1, len(history.variables)))
    return bin_blocks(history.steps[rows], read, view.columns, view.how, block)


def rows_seen(steps: npt.NDArray[np.int64], seen: tuple[int, int] | None) -> slice:
    """Find the records between two steps, and one more on either side."""
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


def positions(history: GradientHistory, view: View) -> list[int]:
    """Find the positions of a view's layers in `history.layers`, in its order.

    By default these are all; of the signal, all in which it shows.

    Raises:
        ValueError: If the history has no such layer, or no layer is named.
    """
    known, layers = {layer: i for i, layer in enumerate(history.layers)}, view.layers
    if layers is None:
        folded = folded_in(history, view)
        hidden = {*folded.blind, *folded.idle}
        return [i for layer, i in known.items() if layer not in hidden]
    unknown = [layer for layer in layers if layer not in known]
    if unknown:
        raise ValueError(
            "`layers` must be paths of layers in `history.layers`. Received: "
            f"{unknown[0]!r}, which is none of its {len(known)}."
        )
    if not layers:
        raise ValueError("`layers` must name at least one layer. Received: layers=[].")
    return sorted({known[layer] for layer in layers})


def folded_in(history: GradientHistory, view: View) -> Folded:
    """Find the layers that a view leaves out: of the signal, those in which none shows."""
    if view.layers is not None or view.statistic != "signal" or not len(history):
        return Folded([], [])
    return fold_layers(history)


def spread_evenly(count: int, most: int) -> list[int]:
    """Choose at most so many of the numbers from 0: the first, the last, and evenly between."""
    numbers = np.linspace(0, count - 1, min(most, count)).round()
    return [int(number) for number in np.unique(numbers)]
