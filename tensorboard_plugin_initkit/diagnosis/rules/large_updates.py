"""Updates overwriting the initial weights."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import find_first


def find_large_updates(facts: Facts) -> Iterator[Finding]:
    """Find weights that have grown many times, in the median of the layers with weights at first.

    A zero-initialised head rightly grows.
    """
    rows = facts.first_rows
    squares = np.square(np.nan_to_num(facts.per_variable("weight_norm")[rows]))
    weights = np.sqrt(facts.by_layer(np.add, squares))
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
