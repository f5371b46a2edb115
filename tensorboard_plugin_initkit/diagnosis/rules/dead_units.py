"""Layers with no gradient in most of their units."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding, count_layers
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import Floats, find_first, persists, quotient


def find_dead_units(facts: Facts) -> Iterator[Finding]:
    """Find layers where most units receive exactly no gradient, in bias and kernel; others do.

    Both are asked for: the bias of attention's keys can be zero by theory, a kernel's columns
    because of inputs of zero. Of several layers, the one nearest the output is named: units
    before it may be dead because of it.
    """
    units, limit = np.flatnonzero(facts.units), THRESHOLDS["dead_share"].value
    share = facts.per_variable("dead_units")[:, units]
    if not (share >= limit).any():
        return
    share = np.minimum(share, _share_of_zeros(facts)[:, units])
    dead = (share >= limit) & (facts.per_variable("norm")[:, units] > 0)
    lasting = persists(dead, facts.start, facts.ready) & ~facts.loss.good[:, None]
    row = find_first(lasting.any(axis=1))
    if row is None:
        return
    column = int(np.flatnonzero(lasting[row])[-1])
    layer, step = facts.layers[facts.layer_of[units[column]]], int(facts.steps[row])
    number, value = int(lasting[row].sum()), float(share[row, column])
    others = f", as in at least {count_layers(number - 1)} more" if number > 1 else ""
    yield Finding(
        "dead_units",
        layer,
        step,
        f"Dead units: from step {facts.steps[facts.start[row]]} to {step} {value:.0%} of the "
        f"units of `{layer}` receive no gradient{others}.",
        {"share": value, "layers": float(number)},
    )


def _share_of_zeros(facts: Facts) -> Floats:
    """Return the share of exact zeros in each variable's whole layer, (n, variables)."""
    norm, rms = facts.per_variable("norm"), facts.per_variable("rms")
    size = np.nanmax(np.square(quotient(norm, rms)), axis=0, initial=1.0)
    size = np.where(np.isfinite(size), size, 1.0) * np.ones_like(norm)
    zeros = facts.by_layer(np.add, np.nan_to_num(facts.per_variable("zeros")) * size)
    return quotient(zeros, facts.by_layer(np.add, size))[:, facts.layer_of]
