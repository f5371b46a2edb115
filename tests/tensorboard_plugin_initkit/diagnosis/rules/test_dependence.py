"""Findings on what outputs depend on, from the answers of a model."""

import dataclasses

import pytest

from tensorboard_plugin_initkit.diagnosis.rules.dependence import (
    find_mixed_samples,
    find_unused_inputs,
    list_sights,
)
from tensorboard_plugin_initkit.record.layout import Port
from tensorboard_plugin_initkit.record.setup import InputUse
from tests.tensorboard_plugin_initkit.diagnosis.made_setups import chain, dense, facts_of, layer

pytestmark = pytest.mark.numpy_alone

MODEL = chain(dense(8, "relu"), dense(1), loss="mean_squared_error")


def parts(text):
    return tuple("-01".index(mark) - 1 for mark in text)


def find(*uses, model=MODEL, shape=(40, 3), **totals):
    named = (InputUse(name, axis, parts(text)) for name, axis, text in uses)
    facts = facts_of(dataclasses.replace(model, uses=tuple(named)), **totals)
    names = dict.fromkeys(name for name, _, _ in uses)
    facts.ports = tuple(Port("x", name, shape, "float32") for name in names)
    return list(find_unused_inputs(facts))


TOLD = {
    "nothing": (
        [("", 0, "0"), ("", 1, "0" * 16), ("", 2, "00-")],
        "depends on no part of the input:",
    ),
    "nothing of two": ([("a", 0, "0"), ("b", 0, "0")], "depends on no part of the inputs:"),
    "one of two": (
        [("a", 0, "0"), ("b", 0, "1")],
        "does not depend on input `a` of 2, whatever",
    ),
    "one without a name": ([("0", 0, "1"), ("1", 0, "0")], "does not depend on input 2 of 2, what"),
    "the first steps": (
        [("", 0, "1"), ("", 1, "1" + "0" * 15), ("", 2, "111")],
        "depends on the first 3 of 40 places along axis 1 alone",
    ),
    "the last steps": (
        [("a", 0, "1"), ("a", 1, "00000000000--111")],
        "Of the input `a`, the output depends on the last 6 of 40 places along axis 1 alone",
    ),
}


@pytest.mark.parametrize(("uses", "text"), TOLD.values(), ids=TOLD)
def test_what_is_told(uses, text):
    (finding,) = find(*uses)
    assert (finding.kind, finding.severity, finding.confidence) == (
        "unused_input",
        "warning",
        "likely",
    )
    assert text in finding.message
    assert str(finding.fix)


LOOK_ALIKES = {
    "all": [("", 0, "1"), ("", 1, "1" * 16)],
    "not known": [("", 0, "-"), ("", 1, "-" * 16)],
    "borders": [("", 0, "1"), ("", 1, "0" + "1" * 14 + "0")],
    "a third": [("", 0, "1"), ("", 1, "1" * 5 + "0" * 11)],
    "here and there": [("", 0, "1"), ("", 1, "0010000001000000")],
    "few places": [("", 0, "1"), ("", 1, "1000000")],
    "few that differ": [("", 0, "1"), ("", 1, "1000000---------")],
    "a part shows it": [("", 0, "0"), ("", 1, "1" * 16)],
}


@pytest.mark.parametrize("uses", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_what_is_not_told(uses):
    assert find(*uses) == []


def test_what_a_recurrent_layer_forgets_is_no_fault():
    uses = [("", 0, "1"), ("", 1, "0" * 13 + "111")]
    recurrent = chain(layer("LSTM", 8), dense(1), loss="mean_squared_error")
    assert find(*uses)
    assert find(*uses, model=recurrent) == []
    assert find(("", 0, "1"), ("", 1, "1" + "0" * 15), model=recurrent)


def test_labels_that_a_layer_takes_for_its_own_loss_may_reach_no_output():
    uses = [("x", 0, "1"), ("labels", 0, "0")]
    assert find(*uses, penalty=0.5) == []
    head = MODEL.heads[0]._replace(loss="")
    assert find(*uses, model=dataclasses.replace(MODEL, heads=(head,))) == []
    assert find(*uses)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0" * 10 + "1" * 6, ["the output sees the last 12 of 40 alone"]),
        ("1" * 8 + "0" * 8, ["the output sees the first 24 of 40 alone"]),
        ("1" * 14 + "00", []),
        ("0" + "1" * 14 + "0", []),
    ],
)
def test_what_most_of_an_axis_shows_is_a_hint(text, words):
    facts = facts_of(dataclasses.replace(MODEL, uses=(InputUse("", 1, parts(text)),)))
    facts.ports = (Port("x", "", (40, 3), "float32"),)
    assert all(a in b for a, b in zip(words, list_sights(facts), strict=True))
    assert list(find_unused_inputs(facts)) == []


def test_mixed_samples_are_told_with_a_reason_to_do_so():
    facts = facts_of(dataclasses.replace(MODEL, mixes_samples=True))
    (finding,) = find_mixed_samples(facts)
    assert finding.kind == "mixed_samples"
    assert "depends on the other samples of its batch" in finding.message
    assert "axis=0" in str(finding.fix)
    assert list(find_mixed_samples(facts_of(MODEL))) == []
