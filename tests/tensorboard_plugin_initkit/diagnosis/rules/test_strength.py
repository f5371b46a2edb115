"""Where numbers stopped being finite, in histories that are made up."""

import dataclasses

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.judge import judge
from tests.tensorboard_plugin_initkit.diagnosis.made import (
    EVERY_10,
    both,
    made,
    port,
    put,
    supervised,
)

pytestmark = pytest.mark.numpy_alone

LATE = slice(4, None)
AT = np.where(EVERY_10 >= 40, 3.0, 0.0)
GRADIENTS = put(8, "nonfinite", steps=LATE)
LOSS = put(np.nan, "loss", steps=LATE)
ORIGINS = {
    "inputs": (port("x", nonfinite=AT), "at step 40 inputs have 3 NaN or infinite elements; "),
    "targets": (port("y", nonfinite=AT), "at step 40 targets have 3 NaN or infinite elements; "),
    "output": (
        both(),
        "at step 40 the output is NaN or infinite, though inputs and weights are finite",
    ),
    "weights": (put(np.nan, "weight", steps=LATE), "the weights were lost before the step"),
    "gradient": (port("y_pred", nonfinite=0.0), "at step 40 the output is finite; 192 elements"),
}


@pytest.mark.parametrize("name", ORIGINS)
def test_what_came_first_is_told(name):
    change, words = ORIGINS[name]
    record = made()
    both(supervised(), port("y_pred", nonfinite=AT), GRADIENTS, LOSS, change)(record)
    (finding,) = judge(record.history())
    assert (finding.kind, finding.severity, finding.confidence) == ("nonfinite", "error", "certain")
    assert finding.step == 40
    assert words in finding.message
    assert finding.cause
    assert finding.fix


def in_a_row(place, **fields):
    """Make a change to a model of layers in a row; that at one place has other fields."""

    def change(record):
        layers = [
            item._replace(type="Dense", activation="relu", takes=(i - 1,), shape=(-1, 8))
            for i, item in enumerate(record.setup.layers)
        ]
        layers[place] = layers[place]._replace(**fields)
        record.setup = dataclasses.replace(record.setup, layers=tuple(layers))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # The inputs have a mean square of 1/2, and every kernel a norm of 1.
        (
            in_a_row(1, type="Lambda"),
            "the first layer that can have made them is `net/dense_1`, from",
        ),
        (in_a_row(3, activation="exponential"), "have made them is `net/dense_3`, from inputs"),
        (
            in_a_row(0, activation="mine"),
            "the first layer that can have made them is `net/dense_0`;",
        ),
        (
            both(in_a_row(5, type="Lambda"), put(3e38, "weight", steps=LATE, layers=slice(1, 3))),
            "the weights of `net/dense_1` are 3e38 times as large as at first;",
        ),
        (in_a_row(5), "weights are finite; 192"),  # nothing is known of it
    ],
)
def test_the_layer_is_told_that_can_have_made_them(change, words):
    record = made()
    both(supervised(), port("y_pred", nonfinite=AT), GRADIENTS, LOSS, change)(record)
    (finding,) = judge(record.history())
    assert words in finding.message


def test_an_output_that_is_not_finite_is_told_without_a_gradient():
    record = made()
    both(supervised(), port("y_pred", nonfinite=AT), LOSS)(record)
    (finding,) = judge(record.history())
    assert (finding.kind, finding.layer, finding.step) == ("nonfinite", "net/dense_11", 40)
    assert finding.message.endswith("weights are finite; the loss and the gradient follow.")


def test_a_loss_without_a_value_is_told_though_output_and_gradient_are_finite():
    record = made()
    both(supervised("mine"), LOSS)(record)
    (finding,) = judge(record.history())
    assert (finding.kind, finding.severity, finding.step) == ("nonfinite", "error", 60)
    assert "from step 40 to 60 the loss is NaN or infinite" in finding.message
    assert "keras.ops.clip" in str(finding.fix)
    record.loss[5] = 0.7  # one step of them
    assert judge(record.history(slice(0, 6))) == []
    both(supervised(""), LOSS)(record := made())
    assert judge(record.history()) == []  # of a step of one's own the loss is not known


@pytest.mark.parametrize("role", ["x", "y", "y_pred"])
def test_data_with_gaps_do_no_harm_where_the_gradient_is_finite(role):
    """Masks may leave them out."""
    record = made(EVERY_10[:8])
    both(supervised(), port(role, nonfinite=3.0))(record)
    assert judge(record.history()) == []


def test_targets_with_gaps_are_told_where_the_loss_is_lost_though_no_gradient_is():
    record = made()
    both(supervised(), port("y", nonfinite=AT), LOSS)(record)
    (finding,) = judge(record.history())
    assert (finding.kind, finding.step) == ("nonfinite", 40)
    assert "targets have 3 NaN or infinite elements" in finding.message


@pytest.mark.parametrize(
    ("change", "cause", "fix"),
    [
        (both(), "that of a root at 0", "1e-7"),
        (LOSS, "overflows", "clipnorm"),
        (put(1e9, "weight", steps=slice(1, None)), "overflows", "clipnorm"),
        (put(1e9, "kernel", layers=11), "overflows", "clipnorm"),
        (put(1e9, "loss"), "overflows", "clipnorm"),
        (in_a_row(3, weights=2, arguments={"dtype": "float16"}), "in float16", "mixed_float16"),
        (in_a_row(3, arguments={"dtype": "float16"}), "that of a root at 0", "1e-7"),  # no weights
    ],
)
def test_a_slope_without_a_value_is_told_from_numbers_that_grow(change, cause, fix):
    record = made()
    both(supervised(), put(8, "nonfinite", steps=LATE, layers=slice(0, 11)), change)(record)
    (finding, *_) = (f for f in judge(record.history()) if f.kind == "nonfinite")
    assert cause in finding.cause
    assert fix in str(finding.fix)


FROM_THE_START = both(port("y_pred", nonfinite=3.0), put(8, "nonfinite"), put(np.nan, "loss"))
OWN = in_a_row(3, type="Graph", arguments={"is_own": True})


def known(record):
    """Make it known what leads to what."""
    record.setup = dataclasses.replace(record.setup, has_graph=True)


@pytest.mark.parametrize(
    ("change", "cause", "fix"),
    [
        (both(), "a division by 0", "Look into `call` of the model, and"),
        (OWN, "a logarithm or root of 0", "Look into `net/dense_3`, and"),
        (in_a_row(2, type="TrueDivide"), "no learning rate can help", "Look into `net/dense_2`,"),
        (in_a_row(2, weights=2, arguments={"dtype": "float16"}), "in float16", "mixed_float16"),
        (both(in_a_row(2, weights=2), known), "too large for its number", "smaller weights"),
        (both(OWN, port("x", std=500.0)), "The inputs are as large as 500", "maximum(count, 1)"),
    ],
)
def test_before_the_first_update_no_learning_rate_is_to_blame(change, cause, fix):
    record = made()
    both(supervised(), FROM_THE_START, change)(record)
    *_, finding = judge(record.history())
    assert cause in finding.cause
    assert fix in str(finding.fix)
    assert "learning rate" not in str(finding.fix)
    record.steps = record.steps + 40  # it goes on from what was saved
    assert "No update was made yet" not in judge(record.history())[-1].cause


@pytest.mark.parametrize(
    ("change", "cause", "is_rate"),
    [(put(8, "nonfinite"), "No update was made yet", False), (GRADIENTS, "Updates are too", True)],
)
def test_where_outputs_are_not_seen_all_that_it_may_be_is_told(change, cause, is_rate):
    change(record := made())
    (finding,) = judge(record.history())
    assert finding.cause.startswith(cause)
    assert "`np.isfinite(data).all()`" in str(finding.fix)
    assert ("Lower the learning rate" in str(finding.fix)) == is_rate
    assert bool(finding.fix.repairs) == is_rate


@pytest.mark.parametrize(("role", "size"), [("x", 500.0), ("y", 80.0), ("", 0.0)])
def test_the_scale_of_data_is_told_where_numbers_overflow(role, size):
    record = made()
    scale = port(role, std=size) if role else both()
    both(supervised(), port("y_pred", nonfinite=AT), GRADIENTS, LOSS, scale)(record)
    (finding, *_) = (f for f in judge(record.history()) if f.kind == "nonfinite")
    told = {"x": "The inputs are as large as 500.", "y": "The targets are as large as 80."}
    assert told.get(role, "") in finding.cause
    assert ("as large as" in finding.cause) == bool(role)
    assert ("with_normalization" in str(finding.fix)) == bool(role)
    assert "ower the learning rate" in str(finding.fix)
