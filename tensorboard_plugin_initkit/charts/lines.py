"""Layers over the steps of a training, above its loss and learning rate."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.core.properties import value as literal
from bokeh.layouts import gridplot
from bokeh.models import (
    ColumnDataSource,
    Legend,
    LegendItem,
    Line,
    LinearScale,
    LogScale,
    Range1d,
    Scatter,
)

from tensorboard_plugin_initkit.charts.binning import Bins, bin_steps, extent
from tensorboard_plugin_initkit.charts.scales import scale_of
from tensorboard_plugin_initkit.charts.smoothing import smooth
from tensorboard_plugin_initkit.charts.theme import (
    NONFINITE,
    Theme,
    colours_by_depth,
    head_of,
    hover,
    new_figure,
    show_while,
    steps_range,
    style_legend,
    theme_of,
)
from tensorboard_plugin_initkit.charts.values import (
    MOST_LINES,
    bin_statistic,
    positions,
    rows_seen,
    spread_evenly,
)
from tensorboard_plugin_initkit.charts.view import Histories, ThemeName, View, colour_of_run, expect
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import display_names

_TOTALS = (("loss", "loss"), ("learning_rate", "learning rate"))


def draw_lines(histories: Histories, view: View, theme: ThemeName = "light") -> Any:
    """Draw a statistic of some layers of one history over steps, above loss and learning rate.

    Returns:
        A Bokeh layout, without loss and learning rate if they are unknown. Behind smoothed
        lines, the original ones are drawn faintly.

    Raises:
        KeyError: If there is no such statistic.
        ValueError: If the history has no such layer, or an option is not as described.
    """
    (history,) = expect(1, histories)
    smoothing, chosen = view.smoothing, _choose(history, view)
    colours, scale = theme_of(theme), scale_of(view.statistic)
    bins = bin_statistic(history, view, chosen)
    own = bins.records > 0
    notes = [
        f"each point is the {view.how} of several steps" if bins.records.max(initial=0) > 1 else "",
        f"smoothed by {smoothing:g}" if smoothing else "",
    ]
    top = new_figure(
        colours,
        name="steps",
        title=head_of(view.title, [scale.title, *filter(None, notes)]),
        height=360,
        x_range=steps_range(extent(history.steps), view.steps),
        y_axis_type="log" if scale.log else "linear",
        y_axis_label=scale.title,
    )
    shown = bins.values[own]
    if scale.log:
        shown = np.where(shown > 0, shown, np.nan)
    names = display_names([history.layers[i] for i in chosen])
    items, drawn = [], []
    # The output is above the input, as on the map.
    for i, colour in reversed(list(enumerate(colours_by_depth(len(chosen), theme)))):
        line = _line(
            top, f"data-line-{i}", bins.last[own], shown[:, i], names[i], colour, smoothing
        )
        items.append(LegendItem(label=literal(names[i]), renderers=[line]))
        drawn.append(line)
    items.append(_mark_nonfinite(top, bins.last[own], bins.nonfinite[own].any(axis=1)))
    _add_legend(top, items, colours)
    top.add_tools(hover(drawn, _fields("layer", smoothing), mode="mouse", line_policy="nearest"))
    _fit(top, "lines", [_extent(other, view) for other in view.beside])
    parts, rows = [top], rows_seen(history.steps, view.steps)
    for name, label in _TOTALS:
        if np.isfinite(history[name]).any():
            totals = bin_steps(history.steps[rows], history[name][rows], view.columns, view.how)
            weight = 0.0 if name == "learning_rate" else smoothing  # which is not noisy
            others = [other[name] for other in view.beside]
            parts.append(_total(history, name, label, top, totals, others, weight, theme))
    parts[-1].xaxis.axis_label = "step"
    charts = [[chart] for chart in parts]
    return gridplot(charts, sizing_mode="stretch_width", toolbar_options={"logo": None})


def _choose(history: GradientHistory, view: View) -> list[int]:
    """Choose layers: those that are named, or some, evenly over the depth."""
    known = positions(history, view)
    if view.layers is not None:
        return known
    return [known[i] for i in spread_evenly(len(known), MOST_LINES)]


def _extent(history: GradientHistory, view: View) -> npt.NDArray[Any]:
    """Return the values of the layers of another history that its own chart draws."""
    if view.layers is not None:
        known = [layer for layer in view.layers if layer in history.layers]
        view = dataclasses.replace(view, layers=known)
    if view.layers == [] or view.statistic not in history:
        return np.zeros(0)
    return bin_statistic(history, view, _choose(history, view)).values


def _fit(figure: Any, name: str, others: Sequence[npt.NDArray[Any]]) -> None:
    """Have the axis hold the values of charts beside this one, too: by points that are not seen."""
    values = np.concatenate([*(other[np.isfinite(other)] for other in others), np.zeros(0)])
    if isinstance(figure.y_scale, LogScale):
        values = values[values > 0]
    ends = [values.min(), values.max()] if len(values) else []
    data = {"step": [figure.x_range.start] * len(ends), "value": ends}
    source = ColumnDataSource(data, name=f"data-beside-{name}")
    figure.add_glyph(source, Scatter(x="step", y="value", fill_alpha=0, line_alpha=0))


def _line(
    figure: Any,
    source_name: str,
    steps: Any,
    values: Any,
    label: str,
    colour: str,
    smoothing: float,
) -> Any:
    """Draw a line; with smoothing, the original one stays faintly behind it."""
    log = isinstance(figure.y_scale, LogScale)
    shown = smooth(values, smoothing, log) if smoothing else values
    there = np.pad(np.isfinite(shown), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    data = {"step": steps, "value": shown, "alone": np.where(alone, shown, np.nan)}
    source = ColumnDataSource(data | ({"raw": values} if smoothing else {}), name=source_name)
    dot = Scatter(x="step", y="alone", size=6, fill_color=colour, line_color=colour)
    others = [figure.add_glyph(source, dot)]  # of which a line shows nothing
    if smoothing:
        behind = Line(x="step", y="raw", line_color=colour, line_alpha=0.35)
        others.append(figure.add_glyph(source, behind))
    glyph = Line(x="step", y="value", line_color=colour, line_width=1.6)
    line = figure.add_glyph(source, glyph, name=label)
    for other in others:  # hidden by the legend, too
        line.js_link("visible", other, "visible")
    return line


def _fields(what: str, smoothing: float) -> list[tuple[str, str]]:
    # The name of the renderer.
    fields = [(what, "$name"), ("step", "@step"), ("value", "@value{%.4g}")]
    return [*fields, ("unsmoothed", "@raw{%.4g}")] if smoothing else fields


def _add_legend(figure: Any, items: list[Any], theme: Theme) -> None:
    legend = Legend(items=items, click_policy="hide")
    style_legend(legend, theme)
    figure.add_layout(legend, "right")


def _mark_nonfinite(figure: Any, steps: Any, broken: Any) -> Any:
    """Draw crosses on the lower edge, not having a place on the axis; return the legend's entry."""
    data = {"step": steps[broken], "y": np.full(int(broken.sum()), 3)}
    source = ColumnDataSource(data, name="data-nonfinite")
    figure.extra_y_ranges = {"edge": Range1d(0, 100)}
    figure.extra_y_scales = {"edge": LinearScale()}
    cross = Scatter(x="step", y="y", marker="x", size=8, line_width=2, line_color=NONFINITE)
    crosses = figure.add_glyph(source, cross, y_range_name="edge")
    item = LegendItem(label="NaN or infinite", renderers=[crosses], visible=bool(broken.any()))
    show_while(item, source, "data.step.length > 0")
    return item


def _total(
    history: GradientHistory,
    name: str,
    label: str,
    above: Any,
    bins: Bins,
    others: Sequence[npt.NDArray[Any]],
    smoothing: float,
    theme_name: ThemeName,
) -> Any:
    """Draw a number of each optimizer over steps, on an axis that holds those of others."""
    own = bins.records > 0
    values = bins.values[own]
    positive = not any((each <= 0).any() for each in (history[name], *others))
    figure = new_figure(
        theme_of(theme_name),
        height=170,
        x_range=above.x_range,
        y_axis_type="log" if positive else "linear",
        y_axis_label=label,
    )
    optimizers = display_names(history.optimizers)
    names = [f"{label} of {optimizer}" if optimizer else label for optimizer in optimizers]
    drawn = [
        _line(
            figure,
            f"data-{name}-{i}",
            bins.last[own],
            values[:, i],
            text,
            colour_of_run(i, theme_name),
            smoothing,
        )
        for i, text in enumerate(names)
    ]
    items = [
        LegendItem(label=literal(text), renderers=[line])
        for text, line in zip(names, drawn, strict=True)
    ]
    _fit(figure, name, others)
    if len(items) > 1:
        _add_legend(figure, items, theme_of(theme_name))
    figure.add_tools(hover(drawn, _fields("of", smoothing), mode="vline"))
    return figure
