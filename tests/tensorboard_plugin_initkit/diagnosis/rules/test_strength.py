"""Where numbers stopped being finite, in histories that are made up."""

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
    "output": (both(), "at step 40 the output is NaN or infinite, of inputs and weights that"),
    "weights": (put(np.nan, "weight", steps=LATE), "the weights are lost before the step"),
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


def test_an_output_that_is_not_finite_is_told_without_a_gradient():
    record = made()
    both(supervised(), port("y_pred", nonfinite=AT), LOSS)(record)
    (finding,) = judge(record.history())
    assert (finding.kind, finding.layer, finding.step) == ("nonfinite", "net/dense_11", 40)
    assert finding.message.endswith("that are not; the loss and the gradient follow.")


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


@pytest.mark.parametrize(("role", "size"), [("x", 500.0), ("y", 80.0), ("", 0.0)])
def test_the_scale_of_data_is_told_where_numbers_overflow(role, size):
    record = made()
    scale = port(role, std=size) if role else both()
    both(supervised(), port("y_pred", nonfinite=AT), GRADIENTS, LOSS, scale)(record)
    (finding, *_) = (f for f in judge(record.history()) if f.kind == "nonfinite")
    told = {"x": "The inputs are of the size of 500.", "y": "The targets are of the size of 80."}
    assert told.get(role, "") in finding.cause
    assert ("size of" in finding.cause) == bool(role)
    assert ("with_normalization" in str(finding.fix)) == bool(role)
    assert "Lower the learning rate" in str(finding.fix)
