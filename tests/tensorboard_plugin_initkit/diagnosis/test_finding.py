import dataclasses
import json

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.finding import (
    Finding,
    from_json,
    merge_findings,
    to_json,
)
from tensorboard_plugin_initkit.diagnosis.fix import Fix

pytestmark = pytest.mark.numpy_alone

FIX = Fix("HeNormal()", {"reinitialize": {"layers": ["dense"], "initializer": "HeNormal"}})
BEFORE = Finding("constant", "dense", None, "All alike.", severity="error", fix=FIX)
LATE = Finding("vanishing", "é", 30, "Far less.", {"a": np.inf, "b": -np.inf, "c": np.float64(0.5)})


def test_findings_survive_json():
    assert from_json(to_json([BEFORE, LATE])) == [BEFORE, LATE]
    assert from_json(to_json([])) == []
    (odd,) = from_json(to_json([Finding("odd", "", 3, "", {"a": np.nan})]))
    assert np.isnan(odd.evidence["a"])


def test_the_json_is_versioned_and_holds_every_field():
    content = json.loads(to_json([LATE]))
    assert content == {
        "version": 4,
        "findings": [
            {
                "kind": "vanishing",
                "layer": "é",
                "step": 30,
                "message": "Far less.",
                "evidence": {"a": "inf", "b": "-inf", "c": 0.5},
                "severity": "warning",
                "cause": "",
                "fix": {"text": "", "repairs": {}},
                "confidence": "likely",
                "consequences": [],
            }
        ],
    }


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("[]", "'[]'"),
        ("7", "'7'"),
        ("{", "'{'"),
        ('{"version": 4}', "{'version': 4}"),
        ({"step": -1}, "step=-1"),
        ({"step": 10**400}, "step=1000"),
        ({"step": "3"}, "step='3'"),
        ({"message": None}, "message=None"),
        ({"severity": "fatal"}, "severity='fatal'"),
        ({"fix": "x"}, "fix='x'"),
        ({"fix": {"text": "x"}}, "{'text': 'x'}"),
        ({"fix": {"text": "x", "repairs": {"clip": 1}}}, "repairs={'clip': 1}"),
        ({"evidence": [1]}, "evidence=[1]"),
        ({"evidence": {"a": None}}, "evidence={'a': None}"),
        ({"evidence": {"a": 10**400}}, "evidence={'a': 1000"),
        ({"reason": "x"}, "have the fields kind, layer"),
    ],
    ids=str,
)
def test_what_are_no_findings_is_refused_in_words(text, received):
    if isinstance(text, dict):
        content = json.loads(to_json([Finding("k", "", 1, "m")]))
        content["findings"][0] |= text
        text = json.dumps(content)
    with pytest.raises(
        ValueError, match=r"^The fi.* must .*\. Received: .*\. .*, or copy the log"
    ) as error:
        from_json(text)
    assert received in str(error.value)


def test_findings_of_another_version_are_refused():
    text = json.dumps({"version": 99, "findings": []})
    with pytest.raises(ValueError, match=r"must have version 4\. Received: version 99\. Read"):
        from_json(text)


def test_reports_of_a_log_are_merged_each_finding_once_in_order_of_steps():
    early = dataclasses.replace(LATE, step=10)
    assert merge_findings([]) == []
    assert merge_findings([[LATE], [LATE, early], [BEFORE]]) == [BEFORE, early, LATE]


def test_a_finding_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LATE.step = 4  # type: ignore[misc]
