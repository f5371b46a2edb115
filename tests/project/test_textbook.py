"""The demonstration on a smaller scale: every claim of its tables."""

import contextlib
import io
import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import textbook
from rich.console import Console

from tensorboard_plugin_initkit.log.read_log import read_log

# On PyTorch, where trainings begin soonest; the demonstration itself is TensorFlow's.
pytestmark = [pytest.mark.backends("torch"), pytest.mark.slow]

SMALL = textbook.Setting(depth=20, width=64, epochs=5)


class Demonstration(NamedTuple):
    log_dir: Path
    outcomes: dict[str, textbook.Outcome]
    output: str


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    """The demonstration as `make demo` runs it, with smaller networks."""
    log_dir, output, outcomes = tmp_path_factory.mktemp("textbook") / "runs", io.StringIO(), {}
    run_all = textbook.run_all

    def run_small(setting, *args):
        outcomes.update(run_all(SMALL, *args))
        return outcomes

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr(textbook, "run_all", run_small)
        patch.setattr(sys, "argv", ["textbook.py", "--log-dir", str(log_dir)])
        textbook.main()
    return Demonstration(log_dir, outcomes, output.getvalue())


@pytest.fixture(scope="module")
def outcomes(demonstration):
    return demonstration.outcomes


@pytest.fixture(scope="module")
def log_dir(demonstration):
    return demonstration.log_dir


def test_it_says_how_to_look_at_what_it_has_trained(demonstration):
    assert all(f"Training: {name}" in demonstration.output for name in demonstration.outcomes)
    assert "Where training ended" in demonstration.output
    flat = "".join(demonstration.output.split())
    assert f"tensorboard--logdir{demonstration.log_dir}" in flat


# What the textbooks say that is not so, and the demonstration says it.
NOT_BORNE_OUT = {"Xavier suits sigmoid, in a deep network"}


@pytest.mark.parametrize("rule", textbook.RULES, ids=lambda rule: rule.text)
def test_rules_hold_or_are_said_not_to(outcomes, rule):
    assert rule.holds(outcomes) == (rule.text not in NOT_BORNE_OUT), rule.numbers(outcomes)


def test_vanishing_and_exploding_factors_are_those_of_the_weights(outcomes):
    assert outcomes["He x 0.7, ReLU"].expected_factor == pytest.approx(0.7, rel=1e-6)
    assert outcomes["He x 1.4, ReLU"].expected_factor == pytest.approx(1.4, rel=1e-6)
    assert outcomes["Xavier, ReLU"].expected_factor == pytest.approx(math.sqrt(0.5), rel=1e-6)
    for outcome in outcomes.values():
        if outcome.expected_ratio is not None and len(outcome.gradients) > 2:
            assert outcome.factor == pytest.approx(outcome.expected_factor, rel=0.1)
            # Twenty layers of 64 random units each scatter by a factor of two.
            assert abs(math.log(outcome.ratio / outcome.expected_ratio)) < math.log(5)


def test_exploding_weights_end_in_overflow_and_zeros_in_guessing(outcomes):
    assert not math.isfinite(outcomes["He x 1.4, ReLU"].loss)
    assert outcomes["all-zero weights"].loss == pytest.approx(math.log(10), rel=0.01)


def test_the_monitor_speaks_of_bad_starts_and_is_silent_on_good_ones(outcomes):
    kinds = {
        name: {f.kind for f in outcome.findings if f.severity != "note"}
        for name, outcome in outcomes.items()
    }
    assert {name: kind for name, kind in kinds.items() if kind} == {
        "raw inputs": {"input_scale"},
        "all-zero weights": {"equal_weights"},
        "He x 0.7, ReLU": {"bad_start"},
        "He x 1.4, ReLU": {"bad_start"},
        "Xavier, ReLU": {"bad_start"},
        "Xavier, sigmoid": {"deep_sigmoids"},
    }


def test_every_run_is_logged_under_its_own_name(outcomes, log_dir):
    runs = {path.name for path in log_dir.iterdir()}
    assert runs == {name.replace(" ", "_").replace(",", "") for name in outcomes}
    history = read_log(log_dir / "He_ReLU")
    assert history.layers[0] == "hidden_01"
    assert np.isfinite(history["norm"]).all()


def test_tables_show_every_run_and_every_rule(outcomes):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(textbook.outcome_table(outcomes), textbook.rule_table(outcomes))
    text = captured.get()
    with console.capture() as captured:
        console.print(textbook.finding_table(outcomes))
    said = " ".join(captured.get().split())
    for name, outcome in outcomes.items():
        cells = [name, f"{outcome.loss:.3g}", f"{outcome.accuracy:.0%}"]
        if outcome.expected_ratio is not None:
            cells += [f"{outcome.ratio:.1e}", f"{outcome.expected_ratio:.1e}"]
            cells += [f"{outcome.factor:.3f}", f"{outcome.expected_factor:.3f}"]
        assert re.search(" +".join(map(re.escape, cells)), text)
    assert "…" not in text + said
    for words in ("begin with the same value", "per layer at the start", "have a sigmoid"):
        assert words in said
    assert text.count("does not hold") == len(NOT_BORNE_OUT)
    assert text.count("holds") == len(textbook.RULES) - len(NOT_BORNE_OUT)
