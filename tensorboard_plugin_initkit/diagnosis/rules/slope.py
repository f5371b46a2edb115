"""Vanishing and exploding gradients over depth."""

from collections.abc import Iterator

from tensorboard_plugin_initkit.diagnosis.depth import Judgement, judge_depth
from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.windows import find_first


def find_slopes(facts: Facts) -> Iterator[Finding]:
    """Find signals falling or growing too steeply on their way back to the input."""
    for judgement in judge_depth(facts):
        for kind, steep in (("vanishing", judgement.falls), ("exploding", judgement.grows)):
            row = find_first(steep)
            if row is not None:
                yield _finding(facts, judgement, kind, row)


def _finding(facts: Facts, judgement: Judgement, kind: str, row: int) -> Finding:
    step, between = int(facts.steps[row]), len(judgement.variables) - 1
    ends = facts.layer_of[judgement.variables[[0, -1]]]
    first, last = (facts.layers[i] for i in ends)
    line = judgement.line_at(row)
    changes = "falls" if kind == "vanishing" else "grows"
    return Finding(
        kind,
        first,
        step,
        f"{kind.capitalize()} gradients: by step {step} the RMS gradient {changes} on its way back "
        f"from `{last}` to `{first}` by x{line.factor:.2g} per layer, by x{line.total:.2g} over "
        f"{between} layers.",
        {"ratio": line.total, "factor": line.factor, "layers": float(between)},
    )
