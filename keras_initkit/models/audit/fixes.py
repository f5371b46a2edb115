"""Code that gives weights a right start."""

import math
import re

import keras

from keras_initkit.anatomy.following import Following
from keras_initkit.anatomy.initializers import argument_names
from keras_initkit.models.audit.parts import Part, variance_before


def suggest_initializer(following: Following) -> str:
    """Write an initializer for the intended variance."""
    function = following.function
    if function is None or following.is_last or following.is_gate:
        return "LecunNormal()"
    slope = getattr(function, "keywords", {}).get("negative_slope")
    if slope:
        return f"HeNormal(negative_slope={slope:g})"
    gain = math.sqrt(variance_before(function))
    for name, written in (
        ("relu", "HeNormal()"),
        ("linear", "LecunNormal()"),
        (following.activation, f"LecunNormal(gain='{following.activation}')"),
    ):
        if hasattr(keras.activations, name or "") and math.isclose(
            gain, math.sqrt(variance_before(keras.activations.get(name))), rel_tol=1e-3
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
    for name in argument_names(weight.variable.name):
        if callable(getattr(weight.holder, name, None)):
            aware = "" if sees_all else " with keras_initkit.layer_aware(layer)"
            return f"{name}={initializer}{aware}, or {everywhere}"
    return everywhere
