"""A diagnosis: order, verdict and text of its findings."""

import ast
import json

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis import diagnosis as module
from tensorboard_plugin_initkit.diagnosis.diagnosis import Diagnosis, diagnose_history
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.kinds import KINDS
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tests import ROOT
from tests.tensorboard_plugin_initkit.diagnosis.made import faulty_record, made, supervised

pytestmark = pytest.mark.numpy_alone

NOTE = Finding("ended_early", "", 90, "It ends.", severity="note", confidence="possible")
WARNING = Finding("vanishing", "fc", 30, "It vanishes.", confidence="likely")
ERROR = Finding(
    "nonfinite",
    "fc",
    40,
    "Numbers are lost.",
    {"elements": np.inf},
    severity="error",
    confidence="certain",
    cause="They grow.",
    fix=Fix("model.compile(\n    clipnorm=1.0,\n)"),
    consequences=("The loss is NaN.",),
)


def history_of(losses, every=10):
    steps = np.arange(len(losses)) * every
    layout = Layout((Variable("fc/kernel", "fc", (2, 2)),))
    losses = np.array(losses, np.float32)[:, None]
    values = {
        "norm": np.ones_like(losses),
        "weight_norm": np.ones_like(losses),
        "update_norm": np.full_like(losses, 0.01),
        "nonfinite": np.zeros_like(losses),
    }
    history = GradientHistory(None)
    history.append(Chunk(layout, steps, values, {"loss": losses}))
    return history


def test_a_diagnosis_is_a_sequence_worst_first():
    diagnosis = Diagnosis([NOTE, WARNING, ERROR], "Does not learn.", ["A part is lost."])
    assert list(diagnosis) == [ERROR, WARNING, NOTE] == list(diagnosis.findings)
    assert diagnosis
    assert (len(diagnosis), diagnosis[0], diagnosis[1:]) == (3, ERROR, (WARNING, NOTE))
    assert not Diagnosis([])
    assert repr(diagnosis) == "<Diagnosis with 3 findings: Does not learn.>"


def test_it_is_printed_with_cause_fix_and_numbers():
    diagnosis = Diagnosis([WARNING, ERROR], "Does not learn.", ["A part is lost."])
    assert (
        str(diagnosis)
        == """\
Does not learn.

1. error, certain: nonfinite, `fc`, step 40
   Numbers are lost.
   Why: They grow.
   What to change:
       model.compile(
           clipnorm=1.0,
       )
   Numbers: elements inf
   What follows from this:
     - The loss is NaN.
   More: docs/explanations/kinds.md#nonfinite

2. warning, likely: vanishing, `fc`, step 30
   It vanishes.
   More: docs/explanations/kinds.md#vanishing

Note: A part is lost."""
    )


def test_it_becomes_json():
    told = Diagnosis([ERROR, WARNING], "Does not learn.", ["A part is lost."]).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["verdict"] == "Does not learn."
    assert [finding["kind"] for finding in told["findings"]] == ["nonfinite", "vanishing"]
    assert told["findings"][0]["evidence"] == {"elements": "inf"}


def test_errors_can_be_raised():
    diagnosis = Diagnosis([WARNING, NOTE])
    assert diagnosis.raise_for_errors() is diagnosis
    with pytest.raises(ValueError, match=r"(?s)Does not learn.*Numbers are lost.*clipnorm=1\.0"):
        Diagnosis([ERROR], "Does not learn.").raise_for_errors()


@pytest.mark.parametrize(
    ("losses", "findings", "verdict"),
    [
        ([1.0], [ERROR], "Does not learn. Numbers are lost."),
        ([1.0] * 9, [WARNING, NOTE], "Does not learn. It vanishes."),
        (np.geomspace(1, 0.1, 9), [WARNING], "Learns, but something is wrong. It vanishes."),
        (np.geomspace(1, 0.1, 9), [NOTE], "Healthy: the loss was 1 at first and 0.1 after 81 st"),
        ([1.0, 0.9], [], "Too early to say: 11 of 30 steps."),
        ([1.0, 0.9], [NOTE], f"Too early to say: 11 of 30 steps. {NOTE.message}"),
        ([1.0] * 4, [], "Nothing wrong found: the loss was 1 at first and 1 after 31 steps."),
        ([np.nan] * 4, [], "Nothing wrong found in 31 steps; the loss is not known."),
        ([], [], "Too early to say: 0 of 30 steps."),
    ],
)
def test_verdicts_on_trainings(monkeypatch, losses, findings, verdict):
    monkeypatch.setattr(module, "judge", lambda *arguments: findings)
    history = history_of(losses) if len(losses) else GradientHistory()
    assert diagnose_history(history).verdict.startswith(verdict)


@pytest.mark.parametrize(
    ("level", "verdict"),
    [
        (0.69, "No better than guessing yet: the loss is 0.69; always predicting the same"),
        (0.5, "Nothing wrong found: the loss was 0.50"),
    ],
)
def test_a_loss_is_held_against_that_of_the_best_constant(monkeypatch, level, verdict):
    monkeypatch.setattr(module, "judge", lambda *arguments: [])
    supervised(level=level)(record := made())
    assert diagnose_history(record.history()).verdict.startswith(verdict)


def test_a_verdict_says_where_outputs_and_targets_are_not_seen():
    record = made()
    supervised(level=0.4)(record)
    assert "not seen" not in diagnose_history(record.history()).verdict
    record.ports = {}
    assert diagnose_history(record.history()).verdict.endswith("no `compute_loss` is called.")


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([ERROR, WARNING], "Will not learn. Numbers are lost."),
        ([WARNING], "May not learn. It vanishes."),
        ([NOTE], "Nothing wrong found before training."),
    ],
)
def test_verdicts_before_training(monkeypatch, findings, verdict):
    monkeypatch.setattr(module, "judge", lambda *arguments: findings)
    assert diagnose_history(history_of([1.0]), is_start=True).verdict == verdict


def test_kinds_can_be_ignored():
    history = faulty_record("vanishes").history()
    assert [finding.kind for finding in diagnose_history(history)] == ["vanishing"]
    for ignore in (["vanishing"], "vanishing"):
        assert not diagnose_history(history, ignore)
    with pytest.raises(ValueError, match=r"kinds of findings: .*vanishing.*Received: 'dead'"):
        diagnose_history(history, ["dead"])


def test_kinds_are_all_that_rules_find():
    found = {"not_learning"}
    for path in (ROOT / "tensorboard_plugin_initkit" / "diagnosis" / "rules").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name.endswith(("Finding", ".find", "tell")):
                kind = node.args[1 if name.endswith("tell") else 0]
                if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
                    found.add(kind.value)
    assert found - set(KINDS) == set()
    assert set(KINDS) - found <= {"vanishing", "tight_clipping"}  # named in variables


def test_the_documentation_has_a_section_for_each_kind():
    sections = (ROOT / "docs" / "explanations" / "kinds.md").read_text().split("\n## ")[1:]
    assert {section.split("\n")[0] for section in sections} == set(KINDS)
    words = ("\nSeen:", "\nMend:", "\nWhen", "imits:")
    assert [(word, x) for x in sections for word in words if word not in x] == []
    assert max(section.strip().count("\n") for section in sections) <= 14


def test_notes_are_those_of_the_history():
    history = history_of([1.0, np.nan])
    history.notes.append("A part is lost.")
    assert diagnose_history(history).notes == ("A part is lost.",)
