"""Gradients too weak, too strong, or not finite."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.diagnosis.depth import Judgement, judge_depth
from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding, count_layers
from tensorboard_plugin_initkit.diagnosis.fix import Fix, activate
from tensorboard_plugin_initkit.diagnosis.overflow import tell_overflow
from tensorboard_plugin_initkit.diagnosis.prediction import explain_slope
from tensorboard_plugin_initkit.diagnosis.start import read_chain, tell_cure
from tensorboard_plugin_initkit.diagnosis.tell import tell
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import Bools, find_first, persists, window_mean
from tensorboard_plugin_initkit.diagnosis.wiring import list_hidden, read_activation
from tensorboard_plugin_initkit.safe_text import write_number

# They hardly change where they are far from 0.
_FLAT = ("sigmoid", "hard_sigmoid", "tanh", "softsign")
_DATA = {"x": "inputs", "y": "targets", "sample_weight": "sample weights"}
_OVERFLOW = "On its way to the output the signal becomes too large for its number format."
_UNSEEN = (
    "Updates are too large, so that numbers grow until they have no place in their format; or the "
    "data contain such numbers, or something is divided by 0. Which of these came first is not "
    "seen: the step calls no `compute_loss`."
)
_UNDEFINED = (
    "No update was made yet: no learning rate can help. Something has no value: a division by 0, "
    "or a logarithm or root of 0 or less, as of a count, a norm or a mask of nothing but 0; or an "
    "exponential of a large number."
)
# Operations that have no value everywhere, or overflow.
_VALUELESS = re.compile(
    r"Lambda|(True|Floor)?Divide|Log(10|1p|2)?|R?[Ss]qrt|Power|Reciprocal|Norm(alize)?|Exp(m1)?"
)
_LOWER = Fix(
    "Lower the learning rate, set `clipnorm=1.0` in the optimizer, and scale the inputs.",
    {"restart": {}, "learning_rate": {"factor": 0.1}, "clip": {"norm": 1.0}},
)
_FIND = (
    "Look for NaN and infinity in the data with `np.isfinite(data).all()`, and fill or drop these "
    "samples."
)
_SMALLER = Fix("Begin with smaller weights, such as `kernel_initializer=HeNormal()`.")
_HALF = (
    "The model computes in float16, which ends at 65,504, and takes all below 6e-8 for 0, such as "
    "the `epsilon` of an optimizer; an update of less than 1/4,000 of a weight is rounded away.",
    Fix(
        'Leave `dtype="float16"` out, or use `keras.config.set_dtype_policy("mixed_float16")` or '
        '`"mixed_bfloat16"` before the model is built: weights stay in float32.'
    ),
)


def find_slopes(facts: Facts) -> Iterator[Finding]:
    """Find signals falling or growing too steeply on their way back to the input."""
    for judgement in judge_depth(facts):
        for kind, steep in (("vanishing", judgement.falls), ("exploding", judgement.grows)):
            row = find_first(steep)
            if row is not None:
                yield _finding(facts, judgement, kind, row)


def _finding(facts: Facts, judgement: Judgement, kind: str, row: int) -> Finding:
    step, between = int(facts.steps[row]), len(judgement.variables) - 1
    ends = facts.layer_of[judgement.variables[[0, -1]]]
    first, last = (facts.layers[i] for i in ends)
    line = judgement.line_at(row)
    changes = "falls" if kind == "vanishing" else "grows"
    return Finding(
        kind,
        first,
        step,
        f"{kind.capitalize()} gradients: by step {step} the gradient {changes} on its way back "
        f"from `{last}` to `{first}`, by ×{line.factor:.2g} per layer and "
        f"×{write_number(line.total, 2)} over {between} layers.",
        {"ratio": line.total, "factor": line.factor, "layers": float(between)},
        cause=explain_slope(facts.records, line.total),
        fix=_fix_slope(facts, line.total),
    )


def _fix_slope(facts: Facts, total: float) -> Fix:
    """Return the fix for a slope: other weights at the start, and no flat activations."""
    hidden = list_hidden(facts)
    flat = [item.path for item in hidden if read_activation(item.activation) in _FLAT]
    repairs = activate(flat, "relu") if flat else {}
    if hidden:
        paths = [item.path for item in hidden]
        repairs["reinitialize"] = {"layers": paths, "initializer": "HeNormal"}
    return Fix(
        'Use `activation="relu"` with `kernel_initializer=HeNormal()` in the hidden layers, or '
        f"start the layers together, as they are: {tell_cure(read_chain(facts), total)}; in very "
        "deep networks also `LayerNormalization()`, or sums `x + layer(x)`.",
        repairs,
    )


def find_growth(facts: Facts) -> Iterator[Finding]:
    """Find gradients growing from step to step, as in a diverging training."""
    norm = np.sqrt(np.nansum(np.square(facts.per_variable("norm")), axis=1))
    ready = find_first(facts.ready)
    if ready is None or not (before := window_mean(norm, facts.start)[ready]):
        return
    grown = persists(norm > THRESHOLDS["norm_growth"].value * before, facts.start, facts.ready)
    row = find_first(grown & facts.loss.risen)
    if row is None:
        return
    step, factor = int(facts.steps[row]), float(norm[row] / before)
    yield Finding(
        "exploding",
        "",
        step,
        f"Exploding gradients: at step {step} all gradients together are "
        f"{write_number(factor, 2)} times as large as up to step {facts.steps[ready]}, and the "
        "loss has doubled.",
        {"factor": factor, "norm": float(norm[row])},
        cause="Updates overshoot: each makes the loss larger, and with it the next gradient.",
        fix=_LOWER,
    )


def find_nonfinite(facts: Facts) -> Iterator[Finding]:
    """Find NaN or infinite numbers: one record is enough, as the weights are lost with it.

    The backward pass begins at the output: of the layers with such numbers, the last one of the
    model is where they come from. Where that is the last layer, it is the forward pass. Data and
    predictions that are not finite do no harm where the loss is: a mask may have made them.
    """
    affected = facts.find_nonfinite()
    ports = facts.per_port("nonfinite") > 0
    outputs = ports.any(axis=1) & ~np.isfinite(facts.loss.value)
    row = find_first(affected.any(axis=1) | outputs)
    if row is None:
        yield from _find_lost_losses(facts)
        return
    bad = np.flatnonzero(facts.by_layer(np.logical_or, affected)[row])
    step, number = int(facts.steps[row]), float(np.nansum(facts.per_variable("nonfinite")[row]))
    origin, cause, fix = _tell_origin(facts, ports[row], row)
    data = [i for role in _DATA for i in facts.ports_of(role)]
    spoilt = float(np.nansum(facts.per_port("nonfinite")[row, data]))
    what = f"{number:,.0f} elements of the gradient are" if number else "weights are"
    where = "the loss and the gradient follow"
    if len(bad):
        is_end = bad[-1] == len(facts.layers) - 1
        where = "the last recorded layer" if is_end else "the layers after it are not"
        where = (
            f"{what} NaN or infinite, in {len(bad)} of {len(facts.layers)} layers, the last of "
            f"them `{facts.layers[bad[-1]]}` ({where})"
        )
    yield Finding(
        "nonfinite",
        facts.layers[bad[-1]] if len(bad) else facts.layer_of_head(0),
        step,
        f"Non-finite numbers: at step {step} {origin}{where}.",
        {"elements": number, "layers": float(len(bad))} | ({"data": spoilt} if spoilt else {}),
        severity="error",
        confidence="certain",
        cause=cause,
        fix=fix,
    )


def _find_lost_losses(facts: Facts) -> Iterator[Finding]:
    """Find a loss that stays NaN or infinite, though output and gradient are finite."""
    low, high = (facts.per_port(name)[:, facts.ports_of("y_pred")] for name in ("min", "max"))
    lost = ~np.isfinite(facts.total("batch_loss")) & ~np.isfinite(facts.loss.value)
    lost &= np.isfinite(high - low).all(axis=1)
    row = find_first(persists(lost, facts.start, facts.ready))
    if row is None or not (low.size and any(head.loss for head in facts.setup.heads)):
        return
    yield Finding(
        "nonfinite",
        facts.layer_of_head(0),
        int(facts.steps[row]),
        f"Non-finite numbers: from step {facts.steps[facts.start[row]]} to {facts.steps[row]} the "
        f"loss is NaN or infinite; the output is not, and goes from {low[row].min():.3g} to "
        f"{high[row].max():.3g}.",
        {"low": float(low[row].min()), "high": float(high[row].max())},
        severity="error",
        confidence="certain",
        cause="The loss takes a logarithm, a root or a quotient where none exists, such as the "
        "logarithm of 0 or less.",
        fix=Fix(
            'Give the output a suitable activation, such as `"sigmoid"` for a probability, and '
            "clip it in the loss: `keras.ops.clip(y_pred, 1e-7, 1 - 1e-7)`."
        ),
    )


def find_spikes(facts: Facts) -> Iterator[Finding]:
    """Find the first of the spikes that were kept of steps that are not recorded in full."""
    factors = facts.total("spike")
    row = find_first(~np.isnan(factors))
    if row is None:
        return
    step, factor = int(facts.steps[row]), float(factors[row])
    norms = facts.norm_of_layers(facts.per_variable("norm"))
    lost = facts.by_layer(np.logical_or, facts.per_variable("nonfinite") > 0)[row]
    before = norms[:row][-int(THRESHOLDS["spike_window"].value) :]
    middle = np.median(before, axis=0) if row else np.zeros(len(facts.layers))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(middle > 0, norms[row] / middle, 0.0)
    if np.isinf(factor):
        layers, what = np.flatnonzero(lost), "NaN or infinite"
    else:
        layers = np.flatnonzero(ratios >= THRESHOLDS["spike_factor"].value)
        layers = layers[np.argsort(-ratios[layers], kind="stable")]
        what = f"up to {write_number(factor, 2)} times what they were before"
    count = int(np.sum(~np.isnan(factors)))
    names = [f"`{facts.layers[layer]}`" for layer in layers[:3]]
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    where = f" in {', '.join(names)}{more}" if names else ""
    others = f"; {count - 1} more steps are like it" if count > 1 else ""
    yield Finding(
        "spike",
        "",
        step,
        f"Gradient spike: at step {step} gradients are {what}{where}{others}.",
        {"factor": factor, "layers": float(len(layers)), "spikes": float(count)},
        severity="warning" if np.isinf(factor) else "note",
        cause="A batch unlike the others, or a learning rate that is barely stable.",
        fix=Fix(
            "Look at the batch of this step; `clipnorm=1.0` in the optimizer bounds its update."
        ),
    )


def _tell_origin(facts: Facts, bad: Bools, row: int) -> tuple[str, str, Fix]:
    """Tell what came first at a record: words for it, the cause, and the fix."""
    weights = facts.per_variable("weight_norm")[[0, row]]
    lost = (np.isfinite(weights[0]) & ~np.isfinite(weights[1])).any()
    for role, words in _DATA.items():
        if any(bad[facts.ports_of(role)]):
            count = np.nansum(facts.per_port("nonfinite")[row, facts.ports_of(role)])
            return (
                f"{words} have {count:,.0f} NaN or infinite elements; ",
                f"The {words} contain them, and everything computed from them does, too.",
                Fix(_FIND),
            )
    if any(bad[facts.ports_of("y_pred")]):
        if lost:
            origin = "the weights were lost before the step; "
        else:
            origin = "the output is NaN or infinite, though inputs and weights are finite; "
            origin += tell_overflow(facts, row)
        return origin, *_tell_forward(facts, row)
    if facts.ports_of("y_pred"):
        return "the output is finite; ", *_tell_backward(facts, row)
    return "", *_tell_forward(facts, row)


def _tell_forward(facts: Facts, row: int) -> tuple[str, Fix]:
    """Return why numbers are lost on the way to the output, and the fix; it may not be seen."""
    is_seen = bool(facts.ports_of("y_pred"))
    if _list_half(facts):
        return _HALF
    if row or not facts.is_begin:
        if is_seen:
            return _tell_scales(facts, _OVERFLOW)
        return _tell_scales(facts, _UNSEEN, Fix(f"{_FIND} {_LOWER}", _LOWER.repairs))
    found = {
        f"`{item.path}`": 0
        for item in facts.setup.layers
        if _VALUELESS.fullmatch(item.type) or (item.arguments.get("is_own") and item.path)
    }
    if facts.setup.has_graph and not found and is_seen:
        return _tell_scales(facts, _OVERFLOW, _SMALLER)
    guards = Fix(
        f"{'' if is_seen else f'{_FIND} '}"
        f"Look into {', '.join(found) or '`call` of the model'}, and keep away from 0 what is "
        "divided by, or taken a root or logarithm of: `a / keras.ops.maximum(count, 1)`, "
        "`keras.ops.sqrt(x + 1e-7)`, `keras.ops.divide_no_nan(a, b)`."
    )
    return _tell_scales(facts, _UNDEFINED, guards)


def find_half_weights(facts: Facts) -> Iterator[Finding]:
    """Find trained weights in float16, where numbers are finite: updates are rounded away."""
    layers = _list_half(facts)
    if layers and not any(find_nonfinite(facts)):
        seen = f"The weights of {count_layers(len(layers))} are float16, from `{layers[0]}` on."
        yield tell(facts, "small_updates", seen, *_HALF, layers[0], confidence="likely")


def _list_half(facts: Facts) -> list[str]:
    """List the trained layers with weights in float16."""
    items = [item for item in facts.setup.layers if item.weights and item.trainable]
    return [item.path for item in items if item.arguments.get("dtype") == "float16"]


def _tell_backward(facts: Facts, row: int) -> tuple[str, Fix]:
    """Return why numbers are lost behind a finite output, and the fix.

    Where all others are of usual size, no sum or product of them overflows.
    """
    if _list_half(facts):
        return _HALF
    ports = [facts.per_port(name)[row] for name in ("min", "max")]
    weights = facts.norm_of_layers(facts.per_variable("weight_norm")[[row]])
    sizes = [*ports, facts.per_variable("norm")[row], weights.ravel()]
    largest = np.nanmax(np.abs(np.concatenate(sizes)), initial=0.0)
    loss = abs(facts.total("batch_loss")[row])
    if not max(largest, loss) < THRESHOLDS["ordinary"].value or np.isnan(loss):
        return _tell_scales(facts, "The loss or the gradient overflows, after the output.")
    return (
        "Output and loss have values, but a slope has none: that of a root at 0, or of a "
        "logarithm, quotient, norm or power there, also where `where` leaves its value out.",
        Fix(
            "Keep what they are taken of away from 0, in the loss and in layers of your own: "
            "`keras.ops.sqrt(keras.ops.maximum(x, 1e-7))`, `keras.ops.log(x + 1e-7)`, "
            "`a / (b + 1e-7)`."
        ),
    )


def _tell_scales(facts: Facts, cause: str, fix: Fix = _LOWER) -> tuple[str, Fix]:
    """Return a cause and its fix, with the scales of the data where they are part of it."""
    large = {}
    for role, limit in (("x", "input_size"), ("y", "target_size")):
        ports = facts.ports_of(role)
        mean, std = (facts.per_port(name)[:1, ports] for name in ("mean", "std"))
        size = float(np.nanmax(np.fmax(np.abs(mean), std), initial=0.0))
        if size > THRESHOLDS[limit].value:
            large[role] = size
    if not large:
        return cause, fix
    words = " and ".join(
        f"{_DATA[role]} are as large as {write_number(large[role], 3)}" for role in large
    )
    arguments = "model, x, y" if "y" in large else "model, x"
    text = f"Normalize them: `keras_initkit.with_normalization({arguments})`. If that is not "
    text += f"enough: {fix}"
    repairs: dict[str, Any] = {"restart": {}}
    repairs["normalize"] = {"inputs": "x" in large, "targets": "y" in large}
    return f"{cause} The {words}.", Fix(text, repairs)
