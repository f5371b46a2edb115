"""Predicted signals beside the first record's: their scale, and the first layer that is off."""

import dataclasses

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.prediction import (
    explain_slope,
    find_parting,
    predict_signals,
)
from tensorboard_plugin_initkit.record.setup import LayerSetup, Setup
from tensorboard_plugin_initkit.safe_text import write_number
from tests.tensorboard_plugin_initkit.diagnosis.made import EVERY_10, made

pytestmark = pytest.mark.numpy_alone

DEPTH = 12
PATHS = [f"net/dense_{i}" for i in range(DEPTH)]
FALLING = 0.5 ** np.arange(DEPTH)[::-1]
INPUTS = {"mean": 0.0, "std": 1.0}


def history(measured, predicted=FALLING, dead=0.1, inputs=None, steps=EVERY_10, first=""):
    record = made(steps, DEPTH)
    record.bias[:] = measured
    record.dead[:] = dead
    prediction = {p: (1.0, float(x)) for p, x in zip(PATHS, predicted, strict=True) if x}
    setup_layers = (LayerSetup("first", first, takes=(-1,)),)
    record.setup = Setup(setup_layers, has_graph=True, prediction=prediction)
    if inputs is not None:
        record.ports = {"x": dict.fromkeys(("min", "max", "batch_std"), 1.0) | inputs}
        names = ("mean", "std", "nonfinite", "low_std", "high_std", "integers", "one_hot")
        more = ("entropy", "binary_entropy", "variance", "classes")
        record.ports["x"] = dict.fromkeys((*names, *more), 0.0) | record.ports["x"]
    return record.history()


def test_the_scale_is_that_of_the_layers_in_front_of_the_output():
    measured = 7.0 * FALLING
    measured[-1], measured[-3] = 100.0, 0.01
    shown = 7.0 / np.sqrt(0.9)  # of the units with a gradient
    np.testing.assert_allclose(predict_signals(history(measured)), shown * FALLING, rtol=1e-5)
    some = np.where(np.arange(DEPTH) == 3, 0.0, FALLING)
    found = predict_signals(history(measured, some))
    assert np.isnan(found).tolist() == (some == 0).tolist()


@pytest.mark.parametrize(
    "made_history",
    [
        history(FALLING, predicted=np.zeros(DEPTH)),
        history(FALLING, steps=EVERY_10 + 10),
        dataclasses.replace(made(EVERY_10)).history(),
    ],
    ids=["none", "not from step 0", "no setup"],
)
def test_without_a_prediction_nothing_is_known(made_history):
    assert np.isnan(predict_signals(made_history)).all()
    assert find_parting(made_history) is None


AFTER_5 = np.where(np.arange(DEPTH) <= 5, 1e-5, 1.0)
FIRST_ONLY = np.where(np.arange(DEPTH) == 0, 0.1, 1.0)
FAR = {"mean": 100.0, "std": 50.0}


@pytest.mark.parametrize(
    ("factors", "keywords", "cause"),
    [
        (np.ones(DEPTH), {"inputs": FAR}, None),
        (np.where(np.arange(DEPTH) == 5, 1e-5, 1.0), {}, None),  # as in front of a normalization
        (AFTER_5, {}, "weights"),
        (1.0 / AFTER_5, {"inputs": INPUTS}, "weights"),
        (AFTER_5, {"dead": 0.9}, "activation"),
        (AFTER_5, {"inputs": FAR}, "data"),
        (AFTER_5, {"inputs": FAR, "first": "Embedding"}, "weights"),
        (FIRST_ONLY, {"inputs": FAR}, "data"),
        (FIRST_ONLY, {"inputs": INPUTS}, None),
    ],
)
def test_the_first_layer_that_is_off_and_why(factors, keywords, cause):
    found = find_parting(history(FALLING * factors, **keywords))
    if cause is None:
        assert found is None
        return
    assert found is not None
    place = np.flatnonzero(factors != 1.0)[-1]
    assert (found.layer, found.cause) == (PATHS[place], cause)
    assert found.factor == pytest.approx(factors[place], rel=1e-3)
    factor = write_number(found.factor, 2)
    assert str(found).startswith(f"×{factor} of the prediction from `{PATHS[place]}` on")


@pytest.mark.parametrize(
    ("predicted", "factors", "total", "words"),
    [
        (FALLING, np.ones(DEPTH), 0.001, "The initial weights cause it: ×0.00098 was predicted"),
        (np.ones(DEPTH), np.ones(DEPTH), 0.001, "Training causes it: ×1 was predicted"),
        (FALLING, AFTER_5, 1e-8, "Step 0 is not as the weights predicted: ×"),
        (np.zeros(DEPTH), np.ones(DEPTH), 0.001, "Each layer multiplies the gradient"),
    ],
)
def test_a_slope_is_of_the_first_weights_of_training_or_of_what_they_do_not_tell(
    predicted, factors, total, words
):
    told = explain_slope(history(np.maximum(predicted, 1e-9) * factors, predicted), total)
    assert told.startswith(words)
