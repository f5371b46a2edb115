"""What is new, and how often is looked."""

import dataclasses
import weakref

import numpy as np
import pytest

from keras_initkit.callbacks import judge as judge_module
from keras_initkit.callbacks.judge import Judge
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.judge import judge as diagnose
from tensorboard_plugin_initkit.record.chunk import RECORDED, Chunk
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tensorboard_plugin_initkit.record.setup import LayerSetup, Setup

pytestmark = pytest.mark.numpy_alone

LAYOUT = Layout((Variable("first/kernel", "first", (3, 2)), Variable("last/kernel", "last", (2,))))


def wide_chunk(step, columns):
    """A record of many layers."""
    variables = tuple(Variable(f"{i}/kernel", str(i), (2,)) for i in range(columns))
    values = dict.fromkeys(("norm", "nonfinite"), np.zeros((1, columns), np.float32))
    return Chunk(Layout(variables), np.array([step]), values)


def chunk(*steps, infinite=()):
    """Records of two layers; numbers that are not finite at some steps."""
    tables = {name: np.ones((len(steps), 2), np.float32) for name in RECORDED}
    tables["nonfinite"] = np.zeros_like(tables["norm"])
    for step in infinite:
        tables["nonfinite"][steps.index(step), 1] = 7
    return Chunk(LAYOUT, np.array(steps), tables)


class Time:
    """A clock that stands still except while judging."""

    def __init__(self, judging=0.0):
        self.now, self.judging, self.judged = 100.0, judging, 0
        self.number, self.largest = 0.0, 0  # seconds of a column of a record; and most of these

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock, real = Time(judging=0.01), diagnose

    def judge(history, ended, ignore):
        numbers = len(history) * len(history.variables)
        clock.largest = max(clock.largest, numbers)
        clock.now += clock.judging + clock.number * numbers
        clock.judged += 1
        return real(history, ended, ignore) if numbers < 1e5 else []

    monkeypatch.setattr(judge_module, "judge", judge)
    monkeypatch.setattr(judge_module, "time", clock)
    return clock


def kinds(findings):
    return [(finding.kind, finding.step) for finding in findings]


NONFINITE = [("nonfinite", 2)]


def test_judging_takes_its_share_of_the_time(clock):
    judge = Judge()
    for step in range(3000):
        judge.add(chunk(step))
        clock.now += 0.01
    took = 0.01 * 3000 + clock.judging * clock.judged
    assert clock.judged > 3
    assert clock.judging * (clock.judged - 1) <= 0.002 * took


def test_of_many_columns_few_records_are_judged_and_never_for_long(clock):
    judge, columns, step_time = Judge(), 10_000, 20.0
    record, clock.number = wide_chunk(0, columns), 4e-7
    for step in range(300):
        judge.add(dataclasses.replace(record, steps=np.array([step])))
        spent = clock.now - 100 - step * step_time
        assert spent <= 0.03 + 0.003 * (clock.now - 100)  # the first record is judged at once
        clock.now += step_time
    assert clock.judged > 5
    assert clock.largest <= 2**21 * 1.25 + columns  # a history is thinned when a fifth more came


def test_what_was_not_judged_in_time_is_judged_at_the_end(clock):
    judge = Judge()
    assert judge.add(chunk(0)) == []
    assert judge.add(chunk(1, 2, infinite=[2])) == []
    assert clock.judged == 1
    assert kinds(judge.finish()) == NONFINITE
    assert judge.finish() == []


@pytest.mark.parametrize(("columns", "most"), [(2, 2048), (2000, 2**18 // 2000)])
def test_records_wait_to_be_judged_in_bounded_memory(clock, columns, most):
    judge, clock.judging = Judge(), 1e9
    record, waiting = wide_chunk(0, columns), []
    for step in range(most + 500):
        added = dataclasses.replace(record, steps=np.array([step]))
        judge.add(added)
        waiting.append(weakref.ref(added))
    assert clock.judged == 1
    assert sum(reference() is not None for reference in waiting) < most


def test_records_of_other_layers_are_of_another_training_even_if_none_was_judged(clock):
    judge, clock.judging = Judge(), 50.0
    judge.add(chunk(0))
    judge.add(chunk(1, 2, infinite=[2]))
    layout = dataclasses.replace(LAYOUT, frozen=("first",))
    judge.add(dataclasses.replace(chunk(3), layout=layout))
    assert judge.finish() == []


def test_a_fault_is_new_once_in_each_training(clock):
    judge = Judge()
    for training in range(1, 4):
        found = []
        for i in range(5):
            found += judge.add(chunk(2 * i, 2 * i + 1, infinite=[2 * i] if i else []))
            clock.now += 100
        assert kinds(found) == NONFINITE
        assert judge.finish() == []
        assert clock.judged == 6 * training
        judge.restart()
        assert judge.finish() == []


def test_kinds_that_are_ignored_hide_nothing_that_comes_later(clock):
    for ignore, told in ((set(), NONFINITE), ({"nonfinite"}, [("dead_units", 10)])):
        judge = Judge(frozenset(ignore))
        found = judge.add(chunk(*range(4), infinite=[2]))
        clock.now += 100
        assert kinds(found + judge.add(chunk(*range(4, 40)))) == told


@pytest.mark.parametrize("knows", [True, False])
def test_a_model_is_asked_once_or_again_at_the_end(clock, monkeypatch, knows):
    warning = Finding("not_learning", "", 1, "…", severity="warning")
    cause = Finding("mixed_samples", "", 1, "…", severity="warning")
    asked = []

    def judged(history, *arguments):
        return [cause if history.setup.mixes_samples else warning] if len(history) > 1 else []

    def ask(setup):
        asked.append(setup)
        return dataclasses.replace(setup, mixes_samples=True) if knows else None

    monkeypatch.setattr(judge_module, "judge", judged)
    judge = Judge()
    judge.describe(Setup())
    found = []
    for step in range(4):
        found.append(judge.add(chunk(step), ask))
        clock.now += 100
    assert [kinds(some) for some in found[:2]] == [[], kinds([cause if knows else warning])]
    assert found[2:] == [[], []]
    assert judge.finish(ask) == []
    assert asked == [Setup()] * (1 if knows else 2)
    assert judge.setup == Setup(mixes_samples=knows)


def test_a_model_with_a_certain_fault_is_not_asked(clock, monkeypatch):
    error = Finding("logits", "", 1, "…", severity="error")
    warning = Finding("not_learning", "", 1, "…", severity="warning")
    monkeypatch.setattr(judge_module, "judge", lambda *arguments: [warning, error])
    judge = Judge()
    judge.describe(Setup())
    assert judge.add(chunk(0), lambda setup: pytest.fail("asked"))
    assert judge.finish(lambda setup: pytest.fail("asked")) == []


@pytest.mark.parametrize("seconds", [0.1, 5.0])
def test_a_model_that_takes_long_to_give_no_answer_is_not_asked_again(clock, monkeypatch, seconds):
    warning = Finding("not_learning", "", 1, "…", severity="warning")
    monkeypatch.setattr(judge_module, "judge", lambda *arguments: [warning])
    asked = []

    def ask(setup):
        asked.append(setup)
        clock.now += seconds

    judge = Judge()
    judge.describe(Setup())
    judge.add(chunk(0), ask)
    judge.finish(ask)
    assert len(asked) == (1 if seconds > 1 else 2)


def test_an_answer_holds_for_the_next_training_of_the_same_model():
    known = Setup(mixes_samples=True)
    judge = Judge()
    judge.describe(known)
    judge.describe(Setup(steps=100))
    assert judge.setup == Setup(steps=100, mixes_samples=True)
    judge.describe(Setup((LayerSetup("dense", "Dense"),)))
    assert judge.setup is not None
    assert not judge.setup.mixes_samples
