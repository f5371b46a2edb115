"""Verdicts on records that are made up, and on networks that are really trained."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.verdicts import THRESHOLDS, depth_bands, judge, news
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.schema import Chunk, Layout, Variable
from tests import ROOT

pytestmark = pytest.mark.numpy_alone

EVERY_10 = np.arange(0, 130, 10)
EVERY_STEP = np.arange(0, 130)
UNITS = 8


@dataclasses.dataclass
class Made:
    """A record of dense layers that is made up: healthy, until something is changed.

    All arrays but `loss` are (steps, layers).
    """

    steps: NDArray[np.int64]
    bias: NDArray[Any]  # RMS of the gradients
    kernel: NDArray[Any]
    dead: NDArray[Any]  # fraction of units
    nonfinite: NDArray[Any]
    weight: NDArray[Any]
    update: NDArray[Any]
    loss: NDArray[Any]
    rate: NDArray[Any]
    with_bias: bool = True

    @property
    def elapsed(self) -> NDArray[np.int64]:
        return self.steps - self.steps[0]

    def history(self, rows: Any = slice(None), max_steps: int | None = None) -> GradientHistory:
        variables, columns = [], []
        for i in range(self.bias.shape[1]):
            layer = f"net/dense_{i}"
            variables.append(Variable(f"{layer}/kernel", layer, (UNITS, UNITS)))
            columns.append(self._kernel(i))
            if self.with_bias:
                variables.append(Variable(f"{layer}/bias", layer, (UNITS,)))
                columns.append(self._bias(i))
        values = {
            name: np.stack([column[name] for column in columns], axis=1).astype(np.float32)
            for name in columns[0]
        }
        totals = {"loss": self.loss[:, None], "learning_rate": self.rate[:, None]}
        chunk = Chunk(Layout(tuple(variables)), self.steps, values, totals).select(rows)
        history = GradientHistory(max_steps=max_steps)
        for begin in range(0, len(chunk.steps), 64):
            history.append(chunk.select(slice(begin, begin + 64)))
        return history

    def _kernel(self, i: int) -> dict[str, NDArray[Any]]:
        dead = np.where(self.kernel[:, i] == 0, 1.0, self.dead[:, i])
        return self._column(i, self.kernel[:, i], UNITS * UNITS, dead) | {
            "dead_units": dead * np.nan if self.with_bias else dead,
            "weight_norm": self.weight[:, i],
            "update_norm": self.weight[:, i] * self.update[:, i],
        }

    def _bias(self, i: int) -> dict[str, NDArray[Any]]:
        dead = np.where(self.bias[:, i] == 0, 1.0, self.dead[:, i])
        return self._column(i, self.bias[:, i], UNITS, dead) | {
            "dead_units": dead,
            "weight_norm": np.zeros(len(self.steps)),
            "update_norm": self.update[:, i] * 1e-3,
        }

    def _column(
        self, i: int, rms: NDArray[Any], size: int, zeros: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        norm = np.where(self.nonfinite[:, i] > 0, np.nan, rms * np.sqrt(size))
        return {
            "norm": norm,
            "mean_abs": norm,
            "max_abs": norm,
            "zeros": zeros,
            "nonfinite": self.nonfinite[:, i],
        }


def made(steps: NDArray[np.int64] = EVERY_10, layers: int = 12, seed: int = 0) -> Made:
    """Gradients within a factor of 3 of each other, and a loss that does not fall."""
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.4, (2, len(steps), layers)))
    ones = np.ones((len(steps), layers))
    return Made(
        steps,
        bias=noise[0],
        kernel=noise[1],
        dead=0.1 * ones,
        nonfinite=0.0 * ones,
        weight=ones,
        update=1e-3 * ones,
        loss=np.full(len(steps), 2.3),
        rate=np.full(len(steps), 1e-3),
    )


def kinds(history: GradientHistory) -> list[tuple[str, str]]:
    return [(finding.kind, finding.layer) for finding in judge(history)]


def falls(record: Made, factor: float) -> None:
    """Gradients fall by a factor a layer from output to input."""
    depth = record.bias.shape[1]
    record.bias *= factor ** np.arange(depth - 1, -1, -1)
    record.kernel *= factor ** np.arange(depth - 1, -1, -1)


def learns(record: Made) -> None:
    record.loss = 2.3 * 0.97**record.elapsed


# Healthy.


def nothing(record: Made) -> None:
    pass


def scale(factor: float) -> Callable[[Made], None]:
    def change(record: Made) -> None:
        record.bias *= factor
        record.kernel *= factor

    return change


def zero_head(record: Made) -> None:
    """A head of zeros: nothing comes through at first, then little of it."""
    passed = 1e-3 * record.elapsed[:, None]
    record.bias[:, :-1] *= passed
    record.kernel[:, :-1] *= passed


def zero_branches(record: Made) -> None:
    """Residual branches that end in zeros: their layers wait for one update."""
    record.bias[0, 1:-1:2] = record.kernel[0, 1:-1:2] = 0


def key_biases(record: Made) -> None:
    """A softmax does not change with them: rounding errors."""
    record.bias[:, 1::3] *= 1e-9
    record.bias[::2, 4:5] = 0


def biases_before_normalization(record: Made) -> None:
    record.bias[:, 0::2] *= 1e-8


def converged(record: Made) -> None:
    decay = np.exp(-0.2 * record.elapsed)
    record.bias *= decay[:, None]
    record.kernel *= decay[:, None]
    record.loss = 2.3 * decay


def hinge_reached(record: Made) -> None:
    """A hinge loss that is exactly zero has a gradient of exactly zero."""
    late = record.elapsed >= 50
    record.bias[late] = record.kernel[late] = 0
    record.loss = np.where(late, 0.0, 2.3)


def hinge_reached_before(record: Made) -> None:
    record.bias[:] = record.kernel[:] = 0
    record.loss[:] = 0


def two_records_of_zeros(record: Made) -> None:
    record.bias[5:7] = record.kernel[5:7] = 0


def unknown_loss(record: Made) -> None:
    record.loss[:] = np.nan


def negative_loss(record: Made) -> None:
    record.loss = -np.linspace(1, 2, len(record.steps))


def wide_and_narrow(record: Made) -> None:
    record.bias[:, ::3] *= 30
    record.kernel[:, ::2] /= 30


def half_dead(record: Made) -> None:
    record.dead[:, 1] = 0.75


def mild_slope(record: Made) -> None:
    """Xavier with 10 ReLU layers: it learns."""
    falls(record, 0.71)


def mending(record: Made) -> None:
    """A slope of 1e-5 that an adaptive optimizer takes away in 35 steps."""
    left = np.clip(1 - record.elapsed / 35, 0, 1)
    depth = record.bias.shape[1]
    record.bias *= np.exp(np.log(1e-5) * left[:, None] * np.linspace(1, 0, depth))


def steep_but_learning(record: Made) -> None:
    falls(record, 0.3)
    learns(record)


def scales_like_a_deep_residual_network(record: Made) -> None:
    falls(record, 1 / 1.5)
    record.bias = record.bias[:, ::-1] / record.bias.max()


def warm_up(record: Made) -> None:
    record.rate = 1e-9 * (1.0 + record.elapsed)
    record.update = np.repeat(record.rate[:, None], record.bias.shape[1], axis=1)


def no_weights_at_first(record: Made) -> None:
    """A logistic regression from zeros, say: its weights grow beyond any factor."""
    record.weight *= record.elapsed[:, None]


def gradients_grow_as_the_loss_falls(record: Made) -> None:
    record.bias *= np.exp(np.minimum(0.1 * record.elapsed, 20))[:, None]
    learns(record)


def a_batch_of_large_gradients(record: Made) -> None:
    record.bias[6] *= 1e6
    record.kernel[6] *= 1e6
    record.loss[6] = 1e3


HEALTHY = [
    nothing,
    scale(1e-12),
    scale(1e12),
    zero_head,
    zero_branches,
    key_biases,
    biases_before_normalization,
    converged,
    hinge_reached,
    hinge_reached_before,
    two_records_of_zeros,
    unknown_loss,
    negative_loss,
    wide_and_narrow,
    half_dead,
    mild_slope,
    mending,
    steep_but_learning,
    scales_like_a_deep_residual_network,
    warm_up,
    no_weights_at_first,
    gradients_grow_as_the_loss_falls,
    a_batch_of_large_gradients,
]


@pytest.mark.parametrize("steps", [EVERY_10, EVERY_STEP, EVERY_10 + 5000], ids=len)
@pytest.mark.parametrize("layers", [2, 6, 12, 40])
@pytest.mark.parametrize("change", HEALTHY, ids=lambda change: change.__name__)
def test_nothing_is_said_of_healthy_networks(change, layers, steps):
    if change in (mild_slope, scales_like_a_deep_residual_network) and layers == 40:
        pytest.skip("With 40 layers these are not healthy.")
    record = made(steps, layers)
    change(record)
    assert judge(record.history()) == []


# Faulty, with what is to be said of 12 layers.


def vanishes(record: Made) -> None:
    falls(record, 0.3)


def vanishes_in_kernels_alike(record: Made) -> None:
    """Weights of ReLU layers too small: only biases show a slope."""
    record.bias *= 0.3 ** np.arange(record.bias.shape[1] - 1, -1, -1)
    record.kernel *= 1e-6


def vanishes_without_biases(record: Made) -> None:
    record.with_bias = False
    falls(record, 0.3)


def vanishes_into_nothing(record: Made) -> None:
    """ReLU units that are hardly reached die: it is said once."""
    falls(record, 0.1)
    record.bias[3:, :8] = record.kernel[3:, :8] = 0


def vanishes_with_a_biased_head(record: Made) -> None:
    """The head fits the skew of the targets, and there it stays."""
    falls(record, 0.3)
    record.loss = np.where(record.elapsed < 8, 2.3, 0.3)
    record.loss[0] = 0.5


def explodes(record: Made) -> None:
    falls(record, 1 / 4)
    record.bias = record.bias[:, ::-1]
    record.kernel[:] = 1e6
    record.loss = 1e9 * 0.8**record.elapsed


def diverges(record: Made) -> None:
    grown = np.exp(np.minimum(0.1 * record.elapsed, 15))
    record.bias *= grown[:, None] ** 2
    record.loss = 2.3 * grown


def forward_overflow(record: Made) -> None:
    record.nonfinite[:] = 8


def backward_overflow(record: Made) -> None:
    record.nonfinite[4:, :7] = 8


def lost_weights(record: Made) -> None:
    """The step that broke them was not recorded."""
    record.weight[4:, :1] = np.nan


def dead_layer(record: Made) -> None:
    record.bias[:, :5] = record.kernel[:, :5] = 0


def dies_later(record: Made) -> None:
    record.bias[8:, :5] = record.kernel[8:, :5] = 0


def dies_after_a_large_loss(record: Made) -> None:
    dead_layer(record)
    record.loss[0] = 1e25


def mostly_dead_layer(record: Made) -> None:
    record.dead[:, 4] = 0.95


def all_zero_weights(record: Made) -> None:
    record.bias[:, :-1] = record.kernel[:, :] = 0
    record.weight[:] = 0


def nothing_at_all(record: Made) -> None:
    record.bias[:] = record.kernel[:] = 0


def not_connected(record: Made) -> None:
    for array in (record.bias, record.kernel, record.dead, record.nonfinite, record.weight):
        array[:, 2:4] = np.nan


def large_steps(record: Made) -> None:
    record.weight = record.weight * np.minimum(1 + 4.0 * record.elapsed, 30)[:, None]


def small_steps(record: Made) -> None:
    record.update[:] = 1e-9


FAULTY: list[tuple[Callable[[Made], None], list[tuple[str, str]], int]] = [
    (vanishes, [("vanishing", "net/dense_0")], 40),
    (vanishes_in_kernels_alike, [("vanishing", "net/dense_0")], 40),
    (vanishes_without_biases, [("vanishing", "net/dense_0")], 40),
    (vanishes_into_nothing, [("vanishing", "net/dense_0")], 20),
    (vanishes_with_a_biased_head, [("vanishing", "net/dense_0")], 60),
    (explodes, [("exploding", "net/dense_0")], 40),
    (diverges, [("exploding", "")], 100),
    (forward_overflow, [("nonfinite", "net/dense_11")], 0),
    (backward_overflow, [("nonfinite", "net/dense_6")], 40),
    (lost_weights, [("nonfinite", "net/dense_0")], 40),
    (dead_layer, [("dead_units", "net/dense_4")], 20),
    (dies_later, [("dead_units", "net/dense_4")], 100),
    (dies_after_a_large_loss, [("dead_units", "net/dense_4")], 60),
    (mostly_dead_layer, [("dead_units", "net/dense_4")], 20),
    (all_zero_weights, [("no_gradient", "net/dense_10")], 20),
    (nothing_at_all, [("no_gradient", "")], 20),
    (not_connected, [("no_gradient", "net/dense_2")], 20),
    (large_steps, [("large_updates", "")], 20),
    (small_steps, [("small_updates", "")], 20),
]
faulty = pytest.mark.parametrize(
    ("change", "expected", "by"), FAULTY, ids=[change.__name__ for change, *_ in FAULTY]
)


def faulty_record(change: Callable[[Made], None], steps: NDArray[np.int64] = EVERY_10) -> Made:
    record = made(steps)
    change(record)
    return record


@faulty
def test_a_fault_is_said_once_with_its_layer(change, expected, by):
    found = judge(faulty_record(change).history())
    assert [finding.key for finding in found] == expected
    assert found[0].step <= by


@faulty
def test_a_message_has_the_layer_the_step_and_the_numbers(change, expected, by):
    (finding,) = judge(faulty_record(change).history())
    assert finding.message.startswith(finding.message[0].upper())
    assert finding.message.endswith(".")
    assert finding.message.count("\n") == 0
    assert str(finding.step) in finding.message
    assert f"`{finding.layer}`" in finding.message or not finding.layer
    assert finding.evidence
    assert all(isinstance(value, float) for value in finding.evidence.values())


@faulty
def test_at_every_step_the_same_is_said(change, expected, by):
    record = faulty_record(change, EVERY_STEP)
    assert kinds(record.history())[:1] == expected


@faulty
@pytest.mark.parametrize("factor", [1e-10, 1e10])
def test_the_scale_of_gradients_changes_nothing(change, expected, by, factor):
    record = faulty_record(change)
    before = judge(record.history())
    scale(factor)(record)
    after = judge(record.history())
    assert [(*f.key, f.step) for f in after] == [(*f.key, f.step) for f in before]


@faulty
@pytest.mark.parametrize("steps", [EVERY_10, EVERY_STEP], ids=len)
def test_what_was_found_stays_found(change, expected, by, steps):
    record = faulty_record(change, steps)
    whole = judge(record.history())
    assert whole
    for end in range(1, len(steps) + 1, max(1, len(steps) // 20)):
        so_far = judge(record.history(slice(0, end)))
        assert so_far == [f for f in whole if f.step <= steps[end - 1]]


@pytest.mark.parametrize("seed", range(20))
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
        assert so_far == [f for f in whole if f.step <= steps[end - 1]]


def test_findings_are_in_order_of_step_and_each_said_once():
    record = made(np.arange(0, 400, 10))
    small_steps(record)
    record.bias[20:, :5] = record.kernel[20:, :5] = 0
    record.nonfinite[30:] = 1
    found = judge(record.history())
    assert [f.kind for f in found] == ["small_updates", "dead_units", "nonfinite"]
    assert [f.step for f in found] == [20, 220, 300]


@pytest.mark.parametrize("change", [c for c, *_ in FAULTY] + HEALTHY, ids=lambda c: c.__name__)
def test_a_history_that_thins_itself_says_nothing_new(change):
    steps = np.arange(0, 1500)
    record = made(steps, 8)
    change(record)
    thinned: list[Finding] = []
    for end in range(64, len(steps), 64 * 5):
        history = record.history(slice(0, end), max_steps=256)
        thinned += news(thinned, judge(history))
    whole = judge(record.history())
    assert {f.kind for f in thinned} == {f.kind for f in whole}
    assert len(thinned) == len(whole)


def test_news_are_what_was_not_said_before():
    def finding(kind: str, layer: str, **evidence: float) -> Finding:
        return Finding(kind, layer, 1, "", evidence)

    vanishing = finding("vanishing", "a")
    dead = finding("dead_units", "c", share=1.0, from_input=1.0)
    partly = finding("dead_units", "b", share=0.95)
    lost = finding("nonfinite", "d")
    assert news([], [vanishing, vanishing]) == [vanishing]
    assert news([vanishing], [dead, partly]) == [partly]
    assert news([dead], [finding("dead_units", "d", share=1.0, from_input=1.0)]) == []
    assert news([dead], [finding("dead_units", "f", share=1.0, from_input=0.0)]) != []
    assert news([partly], [finding("dead_units", "c", share=0.95)]) == []
    assert news([lost], [finding("exploding", "")]) == []
    assert news([vanishing], [lost]) == [lost]


@pytest.mark.parametrize(
    ("factor", "name"), [(0.2, "vanishing"), (5.0, "exploding"), (0.7, ""), (1.4, "")]
)
def test_bands_are_where_the_rule_holds(factor, name):
    record = made(EVERY_10, 12)
    whole = falls_between(record, factor, 30, 100)
    bands = depth_bands(whole)
    np.testing.assert_array_equal(bands.steps, record.steps)
    for band in ("vanishing", "exploding"):
        judged = record.steps[getattr(bands, band)]
        if band != name:
            assert not len(judged)
            continue
        # It must have lasted for 30 steps: from step 60 to the last one.
        assert judged.tolist() == [60, 70, 80, 90]
        first = next(f for f in judge(whole) if f.kind == band)
        assert first.step == judged[0]


def falls_between(record, factor, begin, end):
    """Gradients that fall by a factor a layer at the steps from `begin` to `end`."""
    rows = (record.steps >= begin) & (record.steps < end)
    change = factor ** np.arange(record.bias.shape[1] - 1, -1, -1)
    record.bias[rows] *= change
    record.kernel[rows] *= change
    return record.history()


@pytest.mark.parametrize("layer", [0, 4, 10])
@pytest.mark.parametrize(("factor", "kind"), [(0.2, "vanishing"), (5.0, "exploding")])
def test_a_layer_without_gradient_hides_no_slope(layer, factor, kind):
    record = made()
    falls(record, factor)
    for values in (record.bias, record.kernel, record.dead, record.nonfinite):
        values[:, layer] = np.nan
    history = record.history()
    assert {kind, "no_gradient"} <= {finding.kind for finding in judge(history)}
    assert getattr(depth_bands(history), kind).any()


def test_bands_are_not_of_layers_without_any_gradient():
    record = made()
    for values in (record.bias, record.kernel):
        values[5:, :4] = 0
    bands = depth_bands(record.history())
    assert not bands.vanishing.any()
    assert "dead_units" in {finding.kind for finding in judge(record.history())}


def test_bands_end_where_numbers_are_not_finite():
    record = made(EVERY_10, 12)
    falls(record, 0.2)
    record.nonfinite[20:, 3] = 7
    bands = depth_bands(record.history())
    assert bands.vanishing[:20].any()
    assert not bands.vanishing[20:].any()


@pytest.mark.parametrize("change", HEALTHY, ids=lambda change: change.__name__)
def test_bands_of_healthy_networks_are_empty(change):
    record = made()
    change(record)
    bands = depth_bands(record.history())
    assert not bands.vanishing.any()
    assert not bands.exploding.any()


def test_an_empty_history_has_no_bands():
    assert [len(part) for part in depth_bands(GradientHistory())] == [0, 0, 0]


def test_an_empty_history_has_no_findings():
    assert judge(GradientHistory()) == []
    assert judge(made().history(slice(0, 1))) == []


def test_layers_that_are_named_by_variable_are_put_together():
    """`GradientMonitor` can count each variable as a layer."""
    record = made()
    mostly_dead_layer(record)
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
    def without(record: Made) -> GradientHistory:
        chunk = record.history()._joined()
        values = {name: array for name, array in chunk.values.items() if name != left_out}
        history = GradientHistory()
        history.append(dataclasses.replace(chunk, values=values))
        return history

    assert judge(without(made())) == []
    assert kinds(without(faulty_record(vanishes))) == [("vanishing", "net/dense_0")]
    assert kinds(without(faulty_record(dead_layer))) == [("dead_units", "net/dense_4")]


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


def test_it_is_fast_enough_to_be_asked_while_training():
    history = made(np.arange(300), 200).history()
    judge(history)
    times = []
    for _ in range(5):
        begin = time.process_time()
        judge(history)
        times.append(time.process_time() - begin)
    assert min(times) < 0.05  # 5 ms, on a machine that has nothing else to do


def test_every_threshold_has_a_reason_and_is_in_the_documentation():
    text = (ROOT / "docs" / "explanations" / "rules.md").read_text()
    for name, threshold in THRESHOLDS.items():
        assert threshold.value > 0
        assert threshold.reason.endswith(".")
        assert f"`{name}`" in text


# Trained.

VS = keras.initializers.VarianceScaling


def deep(activation: str, scale: float, depth: int, **head: Any) -> Callable[[], Any]:
    def build() -> Any:
        hidden = [
            keras.layers.Dense(32, activation, kernel_initializer=VS(scale, seed=i))
            for i in range(depth - 1)
        ]
        return keras.Sequential([*hidden, keras.layers.Dense(4, "softmax", **head)])

    return build


def normalized() -> Any:
    layers: list[Any] = []
    for _ in range(4):
        layers += [
            keras.layers.Dense(32, kernel_initializer=VS(0.01)),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
        ]
    return keras.Sequential([*layers, keras.layers.Dense(4, "softmax")])


def residual() -> Any:
    inputs = keras.Input((16,))
    x = keras.layers.Dense(32)(inputs)
    for _ in range(5):
        branch = keras.layers.Dense(32, "relu", kernel_initializer="he_normal")(x)
        x = x + keras.layers.Dense(32, kernel_initializer="zeros")(branch)
    return keras.Model(inputs, keras.layers.Dense(4, "softmax")(x))


def attention() -> Any:
    inputs = keras.Input((16,))
    x = keras.layers.Dense(16)(keras.layers.Reshape((16, 1))(inputs))
    for _ in range(2):
        x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 8)(x, x))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, "softmax")(x))


def recurrent() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Reshape((16, 1)),
            layers.LSTM(16),
            layers.Dense(8, "relu"),
            layers.Dense(4, "softmax"),
        ]
    )


def dead_relu() -> Any:
    layers = [
        keras.layers.Dense(32, "relu", bias_initializer=keras.initializers.Constant(bias))
        for bias in (0.0, -1e3, 0.1, 0.1)
    ]
    return keras.Sequential([*layers, keras.layers.Dense(4, "softmax")])


TRAINED: list[tuple[str, Callable[[], Any], float, str]] = [
    ("he_relu", deep("relu", 2.0, 12), 1e-3, ""),
    ("zero_head", deep("relu", 2.0, 5, kernel_initializer="zeros"), 1e-3, ""),
    ("batch_normalization", normalized, 1e-3, ""),
    ("residual_from_zeros", residual, 1e-3, ""),
    ("attention", attention, 1e-3, ""),
    ("lstm", recurrent, 1e-3, ""),
    ("weights_too_small", deep("relu", 0.1, 10), 1e-3, "vanishing"),
    ("sigmoid", deep("sigmoid", 1.0, 12), 1e-3, "vanishing"),
    ("weights_too_large", deep("relu", 50.0, 10), 1e-3, "exploding"),
    ("exponential", deep("exponential", 2.0, 8), 1e-3, "nonfinite"),
    ("dead_relu", dead_relu, 1e-3, "dead_units"),
    ("rate_too_large", deep("relu", 2.0, 3), 10.0, "large_updates"),
    ("rate_too_small", deep("relu", 2.0, 3), 1e-10, "small_updates"),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::keras_initkit.callbacks.GradientWarning")
@pytest.mark.parametrize(
    ("build", "rate", "expected"), [row[1:] for row in TRAINED], ids=[row[0] for row in TRAINED]
)
def test_trained_networks(build, rate, expected, rng):
    x = rng.normal(size=(640, 16)).astype("float32")
    y = x[:, :4].argmax(axis=1)
    model = build()
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(x, y, batch_size=64, epochs=4, verbose=0, callbacks=[monitor])
    found = judge(monitor.history)
    assert [f.kind for f in found][:1] == ([expected] if expected else []), found
