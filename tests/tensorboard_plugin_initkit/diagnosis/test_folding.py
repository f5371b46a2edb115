"""One root cause: what follows from a finding is told with it."""

import dataclasses

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis import judge as judge_module
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.judge import judge, news
from tests.tensorboard_plugin_initkit.diagnosis.made import (
    EVERY_10,
    both,
    falls,
    made,
    port,
    put,
    supervised,
)

pytestmark = pytest.mark.numpy_alone

DEAD_OUTPUT = port("y_pred", batch_std=0.0, min=0.0, max=0.0, mean=0.0)
CONTRACT = Finding("logits", "net/dense_11", 0, "Logits.", severity="error", confidence="certain")
HINT = dataclasses.replace(CONTRACT, kind="loss_choice", message="Odd.", severity="warning")
DATA = Finding("input_scale", "", 0, "Large inputs.", confidence="possible")
STRUCTURE = Finding("deep_sigmoids", "", 0, "Sigmoids.", confidence="possible")
GUESSES = supervised()
CONSTANT = both(GUESSES, DEAD_OUTPUT)
VANISHES = both(GUESSES, falls(0.3))


def learns_at_once(record):
    record.loss[3:] *= 0.1


GOOD = both(GUESSES, falls(0.3), learns_at_once)

# What is made, the findings of contracts, data and structure, and what is told at which step,
# with the beginnings of its consequences.
FOLDED = {
    "a contract": (CONSTANT, (CONTRACT, None, None), [("logits", 0, ["Constant", "No better"])]),
    "a contract and lesser causes": (
        VANISHES,
        (CONTRACT, DATA, STRUCTURE),
        [("logits", 0, ["Also", "Also", "Vanishing", "No better"])],
    ),
    "a cause of data": (
        CONSTANT,
        (None, DATA, STRUCTURE),
        [("input_scale", 30, ["Also", "Constant", "No better"])],
    ),
    "a slope is not made by data": (
        VANISHES,
        (None, DATA, STRUCTURE),
        [("deep_sigmoids", 30, ["Vanishing", "Also", "No better"])],
    ),
    "a hint is no root of faults": (
        VANISHES,
        (HINT, None, None),
        [("loss_choice", 0, ["No better"]), ("vanishing", 30, [])],
    ),
    "causes without a symptom": (GOOD, (None, DATA, STRUCTURE), []),
    "a contract that does no harm": (GOOD, (CONTRACT, DATA, None), [("logits", 0, ["Also"])]),
    "a fault": (VANISHES, (None, None, None), [("vanishing", 30, ["No better"])]),
}


def with_rules(monkeypatch, *findings):
    for name, finding in zip(
        ("CONTRACT_RULES", "DATA_CAUSES", "STRUCTURE_CAUSES"), findings, strict=True
    ):
        found = [] if finding is None else [finding]
        monkeypatch.setattr(judge_module, name, (lambda facts, found=found: found,))


@pytest.mark.parametrize("name", FOLDED)
def test_one_root_is_told_with_what_follows_from_it(name, monkeypatch):
    change, rules, expected = FOLDED[name]
    with_rules(monkeypatch, *rules)
    record = made(EVERY_10)
    change(record)
    found = [
        (f.kind, f.step, [text.split(":")[0].split(" ")[0] for text in f.consequences])
        for f in judge(record.history())
    ]
    assert found == [
        (kind, step, [text.split(" ")[0] for text in texts]) for kind, step, texts in expected
    ]


LEFT_OUT = {
    ("input_scale",): [("deep_sigmoids", 30, ["Constant", "No"])],
    ("deep_sigmoids",): [("input_scale", 30, ["Constant", "No"])],
    ("constant_output",): [("input_scale", 30, ["Also:", "No"])],
    ("input_scale", "deep_sigmoids"): [("constant_output", 30, ["No"])],
    ("no_better_than_guessing",): [("input_scale", 30, ["Also:", "Constant"])],
    ("input_scale", "deep_sigmoids", "constant_output"): [("not_learning", 120, ["No"])],
}


@pytest.mark.parametrize("ignore", LEFT_OUT)
def test_what_follows_from_an_ignored_kind_is_told_by_itself(ignore, monkeypatch):
    with_rules(monkeypatch, None, DATA, STRUCTURE)
    record = made(EVERY_10)
    CONSTANT(record)
    found = judge(record.history(), True, ignore)
    assert [
        (f.kind, f.step, [text.split(" ")[0] for text in f.consequences]) for f in found
    ] == LEFT_OUT[ignore]


@pytest.mark.parametrize(("contract", "is_ruled_out"), [(None, True), (CONTRACT, False)])
def test_a_contract_that_is_ignored_is_not_ruled_out(contract, is_ruled_out, monkeypatch):
    with_rules(monkeypatch, contract, None, None)
    GUESSES(record := made(EVERY_10))
    (finding,) = judge(record.history(), True, ["logits"])
    assert finding.kind == "not_learning"
    assert ("output, loss and targets fit each other" in finding.cause) == is_ruled_out


def test_a_symptom_that_was_told_alone_is_told_again_with_its_cause():
    record = made(np.arange(0, 400, 10))
    both(GUESSES, lambda record: put(0, "bias", "kernel", steps=slice(25, None))(record))(record)
    before = judge(record.history(slice(0, 25)))
    assert [f.kind for f in before] == ["not_learning"]
    found = judge(record.history())
    (new,) = news(before, found)
    assert [f.kind for f in found] == ["not_learning", "no_gradient"]
    assert found[0] == before[0]
    assert new.kind == "no_gradient"
    assert [text.split(":")[0] for text in new.consequences] == ["No better than guessing"]


LOST = both(GUESSES, put(8, "nonfinite", steps=slice(5, None)))


@pytest.mark.parametrize(
    ("cause", "data", "expected"),
    [
        (dataclasses.replace(STRUCTURE, kind="bad_start", confidence="likely"), 0, ["bad_start"]),
        (STRUCTURE, 0, ["deep_sigmoids", "nonfinite"]),
        (dataclasses.replace(STRUCTURE, kind="bad_start", confidence="likely"), 3, ["nonfinite"]),
    ],
)
def test_numbers_that_are_not_finite_follow_from_weights_that_are_too_large(
    cause, data, expected, monkeypatch
):
    with_rules(monkeypatch, None, None, cause)
    record = made(EVERY_10)
    both(LOST, port("x", nonfinite=data))(record)
    found = judge(record.history())
    assert [finding.kind for finding in found] == expected
    assert (found[0].severity == "error") == ("deep_sigmoids" not in expected)
    if not data and len(found) == 1:
        assert found[0].consequences[-1].startswith("Non-finite numbers")


@pytest.mark.parametrize(("kind", "is_mended"), [("loss_choice", True), ("input_scale", False)])
def test_another_loss_comes_with_larger_updates_where_they_are_small(kind, is_mended, monkeypatch):
    fix = Fix("Use another.", {"loss": {"loss": "mine"}})
    with_rules(monkeypatch, None, dataclasses.replace(DATA, kind=kind, fix=fix), None)
    record = made(EVERY_10)
    both(GUESSES, put(1e-6, "update"))(record)
    (finding,) = judge(record.history())
    assert finding.kind == kind
    assert any(text.startswith("Small updates") for text in finding.consequences)
    assert str(finding.fix).startswith("Use another.")
    assert ("Raise the learning rate" in str(finding.fix)) == is_mended
    assert finding.fix.repairs.keys() == {"loss"} | ({"learning_rate"} if is_mended else set())


@pytest.mark.parametrize(
    ("ours", "theirs", "repairs", "text"),
    [
        ({"loss": {}}, {"normalize": {}}, {"loss": {}, "normalize": {}}, "Other loss. Scale."),
        ({}, {"normalize": {}}, {}, "Other loss. Scale."),  # what is made must be all
        ({"normalize": {}}, {"loss": {}, "normalize": {}}, {"normalize": {}}, "Other loss."),
        ({"loss": {}}, {}, {"loss": {}}, "Other loss."),
    ],
)
def test_a_broken_contract_comes_with_a_scale_that_is_wrong_as_well(
    ours, theirs, repairs, text, monkeypatch
):
    contract = dataclasses.replace(CONTRACT, fix=Fix("Other loss.", ours))
    with_rules(monkeypatch, contract, dataclasses.replace(DATA, fix=Fix("Scale.", theirs)), None)
    record = made(EVERY_10)
    CONSTANT(record)
    (finding,) = judge(record.history())
    assert (finding.fix.text, finding.fix.repairs) == (text, repairs)


def test_what_is_never_meant_is_told_of_a_training_that_learns(monkeypatch):
    wrong = dataclasses.replace(STRUCTURE, kind="wrong_axis")
    for change, consequences in ((GOOD, 0), (GUESSES, 1)):
        with_rules(monkeypatch, None, None, wrong)
        record = made(EVERY_10)
        change(record)
        (finding,) = judge(record.history())
        assert (finding.kind, len(finding.consequences)) == ("wrong_axis", consequences)


@pytest.mark.parametrize("follows", [False, True])
def test_faults_of_other_outputs_are_told_by_themselves(follows, monkeypatch):
    with_rules(monkeypatch, CONTRACT, None, None)
    record = made(EVERY_10)
    both(GUESSES, port("y", variance=np.nan, binary_entropy=np.nan))(record)
    assert record.setup is not None
    layers = [layer._replace(takes=(i - 1,)) for i, layer in enumerate(record.setup.layers)]
    if not follows:  # the last layer takes the same as the one before it
        layers[11] = layers[11]._replace(takes=(9,))
    (head,) = record.setup.heads
    record.setup = dataclasses.replace(
        record.setup,
        layers=tuple(layers),
        heads=(head._replace(name="a"), head._replace(name="b", layer=10)),
        has_graph=True,
    )
    put(0.95, "dead", layers=10)(record)
    kinds = [(f.kind, f.layer) for f in judge(record.history())]
    own = [] if follows else [("dead_units", "net/dense_10")]
    assert kinds == [("logits", "net/dense_11"), *own]
