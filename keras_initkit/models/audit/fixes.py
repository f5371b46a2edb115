"""Fixes: code for weights with a wrong start."""

import math
import re
from typing import Any

import keras

from keras_initkit.anatomy.following import Following
from keras_initkit.anatomy.initializers import argument_names
from keras_initkit.models.audit.parts import Part
from keras_initkit.theory.gains import forward_gain


def intended_variance(function: Any) -> float:
    """Return the variance before an activation for outputs of mean square 1."""
    try:
        return forward_gain(function) ** 2
    except (ValueError, TypeError):  # softmax and the like, which have no gain of their own
        return 1.0


def suggest_initializer(following: Following) -> str:
    """Write an initializer for the intended variance."""
    function = following.function
    if function is None or following.is_last or following.is_gate:
        return "LecunNormal()"
    slope = getattr(function, "keywords", {}).get("negative_slope")
    if slope:
        return f"HeNormal(negative_slope={slope:g})"
    gain = math.sqrt(intended_variance(function))
    for name, written in (
        ("relu", "HeNormal()"),
        ("linear", "LecunNormal()"),
        (following.activation, f"LecunNormal(gain='{following.activation}')"),
    ):
        if hasattr(keras.activations, name or "") and math.isclose(
            gain, math.sqrt(intended_variance(keras.activations.get(name))), rel_tol=1e-3
        ):
            return written
    return f"LecunNormal(gain={gain:.4g})"


def suggest_code(part: Part) -> str:
    """Write the code for a kernel with the intended variance, in one line."""
    assert part.view is not None
    weight = part.weight
    initializer = suggest_initializer(part.following)
    sees_all = part.keras_fans[0] == part.view.fans[0]
    _, weights, units = part.view.matrix_shape
    if "Orthogonal" in type(part.initializer).__name__ and units <= weights:
        # As it is meant: each gate, group or head for itself.
        initializer = re.sub(r"^LecunNormal", "Orthogonal", initializer)
        initializer = re.sub(r"^HeNormal\(\)", "Orthogonal(gain='relu')", initializer)
        sees_all = sees_all and part.view.maps_shape[0] == 1
    everywhere = f"keras_initkit.reinitialize(model, {{{weight.path!r}: {initializer}}})"
    names = argument_names(weight.variable.name)
    known = [name for name in names if callable(getattr(weight.holder, name, None))]
    if not known:
        return everywhere
    argument = f"{known[0]}={initializer}"
    if not sees_all:
        argument += " with keras_initkit.layer_aware(layer)"
    return f"{argument}, or {everywhere}"
