"""Trainable layers without a gradient."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding, count_layers
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import find_first, find_runs


def find_no_gradient(facts: Facts) -> Iterator[Finding]:
    """Find layers without influence on the loss: the framework gives them no gradient."""
    missing = np.isnan(facts.per_variable("nonfinite"))
    if not missing.any():
        return
    missing = facts.by_layer(np.logical_and, missing)
    # An optimizer may wait for others, as in adversarial training: its own records count.
    heard = np.zeros(missing.shape, np.int64)
    for optimizer in np.unique(facts.optimizer_of):
        own = facts.optimizer_of == optimizer
        heard[:, own] = np.cumsum(~missing[:, own].all(axis=1))[:, None]
    never = np.logical_and.accumulate(missing, axis=0) & facts.ready[:, None]
    never &= heard >= THRESHOLDS["window_records"].value
    row = find_first(never.any(axis=1))
    if row is None:
        return
    for begin, end in find_runs(never[row]):
        step, layer = int(facts.steps[row]), facts.layers[begin]
        others = f", like the {count_layers(end - begin)} after it" if end > begin else ""
        yield Finding(
            "no_gradient",
            layer,
            step,
            f"No gradient: up to step {step} `{layer}` has received no gradient{others}; the loss "
            "does not depend on its weights.",
            {"layers": float(end - begin + 1)},
        )
