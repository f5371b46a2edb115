"""A statistic over the depth of the model at one step, with the slope and word of the rule."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from bokeh.core.properties import value as literal
from bokeh.layouts import column, row
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    Legend,
    LegendItem,
    Line,
    MultiLine,
    Scatter,
    Slider,
    Toggle,
)

from tensorboard_plugin_initkit.charts.names import groups_of
from tensorboard_plugin_initkit.charts.scales import Scale, scale_of
from tensorboard_plugin_initkit.charts.theme import (
    control_style,
    hover,
    mix,
    new_figure,
    style_legend,
    theme_of,
)
from tensorboard_plugin_initkit.charts.values import folded_in, spread_evenly, values_of
from tensorboard_plugin_initkit.charts.view import Histories, ThemeName, View, colour_of_run
from tensorboard_plugin_initkit.diagnosis.depth import Slope, depth_slopes, line_slopes
from tensorboard_plugin_initkit.diagnosis.prediction import find_parting, predict_signals
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import display_name, display_names

_MARKERS = ("circle", "square", "diamond", "triangle", "hex", "inverted_triangle", "star")
_FRAMES = 100
# Pixels of the slider above the figure.
_SLIDER = 60
_SHOW = """
const frame = (slider.initkit_frames ??= JSON.parse(frames))[slider.value]
frame.curves.forEach((curve, k) => {
  const named = (dots) => ({
    ...dots,
    layer: dots.depth.map((i) => layers[k][i]),
    step: dots.depth.map(() => curve.step),
    run: dots.depth.map(() => runs[k]),
  })
  points[k].data = named(curve.points)
  zeros[k].data = named(curve.zeros)
  fits[k].data = curve.fit
  items[k].label = {value: curve.label}
})
"""
_PLAY = """
clearInterval(window.initkit_timer)
toggle.label = toggle.active ? "Pause" : "Play"
if (toggle.active) {
  if (slider.value == slider.end) slider.value = slider.start
  window.initkit_timer = setInterval(() => {
    if (slider.value == slider.end) toggle.active = false
    else slider.value += 1
  }, 100)
}
"""


class _Curve(NamedTuple):
    """The curve of one history at one step."""

    step: int
    points: dict[str, list[Any]]
    zeros: dict[str, list[Any]]
    fit: dict[str, list[list[float]]]
    label: str


class _Record(NamedTuple):
    """A history as the profile needs it: some of its steps; NaN where a layer is not shown.

    It is infinite where the gradient was not finite. Slopes are those of all layers, by step. The
    place is that of the run's colour. The signals that were predicted for step 0 have a note on how
    they differ from those measured.
    """

    name: str
    place: int
    steps: npt.NDArray[Any]
    values: npt.NDArray[Any]
    layers: list[str]
    slopes: Mapping[int, list[Slope]]
    predicted: npt.NDArray[Any]
    note: str


def draw_depth(histories: Histories, view: View, theme: ThemeName = "light") -> Any:
    """Draw a statistic of histories against depth, with its slope per layer.

    The signal has the line of the callback's rule over all layers, and the rule's word at the step.

    Returns:
        A Bokeh figure.

    Raises:
        KeyError: If there is no such statistic.
        ValueError: If no history has such a layer, or an option is not as described.
    """
    shown, scale = _drop_empty(histories), scale_of(view.statistic)
    frames = _some_steps(shown, _FRAMES)
    steps = [int(step) for step in view.at] or frames[_last_finite(shown, frames) :][:1] or [0]
    frames = [*frames, *steps]  # the axis is that of the player
    records = _records(shown, view, frames, steps)
    low = _limits(records, scale)[0]
    curves = [_curve(record, s, scale, low) for s in steps for record in records]
    heading = display_name(view.title or (f"step {steps[0]}" if len(steps) == 1 else ""))
    return _draw(curves, records, scale, heading, theme, view.height)[0]


def draw_player(histories: Histories, view: View, theme: ThemeName = "light") -> Any:
    """Draw the profile over depth with a slider for the step; the slider needs no Python.

    Returns:
        A Bokeh layout.

    Raises:
        KeyError: If there is no such statistic.
        ValueError: If no history has such a layer, or an option is not as described.
    """
    by_name, scale = _drop_empty(histories), scale_of(view.statistic)
    steps = _some_steps(by_name, _FRAMES)
    records = _records(by_name, view, steps, steps)
    low = _limits(records, scale)[0]
    shown = [[_curve(record, s, scale, low) for record in records] for s in steps]
    heading = display_name(view.title)
    room = max(1, view.height - _SLIDER) if view.height else 0
    last, begin = len(steps) - 1, _last_finite(by_name, steps)
    figure, drawn = _draw(shown[begin] if shown else [], records, scale, heading, theme, room)
    slider = Slider(
        name="step",
        tags=steps,
        start=0,
        end=max(last, 1),
        value=begin,
        step=1,
        title="Step",
        format=CustomJSTickFormatter(args={"steps": steps}, code="return `${steps[tick] ?? 0}`"),
        disabled=last < 1,
        width=420,
        stylesheets=[control_style(theme)],
    )
    content = [
        {"step": s, "curves": [curve._asdict() for curve in curves]}
        for s, curves in zip(steps, shown, strict=True)
    ]
    args = {
        "slider": slider,
        # As text: Bokeh would look for models in each of the numbers.
        "frames": json.dumps(content),
        "layers": [record.layers for record in records],
        "runs": [record.name for record in records],
        **drawn,
    }
    slider.js_on_change("value", CustomJS(args=args, code=_SHOW))
    toggle = Toggle(label="Play", width=70, disabled=last < 1, stylesheets=[control_style(theme)])
    toggle.js_on_change("active", CustomJS(args={"slider": slider, "toggle": toggle}, code=_PLAY))
    return column(row(toggle, slider), figure, sizing_mode="stretch_width")


def _drop_empty(histories: Histories) -> dict[str, GradientHistory]:
    """Return the histories with records and layers, by their displayed names."""
    named = zip(display_names(list(histories)), histories.values(), strict=True)
    return {name: history for name, history in named if len(history) and history.layers}


def _records(
    by_name: Mapping[str, GradientHistory],
    view: View,
    steps: Sequence[int],
    judged: Sequence[int],
) -> list[_Record]:
    """Read each history at some steps, and its slopes at the judged ones."""
    known = {layer for history in by_name.values() for layer in history.layers}
    wanted = known if view.layers is None else set(view.layers)
    if known and not known & wanted:
        raise ValueError(
            "`layers` must have paths of layers in `history.layers`. Received: "
            f"layers={view.layers!r}, none of which is one of the {len(known)}."
        )
    records = []
    places = view.places or range(len(by_name))
    for (name, history), place in zip(by_name.items(), places, strict=False):
        rows = np.unique([_row(history.steps, step) for step in steps])
        part = history.select(rows)
        values, broken = values_of(part, view.statistic)
        values = np.where(broken, np.inf, values)
        folded = folded_in(history, view)
        left_out = {*history.layers} - wanted | {*folded.blind, *folded.idle}
        hidden = [layer in left_out for layer in history.layers]
        values[:, hidden] = np.nan
        slopes = _slopes(history, view.statistic, judged)
        predicted, note = _predict(history, view.statistic)
        predicted[hidden] = np.nan
        layers = display_names(history.layers)
        records.append(_Record(name, place, part.steps, values, layers, slopes, predicted, note))
    return records


def _predict(history: GradientHistory, statistic: str) -> tuple[npt.NDArray[Any], str]:
    """Return the predicted signals at step 0, and words for the legend; "" if there are none."""
    if statistic != "signal":
        return np.full(len(history.layers), np.nan), ""
    predicted = predict_signals(history)
    if not np.isfinite(predicted).any():
        return predicted, ""
    parting = find_parting(history)
    measured = f"but measured {parting}" if parting else "as then measured"
    return predicted, f"predicted for step 0 from the initial weights, {measured}"


def _slopes(
    history: GradientHistory, statistic: str, steps: Sequence[int]
) -> dict[int, list[Slope]]:
    """Read the slopes of all layers, by step."""
    if not scale_of(statistic).log:
        return {}
    rows = np.unique([_row(history.steps, step) for step in steps]).astype(np.int64)
    if statistic == "signal":
        slopes = depth_slopes(history, rows)
    else:
        values, broken = values_of(history.select(rows), statistic)
        slopes = [[slope] for slope in line_slopes(np.where(broken, np.inf, values))]
    return dict(zip(history.steps[rows].tolist(), slopes, strict=True))


def _row(recorded: npt.NDArray[Any], step: int) -> int:
    """Return the row of the last record up to a step, or the first row."""
    return max(0, int(np.searchsorted(recorded, step, "right")) - 1)


def _some_steps(by_name: Mapping[str, GradientHistory], most: int) -> list[int]:
    """Choose at most so many recorded steps: the first, the last, and evenly between."""
    if not by_name:
        return []
    steps = np.unique(np.concatenate([history.steps for history in by_name.values()]))
    return [int(step) for step in steps[spread_evenly(len(steps), most)]]


def _last_finite(by_name: Mapping[str, GradientHistory], steps: Sequence[int]) -> int:
    """Return the position of the last step at which a layer has a finite gradient; else 0."""
    finite = np.zeros(len(steps), bool)
    for history in by_name.values():
        rows, place = np.unique([_row(history.steps, s) for s in steps], return_inverse=True)
        finite |= (history.select(rows)["nonfinite"] == 0).any(axis=1)[place]
    return int(np.flatnonzero(finite)[-1]) if finite.any() else 0


def _limits(records: Sequence[_Record], scale: Scale) -> tuple[float, float]:
    """Return the ends of the axis over all frames: it stands still."""
    if not scale.log:
        margin = 0.03 * (scale.high - scale.low)
        return scale.low - margin, scale.high + margin
    drawn = [array.ravel() for r in records for array in (r.values, r.predicted)]
    values = np.concatenate([*drawn, np.zeros(0)])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return scale.low, scale.high
    return max(float(values.min()) / 3, 5e-324), min(float(values.max()) * 3, 1e308)


def _curve(record: _Record, step: int, scale: Scale, low: float) -> _Curve:
    row = _row(record.steps, step)
    values, depth = record.values[row], np.arange(len(record.layers))
    at = int(record.steps[row])
    there = np.isfinite(values) & ((values > 0) | (not scale.log))
    zero = (values == 0) & scale.log
    slopes = record.slopes.get(at, [])
    known = [slope for slope in slopes if not np.isnan(slope.factor)]

    def dots(mask: npt.NDArray[Any], y: npt.NDArray[Any]) -> dict[str, list[Any]]:
        return {"depth": np.flatnonzero(mask).tolist(), "value": y[mask].tolist()}

    at_bottom = np.full(len(depth), low)
    several = len(slopes) > 1
    texts = [
        f"{display_name(slope.optimizer)}: {slope}" if several else str(slope) for slope in slopes
    ]
    label = f"step {at}: {'; '.join(texts)}" if texts else f"step {at}"
    return _Curve(
        at,
        dots(there, values),
        dots(zero, at_bottom),
        # A line for each known slope, from its first layer to its last.
        {
            "depth": [[float(layer) for layer in slope.layers] for slope in known],
            "value": [np.clip(slope.ends, 5e-324, 1e308).tolist() for slope in known],
        },
        f"{record.name}, {label}" if record.name else label,
    )


def _source(dots: dict[str, list[Any]], record: _Record, step: int) -> Any:
    """Make a source of dots with their layers, steps and runs."""
    count = len(dots["depth"])
    more = {
        "layer": [record.layers[i] for i in dots["depth"]],
        "step": [step] * count,
        "run": [record.name] * count,
    }
    return ColumnDataSource(dots | more)


def _label_layers(figure: Any, records: Sequence[_Record]) -> None:
    """Write names of layers below their places, unless a place has several."""
    figure.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0, desired_num_ticks=16)
    if len({tuple(record.layers) for record in records}) == 1:
        names = [display_name(name, 20) for name in groups_of(records[0].layers)[1]]
        figure.xaxis.major_label_overrides = dict(enumerate(names))
        figure.xaxis.major_label_orientation = 0.6
        figure.xaxis.axis_label = "input → output"


def _draw_predictions(figure: Any, records: Sequence[_Record], theme_name: ThemeName) -> list[Any]:
    """Draw the signals predicted for step 0 as dotted lines; return entries of the legend."""
    items = []
    for record in records:
        if not record.note:
            continue
        places = np.flatnonzero(np.isfinite(record.predicted))
        source = ColumnDataSource({"depth": places, "value": record.predicted[places]})
        several = len(records) > 1
        own = colour_of_run(record.place, theme_name) if several else theme_of(theme_name).text
        line = Line(x="depth", y="value", line_dash="dotted", line_color=own, line_width=2)
        label = display_name(f"{record.name}, {record.note}" if record.name else record.note, 200)
        items.append(LegendItem(label=literal(label), renderers=[figure.add_glyph(source, line)]))
    return items


def _draw(
    curves: Sequence[_Curve],
    records: Sequence[_Record],
    scale: Scale,
    title: str,
    theme_name: ThemeName,
    room: int,
) -> tuple[Any, dict[str, Any]]:
    """Draw the figure; return it, and its parts by what changes with the step."""
    theme = theme_of(theme_name)
    legend_height = 19 * (len(curves) + sum(bool(record.note) for record in records))
    deepest = max((len(record.layers) for record in records), default=1)
    figure = new_figure(
        theme,
        title=title,
        height=max(320 + legend_height, room or 440 + legend_height),
        x_range=(-0.5, max(deepest - 0.5, 0.5)),
        y_range=_limits(records, scale),
        y_axis_type="log" if scale.log else "linear",
        x_axis_label="layer, from the input (0) to the output",
        y_axis_label=scale.title,
    )
    _label_layers(figure, records)
    drawn: dict[str, Any] = {"points": [], "zeros": [], "fits": [], "items": []}
    dots, at_bottom = [], []
    for i, curve in enumerate(curves):
        # The colour says the run, and the nearer to that of text, the later is the step.
        step, place = divmod(i, len(records))
        record = records[place]
        later = 0.7 * step / max(1, len(curves) // len(records) - 1)
        colour = mix(colour_of_run(record.place, theme_name), theme.text, later)
        points, zeros = (_source(part, record, curve.step) for part in (curve.points, curve.zeros))
        fit = ColumnDataSource(curve.fit)
        marker = Scatter(
            x="depth",
            y="value",
            size=4 if deepest > 100 else 8,
            fill_color=colour,
            line_color=colour,
            marker=_MARKERS[(record.place + record.place // 7) % 7],
        )
        own = colour if len(curves) > 1 else theme.text
        dashes = MultiLine(xs="depth", ys="value", line_dash="dashed", line_color=own)
        nothing = Scatter(x="depth", y="value", size=9, line_color=colour, marker="y", line_width=2)
        dots.append(figure.add_glyph(points, marker))
        line = figure.add_glyph(fit, dashes)
        # At this level nothing is cut off by the frame.
        at_bottom.append(figure.add_glyph(zeros, nothing, level="annotation"))
        item = LegendItem(label=literal(curve.label), renderers=[dots[-1], line])
        for name, model in zip(drawn, (points, zeros, fit, item), strict=True):
            drawn[name].append(model)
    items = [*drawn["items"], *_draw_predictions(figure, records, theme_name)]
    legend = Legend(items=items, click_policy="hide", location="top_left")
    style_legend(legend, theme)
    figure.add_layout(legend, "below")
    fields = [("run", "@run"), ("layer", "@layer"), ("step", "@step")]
    figure.add_tools(hover(dots, [*fields, ("value", "@value{%.4g}")]))
    figure.add_tools(hover(at_bottom, [*fields, ("value", "exactly zero")]))
    return figure, drawn
