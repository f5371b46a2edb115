"""Gradients too weak, too strong, or not finite."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.depth import Judgement, judge_depth
from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import find_first, persists, window_mean


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


def find_growth(facts: Facts) -> Iterator[Finding]:
    """Find gradients growing from step to step, as in a diverging training."""
    norm = np.sqrt(np.nansum(np.square(facts.per_variable("norm")), axis=1))
    ready = find_first(facts.ready)
    if ready is None or not (before := window_mean(norm, facts.start)[ready]):
        return
    grown = persists(norm > THRESHOLDS["norm_growth"].value * before, facts.start, facts.ready)
    row = find_first(grown & facts.loss.risen)
    if row is None:
        return
    step, factor = int(facts.steps[row]), float(norm[row] / before)
    yield Finding(
        "exploding",
        "",
        step,
        f"Exploding gradients: at step {step} the norm of all gradients is {factor:.2g} times "
        f"what it was up to step {facts.steps[ready]}, and the loss has doubled.",
        {"factor": factor, "norm": float(norm[row])},
    )


def find_nonfinite(facts: Facts) -> Iterator[Finding]:
    """Find NaN or infinite numbers: one record is enough, as the weights are lost with it.

    The backward pass begins at the output: of the layers with such numbers, the last one of the
    model is where they come from. Where that is the last layer, it is the forward pass.
    """
    affected = facts.find_nonfinite()
    row = find_first(affected.any(axis=1))
    if row is None:
        return
    bad = facts.by_layer(np.logical_or, affected)
    step, last = int(facts.steps[row]), int(np.flatnonzero(bad[row])[-1])
    number, layers = float(np.nansum(facts.per_variable("nonfinite")[row])), int(bad[row].sum())
    what = f"{number:.0f} elements of the gradient are" if number else "weights are"
    is_end = last == len(facts.layers) - 1
    where = "the last recorded layer" if is_end else "the layers after it are not"
    yield Finding(
        "nonfinite",
        facts.layers[last],
        step,
        f"Non-finite numbers: at step {step} {what} NaN or infinite, in {layers} of "
        f"{len(facts.layers)} layers, the last of them `{facts.layers[last]}` ({where}).",
        {"elements": number, "layers": float(layers)},
        severity="error",
    )
