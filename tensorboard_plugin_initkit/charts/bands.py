"""A strip along the upper edge of a map: where the callback's rules over depth hold."""

from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.models import BoxAnnotation, ColumnDataSource, CustomJSHover, Image, LinearScale, Range1d

from tensorboard_plugin_initkit.charts.binning import Bins
from tensorboard_plugin_initkit.charts.theme import (
    EXPLODING,
    NOTHING,
    VANISHING,
    Mark,
    hover,
    palette_of,
)
from tensorboard_plugin_initkit.diagnosis.depth import depth_bands
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import write_part

_VANISHING, _EXPLODING = 1, 2
# Columns x variables that are judged, each with a window of at most 31 records.
_MOST_VALUES = 50_000
# In pixels, with the gap below it.
_HEIGHT, ROOM = 9, 12
_TOOLTIP = """
const {last} = columns.data
const i = special_vars.image_index.i
const mark = bands.data.marks[0][i]
return mark == 0 ? `${none} at step ${last[i]}` : (mark == 1 ? vanishing : exploding) + last[i]
"""


def judge_columns(history: GradientHistory, bins: Bins) -> npt.NDArray[np.uint8]:
    """Judge the last record of each column by the rule over depth: (columns,).

    Where columns and layers are many, some of the columns are judged, evenly chosen: the others
    have the mark of the one before.
    """
    last = np.searchsorted(history.steps, bins.last, "right") - 1
    count = min(len(last), max(20, _MOST_VALUES // len(history.variables)))
    columns = np.linspace(0, len(last) - 1, count).astype(np.int64)
    rows, place = np.unique(last[columns], return_inverse=True)
    bands = depth_bands(history, rows)
    marks = np.where(bands.vanishing, _VANISHING, np.where(bands.exploding, _EXPLODING, 0))
    nearest = np.searchsorted(columns, np.arange(len(last)), "right") - 1
    return marks[place][nearest].astype(np.uint8)


def room_for(rows: int, height: int) -> float:
    """Return the part of the axis for the strip, in rows; `height` is in pixels with it."""
    return rows * ROOM / (height - ROOM)


def draw_bands(
    figure: Any, marks: npt.NDArray[np.uint8], columns: Any, cells: Any, height: int, edge: str
) -> list[Mark]:
    """Draw the strip, with an edge of a colour; return its legend entries.

    The height is that of the axis, in pixels.
    """
    place = {name: cells.data[name] for name in ("x", "dw")}
    source = ColumnDataSource({"marks": [marks[None]]} | place, name="data-bands")
    part = _HEIGHT / height
    figure.extra_y_ranges = {"strip": Range1d(0, 1)}
    figure.extra_y_scales = {"strip": LinearScale()}
    colours = palette_of([NOTHING, VANISHING, EXPLODING])
    image = Image(image="marks", x="x", dw="dw", y=1 - part, dh=part, color_mapper=colours)
    strip = figure.add_glyph(source, image, y_range_name="strip")
    rim = BoxAnnotation(bottom=1 - part, top=1, fill_alpha=0, line_color=edge, name="strip")
    rim.y_range_name = "strip"
    figure.add_layout(rim)
    limit, window = (int(THRESHOLDS[n].value) for n in ("depth_window_steps", "window_steps"))
    ratio = THRESHOLDS["depth_ratio"].value
    args = {
        "bands": source,
        "columns": columns,
        "none": "neither vanishing nor exploding",
        "vanishing": f"vanishing: for {limit} steps the gradient at the input has been less than "
        f"{write_part(ratio)} of that at the output (or less than {write_part(ratio**2)} for "
        f"{window} steps), while the loss hardly fell; at step ",
        "exploding": f"exploding: for {limit} steps the gradient at the input has been more than "
        f"{1 / ratio:,.0f} times that at the output (or more than {1 / ratio**2:,.0f} times for "
        f"{window} steps); at step ",
    }
    tooltip = CustomJSHover(args=args, code=_TOOLTIP)
    figure.add_tools(hover([strip], [("judged", "$x{custom}")], formatters={"$x": tooltip}))
    return [
        Mark("vanishing", VANISHING, source, _VANISHING),
        Mark("exploding", EXPLODING, source, _EXPLODING),
    ]
