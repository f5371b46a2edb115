"""Gradients exploding from step to step."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import find_first, persists, window_mean


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
