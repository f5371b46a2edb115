"""The map of a training: layers x steps, the input at the bottom."""

from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource, LinearColorMapper, LogColorMapper, Scatter
from bokeh.palettes import Viridis256

from tensorboard_plugin_initkit.charts.bands import judge_columns
from tensorboard_plugin_initkit.charts.binning import bin_layers, extent
from tensorboard_plugin_initkit.charts.grid import MOST_ROWS, Grid, Look, draw_grid
from tensorboard_plugin_initkit.charts.scales import scale_of
from tensorboard_plugin_initkit.charts.theme import head_of, hover, theme_of
from tensorboard_plugin_initkit.charts.values import bin_statistic, folded_in, positions
from tensorboard_plugin_initkit.charts.view import Histories, ThemeName, View, expect
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.safe_text import display_name


def draw_map(histories: Histories, view: View, theme: ThemeName = "light") -> Any:
    """Draw layers x steps of one history, with a statistic as the colour.

    Returns:
        A Bokeh figure.

    Raises:
        KeyError: If there is no such statistic.
        ValueError: If the history has no such layer, or an option is not as described.
    """
    (history,) = expect(1, histories)
    colours, scale = theme_of(theme), scale_of(view.statistic, view.limits)
    chosen, folded = positions(history, view), folded_in(history, view)
    bins = bin_statistic(history, view, chosen)
    layers = [history.layers[i] for i in chosen]
    rows = bin_layers(bins, MOST_ROWS, view.how)
    grid = Grid(*rows, layers, extent(history.steps), view.steps, view.height)
    mapper = LogColorMapper if scale.log else LinearColorMapper
    look = Look(
        mapper(Viridis256, low=scale.low, high=scale.high, nan_color=colours.missing),
        head_of(view.title, [scale.title, *grid.notes(view.how), *folded.notes()]),
        "no gradient, or no bias" if view.statistic == "signal" else "no gradient",
        colours.missing,
        # Of a fraction or a count, zero is a value as any other.
        zeros=scale.log and view.statistic != "nonfinite",
        clamps=scale.log or view.limits is not None,
    )
    bands = judge_columns(history, bins) if len(history) and "signal" in history else None
    figure = draw_grid(grid, look, history, colours, bands)
    _mark(figure, history.findings, history.layers, layers)
    return figure


def _mark(figure: Any, findings: Sequence[Finding], layers: list[str], shown: list[str]) -> None:
    """Draw a triangle where each finding shows; if it concerns the whole model, on the lowest row.

    Findings in hidden layers are left out.
    """
    parents = {layer.rpartition("/")[0]: i for i, layer in reversed(list(enumerate(shown)))}
    # A layer's variables may each have been recorded as a layer of its own.
    place = parents | {layer: i for i, layer in enumerate(shown)} | {"": 0}
    known = {*layers, *(layer.rpartition("/")[0] for layer in layers)}
    kept = [
        finding
        for finding in findings
        if finding.step is not None and (finding.layer in place or finding.layer not in known)
    ]
    data = {
        "step": [finding.step for finding in kept],
        "layer": [place.get(finding.layer, 0) for finding in kept],
        "kind": [display_name(finding.kind) for finding in kept],
        "message": [display_name(finding.message, 400) for finding in kept],
    }
    source = ColumnDataSource(data, name="data-findings")
    triangle = Scatter(
        x="step",
        y="layer",
        marker="triangle",
        size=14,
        fill_color="white",  # in dark pages, too, where a report changes #ffffff
        line_color="#000000",
        line_width=1.5,
    )
    # At this level nothing is cut off by the frame.
    marks = figure.add_glyph(source, triangle, level="annotation")
    figure.add_tools(hover([marks], [("finding", "@kind"), ("", "@message")]))
