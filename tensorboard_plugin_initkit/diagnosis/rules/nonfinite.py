"""NaN or infinite gradients."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.windows import find_first


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
    where = (
        "the last recorded layer"
        if last == len(facts.layers) - 1
        else "the layers after it are not"
    )
    yield Finding(
        "nonfinite",
        facts.layers[last],
        step,
        f"Non-finite numbers: at step {step} {what} NaN or infinite, in {layers} of "
        f"{len(facts.layers)} layers, the last of them `{facts.layers[last]}` ({where}).",
        {"elements": number, "layers": float(layers)},
        severity="error",
    )
