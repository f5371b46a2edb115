"""Findings in histories that are made up."""

import dataclasses
import re

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.depth import depth_bands
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.judge import judge, news
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout
from tensorboard_plugin_initkit.record.setup import LayerSetup, Setup
from tests import ROOT
from tests.tensorboard_plugin_initkit.diagnosis.made import (
    BOTH,
    DEAD,
    EVERY_10,
    EVERY_STEP,
    FAULTY,
    HEALTHY,
    both,
    faulty_record,
    learns,
    made,
    port,
    put,
    supervised,
    times,
)
from tests.tensorboard_plugin_initkit.record.made import history_of

pytestmark = pytest.mark.numpy_alone

faulty = pytest.mark.parametrize("name", FAULTY)
# Of 40 layers these are faults.
DEEP_FAULTS = ("vanishing: mild slope", "exploding: scales like a deep residual network")


def kinds(history):
    return [(finding.kind, finding.layer) for finding in judge(history)]


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_said_of_healthy_networks(name):
    for steps in (EVERY_10, EVERY_STEP + 5000):
        for layers in (2, 6, 12, 12 if name in DEEP_FAULTS else 40):
            record = made(steps, layers)
            HEALTHY[name](record)
            assert judge(record.history()) == []
            bands = depth_bands(record.history())
            assert not (bands.vanishing | bands.exploding).any()


def expected_key(name):
    _, kind, layer, _ = FAULTY[name]
    return kind, "" if layer is None else f"net/dense_{layer}"


@faulty
def test_a_fault_is_said_once_with_its_layer_the_step_and_the_numbers(name):
    (finding,) = judge(faulty_record(name).history())
    assert finding.key == expected_key(name)
    assert (finding.step or 0) <= FAULTY[name][-1]
    assert finding.severity == ("error" if finding.kind == "nonfinite" else "warning")
    assert finding.message.startswith(finding.message[0].upper())
    assert finding.message.endswith(".")
    assert "\n" not in finding.message
    assert str(finding.step) in finding.message
    assert f"`{finding.layer}`" in finding.message or not finding.layer
    assert finding.cause
    assert finding.fix
    assert finding.evidence
    assert all(isinstance(value, float) for value in finding.evidence.values())


@faulty
def test_the_scale_of_gradients_changes_nothing(name):
    before = judge(faulty_record(name).history())
    for factor in (1e-10, 1e10):
        record = faulty_record(name)
        times(factor, "bias", "kernel")(record)
        after = judge(record.history())
        assert [(*f.key, f.step) for f in after] == [(*f.key, f.step) for f in before]


def assert_is_beginning(so_far, whole, step):
    """Check that all is found again in a longer history; more may follow from it by then."""
    expected = [f for f in whole if f.step <= step]
    for before, after in zip(so_far, expected, strict=True):
        assert set(before.consequences) <= set(after.consequences)
        assert dataclasses.replace(before, consequences=after.consequences) == after


@faulty
def test_a_finding_stays_at_any_schedule(name):
    for steps in (EVERY_10, EVERY_STEP):
        record = faulty_record(name, steps)
        whole = judge(record.history())
        assert whole[0].key == expected_key(name)
        for end in range(1, len(steps) + 1, max(1, len(steps) // 12)):
            so_far = judge(record.history(slice(0, end)))
            assert_is_beginning(so_far, whole, steps[end - 1])


def test_growth_is_not_measured_from_a_first_window_of_zeros():
    record = made()
    record.bias[:4] = record.kernel[:4] = 0
    record.loss[4:] = 10
    assert kinds(record.history()) == [("no_gradient", "")]


@pytest.mark.parametrize("seed", range(12))
def test_what_was_found_stays_found_in_any_record(seed):
    """Records that make no sense, in which everything happens."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(1, 12, 60))
    record = made(steps, int(rng.integers(1, 9)), seed)
    for array in (record.bias, record.kernel, record.weight, record.update):
        array *= np.exp(np.cumsum(rng.normal(0, 2, array.shape), axis=0))
        array[rng.random(array.shape) < rng.choice([0, 0.02, 0.5])] = 0
    record.dead = rng.random(record.dead.shape) ** 0.2
    record.nonfinite[40:] += rng.random(record.nonfinite[40:].shape) < 0.05
    record.loss = np.exp(np.cumsum(rng.normal(0, 0.5, len(steps))))
    record.loss[rng.random(len(steps)) < 0.2] = np.nan
    whole = judge(record.history())
    for end in range(1, len(steps) + 1):
        so_far = judge(record.history(slice(0, end)))
        assert_is_beginning(so_far, whole, steps[end - 1])


def test_findings_are_in_order_of_step_and_each_said_once():
    record = made(np.arange(0, 400, 10))
    put(1e-9, "update")(record)
    record.bias[20:, :5] = record.kernel[20:, :5] = 0
    record.nonfinite[30:] = 1
    found = judge(record.history())
    assert [f.kind for f in found] == ["small_updates", "dead_units", "nonfinite"]
    assert [f.step for f in found] == [20, 220, 300]


@pytest.mark.parametrize("name", [*FAULTY, *HEALTHY])
def test_a_history_that_thins_itself_says_nothing_new(name):
    steps = np.arange(0, 1200)
    record = made(steps, 8)
    (HEALTHY.get(name) or FAULTY[name][0])(record)
    thinned: list[Finding] = []
    for end in range(64, len(steps), 64 * 6):
        history = record.history(slice(0, end), max_steps=256)
        thinned += news(thinned, judge(history))
    whole = judge(record.history())
    assert {f.kind for f in thinned} == {f.kind for f in whole}
    assert len(thinned) == len(whole)


def test_news_are_what_was_not_said_before():
    def finding(kind, layer, **evidence):
        return Finding(kind, layer, 1, "", evidence)

    vanishing = finding("vanishing", "a")
    dead = finding("dead_units", "c", share=1.0, from_input=1.0)
    partly = finding("dead_units", "b", share=0.95)
    lost = finding("nonfinite", "d")
    assert news([], [vanishing, vanishing]) == [vanishing]
    assert news([vanishing], [dead, partly]) == []
    assert news([dead], [partly]) == []
    assert news([partly], [vanishing, dead]) == [vanishing]
    assert news([dead], [finding("dead_units", "d", share=1.0, from_input=1.0)]) == []
    assert news([dead], [finding("dead_units", "f", share=1.0, from_input=0.0)]) != []
    assert news([partly], [finding("dead_units", "c", share=0.95)]) == []
    assert news([lost], [finding("exploding", "")]) == []
    assert news([vanishing], [lost]) == [lost]


def test_weights_that_are_all_zero_get_no_gradient():
    record = made()
    put(0, "bias", "kernel", "weight")(record)
    (finding,) = judge(record.history())
    assert finding.kind == "no_gradient"
    assert finding.cause.startswith("All their weights are 0")
    assert str(finding.fix).startswith("Begin one factor of each product with random numbers")
    put(1, "weight", layers=2)(record)
    (finding,) = judge(record.history())
    assert finding.cause.startswith("Something between these weights and the loss")


def test_a_layer_before_an_operation_without_a_slope_is_not_dead():
    record = made()
    put(0, "bias", "kernel", layers=slice(0, 4))(record)
    supervised()(record)
    assert record.setup is not None
    layers = (*record.setup.layers, LayerSetup("round", "Round", takes=(3,)))
    record.setup = dataclasses.replace(record.setup, layers=layers, has_graph=True)
    (finding,) = judge(record.history())
    assert (finding.kind, finding.layer) == ("no_gradient", "net/dense_3")
    assert finding.cause.endswith("Here these are `round`.")
    elsewhere = (*layers[:-1], layers[-1]._replace(takes=(5,)))
    record.setup = dataclasses.replace(record.setup, layers=elsewhere)
    assert kinds(record.history()) == [("dead_units", "net/dense_3")]


def test_an_empty_history_has_no_findings():
    assert judge(GradientHistory()) == []
    assert judge(made().history(slice(0, 1))) == []


def test_layers_that_are_named_by_variable_are_put_together():
    """`GradientMonitor` can count each variable as a layer."""
    record = made()
    FAULTY["mostly dead layer"][0](record)
    history = record.history()
    chunk = history._joined()
    layout = Layout(tuple(v._replace(layer=v.path) for v in chunk.layout.variables))
    renamed = GradientHistory()
    renamed.append(dataclasses.replace(chunk, layout=layout))
    assert judge(renamed) == judge(history)


@pytest.mark.parametrize(
    "left_out", ["mean_abs", "max_abs", "zeros", "dead_units", "weight_norm", "update_norm"]
)
def test_statistics_that_are_not_recorded_say_nothing(left_out):
    def without(record):
        chunk = record.history()._joined()
        values = {name: array for name, array in chunk.values.items() if name != left_out}
        history = GradientHistory()
        history.append(dataclasses.replace(chunk, values=values))
        return history

    assert judge(without(made())) == []
    assert kinds(without(faulty_record("vanishes"))) == [("vanishing", "net/dense_0")]
    assert kinds(without(faulty_record("dead layer"))) == [("dead_units", "net/dense_4")]


def test_an_optimizer_that_waits_for_others_is_not_blamed():
    chunk = made(EVERY_STEP, 12).history()._joined()
    variables = tuple(
        v._replace(path=f"{o}/{v.path}", layer=f"{o}/{v.layer}", optimizer=o)
        for v, o in zip(chunk.layout.variables, "a" * 12 + "b" * 12, strict=True)
    )
    layout = Layout(variables, optimizers=("a", "b"))
    waits = {name: np.array(values) for name, values in chunk.values.items()}
    for values in waits.values():
        values[:50, 12:] = np.nan
    totals = {name: np.repeat(array, 2, axis=1) for name, array in chunk.totals.items()}
    history = GradientHistory()
    history.append(Chunk(layout, chunk.steps, waits, totals))
    assert judge(history) == []
    waits["norm"][:, 12:] *= 1e-9  # another loss
    history.append(Chunk(layout, chunk.steps, waits, totals))
    assert judge(history) == []
    for values in waits.values():
        values[:, 2:4] = np.nan
    history.append(Chunk(layout, chunk.steps, waits, totals))
    assert kinds(history) == [("no_gradient", "a/net/dense_1")]


def test_outputs_and_embeddings_may_outgrow_what_they_began_with():
    record = made(layers=2)
    record.weight *= 1.0 + record.elapsed[:, None]
    assert kinds(record.history())[:1] == [("large_updates", "")]
    record.setup = Setup((LayerSetup("net/dense_0", "Embedding"),))
    assert judge(record.history()) == []


SUMS = ("Their weighted sums", "Use `activation")
BIASES = ("begin with -9,", "Leave `bias_initializer` out")
BELOW = ("Most of its weights begin below 0", "Leave `kernel_initializer` out")
GAMMA = ("`gamma` and `beta` of `net/dense_4` begin with 0", "Leave out `gamma_initializer`")


@pytest.mark.parametrize(
    ("kind", "weight", "begin", "takes", "expected"),
    [
        ("Dense", "bias", "Constant(value=-9)", (4,), BIASES),
        ("Dense", "bias", "Zeros", (4,), SUMS),
        ("Dense", "kernel", "RandomUniform(minval=-1.0, maxval=0.0)", (4,), BELOW),
        ("Dense", "kernel", "RandomNormal(mean=-0.1, stddev=0.05)", (4,), BELOW),
        ("Dense", "kernel", "RandomUniform(minval=-0.05, maxval=0.05)", (4,), SUMS),
        ("BatchNormalization", "gamma", "Zeros", (4,), GAMMA),
        ("LayerNormalization", "gamma", "Constant(value=0.0)", (4,), GAMMA),
        ("BatchNormalization", "gamma", "Ones", (4,), SUMS),
        ("BatchNormalization", "gamma", "Zeros", (2, 4), SUMS),  # the end of a residual branch
    ],
)
def test_what_weights_begin_with_is_the_cause_of_dead_units(kind, weight, begin, takes, expected):
    record = made()
    both(supervised(), DEAD)(record)
    assert record.setup is not None
    layers = [x._replace(takes=(i - 1,)) for i, x in enumerate(record.setup.layers)]
    arguments = {"beta_initializer": "Zeros", f"{weight}_initializer": begin}
    layers[4] = layers[4]._replace(type=kind, arguments=arguments)
    layers[5] = layers[5]._replace(takes=takes)
    record.setup = dataclasses.replace(record.setup, layers=tuple(layers))
    (finding,) = judge(record.history())
    assert finding.kind == "dead_units"
    assert expected[0] in finding.cause
    assert expected[1] in str(finding.fix)


def test_an_output_with_a_loss_weight_of_0_is_no_fault():
    record = made()
    both(supervised(), learns, put(0, *BOTH, layers=-1))(record)
    assert record.setup is not None
    layers = tuple(x._replace(takes=(i - 1,)) for i, x in enumerate(record.setup.layers))
    (head,) = record.setup.heads
    for weight, expected in ((0, []), (1, [("no_gradient", "net/dense_11")])):
        other = head._replace(name="other", arguments={"loss_weight": weight})
        heads = (head._replace(layer=len(layers) - 2), other)
        record.setup = dataclasses.replace(record.setup, layers=layers, heads=heads, has_graph=True)
        assert kinds(record.history()) == expected


def test_batches_of_one_sample_are_watched_for_longer():
    for spread, step in ((0.5, 20), (0.0, 100)):
        record = made()
        both(supervised(), DEAD, *(port(role, batch_std=spread) for role in "xy"))(record)
        assert [f.step for f in judge(record.history()) if f.kind == "dead_units"] == [step]


@pytest.mark.parametrize(
    ("planned", "first", "expected"),
    [(121, 6e3, ["target_scale"]), (1000, 6e3, []), (121, 3e3, [])],
)
def test_a_loss_above_that_of_guessing_in_the_end_is_told_with_its_cause(planned, first, expected):
    record = made(EVERY_10)
    large = {"mean": 100.0, "std": 50.0, "variance": 2500.0, "max": 250.0}
    supervised("mean_squared_error", **large)(record)
    assert record.setup is not None
    heads = (record.setup.heads[0]._replace(activation="linear"),)
    record.setup = dataclasses.replace(record.setup, heads=heads, steps=planned)
    record.loss = first * 0.995**record.elapsed
    told = [f.kind for f in judge(record.history()) if f.severity != "note"]
    assert told == expected


def test_large_targets_are_no_fault_while_the_loss_falls():
    for rate, expected in ((0.99, []), (0.9999, [("target_scale", "net/dense_11")])):
        record = made()
        large = {"mean": 100.0, "std": 50.0, "variance": 2500.0, "max": 250.0}
        supervised("mean_squared_error", **large)(record)
        assert record.setup is not None
        (head,) = record.setup.heads
        heads = (head._replace(activation="linear"),)
        record.setup = dataclasses.replace(record.setup, heads=heads)
        record.loss = 3e4 * rate**record.elapsed
        assert kinds(record.history()) == expected


def test_every_threshold_is_in_the_documentation_with_its_value_and_reason():
    text = (ROOT / "docs" / "explanations" / "rules.md").read_text()
    text = text.replace("2⁻²⁴", str(2.0**-24)).replace(",000 |", "000 |")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.e-]+) \| (.+\.) \|$", text, re.MULTILINE)
    told = {name: (float(value), reason) for name, value, reason in rows}
    assert told == {name: tuple(threshold) for name, threshold in THRESHOLDS.items()}


def test_the_figure_in_the_documentation_shows_the_values_of_thresholds():
    figure = (ROOT / "docs" / "images" / "thresholds.svg").read_text()
    shown = re.findall(r'"bold">(\w+) ([^<]+)<', figure)
    assert len(shown) == 11
    assert shown == [(name, f"{THRESHOLDS[name].value:.3g}") for name, _ in shown]


def test_a_spike_is_told_with_its_layers_and_is_no_part_of_the_training():
    norms, spike = np.ones((40, 6)), np.full((40, 1), np.nan)
    norms[30, 2], spike[30] = 50, 50
    (finding,) = judge(history_of(norms, spike=spike))
    assert (finding.kind, finding.step, finding.severity) == ("spike", 30, "note")
    assert "up to 50 times what they were before in `layer_2`." in finding.message
    norms[20], spike[20] = np.nan, np.inf
    lost = np.where(np.arange(40)[:, None] == 20, 3.0, np.zeros((40, 6)))
    (finding,) = judge(history_of(norms, nonfinite=lost, spike=spike))
    assert (finding.step, finding.severity, finding.evidence["spikes"]) == (20, "warning", 2)
    assert "NaN or infinite in `layer_0`, `layer_1`, `layer_2` and 3 more" in finding.message
