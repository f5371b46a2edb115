"""Colours, ranges, legends and tools of all charts."""

from typing import Any, NamedTuple

import numpy as np
from bokeh import plotting
from bokeh.core.properties import value as literal
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    HoverTool,
    Legend,
    LegendItem,
    LinearColorMapper,
    Range1d,
    Scatter,
)
from bokeh.palettes import Viridis256

from tensorboard_plugin_initkit.charts.view import RUN_COLOURS
from tensorboard_plugin_initkit.safe_text import display_name

TOOLS = "pan,wheel_zoom,box_zoom,reset,save"


class Theme(NamedTuple):
    """Colours of a page."""

    page: str
    text: str
    faint: str
    grid: str
    missing: str


THEMES = {
    "light": Theme("#ffffff", "#212121", "#616161", "#e0e0e0", "#e4e4e4"),
    "dark": Theme("#1e1e1e", "#e8e8e8", "#a8a8a8", "#3c3c3c", "#3a3a3a"),
}
# Far from each other and from all of viridis, also for the colour-blind: by CIEDE2000 at least
# 17 in simulations of deuteranopia and protanopia (of what is on the map).
NOTHING = "#00000000"
ZERO, NONFINITE = "#000000", "#e040fb"
VANISHING, EXPLODING = "#7fdbff", "#d55e00"


def theme_of(name: str) -> Theme:
    """Return the colours of a theme.

    Raises:
        ValueError: If there is no such theme.
    """
    if name not in THEMES:
        raise ValueError(f'`theme` must be "light" or "dark". Received: theme={name!r}.')
    return THEMES[name]


def new_figure(theme: Theme, **options: Any) -> Any:
    """Make a Bokeh figure in the colours of a theme, as wide as there is room."""
    options = {"sizing_mode": "stretch_width", "tools": TOOLS, "active_scroll": None} | options
    figure = plotting.figure(**options)
    figure.toolbar.logo = None
    figure.background_fill_color = figure.border_fill_color = theme.page
    figure.outline_line_color = theme.grid
    figure.title.text_color = theme.text
    for axis in figure.axis:
        axis.axis_line_color = axis.major_tick_line_color = theme.faint
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = theme.text
        axis.axis_label_text_font_style = "normal"
    figure.grid.grid_line_color = theme.grid
    return figure


def head_of(title: str, parts: list[str]) -> str:
    """Write the title of a figure: in several lines if it has a name, as of a run."""
    return "\n".join([display_name(title), *parts]) if title else ", ".join(parts)


def steps_range(extent: tuple[float, float], steps: tuple[int, int] | None) -> Any:
    """Make the range of an axis of steps: some at first, to be reset to all."""
    begin, end = extent
    if steps is not None:
        begin = min(max(begin, steps[0]), end - 1)
        end = min(max(begin + 1, steps[1]), end)
    return Range1d(begin, end, bounds=extent, reset_start=extent[0], reset_end=extent[1])


class Mark(NamedTuple):
    """A colour besides the scale of colours, such as that of exact zeros.

    Attributes:
        label: Its meaning.
        colour: Its colour.
        source: The data, with an image "marks".
        number: Its number in that image.
    """

    label: str
    colour: str
    source: Any
    number: int


def palette_of(colours: list[str]) -> Any:
    """Make a mapper of the numbers 0, 1, … to these colours."""
    return LinearColorMapper(colours, low=-0.5, high=len(colours) - 0.5)


def add_legend_of_marks(figure: Any, marks: list[Mark], theme: Theme) -> None:
    """Explain the visible marks below the figure."""
    items, nowhere = [], ColumnDataSource({"x": [np.nan], "y": [np.nan]})
    for mark in marks:
        look = {"marker": "square", "size": 11, "line_color": theme.faint}
        square = figure.add_glyph(nowhere, Scatter(fill_color=mark.colour, **look))
        there = bool((mark.source.data["marks"][0] == mark.number).any())
        item = LegendItem(label=literal(mark.label), renderers=[square], visible=there)
        show_while(item, mark.source, f"data.marks[0].includes({mark.number})")
        items.append(item)
    # Three in a row, as they fit below a narrow map.
    legend = Legend(items=items, orientation="horizontal", location="top_left", ncols=3)
    style_legend(legend, theme)
    figure.add_layout(legend, "below")


def show_while(item: Any, source: Any, condition: str) -> None:
    """Show the entry of a legend while a condition on the data, in JavaScript, holds."""
    code = f"const data = cb_obj.data; item.visible = {condition}"
    source.js_on_change("data", CustomJS(args={"item": item}, code=code))


def style_legend(legend: Any, theme: Theme) -> None:
    """Give a legend the colours of a theme."""
    legend.background_fill_color, legend.background_fill_alpha = theme.page, 0.85
    legend.inactive_fill_color, legend.inactive_fill_alpha = theme.page, 0.7
    legend.border_line_color = None
    legend.label_text_color = theme.text
    legend.label_text_font_size = "12px"
    legend.spacing, legend.padding, legend.margin = 2, 4, 4


def control_style(theme_name: str) -> str:
    """Return a style sheet for sliders and buttons: Bokeh has white ones only."""
    theme = theme_of(theme_name)
    return (
        f":host {{ color: {theme.text}; }}"
        f".bk-btn {{ background: {theme.missing}; color: {theme.text};"
        f" border-color: {theme.faint}; }}"
        f".noUi-target {{ background: {theme.missing}; border-color: {theme.faint}; }}"
    )


def hover(renderers: list[Any], tooltips: list[tuple[str, str]], **options: Any) -> Any:
    """Make a tool to show columns of the data at the mouse, as text."""
    options = {"formatters": {"@value": "printf"}} | options
    return HoverTool(renderers=renderers, tooltips=tooltips, **options)


# The part of viridis with at least 3:1 on a page.
_SEEN = {"light": (0, 153), "dark": (94, 255)}


def mix(colour: str, other: str, share: float) -> str:
    """Mix a share of another colour into one."""
    pairs = ((int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in pairs)


def colours_by_depth(count: int, theme_name: str) -> list[str]:
    """Choose a colour for each layer, in the order of the model."""
    return [Viridis256[round(i)] for i in np.linspace(*_SEEN[theme_name], count)] if count else []


def dark_colours() -> dict[str, str]:
    """Return the colours of a dark page by those of a light one."""
    count = _SEEN["light"][1] + 1
    lines = zip(colours_by_depth(count, "light"), colours_by_depth(count, "dark"), strict=True)
    runs, pages = (dict(zip(t["light"], t["dark"], strict=True)) for t in (RUN_COLOURS, THEMES))
    return dict(lines) | runs | pages
