"""The slope over depth and its word: one answer, whoever asks."""

import math
import re
import statistics

import numpy as np
import pytest

from tensorboard_plugin_initkit.charts.bands import judge_columns
from tensorboard_plugin_initkit.charts.report import report_html
from tensorboard_plugin_initkit.charts.values import bin_statistic
from tensorboard_plugin_initkit.charts.view import View
from tensorboard_plugin_initkit.diagnosis.depth import depth_bands, depth_slopes, line_slopes
from tensorboard_plugin_initkit.diagnosis.judge import judge
from tensorboard_plugin_initkit.plotting import plot
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tensorboard_plugin_initkit.safe_text import write_number
from tests.tensorboard_plugin_initkit.diagnosis.made import (
    EVERY_10,
    EVERY_STEP,
    both,
    falls,
    made,
    put,
)
from tests.tensorboard_plugin_initkit.record.made import history_of

pytestmark = pytest.mark.numpy_alone

WORDS = ("vanishing", "exploding", "falling", "rising", "healthy")
# Profiles of which two views once said different words.
PROFILES = {
    "a stem of small gradients": [1e-9, 1e-7, *[1.0] * 10],
    "three large layers at the output": [*[1e-5] * 10, 0.01, 1.0, 1.0],
    "one layer at the input stands out": [1.0, *np.logspace(-6, 0, 11)],
    "an even fall": [*np.logspace(-7, 0, 12)],
    "a fall in the middle": [*[1e-6] * 6, *[1.0] * 6],
    "an even growth": [*np.logspace(7, 0, 12)],
    "too few": [1e-9, 1.0, 1.0],
}


def steady(profile, steps=EVERY_10):
    """Make a history of layers that are alike at all records; its loss does not fall."""
    loss = 2.3 + 0.01 * np.cos(np.arange(len(steps)))[:, None]
    norms = np.tile(2 * np.asarray(profile), (len(steps), 1))  # of four elements
    return history_of(norms, steps=steps, loss=loss)


def random_profile(seed):
    """Draw a profile: a slope, steps, noise, and some layers without a gradient."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(3, 40))
    level = rng.normal(0, 8) * np.linspace(1, 0, depth) + rng.normal(
        0, rng.choice([0, 1, 3]), depth
    )
    for _ in range(rng.integers(0, 3)):
        level[: rng.integers(0, depth)] += rng.normal(0, 10)
    profile = np.exp(level)
    if rng.random() < 0.3:
        profile[rng.random(depth) < 0.1] = np.nan
    if rng.random() < 0.2:
        profile[rng.random(depth) < 0.1] = 0
    return profile


def expected_word(profile):
    """Return the word of a steady profile with a flat loss: the rule, written out."""
    signal = [float(np.float32(value)) for value in profile][:-1]  # without the output layer
    depth = len(signal)
    filled = [
        max((v for v in signal[max(0, i - 1) : i + 2] if v == v), default=0) for i in range(depth)
    ]
    if not any(value == value for value in signal):
        return "too few layers for a slope"
    if not any(filled):
        return "zero"
    if depth < 4:
        return "too few layers for a slope"
    if not all(filled):
        count = filled.count(0)
        return f"no gradient in {count} layer" + "s" * (count > 1)
    third = max(2, depth // 3)
    ends = filled[:third], filled[-third:]
    front, back = (statistics.median(math.log(value) for value in end) for end in ends)
    total = (front - back) * (depth - 1) / (depth - third)
    ends = [v for v in signal[:third] if v > 0], [v for v in signal[-third:] if v > 0]
    front_most, back_most = (max(map(math.log, end), default=math.nan) for end in ends)
    limit = math.log(1e-4)
    for least in (limit, max(math.log(1e-2), math.log(0.35) * (depth - 1))):
        if total < least and front_most - back < least / 2:
            return "vanishing"
        if -total < least and back_most - front < least / 2:
            return "exploding"
    return "healthy" if abs(total) < -limit / 2 else "falling" if total < 0 else "rising"


def map_word(history):
    """Return the word of the map's strip at its last column."""
    bins = bin_statistic(history, View(columns=5), range(len(history.layers)))
    return ["", "vanishing", "exploding"][judge_columns(history, bins)[-1]]


def labels_of_depth_view(histories):
    chart = plot({str(i): history for i, history in enumerate(histories)}, "depth")
    return [item.label.value for item in chart.legend[0].items]


def test_every_view_says_the_same_word_of_any_profile():
    profiles = [*PROFILES.values(), *(random_profile(seed) for seed in range(1000))]
    histories = [steady(profile) for profile in profiles]
    texts = [str(depth_slopes(history, np.array([12]))[0][0]) for history in histories]
    labels = labels_of_depth_view(histories[:25])  # drawing takes long
    assert [label.partition(": ")[2] for label in labels] == texts[:25]
    seen = set()
    for profile, history, text in zip(profiles, histories, texts, strict=True):
        word = expected_word(profile)
        seen.add(word)
        assert text.rpartition(": ")[2] == word
        loud = word if word in ("vanishing", "exploding") else ""
        assert map_word(history) == loud
        said = [f.kind for f in judge(history) if f.kind in WORDS]
        # Of layers from the input on without any gradient the callback may have spoken before.
        echo = [] if word == "vanishing" and (np.asarray(profile) == 0).any() else [loud]
        assert said[:1] in ([loud] if loud else [], echo)
    assert set(WORDS) < seen


@pytest.mark.parametrize("name", list(PROFILES)[:3] + list(PROFILES)[-2:])
def test_a_report_says_the_same_word_in_its_map_profile_and_findings(name):
    profile = PROFILES[name]
    history = steady(profile)
    history.findings = found = judge(history)
    html = report_html({"run": history})
    word = expected_word(profile)
    cells = re.findall(r"<td>(vanishing|exploding)</td>", html)
    assert cells == [word] * len(found)
    assert re.search(rf"step {history.steps[-1]}: [^\"]*{word}\\*\"", html)
    for finding in found:  # and the same numbers
        (slope,) = depth_slopes(history, np.array([3]))[0]
        assert (finding.step, finding.kind) == (30, slope.word)
        assert finding.evidence["factor"] == slope.factor
        assert finding.evidence["ratio"] == slope.total


def falls_between(factor, begin, end, steps=EVERY_10):
    """Make a history whose gradients fall by a factor a layer from step `begin` to `end`."""
    record = made(steps)
    rows = (steps >= begin) & (steps < end)
    for array in (record.bias, record.kernel):
        array[rows] *= factor ** np.arange(array.shape[1] - 1, -1, -1)
    return record.history()


def test_the_line_has_the_slope_of_the_medians_and_half_of_the_layers_above_it():
    profile = np.exp(np.random.default_rng(0).normal(0, 0.3, 19)) * np.logspace(-5, 0, 19)
    ((slope,),) = depth_slopes(steady(profile), np.array([3]))
    x = np.arange(18)
    filled = np.fmax(np.fmax(profile[:18], np.r_[0, profile[:17]]), np.r_[profile[1:18], 0])
    level = np.log(filled)
    inner = np.median(level[:6]), np.median(level[12:])
    line = inner[0] + (x - 2.5) * (inner[1] - inner[0]) / 12
    line += np.median(np.log(profile[:18]) - line)
    np.testing.assert_allclose(slope.ends, np.exp(line[[0, 17]]), rtol=1e-5)
    np.testing.assert_allclose(slope.total, np.exp(line[0] - line[-1]), rtol=1e-5)
    np.testing.assert_allclose(slope.factor**17, slope.total, rtol=1e-9)
    assert slope.layers == (0, 17)
    assert str(slope) == (
        f"×{slope.factor:.3g} per layer towards the input, ×{write_number(slope.total, 2)} in all: "
        "vanishing"
    )


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.zeros(9), "exactly zero"),
        (np.full(9, np.nan), "too few layers for a slope"),
        ([1, np.nan, np.nan, np.nan, 1, 1, 1, 1], "no gradient in 1 layer"),
        ([1], "too few layers for a slope"),
    ],
)
def test_where_there_is_no_slope_it_says_why(values, word):
    ((slope,),) = depth_slopes(steady(values), np.array([5]))
    assert str(slope) == slope.word == word
    assert math.isnan(slope.factor)


def test_where_numbers_are_not_finite_there_is_no_slope():
    record = made()
    put(7, "nonfinite", steps=slice(8, None), layers=slice(3, 5))(record)
    ((before,), (slope,)) = depth_slopes(record.history(), np.array([7, 8]))
    assert before.word == "healthy"
    assert str(slope) == "NaN or infinite: no slope"


def test_the_word_is_that_of_the_step():
    history = falls_between(0.2, 30, 100)
    slopes = [slope.word for (slope,) in depth_slopes(history, np.arange(13))]
    assert slopes == ["healthy"] * 3 + ["falling"] * 3 + ["vanishing"] * 4 + ["healthy"] * 3


def test_other_statistics_have_a_line_and_no_word():
    values = np.array([[1e-9, 1e-6, 1e-3, 1e0, np.nan, 1e3, 1.0], [1, 1, np.inf, 1, 1, 1, 1]])
    line, broken = line_slopes(values)
    assert line.word == ""
    assert line.layers == (0, 5)
    assert re.fullmatch(r"×[\d.e-]+ per layer towards the input, ×[\d.e-]+ in all", str(line))
    assert str(broken) == "NaN or infinite: no slope"
    assert [slope.word for slope in line_slopes(np.ones((1, 2)))] == ["too few layers for a slope"]


def test_each_optimizer_has_a_slope_of_its_own():
    profile = np.r_[np.full(8, 1.0), np.logspace(-8, 0, 8)]
    chunk = steady(profile).select(slice(None))._joined()
    variables = tuple(
        Variable(f"{o}/{v.path}", f"{o}/{v.layer}", v.shape, o)
        for v, o in zip(chunk.layout.variables, "a" * 8 + "b" * 8, strict=True)
    )
    history = GradientHistory()
    history.append(Chunk(Layout(variables, ("a", "b")), chunk.steps, chunk.values))
    ((first, second),) = depth_slopes(history, np.array([12]))
    assert (first.optimizer, first.word, first.layers) == ("a", "healthy", (0, 6))
    assert (second.optimizer, second.word, second.layers) == ("b", "vanishing", (8, 14))
    (label,) = labels_of_depth_view([history])
    assert "a: ×1 per" in label
    assert label.endswith("vanishing")
    assert [f.layer for f in judge(history)] == ["b/layer_8"]


@pytest.mark.parametrize("steps", [EVERY_10, EVERY_STEP, np.array([0, 1, 2, 50, 51, 90, 91, 200])])
def test_some_records_are_judged_as_among_all(steps):
    history = falls_between(0.2, 30, 100, steps)
    whole = depth_bands(history)
    for row in range(len(steps)):
        part = depth_bands(history, np.array([row]))
        assert [values.tolist() for values in part] == [[values[row]] for values in whole]
        assert depth_slopes(history, np.array([row])) == [
            depth_slopes(history, np.arange(row + 1))[-1]
        ]


@pytest.mark.parametrize(
    ("factor", "name"), [(0.2, "vanishing"), (5.0, "exploding"), (0.7, ""), (1.4, "")]
)
def test_bands_are_where_the_rule_holds(factor, name):
    history = falls_between(factor, 30, 100)
    bands = depth_bands(history)
    np.testing.assert_array_equal(bands.steps, EVERY_10)
    for band in ("vanishing", "exploding"):
        # It must have lasted for 30 steps: from step 60 to the last one.
        judged = bands.steps[getattr(bands, band)].tolist()
        assert judged == ([60, 70, 80, 90] if band == name else [])
        assert [f.step for f in judge(history) if f.kind == band] == judged[:1]


@pytest.mark.parametrize("layer", [0, 4, 10])
@pytest.mark.parametrize(("factor", "kind"), [(0.2, "vanishing"), (5.0, "exploding")])
def test_a_layer_without_gradient_hides_no_slope(layer, factor, kind):
    record = made()
    both(falls(factor), put(np.nan, "bias", "kernel", "dead", "nonfinite", layers=layer))(record)
    history = record.history()
    assert {kind, "no_gradient"} <= {finding.kind for finding in judge(history)}
    assert getattr(depth_bands(history), kind).any()


def test_bands_are_not_of_layers_without_any_gradient():
    record = made()
    put(0, "bias", "kernel", steps=slice(5, None), layers=slice(4))(record)
    assert not depth_bands(record.history()).vanishing.any()
    assert "dead_units" in {finding.kind for finding in judge(record.history())}


def test_bands_end_where_numbers_are_not_finite():
    record = made(EVERY_STEP)
    both(falls(0.2), put(7, "nonfinite", steps=slice(60, None), layers=3))(record)
    bands = depth_bands(record.history())
    assert bands.vanishing[:60].any()
    assert not bands.vanishing[60:].any()


def test_an_empty_history_has_no_bands_and_no_slopes():
    nothing = np.zeros(0, np.int64)
    assert [len(part) for part in depth_bands(GradientHistory())] == [0, 0, 0]
    assert depth_slopes(GradientHistory(), nothing) == depth_slopes(made().history(), nothing) == []
