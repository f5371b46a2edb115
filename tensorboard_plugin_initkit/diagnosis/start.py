"""The start of a training by its initializers: signal and gradient from layer to layer.

Mean-field theory of random networks (Poole et al. 2016, Schoenholz et al. 2017): pre-activations
are Gaussian, and a layer of weights of variance v makes q' = fan_in v E f(z)² of z ~ N(0, q);
gradients are multiplied by fan_out v E f'(z)² on their way back.
"""

import ast
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import Floats
from tensorboard_plugin_initkit.diagnosis.wiring import (
    DENSE,
    find_input_size,
    is_normalization,
    is_passing,
    read_activation,
)
from tensorboard_plugin_initkit.record.setup import LayerSetup
from tensorboard_plugin_initkit.safe_text import write_number, write_part

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


# Layers that leave a signal nearly as it is, besides those that hand it on.
_NEARLY_PASSING = re.compile(
    r"Activation|ReLU|LeakyReLU|(Global)?(Average|Max)Pooling\dD|ZeroPadding\dD|UpSampling\dD"
)


class Link(NamedTuple):
    """A layer with a kernel, in a row of such layers.

    Attributes:
        layer: The layer.
        activation: The activation before it.
        variance: The variance of its weights; `None` if it is not known.
        fan_in, fan_out: Its fans.
    """

    layer: LayerSetup
    activation: str
    variance: float | None
    fan_in: float
    fan_out: float


class Start(NamedTuple):
    """Factors of one layer on the variance of the signal, and of the gradient."""

    forward: float
    backward: float


def read_chain(
    facts: Facts, known: Mapping[str, tuple[float, float, float]] = MappingProxyType({})
) -> list[Link]:
    """Read the hidden layers with kernels, in a row from the input to the last one before the head.

    Empty where others are between: sums, normalizations, unknown classes. A normalization of the
    inputs may come first.

    Args:
        facts: The setup, and the shape of the inputs.
        known: For the paths of layers, the variance of their weights and their fans, where they
            are not to be read from initializers.
    """
    chain: list[Link] = []
    activation = ""
    for position, item in enumerate(facts.setup.layers):
        if item.takes not in ((position - 1,), (-1,), ()) or (position and not item.takes):
            return []
        if DENSE.fullmatch(item.type) and item.shape:
            size = item.arguments.get("kernel_size", ())
            field = int(np.prod(size)) if item.type != "Dense" else 1
            fan_in, fan_out = find_input_size(facts, position) * field, item.shape[-1] * field
            text = str(item.arguments.get("kernel_initializer", ""))
            own = (read_variance(text, fan_in, fan_out) if fan_in else None, fan_in, fan_out)
            chain.append(Link(item, activation, *known.get(item.path, own)))
            activation = ""
        elif is_normalization(item) and not chain:
            continue
        elif not is_nearly_passing(item):
            return []
        if item.activation not in ("", "linear"):
            activation = read_activation(item.activation) or "unknown"
    return chain[:-1] if all(link.fan_in for link in chain) else []


def is_nearly_passing(layer: LayerSetup) -> bool:
    """Check for a layer that leaves the size of a signal nearly as it is."""
    return is_passing(layer) or _NEARLY_PASSING.fullmatch(layer.type) is not None


def follow_start(chain: list[Link], variance: float) -> list[Start]:
    """Follow the signal through layers in a row.

    Args:
        chain: The layers.
        variance: Mean square of the input.

    Returns:
        For each layer its factors at the start, with the activation before it; empty if one is
        not known.
    """
    starts, q = [], variance
    for link in chain:
        function = ACTIVATIONS.get(link.activation)
        if link.variance is None or function is None or not np.isfinite(q) or not q:
            return []
        z = np.sqrt(q) * _Z
        values = function(z)
        after = link.fan_in * link.variance * float(np.sum(_DENSITY * values**2))
        slope = float(np.sum(_DENSITY * np.gradient(values, z) ** 2))
        starts.append(Start(after / q, link.fan_out * link.variance * slope))
        q = after
    return starts


def judge_start(
    chain: list[Link], variance: float = 1.0
) -> tuple[str, str, Fix, str, dict[str, float]] | None:
    """Judge the start of layers in a row by their product: from the first to the last of them.

    Returns:
        Of a start that loses or blows up signal or gradient: what is seen, the cause, the fix, the
        path of the second layer, and numbers. `None` of others.
    """
    starts = follow_start(chain, variance)[1:]
    if not starts:
        return None
    forward, backward = (float(np.prod(factors)) for factors in zip(*starts, strict=True))
    limit = THRESHOLDS["start_ratio"].value
    worst = max((forward, backward), key=lambda factor: abs(np.log(max(factor, 1e-300))))
    if limit < worst < 1 / limit:
        return None
    what = "signal" if worst == forward else "gradient"
    depth, layer, activation = len(chain), chain[1].layer, chain[1].activation
    text = str(layer.arguments.get("kernel_initializer", ""))
    name = {"relu": "HeNormal", "selu": "LecunNormal"}.get(activation, "GlorotUniform")
    if activation in ("leaky_relu", "gelu", "silu", "elu", "softplus"):
        name = "HeNormal"
    paths = [link.layer.path for link in chain]
    cure = tell_cure(chain, float(np.sqrt(backward)))
    if name == (text or "GlorotUniform"):  # it is the activation
        fix = Fix(
            f"Start all {depth} layers together: {cure}; or use "
            '`activation="relu"` with `kernel_initializer=HeNormal()`.',
            {"initialize": {"layers": paths}},
        )
    else:
        repairs = {"reinitialize": {"layers": paths, "initializer": name}}
        text_of_fix = f"Use `kernel_initializer={name}()` in all {depth} layers, or {cure}."
        fix = Fix(text_of_fix, repairs)
    each, whole = worst ** (0.5 / (depth - 1)), float(np.sqrt(worst))
    ends = paths if what == "signal" else paths[::-1]  # from where it comes to where it goes
    seen = (
        f"`{text}` before `{activation or 'linear'}` multiplies the {what} by "
        f"{write_number(each, 2)} per layer at the start: "
        f"`{ends[-1]}` receives {_write_times(whole)} the {what} of `{ends[0]}`."
    )
    cause = (
        f"Weights are drawn too {'small' if worst < 1 else 'large'} for this activation: over the "
        f"depth the {what} {'is lost' if worst < 1 else 'explodes'}."
    )
    changes = {"signal": np.sqrt(forward), "gradient": np.sqrt(backward)}
    numbers = {name: float(change) for name, change in changes.items()} | {"layers": float(depth)}
    return seen, cause, fix, layer.path, numbers


def tell_cure(chain: list[Link], received: float) -> str:
    """Name `initialize` as the cure for layers in a row, with its effect if there are any.

    At the critical point, to which it brings weights, a layer multiplies the norm of gradients by
    sqrt(fan_out/fan_in) (`keras_initkit.theory.critical`).

    Args:
        chain: The layers.
        received: The share of the last layer's gradient that the first one receives now.
    """
    cure = "`keras_initkit.initialize(model, x)`"
    if len(chain) < 2:
        return cure
    after = float(np.sqrt(np.prod([link.fan_out / link.fan_in for link in chain[1:]])))
    first, last = (chain[i].layer.path for i in (0, -1))
    return (
        f"{cure}: `{first}` would receive {_write_times(after)} the gradient of `{last}`, "
        f"not {_write_times(received)} it"
    )


def _write_times(factor: float) -> str:
    """Write a factor in front of a noun: "1/33,000 of", "all of" or "20,000 times"."""
    number = write_part(factor)
    if number == "1":
        return "all of"
    return f"{number} of" if "/" in number else f"{number} times"


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
    if stem in scales and (not given or (given.keys() == {"gain"} and _is_number(given["gain"]))):
        usual = 2 if stem == "He" else 1  # the square of the gain without the argument
        return scales[stem] * (given["gain"] ** 2 / usual if given else 1)
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def is_constant(text: str) -> bool:
    """Check for an initializer of one value for all weights."""
    return read_initializer(text)[0] in ("Zeros", "Ones", "Constant")
