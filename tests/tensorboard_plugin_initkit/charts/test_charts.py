"""The charts hold the numbers of the record, and show any name as text."""

import json
from typing import Any

import numpy as np
import pytest
from bokeh import plotting
from bokeh.document import Document
from bokeh.models import BoxAnnotation, ColumnDataSource, GlyphRenderer, HoverTool, Legend, Slider
from bokeh.palettes import Viridis256

from tensorboard_plugin_initkit.charts.names import groups_of
from tensorboard_plugin_initkit.charts.smoothing import smooth
from tensorboard_plugin_initkit.charts.theme import (
    EXPLODING,
    NONFINITE,
    THEMES,
    VANISHING,
    ZERO,
    colours_by_depth,
    mix,
    theme_of,
)
from tensorboard_plugin_initkit.charts.view import RUN_COLOURS
from tensorboard_plugin_initkit.diagnosis.depth import depth_bands, fold_layers
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.plotting import plot as typed_plot
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import Setup
from tensorboard_plugin_initkit.safe_text import (
    as_html,
    display_name,
    display_names,
    write_number,
    write_part,
)
from tests.tensorboard_plugin_initkit.record.made import history_of

pytestmark = pytest.mark.numpy_alone

plot: Any = typed_plot  # wrong types are tested, too


HOSTILE = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u202eevil", "شبكة عصبية"]
HOSTILE += ["\"quotes\" 'and' \\ `${1 + 1}`", "line\nbreak\r\x00\x07", "$$\\frac{a}{b}$$", "\ud800"]
HOSTILE += ["\\[x\\]", "@value{safe} $x", "&lt;b&gt;", "</script><script>alert(1)</script>"]
HOSTILE += ["x" * 10_000, "x" * 5_000 + "y" + "x" * 4_999]


@pytest.fixture
def history(rng):
    norms = rng.lognormal(size=(20, 7)) * 10.0 ** np.arange(7)
    norms[3, 2], norms[5:8, 4], norms[9, 1] = 0, np.nan, np.nan
    nonfinite = np.where(np.isnan(norms), np.nan, 0)
    nonfinite[9, 1] = 4
    totals = {name: rng.random((20, 1)) for name in ("loss", "learning_rate")}
    return history_of(norms, nonfinite=nonfinite, steps=np.arange(20) * 5, **totals)


def sources(chart):
    return [dict(model.data) for model in chart.select({"type": ColumnDataSource})]


def source_with(chart, name):
    (found,) = [source for source in sources(chart) if name in source]
    return found


def data(chart, name):
    """What the source of this name holds."""
    (found,) = chart.select({"type": ColumnDataSource, "name": f"data-{name}"})
    return dict(found.data)


def cells(chart):
    return data(chart, "cells")["image"][0]


def names_of(chart):
    """Kinds and names of the models that have one."""
    return sorted((type(m).__name__, m.name) for m in chart.references() if m.name)


def shown_entries(chart):
    """Entries of the legend that are shown."""
    return [item.label.value for item in chart.legend[0].items if item.visible]


def formatters(chart):
    """The JavaScript that says what is under the mouse, by what it says."""
    tool = next(tool for tool in chart.select({"type": HoverTool}) if "$y" in tool.formatters)
    return {
        label: tool.formatters[field.removesuffix("{custom}")] for label, field in tool.tooltips
    }


def serialised(model):
    """What a page is given: raises if anything cannot be sent to it."""
    document = Document()
    document.add_root(model)
    return json.dumps(document.to_json(), default=str)


@pytest.mark.parametrize("statistic", ["signal", "zeros", "nonfinite"])
def test_the_map_holds_the_values_of_the_record(history, statistic):
    source = source_with(plot(history, statistic=statistic), "image")
    np.testing.assert_allclose(source["image"][0], history[statistic].T, rtol=1e-6)
    # A fraction or count of zero is not marked.
    assert (source["marks"][0] == 1).any() == (statistic == "signal")


def test_the_map_marks_zeros_non_finite_and_missing_cells(history):
    chart = plot(history)
    marks = data(chart, "cells")["marks"][0]
    assert marks[2, 3] == 1
    assert marks[1, 9] == 2
    assert (marks[4, 5:8] == 3).all()
    assert np.count_nonzero(marks) == 5
    assert shown_entries(chart) == ["exactly zero", "NaN or infinite", "no gradient, or no bias"]
    assert shown_entries(plot(history, layers=["layer_0"])) == []


def test_the_colours_do_not_depend_on_the_values(history):
    limits = [
        (chart.renderers[0].glyph.color_mapper.low, chart.renderers[0].glyph.color_mapper.high)
        for chart in (plot(history), plot(history_of([[1e-30, 1e30]])))
    ]
    assert limits[0] == limits[1]
    chart = plot(history, limits=(1e-3, 2))
    assert chart.renderers[0].glyph.color_mapper.low == 1e-3
    args = formatters(chart)["value"].args
    assert (args["low"], args["high"]) == (1e-3, 2)


def test_a_map_of_more_steps_than_columns_says_so_and_keeps_spikes():
    norms = np.ones((5000, 3))
    norms[1234, 1] = 1e20
    chart = plot(history_of(norms), statistic="norm", columns=100)
    assert "each column is the max of several steps" in chart.title.text
    image = source_with(chart, "image")["image"][0]
    assert image.shape == (3, 100)
    np.testing.assert_allclose(image[1].max(), 1e20)


def test_what_float32_cannot_hold_is_neither_zero_nor_infinite():
    norms = np.array([[np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max]])
    source = source_with(plot(history_of(norms)), "image")
    assert np.isfinite(source["image"][0]).all()
    assert (source["image"][0] > 0).all()
    assert not source["marks"][0].any()


@pytest.mark.parametrize("how", ["max", "min", "mean"])
def test_a_dead_layer_is_marked_among_any_number(how):
    norms = np.ones((3, 2000))
    norms[:, 1234] = 0
    chart = plot(history_of(norms), how=how)
    marks = data(chart, "cells")["marks"][0]
    assert (marks == 1).sum() == 3
    (row,) = np.flatnonzero((marks == 1).any(axis=1))
    rows = formatters(chart)["layer"].args["rows"].data
    assert rows["first"][row] <= 1234 <= rows["last"][row]
    assert "exactly zero" in shown_entries(chart)


def test_zooming_draws_the_same_models_with_the_steps_that_are_seen(history):
    whole, part = plot(history), plot(history, steps=(41, 60))
    assert names_of(whole) == names_of(part)
    assert [name for kind, name in names_of(part) if kind == "ColumnDataSource"] == [
        *("data-bands", "data-cells", "data-columns", "data-findings")
    ]
    assert part.name == "steps"
    assert (part.x_range.start, part.x_range.end) == (41, 60)
    assert part.x_range.bounds == whole.x_range.bounds == (0, 100)
    shown = data(part, "columns")["first"]
    assert list(shown) == [40, 45, 50, 55, 60, 65]  # and one more on either side
    np.testing.assert_allclose(cells(part), history["rms"][8:14].T, rtol=1e-6)
    place = data(part, "cells")
    assert (place["x"], place["dw"]) == ([40], [30])
    assert data(part, "bands")["x"] == place["x"]
    loss = data(plot(history, "lines", steps=(41, 60)), "loss-0")
    np.testing.assert_array_equal(loss["step"], np.arange(40, 70, 5))
    np.testing.assert_array_equal(loss["value"], history["loss"][8:14, 0])


@pytest.mark.parametrize("steps", [(-50, -10), (500, 600), (7, 8), (-5, 500)])
def test_any_range_shows_something(history, steps):
    for chart in (
        plot(history, steps=steps),
        plot({"a": history, "b": history}, "difference", steps=steps),
        plot(history, "lines", steps=steps).select_one({"name": "steps"}),
    ):
        assert 0 <= chart.x_range.start < chart.x_range.end <= 100
        assert serialised(chart)


class Watched(GradientHistory):
    """A history that notes how many records are asked for at once."""

    def __init__(self, history):
        super().__init__(None)
        self.append(history._joined())
        self.asked = []

    def select(self, rows):
        self.asked.append(rows.stop - rows.start if isinstance(rows, slice) else len(rows))
        return super().select(rows)


def test_only_what_is_seen_is_computed_and_lines_in_blocks():
    history = Watched(history_of(np.ones((3000, 1000))))
    plot(history, "lines", layers=["layer_3"], steps=(1000, 2500))
    assert max(history.asked) <= 500  # times 1,000 variables
    assert sum(history.asked) == 1502
    history = Watched(history_of(np.ones((3000, 10))))
    plot(history, "depth", at=[7, 8])
    # The axis is that of a hundred steps, layers are folded by fifty, slopes are judged with the
    # windows of their steps.
    assert history.asked == [102, 50, 9]


def test_only_the_layers_that_are_named_are_shown_in_the_models_order(history):
    chosen = ["layer_5", "layer_1"]
    chart = plot(history, statistic="norm", layers=chosen)
    assert chart.yaxis[0].major_label_overrides == {0: "layer_1", 1: "layer_5"}
    np.testing.assert_allclose(cells(chart), history["norm"][:, [1, 5]].T, rtol=1e-6)
    marks = data(chart, "cells")["marks"][0]
    assert np.argwhere(marks).tolist() == [[0, 9]]  # not finite
    assert cells(plot({"a": history, "b": history}, "difference", layers=chosen)).shape[0] == 2
    profile = plot(history, "depth", at=[95], statistic="norm", layers=chosen)
    assert [s["depth"] for s in sources(profile) if s.get("layer")] == [[1, 5]]


@pytest.mark.parametrize("begin", [40, 41])
@pytest.mark.parametrize(
    ("factor", "number", "word"), [(0.3, 1, "vanishing"), (3.0, 2, "exploding")]
)
def test_a_strip_shows_where_the_callback_would_judge(factor, number, word, begin):
    norms = np.ones((100, 20))
    norms[begin:] = factor ** np.arange(20)[::-1]
    history = history_of(norms)
    chart = plot(history, columns=50)
    bands = depth_bands(history)
    expected = np.where(getattr(bands, word), number, 0)[1::2]  # the last of each two
    marks = data(chart, "bands")["marks"][0]
    np.testing.assert_array_equal(marks, [expected])
    assert 0 < np.count_nonzero(marks) < 30
    assert shown_entries(chart) == [word]
    assert shown_entries(plot(history, steps=(0, 30))) == []


def test_a_long_history_is_judged_exactly_where_it_is_shown():
    norms = np.ones((5000, 20))
    norms[2500:] = 0.3 ** np.arange(20)[::-1]
    history = history_of(norms)
    bands = depth_bands(history)
    for steps in (None, (2000, 3000), (4000, 4100)):
        chart = plot(history, steps=steps, columns=200)
        columns, (marks,) = data(chart, "columns"), data(chart, "bands")["marks"][0]
        exact = bands.vanishing[np.searchsorted(bands.steps, columns["last"])]
        np.testing.assert_array_equal(marks, exact)


def test_layers_without_a_signal_are_folded_and_others_never():
    norms = np.ones((60, 9))
    norms[:, [0, 2]] = 1e-7  # a small input is one that vanishes
    norms[:, 4] = np.nan  # no bias
    norms[:, 6] = 0  # a dead branch
    norms[:, 8] = 0  # an output whose bias changes nothing
    history = history_of(norms)
    shown = [f"layer_{i}" for i in (0, 1, 3, 5, 6, 7)]
    chart = plot(history)
    assert list(chart.yaxis[0].major_label_overrides.values()) == shown
    assert chart.title.text.endswith("3 layers without a signal not shown")
    assert str(fold_layers(history)) == (
        "1 layer without a bias (layer_4) and 2 layers whose bias changes nothing (layer_2, …)"
    )
    (dots,) = (s for s in sources(plot(history, "depth")) if "layer_1" in s.get("layer", []))
    assert dots["layer"] == [f"layer_{i}" for i in (0, 1, 3, 5, 7)]  # one is zero
    lines = plot(history, "lines").select_one({"type": Legend}).items
    assert [item.label.value for item in lines[:-1]] == shown[::-1]
    # They are there if they are asked for, and wherever something was found.
    assert len(cells(plot(history, layers=history.layers))) == 9
    assert len(cells(plot(history, statistic="norm"))) == 9
    history.findings = [Finding("dead", "layer_2", 3, "")]
    assert fold_layers(history).idle == ["layer_8"]


def test_lines_beside_others_are_on_axes_that_hold_all(history):
    totals = {"loss": -np.ones((20, 1)), "learning_rate": np.ones((20, 1))}
    others = history_of(history["norm"] * 1e9, **totals)
    for one, beside in ((history, others), (others, history)):
        chart = plot(one, "lines", statistic="norm", beside=[beside])
        ends = data(chart, "beside-lines")["value"]
        values = beside["norm"][np.isfinite(beside["norm"]) & (beside["norm"] > 0)]
        np.testing.assert_allclose(ends, [values.min(), values.max()])
        scales = [type(f.y_scale).__name__ for f in chart.select({"type": plotting.figure})]
        assert sorted(scales) == ["LinearScale", "LogScale", "LogScale"]  # a loss is negative


def test_nested_models_are_grouped():
    layers = ["a", *(f"encoder/{i}/dense" for i in range(3)), "b/c", "decoder/x", "decoder/y"]
    chart = plot(history_of(np.ones((3, 7)), layers))
    names, groups = (axis.major_label_overrides for axis in chart.yaxis)
    assert list(names.values()) == ["a", "0/dense", "1/dense", "2/dense", "b/c", "x", "y"]
    assert groups == {2.0: "encoder", 5.5: "decoder"}
    assert [s["y"] for s in sources(chart) if list(s) == ["y"]] == [[0.5, 3.5, 4.5, 6.5]]
    assert formatters(chart)["layer"].args["layers"].data["name"] == layers


@pytest.mark.parametrize(
    ("layers", "groups", "names"),
    [
        (["m/a", "m/b"], [], ["m/a", "m/b"]),  # all of them
        (["m/a/x", "m/a/y", "m/b"], [("a", 0, 1)], ["x", "y", "b"]),
        (
            ["m/a", "m/b", "n/a", "m/c", "m/d"],
            [("m", 0, 1), ("m", 3, 4)],
            ["a", "b", "n/a", "c", "d"],
        ),
        (["/", "/"], [], ["/", "/"]),
        (["a", "a/b", "a/c"], [("a", 1, 2)], ["a", "b", "c"]),
        ([], [], []),
    ],
)
def test_groups_are_neighbours_of_one_part(layers, groups, names):
    assert groups_of(layers) == (groups, names)


def test_the_number_of_models_does_not_grow_with_the_layers():
    few, many = (len(plot(history_of(np.ones((2, count)))).references()) for count in (10, 500))
    assert few == many


def test_marks_are_far_from_all_colours_also_for_the_colour_blind():
    """CIE76 in CIELAB, by Machado's matrices of 2009; 2.3 is what can just be seen."""
    deuteranopia = [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413]
    deuteranopia += [-0.011820, 0.042940, 0.968881]
    protanopia = [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216]
    protanopia += [-0.003882, -0.048116, 1.051998]
    missing = [theme.missing for theme in THEMES.values()]
    for matrix in (np.eye(3), deuteranopia, protanopia):
        viridis, marks, strip, grey = (
            seen(colours, matrix)
            for colours in (Viridis256, [ZERO, NONFINITE], [VANISHING, EXPLODING], missing)
        )
        assert distance(np.concatenate([marks, grey]), viridis).min() > 22
        assert distance(marks, grey).min() > 20
        assert distance(strip[:1], viridis).min() > 30
        assert distance(strip[:1], strip[1:]).min() > 60
        assert distance(marks[:1], marks[1:]).min() > 60


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_graphics_have_a_contrast_of_three_and_text_of_four_and_a_half(theme, history):
    """By WCAG 2.2, 1.4.3 and 1.4.11: of each graphic its area, or else its edge."""
    colours = theme_of(theme)
    assert min(contrast(colours.text, colours.page), contrast(colours.faint, colours.page)) >= 4.5
    runs = [mix(colour, colours.text, share) for colour in RUN_COLOURS[theme] for share in (0, 0.7)]
    for colour in (*runs, *colours_by_depth(10, theme), NONFINITE):
        assert contrast(colour, colours.page) >= 3, colour
    for kind in ("map", "depth", "lines"):
        chart = plot(history, kind, theme=theme)
        graphics = [r.glyph for r in chart.select({"type": GlyphRenderer})]
        graphics += chart.select({"type": BoxAnnotation})
        seen = 0
        for graphic in graphics:
            looks = [getattr(graphic, f"{part}_color", None) for part in ("line", "fill")]
            faint = {getattr(graphic, f"{part}_alpha", 1) for part in ("line", "fill")} == {0}
            known = [str(look).replace("white", "#ffffff") for look in looks]
            known = [look for look in known if look.startswith("#")]
            seen += bool(known)
            assert faint or not known or max(contrast(c, colours.page) for c in known) >= 3, known
        assert seen
    # The map has an edge that is seen on the page and beside its black zeros.
    edge = plot(history, theme=theme).outline_line_color
    assert min(contrast(edge, colours.page), contrast(edge, ZERO)) >= 3


def seen(colours, matrix):
    """Colours in CIELAB, as someone sees them."""
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.reshape(matrix, (3, 3)).T, 0, 1)
    to_xyz = [0.4124564, 0.3575761, 0.1804375, 0.2126729, 0.7151522, 0.0721750]
    to_xyz += [0.0193339, 0.1191920, 0.9503041]
    xyz = linear @ np.reshape(to_xyz, (3, 3)).T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


def distance(some, others):
    return np.linalg.norm(some[:, None] - others[None], axis=-1)


def test_a_record_alone_between_broken_ones_is_a_dot():
    norms = np.array([[1.0], [np.nan], [2.0], [3.0]])
    layout = plot(history_of(norms, nonfinite=np.isnan(norms)), "lines")
    np.testing.assert_allclose(data(layout, "line-0")["alone"], [0.5, np.nan, np.nan, np.nan])
    assert list(data(layout, "nonfinite")["step"]) == [1]


def test_smoothed_lines_have_what_was_recorded_behind_them(history):
    layout = plot(history, "lines", layers=["layer_0"], statistic="norm", smoothing=0.6)
    top = layout.select_one({"name": "steps"})
    assert top.title.text == "norm of the gradient, smoothed by 0.6"
    line = data(layout, "line-0")
    np.testing.assert_array_equal(line["raw"], history["norm"][:, 0])
    np.testing.assert_array_equal(line["value"], smooth(history["norm"][:, 0], 0.6, log=True))
    loss = data(layout, "loss-0")
    np.testing.assert_array_equal(loss["value"], smooth(history["loss"][:, 0], 0.6, log=True))
    rate = data(layout, "learning_rate-0")  # which is not noisy
    np.testing.assert_array_equal(rate["value"], history["learning_rate"][:, 0])
    cosine = plot(history, "lines", layers=["layer_0"], statistic="zeros", smoothing=0.6)
    expected = smooth(history["zeros"][:, 0], 0.6)
    np.testing.assert_array_equal(data(cosine, "line-0")["value"], expected)


def test_findings_are_marked_where_their_layer_is_shown():
    layers = ["a/kernel", "a/bias", "m/b", "c"]
    kinds = ("c", "a", "m/b", "", "gone")  # "a" stands for its variables
    findings = [Finding(kind, kind, 35, "It is <b>.") for kind in kinds]
    history = history_of(np.ones((3, 4)), layers)
    history.findings = findings
    source = data(plot(history), "findings")
    assert (source["kind"], source["layer"]) == (["c", "a", "m/b", "", "gone"], [3, 0, 2, 0, 0])
    assert (source["step"], source["message"]) == ([35] * 5, ["It is <b>."] * 5)
    chart = plot(history, layers=["a/bias", "c"])
    source = data(chart, "findings")
    assert (source["kind"], source["layer"]) == (["c", "a", "", "gone"], [1, 0, 0, 0])


def test_the_difference_map_is_the_ratio_on_common_layers_and_steps():
    a = history_of(np.full((4, 3), 2.0), ["a", "b", "c"], steps=[0, 1, 2, 3])
    b = history_of(np.full((4, 2), 200.0), ["c", "b"], steps=[2, 3, 4, 5])
    chart = plot({"a": a, "b": b}, "difference", statistic="norm")
    np.testing.assert_allclose(source_with(chart, "image")["image"][0], np.full((2, 2), 2.0))
    assert chart.yaxis[0].major_label_overrides == {0: "c", 1: "b"}


def test_the_profile_holds_the_values_of_its_step(history):
    chart = plot(history, "depth", at=[17], statistic="norm")  # the last record is at 15
    (dots,) = [s for s in sources(chart) if s.get("depth") == [0, 1, 3, 4, 5, 6]]
    shown = history["norm"][3]
    np.testing.assert_allclose(dots["value"], shown[shown > 0])
    assert dots["step"] == [15] * 6
    (zeros,) = [s for s in sources(chart) if s.get("depth") == [2]]
    assert zeros["layer"] == ["layer_2"]


def test_the_line_of_the_rule_lies_over_all_layers_whichever_are_shown():
    history = history_of(0.5 ** np.arange(20)[::-1][None])
    for layers in (None, history.layers[8:]):
        chart = plot(history, "depth", layers=layers)
        (line,) = [s for s in sources(chart) if list(s) == ["depth", "value"]]
        assert line["depth"] == [[0, 18]]
        np.testing.assert_allclose(line["value"], [history["signal"][0, [0, 18]]], rtol=1e-5)
        (item,) = chart.legend[0].items
        assert item.label.value.endswith(
            "×0.5 per layer towards the input, ×3.8e-6 in all: falling"
        )


def test_several_steps_and_runs_are_overlaid(history):
    chart = plot({"one": history, "two": history}, "depth", at=[0, 50])
    labels = [item.label.value for item in chart.legend[0].items]
    names = [f"{run}, step {step}" for step in (0, 50) for run in ("one", "two")]
    assert [label.partition(":")[0] for label in labels] == names


def test_the_player_carries_every_step_with_it(history):
    layout = plot(history, "player")
    (slider,) = layout.select({"type": Slider})
    (callback,) = slider.js_property_callbacks["change:value"]
    frames = json.loads(callback.args["frames"])
    assert [frame["step"] for frame in frames] == history.steps.tolist()
    for frame, values in zip(frames, history["signal"], strict=True):
        points = frame["curves"][0]["points"]
        np.testing.assert_allclose(points["value"], values[points["depth"]])


def test_lines_hold_the_values_of_their_layers(history):
    layout = plot(history, "lines", layers=["layer_3", "layer_0"], statistic="norm")
    for i, layer in enumerate([0, 3]):  # in the model's order
        source = data(layout, f"line-{i}")
        np.testing.assert_array_equal(source["step"], history.steps)
        np.testing.assert_array_equal(source["value"], history["norm"][:, layer])
        lines = layout.select({"type": GlyphRenderer, "name": f"layer_{layer}"})
        assert all(dict(line.data_source.data) == source for line in lines)
    loss = data(layout, "loss-0")
    np.testing.assert_array_equal(loss["value"], history["loss"][:, 0])
    figures = list(layout.select({"type": plotting.figure}))
    assert len(figures) == 3
    assert len({chart.x_range.id for chart in figures}) == 1  # they share their steps
    without_totals = plot(history_of(np.ones((3, 2))), "lines")
    assert len(list(without_totals.select({"type": plotting.figure}))) == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["map", "depth", "lines"])
def test_a_history_plots_itself(history, kind, theme):
    assert serialised(plot(history, kind, theme=theme, title="A title"))
    single = history_of([[1.0, np.nan, 0.0]])
    assert serialised(plot(single, kind, theme=theme))
    nothing = history_of(np.full((3, 2), np.nan))
    assert serialised(plot(nothing, kind, theme=theme))


@pytest.mark.parametrize("kind", ["map", "depth", "lines"])
def test_a_plot_is_as_wide_as_the_page_or_as_it_is_told(history, kind):
    def widths(chart):
        figures = chart.select({"type": plotting.figure})
        return {(model.sizing_mode, model.width) for model in [chart, *figures]}

    assert {mode for mode, _ in widths(plot(history, kind))} == {"stretch_width"}
    for width in (700, np.int64(700)):
        chart = plot(history, kind, width=width)
        assert widths(chart) == {(None, 700)}
        assert chart.width_policy == "fixed"
        assert serialised(chart)


WIDTH = r"`width` must be a positive integer, or None .* Received: width="
NOWHERE = r"must be paths of layers .* 'nowhere', which is none"
NO_LAYERS = "`layers` must name at least one layer"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("pie", {}, r'`kind` must be one of "map", .*\. Received: kind=.pie'),
        ("map", {"theme": "blue"}, r'`theme` must be "light" or "dark"\. Received'),
        ("map", {"stat": "norm"}, r"must be of `statistic`, .* Received: stat='norm'"),
        ("map", {"statistic": "nom"}, "The statistic must be one of"),
        ("map", {"statistic": "loss"}, r"`statistic` must be one of those of layers: .*'loss'"),
        ("map", {"limits": (0, 1)}, r"must be increasing, and positive .* limits=\(0, 1\)"),
        ("lines", {"smoothing": 1}, r"`smoothing` must be at least 0 .* smoothing=1\."),
        ("map", {"layers": ["layer_1", "nowhere"]}, NOWHERE),
        ("lines", {"layers": ["layer_1", "nowhere"]}, NOWHERE),
        ("map", {"layers": []}, NO_LAYERS),
        ("lines", {"layers": []}, NO_LAYERS),
        ("depth", {"layers": ["nowhere"]}, "must have paths of layers .* none of which is one of"),
        *(("map", {"width": wrong}, f"{WIDTH}{wrong!r}[.]") for wrong in (0, 700.0, True)),
    ],
)
def test_a_wrong_option_is_named(history, kind, options, message):
    with pytest.raises(KeyError if "nom" in options.values() else ValueError, match=message):
        plot(history, kind, **options)


def test_histories_that_cannot_be_drawn_are_said(history):
    with pytest.raises(
        ValueError, match=r"A history must hold steps to be drawn\. Received: <GradientHistory: 0"
    ):
        plot(GradientHistory())
    for kind, count in (("map", 1), ("lines", 1), ("difference", 2)):
        with pytest.raises(ValueError, match=rf"This chart shows {count} histor.*Received: 3\."):
            plot(dict.fromkeys("abc", history), kind)
    with pytest.raises(ValueError, match="must have layers and recorded steps in common"):
        plot({"a": history, "z": history_of(np.ones((1, 1)), ["z"])}, "difference")


@pytest.mark.parametrize("kind", ["map", "depth", "lines"])
def test_hostile_names_are_text(kind):
    history = history_of(np.ones((5, len(HOSTILE))), HOSTILE)
    chart = plot(history, kind, title=HOSTILE[0])
    text = serialised(chart)
    assert len(text) < 100_000
    assert "$$" not in text
    for tool in chart.select({"type": HoverTool}):
        assert "{safe}" not in str(tool.tooltips)  # of which Bokeh would make markup


def test_a_name_is_one_short_line_of_its_own():
    assert display_name("x" * 100 + "end", 11) == "xxxxx…xxend"
    assert display_name("plain/name_1") == "plain/name_1"
    shown = display_name("a" * 99)
    assert display_names(["a" * 99, "b", "a" * 98]) == [f"{shown} (1)", "b", f"{shown} (3)"]
    assert display_name("a\nb\u202e\x00") == "a\\nb\\u202e\\x00"
    assert display_name("شبكة") == "\u2068شبكة\u2069"
    assert as_html("<a & 'b'>") == "&lt;a &amp; &#x27;b&#x27;&gt;"


def test_the_depth_begins_at_the_last_step_with_a_finite_gradient():
    broken = np.where(np.arange(6)[:, None] < 4, 0, 4) * np.ones(12)
    history = history_of(np.ones((6, 12)), nonfinite=broken)
    (item,) = plot(history, "depth").legend[0].items
    assert item.label.value.startswith("step 3: ")
    player = plot(history, "player")
    (slider,) = player.select({"type": Slider})
    assert (slider.value, slider.end) == (3, 5)


def test_numbers_are_written_for_people():
    numbers = (488458, 1234.5, 190.3, 0.7, 1.0, 3e-5, 1e-9, -3.0, 3e38, float("nan"))
    written = [write_number(number, 2) for number in numbers]
    assert written == ["488,458", "1,200", "190", "0.7", "1", "3e-5", "1e-9", "-3", "3e38", "nan"]
    assert [write_part(part) for part in (4.3e-5, 0.1, 2e4)] == ["1/23,000", "0.1", "20,000"]


def test_a_predicted_signal_is_a_dotted_line_with_a_word_on_it():
    history = history_of(0.5 ** np.arange(20)[::-1][None])
    predicted = {layer: (1.0, 0.5**i) for i, layer in enumerate(history.layers[::-1]) if i != 4}
    history.setup = Setup(prediction=predicted)
    words = "predicted for step 0 from the initial weights, as then measured"
    for name, label in (("", words), ("run", f"run, {words}")):
        chart = plot({name: history}, "depth")
        (line,) = [
            s for s in sources(chart) if list(s) == ["depth", "value"] and len(s["depth"]) > 9
        ]
        assert line["depth"].tolist() == [i for i in range(20) if i != 15]
        np.testing.assert_allclose(line["value"], history["signal"][0, line["depth"]], rtol=1e-5)
        assert chart.legend[0].items[-1].label.value == label
    assert len(plot(history, "depth", statistic="norm").legend[0].items) == 1
