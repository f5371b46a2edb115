"""The map of a training: layers x steps, the input at the bottom; and that of two trainings."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tensorboard_plugin_initkit.charts.bands import ROOM, draw_bands, judged, room_for
from tensorboard_plugin_initkit.charts.binning import Bins, How, bin_layers, extent
from tensorboard_plugin_initkit.charts.names import Group, display_name, display_names, groups_of
from tensorboard_plugin_initkit.charts.scales import Scale, scale_of
from tensorboard_plugin_initkit.charts.theme import (
    NONFINITE,
    NOTHING,
    ZERO,
    Mark,
    Theme,
    ThemeName,
    add_legend_of_marks,
    hover,
    new_figure,
    palette_of,
    steps_range,
    theme_of,
)
from tensorboard_plugin_initkit.charts.values import binned, positions
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.record.history import GradientHistory

# isort: split
from bokeh.models import (
    BasicTicker,
    ColorBar,
    ColumnDataSource,
    CustomJSHover,
    FixedTicker,
    HSpan,
    Image,
    LinearAxis,
    LinearColorMapper,
    LogColorMapper,
    NoOverlap,
    Range1d,
    Scatter,
)
from bokeh.palettes import PuOr11, Viridis256, interp_palette

# A grey that is far from the palette's white, also for the colour-blind.
_NOT_IN_BOTH = "#757575"
_OK, _ZERO, _NONFINITE, _MISSING = range(4)
# Rows of pixels of a map: beyond, neighbouring layers share one.
_MOST_ROWS = 760
# Pixels between lines that part groups.
_APART = 24
_CELL = """
const {flat_index, i, j} = special_vars.image_index
"""
_LAYER = (
    _CELL
    + """
const {name, type} = layers.data
const [first, last] = [rows.data.first[j], rows.data.last[j]]
if (first == last) return type[first] ? `${name[first]}, ${type[first]}` : name[first]
return `${name[first]} to ${name[last]}, ${last - first + 1} layers`
"""
)
_WEIGHTS = (
    _CELL
    + """
const [first, last] = [rows.data.first[j], rows.data.last[j]]
return first == last ? layers.data.weights[first] : "of each, if fewer layers are shown"
"""
)
_STEPS = (
    _CELL
    + """
const {first, last, records} = columns.data
return first[i] == last[i] ? `${first[i]}` : `${first[i]} to ${last[i]}, ${records[i]} records`
"""
)
_VALUE = (
    _CELL
    + """
const number = cells.data.image[0][flat_index]
const mark = cells.data.marks[0][flat_index]
const size = Math.abs(number)
const text = isNaN(number) ? "" : size == 0 ? "0"
  : size < 1e-3 || size >= 1e5 ? number.toExponential(3) : number.toPrecision(4)
const besides = text ? `; besides ${text}` : ""
if (mark == 1) return size > 0 ? `exactly zero in one of the layers${besides}` : "exactly zero"
if (mark == 2) return `not finite${besides}`
if (mark == 3) return missing
return number < low ? `${text}, below the scale` : number > high ? `${text}, above the scale` : text
"""
)


class _Map(NamedTuple):
    """What is drawn: a row for each layer, or for some neighbouring ones.

    Attributes:
        bins: Columns of steps, and their values.
        first, last: First and last layer of each row, of those that are shown.
        layers: Paths of the layers that are shown.
        extent: Where the columns of the whole record begin and end.
        seen: The steps that are seen; None for all.
    """

    bins: Bins
    first: npt.NDArray[Any]
    last: npt.NDArray[Any]
    layers: list[str]
    extent: tuple[float, float]
    seen: tuple[int, int] | None


def layer_map(
    history: GradientHistory,
    statistic: str = "rms",
    *,
    layers: Sequence[str] | None = None,
    steps: tuple[int, int] | None = None,
    how: How = "max",
    columns: int = 800,
    limits: tuple[float, float] | None = None,
    findings: Sequence[Finding] = (),
    title: str = "",
    theme: ThemeName = "light",
) -> Any:
    """Layers x steps, with a statistic as the colour.

    Args:
        history: The record.
        statistic: One of layers, or `"signal"`: the RMS of the gradient of the layer's biases.
        layers: Paths of layers; by default all.
        steps: First and last step to be seen; by default all.
        how: What is shown where a column stands for several records, or a row for several layers:
            `"max"`, `"min"`, `"mean"`.
        columns: Largest number of columns. Where there are more than the chart has pixels, the
            browser leaves some out until one zooms in.
        limits: Ends of the colour scale.
        findings: Marked at their layers and steps.
        title: Shown above.
        theme: `"light"` or `"dark"`.

    Returns:
        A Bokeh figure.

    Raises:
        KeyError: If there is no such statistic.
        ValueError: If the history has no such layer, or an option is not as described.
    """
    colours, scale = theme_of(theme), scale_of(statistic, limits)
    chosen = None if layers is None else positions(history, layers)
    bins = binned(history, statistic, layers=chosen, steps=steps, columns=columns, how=how)
    shown = history.layers if chosen is None else [history.layers[i] for i in chosen]
    drawn = _Map(*bin_layers(bins, _MOST_ROWS, how), shown, extent(history.steps), steps)
    heading = ", ".join(filter(None, [display_name(title), scale.title, *_notes(drawn, how)]))
    # Of a fraction or a count, zero is a value as any other.
    zeros = scale.log and statistic != "nonfinite"
    bands = judged(history, bins) if len(history) and "rms" in history.recorded else None
    figure = _drawn(
        drawn,
        _mapper(scale, colours),
        heading,
        colours,
        ("no gradient, or no biases" if statistic == "signal" else "no gradient", colours.missing),
        zeros,
        history,
        bands,
    )
    _mark(figure, findings, history.layers, shown)
    return figure


def _notes(drawn: _Map, how: How) -> list[str]:
    """What was combined, to be said on screen."""
    several = [
        "records a column" if drawn.bins.records.max(initial=0) > 1 else "",
        "layers a row" if len(drawn.first) < len(drawn.layers) else "",
    ]
    return [f"{how} of several {text}" for text in several if text]


def difference_map(
    a: GradientHistory,
    b: GradientHistory,
    statistic: str = "rms",
    *,
    layers: Sequence[str] | None = None,
    steps: tuple[int, int] | None = None,
    how: How = "max",
    columns: int = 800,
    names: tuple[str, str] = ("a", "b"),
    decades: float = 3,
    theme: ThemeName = "light",
) -> Any:
    """How much larger a statistic is in `b` than in `a`: log10(b / a), layers x steps.

    For statistics in [-1, 1] it is b - a.

    Args:
        a: A record.
        b: Another one, with layers and steps in common.
        statistic: One of layers.
        layers: Paths of layers; by default all that both have.
        steps: First and last step to be seen; by default all.
        how: What is compared where a column stands for several records, or a row for several
            layers.
        columns: Largest number of columns.
        names: What the two are called.
        decades: Ends of the colour scale.
        theme: `"light"` or `"dark"`.

    Returns:
        A Bokeh figure.

    Raises:
        KeyError: If there is no such statistic.
        ValueError: If there is no layer, or no step, that both have.
    """
    colours, scale = theme_of(theme), scale_of(statistic)
    wanted = set(a.layers) if layers is None else set(a.layers) & set(layers)
    shown = [layer for layer in b.layers if layer in wanted]
    both = np.intersect1d(a.steps, b.steps)
    if not shown or not len(both):
        raise ValueError(
            "Two records must have layers and steps in common to be compared. Received: "
            f"{a!r} and {b!r}."
        )
    one, other = (
        _of_common(history, statistic, both, shown, steps, columns, how) for history in (a, b)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale.log:
            change = np.log10(other.bins.values) - np.log10(one.bins.values)
        else:
            change = other.bins.values - one.bins.values
    nonfinite = one.bins.nonfinite | other.bins.nonfinite
    missing = np.isnan(change) & ~nonfinite
    bins = other.bins._replace(values=change, nonfinite=nonfinite, missing=missing)
    drawn = other._replace(bins=bins)
    end = decades if scale.log else scale.high - scale.low
    palette = interp_palette(PuOr11, 255)
    mapper = LinearColorMapper(palette, low=-end, high=end, nan_color=_NOT_IN_BOTH)
    first, second = map(display_name, names)
    formula = f"log10({second} / {first})" if scale.log else f"{second} − {first}"
    heading = ", ".join([f"{scale.title}: {formula}", *_notes(drawn, how)])
    return _drawn(drawn, mapper, heading, colours, ("not in both", _NOT_IN_BOTH), False, b)


def _of_common(
    history: GradientHistory,
    statistic: str,
    both: npt.NDArray[np.int64],
    shown: list[str],
    steps: tuple[int, int] | None,
    columns: int,
    how: How,
) -> _Map:
    """A record at some of its steps and layers, in any order."""
    place = {layer: i for i, layer in enumerate(history.layers)}
    chosen = [place[layer] for layer in shown]
    rows = np.searchsorted(history.steps, both)
    part = history if len(both) == len(history) else history.select(rows)
    bins = binned(part, statistic, layers=chosen, steps=steps, columns=columns, how=how)
    return _Map(*bin_layers(bins, _MOST_ROWS, how), shown, extent(both), steps)


def _mapper(scale: Scale, theme: Theme) -> Any:
    kind = LogColorMapper if scale.log else LinearColorMapper
    return kind(Viridis256, low=scale.low, high=scale.high, nan_color=theme.missing)


def _drawn(
    drawn: _Map,
    mapper: Any,
    title: str,
    theme: Theme,
    missing: tuple[str, str],
    zeros: bool,
    history: GradientHistory,
    bands: npt.NDArray[np.uint8] | None = None,
) -> Any:
    """The figure. What is missing has a label and a colour; `history` says what layers are."""
    count, height = len(drawn.layers), _height(len(drawn.layers))
    room = 0 if bands is None else room_for(count, height)
    figure = new_figure(
        theme,
        name="steps",
        title=title,
        # Whatever stands around it: legends come and go.
        frame_height=height,
        x_range=steps_range(drawn.extent, drawn.seen),
        y_range=Range1d(-0.5, count - 0.5 + room, bounds="auto"),
        x_axis_label="step",
        active_scroll="wheel_zoom",
    )
    figure.grid.visible = False
    cells, columns = _sources(drawn.bins, zeros)
    place = {"x": "x", "y": -0.5, "dw": "dw", "dh": max(count, 1)}
    image = figure.add_glyph(cells, Image(image="image", color_mapper=mapper, **place))
    label, colour = missing
    marking = palette_of([NOTHING, ZERO, NONFINITE, colour])
    figure.add_glyph(cells, Image(image="marks", color_mapper=marking, **place))
    _label_layers(figure, drawn.layers, theme)
    bar = ColorBar(color_mapper=mapper, width=14, padding=6, title=None)
    bar.background_fill_color = theme.page
    bar.major_label_text_color, bar.major_tick_line_color = theme.text, theme.page
    bar.major_label_text_font_size = "12px"
    figure.add_layout(bar, "right")
    args = {
        "cells": cells,
        "columns": columns,
        "rows": ColumnDataSource({"first": drawn.first, "last": drawn.last}),
        "layers": ColumnDataSource(_said(history, drawn.layers)),
        "missing": label,
        "low": mapper.low,
        "high": mapper.high,
    }
    figure.add_tools(_cell_hover(image, args))
    marks = [
        Mark("exactly zero", ZERO, cells, _ZERO),
        Mark("not finite", NONFINITE, cells, _NONFINITE),
        Mark(label, colour, cells, _MISSING),
    ]
    if bands is not None:
        marks += draw_bands(figure, bands, columns, cells, height)
    add_legend_of_marks(figure, marks, theme)
    return figure


def _height(layers: int) -> int:
    """At least a pixel for each row: of two in one pixel, the browser shows only one."""
    return max(200, min(16 * layers, 600), ROOM + min(layers, _MOST_ROWS))


def _label_layers(figure: Any, layers: list[str], theme: Theme) -> None:
    """Names of layers beside their rows, and of groups of them left of that."""
    groups, within = groups_of(layers)
    axis = figure.yaxis[0]
    axis.bounds = (-0.5, len(layers) - 0.5)
    axis.ticker = BasicTicker(
        min_interval=1, mantissas=[1, 2, 5], desired_num_ticks=40, num_minor_ticks=0
    )
    # In different groups, the same name means different layers.
    names = list(map(display_name, within)) if groups else display_names(layers)
    axis.major_label_overrides = dict(enumerate(names))
    axis.major_label_text_font_size = "11px"
    if groups:
        _separate(figure, groups, theme)


def _separate(figure: Any, groups: list[Group], theme: Theme) -> None:
    middles = [(group.first + group.last) / 2 for group in groups]
    names = [display_name(group.name, 32) for group in groups]
    edges = sorted({edge for g in groups for edge in (g.first - 0.5, g.last + 0.5)})
    axis = LinearAxis(
        ticker=FixedTicker(ticks=middles),
        major_label_overrides=dict(zip(middles, names, strict=True)),
        major_label_policy=NoOverlap(),
        axis_line_color=None,
        major_tick_line_color=None,
        major_label_text_color=theme.text,
        major_label_text_font_size="12px",
        major_label_text_font_style="bold",
    )
    figure.add_layout(axis, "left")
    if len(edges) * _APART <= figure.frame_height:  # many lines would hide what they part
        line = HSpan(y="y", line_color=theme.page, line_width=1, line_alpha=0.7)
        figure.add_glyph(ColumnDataSource({"y": edges}), line)


def _said(history: GradientHistory, layers: list[str]) -> dict[str, list[str]]:
    """What is said of each layer: its path, its class, and its weights."""
    known = history.layers
    types, weights = dict(zip(known, history.layer_types, strict=True)), [""] * len(known)
    told = zip(
        history.variables, history.layer_of, history.shapes, history.initializers, strict=True
    )
    for path, at, shape, initializer in told:
        text = f"{path.rpartition('/')[2]} {shape} {initializer}".rstrip()
        weights[at] += f", {text}" if weights[at] else text
    weights_of = dict(zip(known, weights, strict=True))
    return {
        "name": display_names(layers, 90),
        "type": [display_name(types[layer]) for layer in layers],
        "weights": [display_name(weights_of[layer], 120) for layer in layers],
    }


def _sources(bins: Bins, zeros: bool) -> tuple[Any, Any]:
    """What depends on the steps that are seen: the cells, and what is said of each column."""
    marks = np.full(bins.values.shape, _OK, np.uint8)
    if zeros:
        marks[bins.zero] = _ZERO
    marks[bins.missing], marks[bins.nonfinite] = _MISSING, _NONFINITE
    cells = {
        "image": [_single(bins.values.T)],
        "marks": [marks.T.copy()],
        "x": [float(bins.edges[0])],
        "dw": [max(float(bins.edges[-1] - bins.edges[0]), 1e-9)],
    }
    columns = {"first": bins.first, "last": bins.last, "records": bins.records}
    # Narrow where that is enough: the browser gets 64 bits as text.
    small = {name: array.astype(np.int32) for name, array in columns.items()}
    same = all((small[name] == array).all() for name, array in columns.items())
    return (
        ColumnDataSource(cells, name="data-cells"),
        ColumnDataSource(small if same else columns, name="data-columns"),
    )


def _single(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """As float32, in which nothing becomes zero or infinite that was not."""
    limits = np.finfo(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype(np.float32)
    single[(single == 0) & (values > 0)] = limits.smallest_subnormal
    np.clip(single, limits.min, limits.max, out=single, where=np.isfinite(values))
    return np.ascontiguousarray(single)


def _cell_hover(image: Any, args: dict[str, Any]) -> Any:
    # Each field stands for itself: a NaN would be shown without being formatted.
    fields = {
        "$x": ("step", _STEPS),
        "$y": ("layer", _LAYER),
        "@marks": ("value", _VALUE),
        "@x": ("weights", _WEIGHTS),
    }
    return hover(
        [image],
        [(label, f"{field}{{custom}}") for field, (label, _) in fields.items()],
        formatters={f: CustomJSHover(args=args, code=code) for f, (_, code) in fields.items()},
    )


def _mark(
    figure: Any,
    findings: Sequence[Finding],
    layers: list[str],
    shown: list[str],
) -> None:
    """A triangle where each finding shows; on the lowest row if it concerns the whole model.

    What is found in a layer that is not shown is left out.
    """
    parents = {layer.rpartition("/")[0]: i for i, layer in reversed(list(enumerate(shown)))}
    # A layer's variables may each have been recorded as a layer of its own.
    place = parents | {layer: i for i, layer in enumerate(shown)} | {"": 0}
    known = {*layers, *(layer.rpartition("/")[0] for layer in layers)}
    kept = [finding for finding in findings if finding.layer in place or finding.layer not in known]
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
        fill_color="#ffffff",
        line_color="#000000",
        line_width=1.5,
    )
    marks = figure.add_glyph(source, triangle)
    figure.add_tools(hover([marks], [("finding", "@kind"), ("", "@message")]))
