"""The figure of a map: cells, names of layers, and tooltips."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from bokeh.models import (
    BasicTicker,
    ColorBar,
    ColumnDataSource,
    CustomJSHover,
    FixedTicker,
    HSpan,
    Image,
    LinearAxis,
    NoOverlap,
    Range1d,
)

from tensorboard_plugin_initkit.charts.bands import ROOM, draw_bands, room_for
from tensorboard_plugin_initkit.charts.binning import Bins, How
from tensorboard_plugin_initkit.charts.names import Group, groups_of
from tensorboard_plugin_initkit.charts.theme import (
    NONFINITE,
    NOTHING,
    ZERO,
    Mark,
    Theme,
    add_legend_of_marks,
    hover,
    new_figure,
    palette_of,
    steps_range,
)
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import display_name, display_names, write_number

_OK, _ZERO, _NONFINITE, _MISSING = range(4)
# Rows of pixels of a map: beyond, neighbouring layers share one.
MOST_ROWS = 760
# Pixels of a figure above and below its frame.
_AROUND = 140
# Pixels between lines that part groups.
_APART = 24
_LAYER = """
const {j} = special_vars.image_index
const {name, type} = layers.data
const [first, last] = [rows.data.first[j], rows.data.last[j]]
if (first == last) return type[first] ? `${name[first]}, ${type[first]}` : name[first]
return `${name[first]} to ${name[last]}, ${last - first + 1} layers`
"""
_WEIGHTS = """
const {j} = special_vars.image_index
const [first, last] = [rows.data.first[j], rows.data.last[j]]
return first == last ? layers.data.weights[first] : "filter layers to see the weights of each"
"""
_STEPS = """
const {i} = special_vars.image_index
const {first, last, records} = columns.data
return first[i] == last[i] ? `${first[i]}` : `${first[i]} to ${last[i]}, ${records[i]} recorded`
"""
_VALUE = """
const {flat_index} = special_vars.image_index
const number = cells.data.image[0][flat_index]
const mark = cells.data.marks[0][flat_index]
const size = Math.abs(number)
const text = isNaN(number) ? "" : size == 0 ? "0"
  : size < 1e-3 || size >= 1e5 ? number.toExponential(3) : number.toPrecision(4)
const besides = text ? `; otherwise ${text}` : ""
if (mark == 1) return size > 0 ? `exactly zero in one of the layers${besides}` : "exactly zero"
if (mark == 2) return `NaN or infinite${besides}`
if (mark == 3) return missing
return number < low ? `${text}, below the scale` : number > high ? `${text}, above the scale` : text
"""


class Grid(NamedTuple):
    """Rows x columns of a map: a row for each layer, or for some neighbouring ones.

    Attributes:
        bins: Columns of steps, and their values.
        first, last: First and last of `layers` in each row.
        layers: Paths of the displayed layers.
        extent: Where the columns of the whole history begin and end.
        seen: First and last visible step; None for all.
        room: Pixels that there are for the height of the figure; 0 if that is not known.
    """

    bins: Bins
    first: npt.NDArray[Any]
    last: npt.NDArray[Any]
    layers: list[str]
    extent: tuple[float, float]
    seen: tuple[int, int] | None
    room: int = 0

    def notes(self, how: How) -> list[str]:
        """Say for the title how records and layers were combined."""
        several = [
            ("column", "steps") if self.bins.records.max(initial=0) > 1 else (),
            ("row", "layers") if len(self.first) < len(self.layers) else (),
        ]
        return [f"each {part[0]} is the {how} of several {part[1]}" for part in several if part]


class Look(NamedTuple):
    """How a map looks.

    Attributes:
        mapper: Bokeh's mapper of values to colours.
        title: Shown above.
        missing: Label of the cells without a value.
        colour: Their colour.
        zeros: Whether exact zeros are marked.
        clamps: Whether values may lie beyond the ends of the colours.
    """

    mapper: Any
    title: str
    missing: str
    colour: str
    zeros: bool
    clamps: bool


def draw_grid(
    grid: Grid,
    look: Look,
    history: GradientHistory,
    theme: Theme,
    bands: npt.NDArray[np.uint8] | None = None,
) -> Any:
    """Draw the figure of a map; `bands`, from `judge_columns`, are a strip on its upper edge."""
    count = len(grid.layers)
    height = _height(count, grid.room)
    room = 0 if bands is None else room_for(count, height)
    figure = new_figure(
        theme,
        name="steps",
        title=look.title,
        # Whatever stands around it: legends come and go.
        frame_height=height,
        x_range=steps_range(grid.extent, grid.seen),
        y_range=Range1d(-0.5, count - 0.5 + room, bounds="auto"),
        x_axis_label="step",
    )
    figure.grid.visible = False
    figure.outline_line_color = theme.faint  # black zeros end somewhere on a dark page, too
    cells, columns = _sources(grid.bins, look.zeros)
    place = {"x": "x", "y": -0.5, "dw": "dw", "dh": max(count, 1)}
    image = figure.add_glyph(cells, Image(image="image", color_mapper=look.mapper, **place))
    marking = palette_of([NOTHING, ZERO, NONFINITE, look.colour])
    figure.add_glyph(cells, Image(image="marks", color_mapper=marking, **place))
    _label_layers(figure, grid.layers, theme)
    figure.left[-1].axis_label = "input → output"
    figure.left[-1].axis_label_text_color = theme.text
    figure.left[-1].axis_label_text_font_style = "normal"
    bar = ColorBar(color_mapper=look.mapper, width=14, padding=6, title=None)
    # Beyond the ends, colours are theirs.
    ends = ((look.mapper.low, "≤"), (look.mapper.high, "≥"))
    bar.major_label_overrides = {
        end: f"{sign} {write_number(end)}" for end, sign in ends if look.clamps
    }
    bar.background_fill_color = theme.page
    bar.major_label_text_color, bar.major_tick_line_color = theme.text, theme.page
    bar.major_label_text_font_size = "12px"
    figure.add_layout(bar, "right")
    args = {
        "cells": cells,
        "columns": columns,
        "rows": ColumnDataSource({"first": grid.first, "last": grid.last}),
        "layers": ColumnDataSource(_describe_layers(history, grid.layers)),
        "missing": look.missing,
        "low": look.mapper.low,
        "high": look.mapper.high,
    }
    figure.add_tools(_cell_hover(image, args))
    marks = [
        Mark("exactly zero", ZERO, cells, _ZERO),
        Mark("NaN or infinite", NONFINITE, cells, _NONFINITE),
        Mark(look.missing, look.colour, cells, _MISSING),
    ]
    if bands is not None:
        marks += draw_bands(figure, bands, columns, cells, height, theme.faint)
    add_legend_of_marks(figure, marks, theme)
    return figure


def _height(layers: int, room: int) -> int:
    """Return the height in pixels: at least one a row, as of two the browser shows only one."""
    wanted = min(40 * layers, room - _AROUND) if room else min(16 * layers, 600)
    return max(200, wanted, 12 * min(layers, 40), ROOM + min(layers, MOST_ROWS))


def _label_layers(figure: Any, layers: list[str], theme: Theme) -> None:
    """Write the names of layers beside their rows, and those of groups left of them."""
    groups, within = groups_of(layers)
    axis = figure.yaxis[0]
    axis.bounds = (-0.5, len(layers) - 0.5)
    axis.ticker = BasicTicker(
        min_interval=1,
        mantissas=[1, 2, 5],
        desired_num_ticks=max(2, min(40, figure.frame_height // 13)),
        num_minor_ticks=0,
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


def _describe_layers(history: GradientHistory, layers: list[str]) -> dict[str, list[str]]:
    """Return the path, the class and the weights of each layer, as text."""
    types = history.layout.layer_types
    weights_of: dict[str, list[str]] = {layer: [] for layer in types}
    for variable in history.layout.variables:
        name = variable.path.rpartition("/")[2]
        text = f"{name} {variable.shape} {variable.initializer}".rstrip()
        weights_of[variable.layer].append(text)
    return {
        "name": display_names(layers, 90),
        "type": [display_name(types[layer]) for layer in layers],
        "weights": [display_name(", ".join(weights_of[layer]), 120) for layer in layers],
    }


def _sources(bins: Bins, zeros: bool) -> tuple[Any, Any]:
    """Make the sources of the cells and of the columns, which follow the zoom."""
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
    """Convert to float32 without making anything zero or infinite."""
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
