"""Layers with a gradient of exactly zero."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding, count_layers
from tensorboard_plugin_initkit.diagnosis.windows import find_runs, persists


def find_cut_off(facts: Facts) -> Iterator[Finding]:
    """Find layers without any gradient, up to one that passes nothing back.

    Where they begin at the input, a loss that has halved is no excuse: fitting the output's bias
    can do that, after a start with a large loss. A loss still falling is one, and where all layers
    are without gradient, so is a loss near zero. Further on the layers may be a branch that others
    go around: there any good loss is enough.
    """
    norm = facts.per_variable("norm")
    if (norm != 0).all():
        return
    nothing = facts.by_layer(np.logical_and, (norm == 0) | np.isnan(norm))
    nothing &= facts.by_layer(np.logical_or, norm == 0)
    zero = persists(nothing, facts.start, facts.ready)
    from_input = np.logical_and.accumulate(zero, axis=1)
    loss = facts.loss
    at_input = loss.falling | (loss.gone & zero.all(axis=1))
    zero &= ~np.where(from_input, at_input[:, None], loss.good[:, None])
    said = np.zeros(len(facts.layers), bool)
    for row in np.unique(zero.argmax(axis=0)[zero.any(axis=0)]):
        for begin, end in find_runs(zero[row]):
            if not said[begin : end + 1].any():
                yield _finding(facts, int(row), begin, end)
            said[begin : end + 1] = True


def _finding(facts: Facts, row: int, begin: int, end: int) -> Finding:
    step, count = int(facts.steps[row]), end - begin + 1
    evidence = {"layers": float(count), "from_input": float(begin == 0)}
    since = f"from step {facts.steps[facts.start[row]]} to {step}"
    if count == len(facts.layers):
        message = (
            f"No gradient: {since} the gradient is exactly zero in all {count} recorded layers."
        )
        return Finding("no_gradient", "", step, message, evidence)
    layer = facts.layers[end]
    others = f" and in the {count_layers(end - begin)} before it" if end > begin else ""
    message = f"{since} the gradient is exactly zero in `{layer}`{others}"
    if end + 1 < len(facts.layers) and _is_all_zero(facts, row, end + 1):
        after = facts.layers[end + 1]
        message = f"No gradient: {message}; the weights of `{after}` after it are all zero."
        return Finding("no_gradient", layer, step, message, evidence)
    message = f"Dead units: {message}; all of its units are inactive or saturated."
    return Finding("dead_units", layer, step, message, evidence | {"share": 1.0})


def _is_all_zero(facts: Facts, row: int, layer: int) -> bool:
    """Check a layer for weights of zero, without its biases."""
    columns = facts.layer_of == layer
    weights = columns & ~facts.units if columns.sum() > 1 else columns
    return bool((facts.per_variable("weight_norm")[row, weights] == 0).all())
