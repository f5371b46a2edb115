"""Symptoms of a training that does not learn, in histories that are made up."""

import dataclasses

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.judge import judge
from tensorboard_plugin_initkit.diagnosis.ruled_out import find_not_learning
from tensorboard_plugin_initkit.diagnosis.rules.contracts import find_negative_loss
from tensorboard_plugin_initkit.diagnosis.rules.progress import (
    find_constant_loss,
    find_constant_output,
    find_early_averages,
    find_early_end,
    find_no_better_than_guessing,
    find_oscillation,
    find_rising_loss,
)
from tensorboard_plugin_initkit.diagnosis.rules.structure import find_single_samples
from tensorboard_plugin_initkit.diagnosis.rules.updates import (
    find_noisy_gradient,
    find_tight_clipping,
)
from tensorboard_plugin_initkit.record.setup import LayerSetup
from tests.tensorboard_plugin_initkit.diagnosis.made import (
    EVERY_10,
    EVERY_STEP,
    both,
    made,
    port,
    put,
    supervised,
)

pytestmark = pytest.mark.numpy_alone

OUTPUT, GUESS, RISING, STILL, EARLY, SWING = (
    "constant_output",
    "no_better_than_guessing",
    "rising_loss",
    "constant_loss",
    "ended_early",
    "oscillation",
)
VERDICT, CLIPPING, NOISE, AVERAGES, SINGLE, NEGATIVE = (
    "not_learning",
    "tight_clipping",
    "noisy_gradient",
    "moving_average",
    "single_samples",
    "negative_loss",
)
RULES = {
    OUTPUT: find_constant_output,
    GUESS: find_no_better_than_guessing,
    RISING: find_rising_loss,
    STILL: find_constant_loss,
    EARLY: find_early_end,
    SWING: find_oscillation,
    VERDICT: find_not_learning,
    CLIPPING: find_tight_clipping,
    NOISE: find_noisy_gradient,
    AVERAGES: find_early_averages,
    SINGLE: find_single_samples,
    NEGATIVE: find_negative_loss,
}
LONG = np.arange(0, 400, 10)


def loss(course):
    """Make a change to a loss that is a function of the steps, with the noise of batches."""

    def change(record):
        record.loss *= course(record.elapsed) / record.loss.mean()

    return change


def constant_until(step):
    def change(record):
        spread = np.where(record.elapsed < step, 0.0, 0.1)
        record.ports["y_pred"] |= {"batch_std": spread, "min": 0.5, "max": 0.5}

    return change


def with_snr(ratio):
    def change(record):
        record.snr = ratio

    return change


def planned(steps):
    def change(record):
        record.setup = dataclasses.replace(record.setup, steps=steps)

    return change


def weighted(record):
    record.ports["sample_weight"] = dict(record.ports["x"])


def smoothed(record):
    head = record.setup.heads[0]._replace(arguments={"label_smoothing": 0.1})
    record.setup = dataclasses.replace(record.setup, heads=(head,))


def under_a_penalty(record):
    """The penalty falls to nothing, and all that is left is a guess."""
    record.penalty = 40 * np.exp(-record.elapsed / 60)[:, None]
    record.loss += record.penalty[:, 0]


def drawn(record):
    """Squared errors of two samples a batch, for the best constant."""
    record.loss = 0.25 * np.random.default_rng(0).chisquare(2, len(record.steps)) / 2


def swinging(record):
    record.loss = np.where(np.arange(len(record.steps)) % 3, 0.3, 4.0)
    record.update[:] = 0.03


def clipped(share, optimizer="SGD"):
    """Make a change to gradients of which a part of their norm is left."""

    def change(record):
        record.setup = dataclasses.replace(record.setup, optimizer=optimizer)
        record.clip = np.resize(share, len(record.steps))

    return change


def normalized(place, shape=(-1, 16), **arguments):
    """Make a change to a model of layers in a row, with a batch normalization at one place."""

    def change(record):
        fed_first(record)
        layers = list(record.setup.layers)
        layers[place] = layers[place]._replace(
            type="BatchNormalization", shape=shape, arguments=arguments
        )
        record.setup = dataclasses.replace(record.setup, layers=tuple(layers))

    return change


def one_by_one(record):
    for role in "xy":
        record.ports[role] |= {"batch_std": 0.0, "mean": np.sin(record.elapsed)}


def penalized(share):
    """Make a change to penalties that are a share of the loss."""

    def change(record):
        record.penalty = share * record.loss[:, None]

    return change


CE, MSE, MAE = "sparse_categorical_crossentropy", "mean_squared_error", "mean_absolute_error"
DEAD_OUTPUT = port("y_pred", batch_std=0.0, min=0.0, max=0.0, mean=0.0)
LEARNS_LATE = loss(lambda s: np.where(s < 90, 0.69, 0.69 * 0.98 ** (s - 90)))
CLIPPED, BELOW = both(supervised(), clipped(0.05)), both(put(-3.0, "loss"), penalized(0))
BELOW_0 = both(supervised(), BELOW)
NOISY = both(supervised(), with_snr(0.07), loss(lambda s: 0.9 + 0 * s))
GOOD = both(supervised(), loss(lambda s: 0.7 * 0.96**s), port("x", mean=50.0), planned(130))

# What is made, the steps, the kind to be said, and the step it is said by.
FIRES = {
    "zeros only": (both(supervised(), DEAD_OUTPUT), EVERY_10, OUTPUT, 30),
    "zeros in a short training": (
        both(supervised(), DEAD_OUTPUT, planned(12)),
        EVERY_STEP[:12],
        OUTPUT,
        6,
    ),
    "zeros in a short training at the default schedule": (
        both(supervised(), DEAD_OUTPUT, planned(18)),
        EVERY_10[:2],
        OUTPUT,
        10,
    ),
    "rounding errors": (
        both(supervised(MSE), port("y_pred", batch_std=1e-3, min=1990.0, max=1991.0, mean=1990.0)),
        EVERY_10,
        OUTPUT,
        30,
    ),
    "guesses": (supervised(), EVERY_10, GUESS, 100),
    "guesses at every step": (supervised(), EVERY_STEP, GUESS, 100),
    "guesses among classes": (supervised(CE, entropy=2.3, level=2.31), EVERY_10, GUESS, 100),
    "guesses a number": (supervised(MSE, level=0.251), EVERY_10, GUESS, 100),
    "worse than guessing a number": (supervised(MSE, level=90.0), EVERY_10, GUESS, 100),
    "guesses and errs": (supervised(MAE, level=0.55), EVERY_10, GUESS, 100),
    "guesses after a large loss": (
        both(supervised(), loss(lambda s: np.where(s < 30, 9.0, 0.69))),
        LONG,
        GUESS,
        200,
    ),
    "guesses again": (
        both(supervised(), loss(lambda s: np.where(s < 90, 0.2, 0.7))),
        np.arange(0, 900, 10),
        GUESS,
        300,
    ),
    "guesses under a penalty": (both(supervised(), under_a_penalty), EVERY_10, GUESS, 120),
    "rises": (both(supervised(), loss(lambda s: 0.7 * 1.05**s)), EVERY_10, RISING, 120),
    "climbs": (both(supervised(), loss(lambda s: 0.7 * 1.006**s)), EVERY_10, RISING, 100),
    "rises beyond measure": (loss(lambda s: 10.0 ** (s / 10)), EVERY_10, RISING, 60),
    "swings": (both(supervised(), swinging), EVERY_STEP, SWING, 100),
    "swings in a short training": (
        both(supervised(), swinging, planned(60)),
        EVERY_STEP[:60],
        SWING,
        59,
    ),
    "does not move": (both(supervised(), put(1.23, "loss")), EVERY_10, STILL, 30),
    "ends early": (
        both(supervised(), planned(130), loss(lambda s: 0.69 * 0.998**s)),
        EVERY_10,
        EARLY,
        120,
    ),
    "ends before it can begin": (
        both(supervised(), planned(12), loss(lambda s: 0.7 * 0.999**s)),
        EVERY_STEP[:12],
        EARLY,
        11,
    ),
    "nothing else found": (supervised(), LONG, VERDICT, 200),
    "clipped to a twentieth": (CLIPPED, EVERY_10, CLIPPING, 100),
    "noise above the guess": (NOISY, EVERY_10, NOISE, 100),
    "averages of the start": (
        both(GOOD, normalized(0, momentum=0.997)),
        EVERY_10,
        AVERAGES,
        120,
    ),
    "one sample a batch": (both(supervised(), normalized(3), one_by_one), EVERY_10, SINGLE, 100),
    "below 0": (BELOW_0, EVERY_10, NEGATIVE, 0),
}
SILENT = {
    "a zero head": (both(supervised(), constant_until(2)), EVERY_STEP, OUTPUT),
    "constant targets": (both(supervised(), DEAD_OUTPUT, port("y", batch_std=0.0)), LONG, OUTPUT),
    "batches of one": (both(supervised(), DEAD_OUTPUT, port("x", batch_std=0.0)), LONG, OUTPUT),
    "an output without a loss": (both(supervised(""), DEAD_OUTPUT), LONG, OUTPUT),
    "offset and little spread": (
        both(supervised(), port("y_pred", batch_std=0.1, min=1990.0, max=1991.0, mean=1990.0)),
        LONG,
        OUTPUT,
    ),
    "learns late": (both(supervised(), LEARNS_LATE), LONG, GUESS),
    "learns slowly": (both(supervised(), loss(lambda s: 0.7 * 0.9993**s)), LONG, GUESS),
    "noisy labels": (supervised(level=0.655), LONG, GUESS),
    "noisy labels, noise beyond the margin": (supervised(level=0.672), EVERY_STEP, GUESS),
    "rare classes": (supervised(binary_entropy=0.2, level=0.15), LONG, GUESS),
    "fractions": (supervised(integers=0.0, variance=0.01, level=0.675), LONG, GUESS),
    "weighted": (both(supervised(), weighted), LONG, GUESS),
    "smoothed labels": (both(supervised(), smoothed), LONG, GUESS),
    "another loss": (supervised("huber"), LONG, GUESS),
    "absolute errors": (supervised(MAE, level=0.45), LONG, GUESS),
    "not for long": (supervised(), EVERY_STEP[:99], GUESS),
    "adversaries": (loss(lambda s: 0.7 + s / 30), LONG, RISING),
    "one bad batch": (
        both(supervised(), loss(lambda s: np.where(s == 60, 1e3, 0.5))),
        LONG,
        RISING,
    ),
    "climbs to the best constant": (
        both(supervised(), loss(lambda s: np.minimum(0.2 * 1.006**s, 0.6))),
        LONG,
        RISING,
    ),
    "higher from early on": (
        both(supervised(), loss(lambda s: np.where(s < 30, 0.7, 1.3))),
        LONG,
        RISING,
    ),
    "a lucky first batch": (both(supervised(), put(0.01, "loss", steps=0)), LONG, RISING),
    "a loss of zero": (put(0.0, "loss"), LONG, RISING),
    "a loss that stays zero": (put(0.0, "loss"), LONG, STILL),
    "nothing to learn": (put(np.nan, "loss"), LONG, STILL),
    "small batches": (both(supervised(MSE), drawn, put(0.03, "update")), EVERY_STEP, SWING),
    "single samples, too far off": (
        both(supervised(MSE, variance=0.1), drawn),
        EVERY_STEP,
        SWING,
    ),
    "a rate that goes up and down": (
        both(supervised(), put(0.03, "update"), loss(lambda s: (0.3 + s % 30 / 10) * 0.99**s)),
        LONG,
        SWING,
    ),
    "adversaries in turn": (swinging, LONG, SWING),
    "two bad batches": (
        both(
            supervised(),
            put(0.03, "update"),
            loss(lambda s: np.where((s == 60) | (s == 90), 40.0, 0.5)),
        ),
        LONG,
        SWING,
    ),
    "swings at first": (
        both(
            supervised(),
            put(0.03, "update"),
            loss(lambda s: np.where((s < 40) & (s % 20 == 0), 4, 0.5)),
        ),
        LONG,
        SWING,
    ),
    "ends with a plateau": (both(supervised(), planned(130)), EVERY_10, EARLY),
    "ends soon, and has learned": (
        both(supervised(), planned(12), loss(lambda s: 0.6 * 0.999**s)),
        EVERY_STEP[:12],
        EARLY,
    ),
    "ends when it has learned": (
        both(supervised(), planned(130), loss(lambda s: 0.69 * 0.98**s)),
        EVERY_10,
        EARLY,
    ),
    "goes on": (
        both(supervised(), planned(1300), loss(lambda s: 0.69 * 0.998**s)),
        EVERY_10,
        EARLY,
    ),
    "a slow starter": (both(supervised(), LEARNS_LATE), LONG, VERDICT),
    "a weak relation": (supervised(level=0.655), LONG, VERDICT),
    "too early to say": (supervised(), EVERY_10, VERDICT),
    "clipped to a half": (both(supervised(), clipped(0.5)), LONG, CLIPPING),
    "clipped in four of five steps": (
        both(supervised(), clipped([0.05, 0.05, 0.05, 0.05, 1.0])),
        LONG,
        CLIPPING,
    ),
    "clipped, and divided by its size": (
        both(supervised(), clipped(0.05, "Adam")),
        LONG,
        CLIPPING,
    ),
    "clipped, and learns": (both(CLIPPED, loss(lambda s: 0.7 * 0.98**s)), EVERY_10, CLIPPING),
    "noise, and nothing to learn": (
        both(supervised(), with_snr(0.07), loss(lambda s: 0.69 + 0 * s)),
        EVERY_10,
        NOISE,
    ),
    "noise, and it learns": (both(NOISY, loss(lambda s: 0.9 * 0.97**s)), EVERY_10, NOISE),
    "a clear direction above the guess": (both(NOISY, with_snr(0.4)), EVERY_10, NOISE),
    "averages that have arrived": (both(GOOD, normalized(0, momentum=0.99)), EVERY_10, AVERAGES),
    "averages of units near 0": (both(GOOD, normalized(3, momentum=0.997)), EVERY_10, AVERAGES),
    "averages on their way": (
        both(GOOD, normalized(0, momentum=0.997), planned(1300)),
        EVERY_10,
        AVERAGES,
    ),
    "one picture a batch": (
        both(supervised(), normalized(3, (-1, 8, 8, 3)), one_by_one),
        LONG,
        SINGLE,
    ),
    "one sample, again and again": (
        both(supervised(), normalized(3), one_by_one, port("x", mean=0.5), port("y", mean=0.5)),
        LONG,
        SINGLE,
    ),
    "several samples a batch": (both(supervised(), normalized(3)), LONG, SINGLE),
    "a penalty below 0": (both(BELOW_0, penalized(1.5)), LONG, NEGATIVE),
    "a loss of one's own below 0": (both(supervised("mine"), BELOW), LONG, NEGATIVE),
    "weights below 0": (both(BELOW_0, weighted, port("sample_weight", min=-1.0)), LONG, NEGATIVE),
}


def facts_of(change, steps):
    record = made(steps)
    change(record)
    return Facts(record.history())


@pytest.mark.parametrize("name", FIRES)
def test_a_symptom_is_told_with_its_numbers(name):
    change, steps, kind, latest = FIRES[name]
    (finding,) = RULES[kind](facts_of(change, steps))
    assert finding.kind == kind
    assert finding.rank <= latest
    assert str(finding.step) in finding.message or kind in (EARLY, AVERAGES, SINGLE)
    assert all(np.isfinite(value) for value in finding.evidence.values())
    assert finding.severity == {EARLY: "note", NEGATIVE: "error"}.get(kind, "warning")


@pytest.mark.parametrize("name", SILENT)
def test_what_looks_like_a_symptom_is_none(name):
    change, steps, kind = SILENT[name]
    assert list(RULES[kind](facts_of(change, steps))) == []


def test_a_training_that_is_over_ends_early():
    record = made(EVERY_10)
    both(supervised(), loss(lambda s: 0.69 * 0.998**s))(record)
    assert judge(record.history()) == []
    (finding,) = judge(record.history(), ended=True)
    assert (finding.kind, finding.severity) == (EARLY, "note")
    assert "121 updates" in finding.message


def test_a_training_that_a_callback_stops_is_told_with_both_numbers():
    record = made(EVERY_10)
    both(supervised(), planned(900), loss(lambda s: 0.69 * 0.998**s))(record)
    (finding,) = judge(record.history(), ended=True)
    assert "after 121 of 900 planned updates while" in finding.message
    assert "`EarlyStopping`" in finding.cause
    assert "more `patience`" in str(finding.fix)
    assert '`mode="max"` for an accuracy' in str(finding.fix)


def test_a_rate_that_has_fallen_is_the_cause_of_small_updates():
    for end, words in ((1e-6, "has fallen from 0.001 to 1e-6"), (5e-4, "changes its sign")):
        record = made(EVERY_10)
        both(supervised(), put(2.9e-7, "update"))(record)
        record.rate = np.where(record.elapsed < 50, 1e-3, end)
        (finding,) = judge(record.history())
        assert finding.kind == "small_updates"
        assert "by 2.9e-7 of their size" in finding.message
        assert words in finding.cause
        rate = "learning_rate=0.001" if end < 1e-4 else "Raise the learning rate"
        assert rate in str(finding.fix)


def test_clipping_is_told_with_the_size_of_the_gradients():
    CLIPPED(record := made(EVERY_10))
    history = record.history()
    (finding,) = judge(history)
    assert finding.kind == CLIPPING
    assert finding.evidence == pytest.approx({"clip_ratio": 0.05})
    assert "up to step 100 gradients are clipped to 0.05 of their size" in finding.message
    size = float(f"{history['global_raw_norm'][:11].max():.1g}")
    assert finding.fix.repairs == {"clip": {"norm": size}}


def test_samples_that_are_learned_by_heart():
    by_heart, small, further = (1e-3, 0.73), (2e-4, 0.73), (1e-3, 0.7)
    for case, kind in ((by_heart, "not_learning"), (small, EARLY), (further, EARLY)):
        ratio, first = case
        course = loss(lambda s, first=first: first * 0.9994**s)
        both(supervised(), put(ratio, "update"), course)(record := made(EVERY_10))
        assert [finding.kind for finding in judge(record.history(), ended=True)] == [kind]
    for ratio, kind in ((1e-3, "not_learning"), (2e-4, EARLY)):  # for long, and no better at all
        record = made(LONG)
        both(supervised(), put(ratio, "update"), loss(lambda s: 0.8 * 0.9996**s))(record)
        (finding,) = judge(record.history(), ended=True)
        assert finding.kind == kind
        assert "more `epochs`" in str(finding.fix)
    both(supervised(level=0.672), put(1e-3, "update"))(record := made(EVERY_10))
    assert judge(record.history(), ended=True) == []  # a weak relation, which is learned
    slow = loss(lambda s: 0.69 * 0.9999**s)
    both(supervised(), put(1e-3, "update"), slow)(record := made(EVERY_10))
    assert [(f.kind, f.severity) for f in judge(record.history(), True)] == [
        ("not_learning", "note")
    ]


def under_noise(course):
    """Make a change to a loss with a course, and as much noise that it is hard to see."""

    def change(record):
        noise = np.random.default_rng(1).normal(0, 0.2, len(record.steps))
        record.loss = course(record.elapsed) * np.exp(noise - noise.mean())

    return change


@pytest.mark.parametrize(
    ("course", "name", "kind"),
    [
        (lambda s: 0.75 * 0.9993**s, "binary_crossentropy", "ended_early"),
        (lambda s: 0.75 + 0 * s, "binary_crossentropy", "not_learning"),
        (lambda s: 9.0 * 0.994**s, MSE, "ended_early"),
        (lambda s: 9.0 * 0.994**s, "binary_crossentropy", "note"),  # over-confident
        (lambda s: 9.0 * 0.974**s, MSE, "note"),  # on its way
        (lambda s: 0.5 * 0.9995**s, "binary_crossentropy", "nothing"),
    ],
)
def test_a_training_that_has_learned_nothing_in_the_end_is_told(course, name, kind):
    record = made(EVERY_STEP)
    numbers = {"integers": 0.0} if name == MSE else {}
    both(supervised(name, **numbers), planned(130), under_noise(course))(record)
    found = judge(record.history())
    told = [f.kind if f.severity == "warning" else f.severity for f in found]
    assert told == ([] if kind == "nothing" else [kind])


@pytest.mark.parametrize(("ratio", "rate"), [(1e-5, "learning_rate=0.03"), (1e-3, "")])
def test_small_updates_are_told_with_an_early_end(ratio, rate):
    record = made(EVERY_10)
    both(supervised(), put(ratio, "update"), loss(lambda s: 0.69 * 0.998**s))(record)
    (finding,) = judge(record.history(), ended=True)
    assert "Train for longer" in str(finding.fix)
    assert ("Raise the learning rate" in str(finding.fix)) == bool(rate)
    assert rate in str(finding.fix)
    put(1e-9, "update")(record)  # rates beyond thirty usual ones are of no use
    (finding,) = judge(record.history(), ended=True)
    assert (finding.kind, "learning_rate=0.03" in str(finding.fix)) == ("small_updates", True)
    assert record.setup is not None
    record.setup = dataclasses.replace(record.setup, optimizer="Adadelta")
    (finding,) = judge(record.history(), ended=True)
    assert "Adadelta(learning_rate=1)" in str(finding.fix)


def test_what_a_model_can_hardly_learn_is_told_with_an_early_end_at_guessing():
    def told(course):
        record = made(EVERY_STEP)
        both(supervised(), planned(130), under_noise(course))(record)
        assert record.setup is not None
        layers = (*record.setup.layers, LayerSetup("pool", "GlobalAveragePooling1D"))
        record.setup = dataclasses.replace(record.setup, layers=layers)
        (finding,) = judge(record.history())
        assert finding.kind == "ended_early"
        return str(finding.fix)

    assert "does not see the order" in told(lambda s: 0.75 * 0.9993**s)
    assert "does not see the order" not in told(lambda s: 0.65 * 0.9975**s)


@pytest.mark.parametrize(("ended", "step"), [(False, 200), (True, 120)])
def test_nothing_wrong_found_is_a_verdict_with_what_was_ruled_out(ended, step):
    record = made(EVERY_10 if ended else LONG)
    supervised()(record)
    (finding,) = judge(record.history(), ended)
    assert (finding.kind, finding.step, finding.confidence) == ("not_learning", step, "possible")
    assert finding.message.startswith("Nothing wrong was found, but up to step")
    assert [text.partition(":")[0] for text in finding.consequences] == ["No better than guessing"]
    for words in ("fit each other", "standard deviation of 0.5", "per layer", "10% of", "0.001 of"):
        assert words in finding.cause
    assert set(finding.evidence) >= {"loss", "guess", "factor", "update_ratio", "dead_units"}


CLIMBS = both(supervised(), loss(lambda s: 0.7 * 1.006**s))


@pytest.mark.parametrize(
    ("change", "cause", "fix"),
    [
        (CLIMBS, "go uphill", "signs"),
        (both(CLIMBS, put(0.03, "update")), "overshoot", "Lower the learning rate"),
        (
            both(CLIMBS, port("y", std=0.5 * 1.02**EVERY_10)),
            "at first they are of the size of 0.788, now of 3.01",
            "Q-learning",
        ),
        (both(CLIMBS, port("y", std=0.5 * 1.004**EVERY_10)), "go uphill", "signs"),
    ],
)
def test_a_loss_that_rises_is_told_with_what_rises(change, cause, fix):
    record = made(EVERY_10)
    change(record)
    (finding,) = judge(record.history())  # before the verdict, and after mere guessing
    assert finding.kind == RISING
    assert cause in finding.cause
    assert fix in str(finding.fix)


@pytest.mark.parametrize(
    ("units", "level", "ended", "expected"),
    [
        (4, 0.48, True, [("not_learning", "note", "No hidden layer has more than 4 units")]),
        (4, 0.48, False, []),
        (4, 0.3, True, []),  # most is learned
        (16, 0.48, True, []),
    ],
)
def test_a_narrow_model_that_learns_in_part_is_a_note(units, level, ended, expected):
    record = made(LONG)
    supervised(level=level)(record)
    assert record.setup is not None
    layers = [
        item._replace(activation="relu", takes=(i - 1,), shape=(-1, units))
        for i, item in enumerate(record.setup.layers)
    ]
    layers[-1] = layers[-1]._replace(activation="sigmoid", shape=(-1, 1))
    record.setup = dataclasses.replace(record.setup, layers=tuple(layers))
    found = judge(record.history(), ended)
    assert [(f.kind, f.severity, str(f.fix).partition(":")[0]) for f in found] == expected


def test_a_step_of_ones_own_that_learns_in_part_is_a_note():
    def told(course, name="", ended=True):
        record = made(EVERY_10)
        both(supervised(name), loss(course))(record)
        return [(f.kind, f.severity) for f in judge(record.history(), ended)]

    note = [("not_learning", "note")]
    assert told(lambda s: 0.9 * 0.999**s) == note
    assert told(lambda s: 0.9 * 0.98**s) == told(lambda s: 0.9 * 0.999**s, ended=False) == []
    assert told(lambda s: 0.9 * 0.995**s, "mine") != note


def test_inputs_of_another_scale_come_before_an_early_end():
    record = made(EVERY_10)
    both(supervised(level=0.6), loss(lambda s: 0.65 * 0.999**s))(record)
    assert [f.kind for f in judge(record.history(), True)] == [EARLY]
    record.ports["x"] |= {"mean": 300.0, "std": 60.0, "max": 600.0}
    fed_first(record)
    (finding,) = judge(record.history(), True)
    assert (finding.kind, finding.severity) == ("input_scale", "note")
    assert finding.consequences[0].startswith("Ended early")


@pytest.mark.parametrize(
    ("mean", "std", "severity"),
    [(300.0, 60.0, "note"), (3000.0, 600.0, "warning"), (300.0, 6.0, "warning")],
)
def test_extreme_inputs_are_told_of_a_training_that_learns_little(mean, std, severity):
    record = made(EVERY_10)
    both(supervised(level=0.5), fed_first, loss(lambda s: 0.7 * 0.995**s))(record)
    record.ports["x"] |= {"mean": mean, "std": std, "max": 2 * mean}
    (finding,) = judge(record.history(), True)
    assert (finding.kind, finding.severity) == ("input_scale", severity)
    assert [f.severity for f in judge(record.history())] == []  # it may still learn
    record.loss *= 0.5
    assert judge(record.history(), True) == []


def fed_first(record):
    layers = [
        item._replace(takes=(i - 1,), shape=(-1, 16)) for i, item in enumerate(record.setup.layers)
    ]
    record.setup = dataclasses.replace(record.setup, layers=tuple(layers), has_graph=True)


@pytest.mark.parametrize(
    ("momentum", "position", "mean", "severity"),
    [
        (0.9999, 3, 0.5, "note"),
        (0.9999, 3, 50.0, "note"),
        (0.9999, 0, 50.0, "warning"),
        (0.9999, 0, 0.5, "note"),
        (0.997, 0, 50.0, "warning"),  # 0.7 after 121 batches
        (0.997, 3, 50.0, ""),
        (0.99, 0, 50.0, ""),  # 0.3
        (0.0, 0, 50.0, ""),
    ],
)
def test_moving_averages_that_have_not_arrived(momentum, position, mean, severity):
    record = made(EVERY_10)
    both(supervised(), loss(lambda s: 0.7 * 0.96**s), port("x", mean=mean))(record)
    normalized(position, momentum=momentum)(record)
    assert record.setup is not None
    assert judge(record.history()) == []
    found = judge(record.history(), ended=True)
    assert [(f.kind, f.severity) for f in found] == [("moving_average", severity)] * bool(severity)
    if severity:
        assert found[0].message == (
            f"After 121 batches the moving averages of `net/dense_{position}` are still "
            f"{momentum**121:.0%} of what they began with, mean 0 and standard deviation 1."
        )
    frozen = tuple(item._replace(trainable=False) for item in record.setup.layers)
    record.setup = dataclasses.replace(record.setup, layers=frozen)
    assert "moving_average" not in [f.kind for f in judge(record.history(), ended=True)]


def test_the_mean_of_a_noisy_loss_is_compared_with_guessing():
    rng = np.random.default_rng(3)
    record = made(EVERY_STEP)
    supervised()(record)
    noise = np.exp(0.4 * rng.standard_normal(len(EVERY_STEP)))
    record.loss = np.log(2) * noise / noise[-43:].mean()  # as good as a constant
    assert np.exp(np.log(record.loss[-43:]).mean()) < 0.95 * np.log(2)
    (finding,) = judge(record.history(), ended=True)
    assert finding.kind == "not_learning"
    record.loss *= 0.9
    assert judge(record.history(), ended=True) == []


def test_updates_that_become_too_small_later():
    record = made(np.arange(0, 400, 10))
    both(supervised(), planned(4000))(record)
    assert record.setup is not None
    record.setup = dataclasses.replace(record.setup, optimizer="SGD")
    put(6e-4, "update", steps=slice(0, 20))(record)
    put(2e-4, "update", steps=slice(20, None))(record)
    (finding,) = judge(record.history())
    assert finding.kind == "small_updates"
    assert 200 < finding.rank < 300
    put(6e-4, "update")(record)
    assert judge(record.history()) == []


@pytest.mark.parametrize(("steps", "told"), [(0, 200), (360, 200), (600, 300), (5000, 1000)])
def test_the_verdict_without_a_cause_waits_for_half_of_the_training(steps, told):
    record = made(np.arange(0, 1100, 10))
    both(supervised(), planned(steps))(record)
    (finding,) = judge(record.history())
    assert (finding.kind, finding.step) == ("not_learning", told)


@pytest.mark.parametrize("name", ["mine", MSE])
def test_a_loss_of_ones_own_that_is_0_from_the_first_step_on(name):
    record = made(EVERY_10)
    both(supervised(name), put(0, "bias", "kernel", "loss"))(record)
    expected = [] if name == MSE else ["no_gradient"]  # all may have been learned before
    assert [f.kind for f in judge(record.history())] == expected
    record.loss[:2] = 0.5  # it was learned
    assert [f.kind for f in judge(record.history())] == []


def test_a_layer_that_receives_zeros_is_told_with_a_constant_output():
    record = made(EVERY_10)
    both(supervised(), DEAD_OUTPUT)(record)
    (finding,) = find_constant_output(Facts(record.history()))
    assert "Nothing of the input" in finding.cause
    put(0, "kernel", layers=3)(record)
    (finding,) = find_constant_output(Facts(record.history()))
    assert finding.cause.startswith("`net/dense_3` receives zeros alone")
    put(0, "bias", layers=3)(record)  # nothing comes back to it
    (finding,) = find_constant_output(Facts(record.history()))
    assert "Nothing of the input" in finding.cause


def test_a_symptom_is_folded_into_an_earlier_one_of_the_same_output():
    record = made(EVERY_10)
    both(supervised(), DEAD_OUTPUT)(record)
    (finding,) = judge(record.history())
    assert (finding.kind, finding.layer) == (OUTPUT, "net/dense_11")
    assert [text.partition(":")[0] for text in finding.consequences] == ["No better than guessing"]


@pytest.mark.parametrize("is_heard", [True, False])
def test_of_a_step_of_ones_own_it_is_told_what_to_print(is_heard):
    record = made(LONG)
    both(supervised(""), loss(lambda s: 0.69 - 2e-4 * s))(record)
    if not is_heard:
        record.ports.clear()
    (finding,) = judge(record.history(), ended=True)
    assert (finding.kind, finding.severity) == ("not_learning", "note")
    assert "the loss of a step of your own was 0.6834 at" in finding.message
    assert "Print what the loss compares" in str(finding.fix)
    assert ("keras.ops.reshape(y" in str(finding.fix)) == (not is_heard)  # as the shapes are known


@pytest.mark.parametrize("name", FIRES)
def test_a_symptom_stays_when_records_are_added(name):
    change, steps, kind, _ = FIRES[name]
    record = made(steps)
    change(record)
    told = 0
    for end in range(2, len(steps) + 1, max(1, len(steps) // 20)):
        found = list(RULES[kind](Facts(record.history(slice(0, end)))))
        assert len(found) >= told or kind == EARLY
        told = len(found)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("name", [*FIRES, *SILENT])
def test_the_weight_of_the_loss_changes_nothing(name, factor):
    change, steps, _ = (FIRES.get(name) or SILENT[name])[:3]
    record = made(steps)
    change(record)
    before = judge(record.history())
    for name_of in ("bias", "kernel", "loss", "penalty"):
        setattr(record, name_of, getattr(record, name_of) * factor)
    if record.setup:
        heads = [
            h._replace(arguments=h.arguments | {"loss_weight": factor}) for h in record.setup.heads
        ]
        record.setup = dataclasses.replace(record.setup, heads=tuple(heads))
    after = judge(record.history())
    assert [(*f.key, f.step) for f in after] == [(*f.key, f.step) for f in before]
