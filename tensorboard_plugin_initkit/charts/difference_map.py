"""The map of the difference between two trainings."""

from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.models import LinearColorMapper
from bokeh.palettes import PuOr11, interp_palette

from tensorboard_plugin_initkit.charts.binning import bin_layers, extent
from tensorboard_plugin_initkit.charts.grid import MOST_ROWS, Grid, Look, draw_grid
from tensorboard_plugin_initkit.charts.scales import scale_of
from tensorboard_plugin_initkit.charts.theme import theme_of
from tensorboard_plugin_initkit.charts.values import bin_statistic
from tensorboard_plugin_initkit.charts.view import Histories, ThemeName, View, expect
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import display_name

# A grey that is far from the palette's white, also for the colour-blind.
_NOT_IN_BOTH = "#757575"
# Ends of the colour scale, on both sides of 1.
_DECADES = 3.0


def draw_difference(histories: Histories, view: View, theme: ThemeName = "light") -> Any:
    """Draw how much larger a statistic is in the second of two histories: log10(b / a).

    For statistics in [-1, 1] it is b - a. Layers and steps are those of both.

    Returns:
        A Bokeh figure.

    Raises:
        KeyError: If there is no such statistic.
        ValueError: If there is no layer, or no step, in common, or an option is not as described.
    """
    a, b = expect(2, histories)
    colours, scale = theme_of(theme), scale_of(view.statistic)
    wanted = set(a.layers) if view.layers is None else set(a.layers) & set(view.layers)
    layers = [layer for layer in b.layers if layer in wanted]
    steps = np.intersect1d(a.steps, b.steps)
    if not layers or not len(steps):
        raise ValueError(
            "Two runs must have layers and recorded steps in common to be compared. Received: "
            f"{a!r} and {b!r}."
        )
    one, other = (_grid(history, view, steps, layers) for history in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale.log:
            change = np.log10(other.bins.values) - np.log10(one.bins.values)
        else:
            change = other.bins.values - one.bins.values
    nonfinite = one.bins.nonfinite | other.bins.nonfinite
    missing = np.isnan(change) & ~nonfinite
    grid = other._replace(
        bins=other.bins._replace(values=change, nonfinite=nonfinite, missing=missing)
    )
    end = _DECADES if scale.log else scale.high - scale.low
    first, second = map(display_name, histories)
    formula = f"log10({second} / {first})" if scale.log else f"{second} − {first}"
    look = Look(
        LinearColorMapper(interp_palette(PuOr11, 255), low=-end, high=end, nan_color=_NOT_IN_BOTH),
        ", ".join([f"{scale.title}: {formula}", *grid.notes(view.how)]),
        "not in both",
        _NOT_IN_BOTH,
        zeros=False,
        clamps=scale.log,
    )
    return draw_grid(grid, look, b, colours)


def _grid(
    history: GradientHistory, view: View, steps: npt.NDArray[np.int64], layers: list[str]
) -> Grid:
    """Bin a history at some of its steps and layers, in any order."""
    place = {layer: i for i, layer in enumerate(history.layers)}
    same = len(steps) == len(history)
    part = history if same else history.select(np.searchsorted(history.steps, steps))
    bins = bin_statistic(part, view, [place[layer] for layer in layers])
    return Grid(*bin_layers(bins, MOST_ROWS, view.how), layers, extent(steps), view.steps)
