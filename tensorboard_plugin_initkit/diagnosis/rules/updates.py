"""Updates too small or too large for the initial weights."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import find_first, persists, quotient


def find_large_updates(facts: Facts) -> Iterator[Finding]:
    """Find weights that have grown many times, in the median of the layers with weights at first.

    A zero-initialised head rightly grows.
    """
    rows = facts.first_rows
    weights = facts.norm_of_layers(facts.per_variable("weight_norm")[rows])
    began = weights[0] > 0
    if not began.any():
        return
    growth = np.median(weights[:, began] / weights[0, began], axis=1)
    judged = (facts.ready & ~facts.loss.halved)[rows]
    row = find_first(judged & (growth >= THRESHOLDS["weight_growth"].value))
    if row is None:
        return
    step, value = int(facts.steps[row]), float(growth[row])
    yield Finding(
        "large_updates",
        "",
        step,
        f"Large updates: from step {facts.steps[0]} to {step} the weights of the median layer "
        f"grew to {value:.2g} times their norm; what they began with is lost.",
        {"growth": value},
    )


def find_small_updates(facts: Facts) -> Iterator[Finding]:
    """Find updates that float32 rounds away in all layers, unless the learning rate is rising.

    Only the layers with weights at the start are looked at.
    """
    rows = facts.first_rows
    ratios = facts.per_variable("update_ratio")[rows]
    if np.isnan(ratios).all():  # Not recorded.
        return
    norms = facts.per_variable("weight_norm")[rows]
    weights = facts.norm_of_layers(norms)
    began = weights[0] > 0
    if not began.any():
        return
    updates = facts.norm_of_layers(np.nan_to_num(ratios, posinf=0.0) * norms)
    ratio = quotient(updates, weights)[:, began].max(axis=1)
    start, rate = facts.start[rows], facts.total("learning_rate")
    moved = (facts.per_variable("norm")[rows] > 0).any(axis=1)
    small = (ratio < THRESHOLDS["update_small"].value) & moved
    warming = rate[rows] > rate[start]
    row = find_first(persists(small, start, facts.ready[rows]) & ~warming)
    if row is None:
        return
    step, value = int(facts.steps[row]), float(ratio[row])
    yield Finding(
        "small_updates",
        "",
        step,
        f"Small updates: from step {facts.steps[facts.start[row]]} to {step} an update changes "
        f"the weights of no layer by more than {value:.2g} of their norm, which float32 rounds "
        "away.",
        {"update_ratio": value},
    )
