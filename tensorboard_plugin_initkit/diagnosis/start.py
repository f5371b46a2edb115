"""The start of a training by its initializers: signal and gradient from layer to layer.

Mean-field theory of random networks (Poole et al. 2016, Schoenholz et al. 2017): pre-activations
are Gaussian, and a layer of weights of variance v makes q' = fan_in v E f(z)² of z ~ N(0, q);
gradients are multiplied by fan_out v E f'(z)² on their way back.
"""

import ast
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tensorboard_plugin_initkit.diagnosis.windows import Floats

_Z = np.linspace(-8, 8, 4001)
_DENSITY = np.exp(-(_Z**2) / 2)
_DENSITY /= _DENSITY.sum()

ACTIVATIONS: dict[str, Callable[[Floats], Any]] = {
    "": lambda z: z,
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.maximum(z, 0.2 * z),
    "relu6": lambda z: np.clip(z, 0, 6),
    "tanh": np.tanh,
    "sigmoid": lambda z: 0.5 + 0.5 * np.tanh(z / 2),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "selu": lambda z: 1.0507 * np.where(z > 0, z, 1.67326 * np.expm1(np.minimum(z, 0))),
    "silu": lambda z: z * (0.5 + 0.5 * np.tanh(z / 2)),
    "softplus": lambda z: np.logaddexp(0, z),
    "softsign": lambda z: z / (1 + np.abs(z)),
    "gelu": lambda z: z * (0.5 + 0.5 * np.tanh(0.7978846 * (z + 0.044715 * z**3))),
}


class Start(NamedTuple):
    """Factors of one layer on the variance of the signal, and of the gradient."""

    forward: float
    backward: float


def follow_start(layers: list[tuple[str, str, int, int]], variance: float) -> list[Start]:
    """Follow the signal through layers in a row.

    Args:
        layers: The activation before each, its initializer as written in Python, and its fans.
        variance: Mean square of the input.

    Returns:
        For each layer its factors at the start, with the activation before it; empty if one is
        not known.
    """
    starts, q = [], variance
    for activation, initializer, fan_in, fan_out in layers:
        weight = read_variance(initializer, fan_in, fan_out)
        function = ACTIVATIONS.get(activation)
        if weight is None or function is None or not np.isfinite(q) or not q:
            return []
        z = np.sqrt(q) * _Z
        values = function(z)
        after = fan_in * weight * float(np.sum(_DENSITY * values**2))
        slope = float(np.sum(_DENSITY * np.gradient(values, z) ** 2))
        starts.append(Start(after / q, fan_out * weight * slope))
        q = after
    return starts


def read_initializer(text: str) -> tuple[str, dict[str, Any]]:
    """Read an initializer as written in Python: its class, and its arguments."""
    try:
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.Call):
            values = {word.arg or "": ast.literal_eval(word.value) for word in node.keywords}
            return ast.unparse(node.func).rpartition(".")[2], values
        return ast.unparse(node).rpartition(".")[2], {}
    except (SyntaxError, ValueError):
        return "", {}


def read_variance(text: str, fan_in: int, fan_out: int) -> float | None:
    """Return the variance of an initializer's weights, `None` if it is not known."""
    name, given = read_initializer(text)
    scales = {"Glorot": 2 / (fan_in + fan_out), "Xavier": 2 / (fan_in + fan_out)}
    scales |= {"He": 2 / fan_in, "LeCun": 1 / fan_in, "Lecun": 1 / fan_in}
    stem = name.removesuffix("Uniform").removesuffix("Normal")
    if stem in scales and not given:
        return scales[stem]
    if name == "VarianceScaling" and given.keys() <= {"scale", "mode", "distribution"}:
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        fan = fans.get(given.get("mode", "fan_in"))
        return float(given.get("scale", 1.0)) / fan if fan else None
    if name in ("RandomNormal", "TruncatedNormal") and given.keys() <= {"mean", "stddev"}:
        # Cut off at two standard deviations.
        cut = 0.774 if name == "TruncatedNormal" else 1.0
        return float(given.get("mean", 0.0)) ** 2 + cut * float(given.get("stddev", 0.05)) ** 2
    if name == "RandomUniform" and given.keys() <= {"minval", "maxval"}:
        low, high = float(given.get("minval", -0.05)), float(given.get("maxval", 0.05))
        return (low**2 + low * high + high**2) / 3
    if name.startswith("Orthogonal") and given.keys() <= {"gain"}:
        return float(given.get("gain", 1.0)) ** 2 / max(fan_in, fan_out)
    return None


def is_constant(text: str) -> bool:
    """Check for an initializer of one value for all weights."""
    return read_initializer(text)[0] in ("Zeros", "Ones", "Constant")
