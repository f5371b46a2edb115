"""Initializers as they are written: the one that a layer has, and the one that suits it."""

import inspect
import math
from typing import Any

import keras

from keras_initkit.anatomy.graph import Following
from keras_initkit.theory.gains import forward_gain


def intended_variance(function: Any) -> float:
    """The variance of its inputs for which an activation puts out signals of mean square 1."""
    try:
        return forward_gain(function) ** 2
    except (ValueError, TypeError):  # softmax and the like, which have no gain of their own
        return 1.0


def suited_initializer(following: Following) -> str:
    """The initializer that leads to the intended variance, as it is written."""
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


def shown_initializer(initializer: Any) -> str:
    """An initializer in one line, with the arguments that are not its defaults."""
    if type(initializer).__name__.startswith("_"):  # what a layer made of one
        initializer = getattr(initializer, "initializer", initializer)
    if initializer is None:
        return ""
    if not isinstance(initializer, keras.initializers.Initializer):
        return getattr(initializer, "__name__", type(initializer).__name__)
    cls = type(initializer)
    defaults = inspect.signature(cls.__init__).parameters
    hidden = ("seed", "input_axes", "output_axes")
    shown = [
        f"{name}={_shown(getattr(initializer, name, value))}"
        for name, value in initializer.get_config().items()
        if name not in hidden and (name not in defaults or defaults[name].default != value)
    ]
    return f"{cls.__name__}({', '.join(shown)})" if shown else cls.__name__


def _shown(value: Any) -> str:
    if isinstance(value, keras.initializers.Initializer):
        return shown_initializer(value)
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
