"""Weights and layers that begin too large, in records and setups that are made up."""

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.rules.initial import (
    find_equal_weights,
    find_large_epsilons,
    find_large_outputs,
    find_large_weights,
)
from tensorboard_plugin_initkit.record.history import GradientHistory
from tests.tensorboard_plugin_initkit.diagnosis.made import EVERY_10, made, put, supervised
from tests.tensorboard_plugin_initkit.diagnosis.made_setups import (
    BATCH,
    X,
    chain,
    dense,
    facts_of,
    layer,
)

pytestmark = pytest.mark.numpy_alone

SQUARED = "mean_squared_error"
LINEAR = chain(dense(8, "relu"), dense(1), loss=SQUARED)
Y = X[:, :1]


@pytest.mark.parametrize(("rms", "told"), [(100, True), (12, True), (9, False), (0, False)])
def test_weights_that_drown_all_else(rms, told):
    record = made(EVERY_10)
    put(8 * rms, "weight", layers=3)(record)  # the norm of 64 elements
    found = list(find_large_weights(Facts(record.history())))
    assert bool(found) is told
    if told:
        assert (found[0].kind, found[0].layer) == ("bad_start", "net/dense_3")
        assert found[0].message == f"`net/dense_3/kernel` begins with numbers of size {rms}."
        assert "RandomNormal(stddev=0.05)" in str(found[0].fix)


def test_an_output_may_begin_with_the_mean_of_its_targets():
    record = made(EVERY_10)
    supervised()(record)
    chunk = record.chunk()
    variables = [variable.path for variable in chunk.layout.variables]
    for path, count in (("net/dense_11/bias", 0), ("net/dense_3/bias", 1)):
        chunk.values["weight_norm"][:] = 0
        chunk.values["weight_norm"][:, variables.index(path)] = 800
        history = GradientHistory(None)
        history.append(chunk)
        history.setup = record.setup
        assert len(list(find_large_weights(Facts(history)))) == count


def test_outputs_that_begin_far_from_everything():
    large = np.full((BATCH, 1), 1e6)
    (finding,) = find_large_outputs(facts_of(LINEAR, Y, X, y_pred=large))
    assert (finding.kind, finding.layer) == ("bad_start", "dense_1")
    assert "numbers up to 1e+06; inputs and targets go up to" in finding.message
    assert finding.fix.repairs == {"initialize": {"layers": ["dense_0", "dense_1"]}}
    for initializer, is_why in (("Identity(gain=2)", True), ("Orthogonal()", False)):
        first = layer("SimpleRNN", 16, "relu", weights=3, recurrent_initializer=initializer)
        setup = chain(first, dense(1), loss=SQUARED)
        (finding,) = find_large_outputs(facts_of(setup, Y, X, y_pred=large))
        assert finding.layer == ("simplernn_0" if is_why else "dense_1")
        assert ("Leave `recurrent_initializer` out" in str(finding.fix)) is is_why
    assert list(find_large_outputs(facts_of(LINEAR, Y, X, (7,), y_pred=large))) == []  # resumed


@pytest.mark.parametrize(
    ("setup", "y", "x", "y_pred"),
    [
        (LINEAR, Y, X, 100 * Y),
        (LINEAR, 1e5 * Y, X, 1e6 * Y),
        (LINEAR, Y, 1e5 * X, 1e6 * Y),  # a matter of the inputs
        (chain(dense(1, "relu"), loss=SQUARED), Y, X, 1e6 * Y),
        (LINEAR, None, X, 1e6 * Y),
    ],
)
def test_outputs_that_are_large_for_a_reason(setup, y, x, y_pred):
    assert list(find_large_outputs(facts_of(setup, y, x, y_pred=y_pred))) == []


@pytest.mark.parametrize(
    ("kind", "epsilon", "told"),
    [
        ("BatchNormalization", 1000.0, True),
        ("LayerNormalization", 1.5, True),
        ("BatchNormalization", 0.001, False),
        ("LayerNormalization", 0.5, False),
        ("Mine", 1000.0, False),
    ],
)
def test_an_epsilon_that_takes_the_place_of_the_variance(kind, epsilon, told):
    setup = chain(dense(8), layer(kind, 8, epsilon=epsilon), dense(1), loss=SQUARED)
    found = list(find_large_epsilons(facts_of(setup, Y)))
    assert [finding.message for finding in found] == [
        f"`{kind.lower()}_1` has an epsilon of {epsilon:g}."
    ] * told
    assert all(str(finding.fix).startswith("Leave `epsilon` out") for finding in found)


@pytest.mark.parametrize(
    ("initializer", "told"),
    [("Constant(value=0.1)", True), ("Ones()", True), ("Zeros()", False), ("HeNormal()", False)],
)
def test_equal_units_in_a_layer_of_ones_own(initializer, told):
    expert = dense(16, "relu", kernel_initializer=initializer, path="mixture/dense")
    setup = chain(expert, layer("Mixture", 16, path="mixture"), dense(1), loss=SQUARED)
    found = list(find_equal_weights(facts_of(setup, Y)))
    assert all('`Dense(16, activation="relu")`' in str(finding.fix) for finding in found)
    assert [(f.kind, f.layer, f.confidence) for f in found] == [
        ("equal_weights", "mixture/dense", "likely")
    ] * told
