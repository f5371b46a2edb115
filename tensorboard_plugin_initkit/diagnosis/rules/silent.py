"""Layers and units without a gradient."""

import re
from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding, count_layers
from tensorboard_plugin_initkit.diagnosis.fix import Fix, activate
from tensorboard_plugin_initkit.diagnosis.rules.updates import (
    change_rate,
)
from tensorboard_plugin_initkit.diagnosis.start import read_initializer
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import (
    Bools,
    Floats,
    find_first,
    find_runs,
    persists,
    quotient,
)
from tensorboard_plugin_initkit.diagnosis.wiring import (
    find_takers,
    is_normalization,
    list_heads,
    read_activation,
)
from tensorboard_plugin_initkit.safe_text import write_number

# Activations with a slope everywhere; units behind them cannot be dead.
_NEVER_FLAT = ("linear", "leaky_relu")
# Operations that pass no gradient on.
_STEPS = re.compile(
    r"Arg(max|min)|Round|Floor|Ceil|Sign|StopGradient|Greater(Equal)?|Less(Equal)?|(Not)?Equal"
)


def find_no_gradient(facts: Facts) -> Iterator[Finding]:
    """Find layers without influence on the loss: the framework gives them no gradient."""
    missing = np.isnan(facts.per_variable("nonfinite"))
    if not missing.any():
        return
    cause, fix = _tell_break(facts)
    if missing.all() and len(facts.steps) == 1 and _are_all_recorded(facts):  # refused
        seen = "No gradient: the loss does not depend on any weight."
        yield Finding(
            "no_gradient",
            "",
            int(facts.steps[0]),
            seen,
            {"layers": float(len(facts.layers))},
            severity="error",
            cause=cause,
            fix=fix,
            confidence="certain",
        )
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
            cause=cause,
            fix=fix,
            confidence="certain",
        )


def _are_all_recorded(facts: Facts) -> bool:
    """Check that no layer with weights to train is left out of the record."""
    return all(
        any(f"{path}/".startswith(f"{item.path}/") for path in facts.layers)
        for item in facts.setup.layers
        if item.weights and item.trainable and item.type != "Normalization"
    )


def _tell_break(facts: Facts) -> tuple[str, Fix]:
    """Return why no gradient arrives, and the fix; operations of the graph that pass none."""
    found = [f"`{item.path}`" for item in facts.setup.layers if _STEPS.fullmatch(item.type)]
    named = f" Here these are {', '.join(found)}." if found else ""
    return (
        "Something between these weights and the loss passes no gradient on, in the model or in "
        f"the loss: `round`, `argmax`, comparisons and casts to integers have no slope.{named}",
        Fix(
            "Leave out `round`, `argmax`, comparisons, casts, NumPy and `stop_gradient` in what is "
            "trained; use probabilities directly; look for layers whose output is not used."
        ),
    )


def find_cut_off(facts: Facts) -> Iterator[Finding]:
    """Find layers without any gradient, up to one that passes nothing back.

    Where they begin at the input, a loss that has halved is no excuse: fitting the output's bias
    can do that, after a start with a large loss. A loss still falling is one, and where all layers
    are without gradient, so is a loss near zero. Further on the layers may be a branch that others
    go around: there any good loss is enough, but for an output of the model that never had any.
    """
    norm = facts.per_variable("norm")
    if (norm != 0).all():
        return
    nothing = facts.by_layer(np.logical_and, (norm == 0) | np.isnan(norm))
    silent = persists(nothing, facts.start, facts.ready)
    nothing &= facts.by_layer(np.logical_or, norm == 0)
    zero = persists(nothing, facts.start, facts.ready)
    from_input = np.logical_and.accumulate(zero, axis=1)
    loss = facts.loss
    at_input = loss.falling | (loss.gone & zero.all(axis=1))
    never = np.logical_and.accumulate(nothing, axis=0) & ~zero.all(axis=1, keepdims=True)
    never &= np.array([-1 in receivers for receivers in facts.receivers])
    zero &= never | ~np.where(from_input, at_input[:, None], loss.good[:, None])
    said = np.zeros(len(facts.layers), bool)
    for row in np.unique(zero.argmax(axis=0)[zero.any(axis=0)]):
        for begin, end in find_runs(zero[row]):
            for first, last in _divide_run(facts, silent[row], begin, end):
                if not said[first : last + 1].any():
                    yield _finding(facts, silent[row], int(row), first, last)
            said[begin : end + 1] = True


def _divide_run(facts: Facts, silent: Bools, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Divide a run of layers at those that pass nothing back themselves.

    They do if a layer behind them has a gradient, or the loss follows. Others wait for the layers
    behind them, which may be elsewhere in the model's order.
    """
    first = begin
    for layer in range(begin, end + 1):
        known = facts.receivers[layer]
        if any(other < 0 or not silent[other] for other in known) if known else layer == end:
            yield first, layer
            first = layer + 1


def _finding(facts: Facts, silent: Bools, row: int, begin: int, end: int) -> Finding:
    step, count = int(facts.steps[row]), end - begin + 1
    evidence = {"layers": float(count), "from_input": float(begin == 0)}
    since = f"from step {facts.steps[facts.start[row]]} to {step}"
    if count == len(facts.layers):
        message = f"{since} the gradient is exactly zero in all {count} recorded layers."
        if (overshot := _find_overshoot(facts, row, message)) is not None:
            return overshot
        message = f"No gradient: {message}"
        if all(_is_all_zero(facts, row, layer) for layer in range(count)):
            cause = "All their weights are 0: of a product of two of them, neither has a slope."
            fix = Fix("Begin one factor of each product with random numbers; the other may be 0.")
            return Finding("no_gradient", "", step, message, evidence, cause=cause, fix=fix)
        cause, fix = _tell_break(facts)
        if facts.setup.backend == "torch":
            own = "In a `train_step` of your own call `self.zero_grad()` before `loss.backward()`, "
            fix = Fix(f"{fix} {own}not after it.")
        return Finding("no_gradient", "", step, message, evidence, cause=cause, fix=fix)
    layer = facts.layers[end]
    others = f" and in the {count_layers(end - begin)} before it" if end > begin else ""
    message = f"{since} the gradient is exactly zero in `{layer}`{others}"
    known = facts.receivers[end]
    heard = [other for other in known if other >= 0 and not silent[other]]
    behind = heard or ([] if known else [end + 1] * (end + 1 < len(facts.layers)))
    if behind and all(_is_all_zero(facts, row, other) for other in behind):
        after = facts.layers[behind[0]]
        message = f"No gradient: {message}; the weights of `{after}` after it are all zero."
        cause = "The gradient comes through these weights: multiplied by 0, nothing of it is left."
        fix = Fix(
            f"Begin `{after}` with other weights than zeros: leave out its `kernel_initializer`.",
            {"reinitialize": {"layers": [after], "initializer": "GlorotUniform"}},
        )
    elif _is_before_step(facts, layer):
        cause, fix = _tell_break(facts)
        message = f"No gradient: {message}."
    elif heard and not any(known[other].startswith(_NEVER_FLAT) for other in heard):
        if (overshot := _find_overshoot(facts, row, message)) is not None:
            return overshot
        message = f"Dead units: {message}; all of its units are inactive or saturated."
        cause, fix = _revive(facts, layer)
        share = {"share": 1.0}
        return Finding("dead_units", layer, step, message, evidence | share, cause=cause, fix=fix)
    else:
        message = f"No gradient: {message}."
        cause = (
            "What follows multiplies its units by 0, as a closed gate or a loss weight of 0 does, "
            "or all of them are inactive or saturated."
        )
        fix = Fix(
            f"Look at what `{layer}` gives to the layers after it: where a ReLU of its own makes "
            "all of it 0, use `leaky_relu`, and no activation at an output of any sign, as of a "
            "generator; leave out `round`, `argmax` and comparisons; begin gates with other "
            "numbers than 0, or train them: `trainable=True`."
        )
    return Finding("no_gradient", layer, step, message, evidence, cause=cause, fix=fix)


def _is_before_step(facts: Facts, layer: str) -> bool:
    """Check for a layer whose output goes to operations alone that pass no gradient on."""
    layers, takers = facts.setup.layers, find_takers(facts.setup)
    kinds = [
        layers[after].type
        for position, item in enumerate(layers)
        if item.path == layer
        for after in takers[position]
    ]
    return bool(kinds) and all(_STEPS.fullmatch(kind) for kind in kinds)


def _find_overshoot(facts: Facts, row: int, seen: str) -> Finding | None:
    """Find the largest update before layers or units lost their gradient, if large enough."""
    ratio = facts.median_update[: int(facts.start[row])]
    largest = int(ratio.argmax()) if ratio.size else -1
    if largest < 0 or ratio[largest] < THRESHOLDS["update_wild"].value:
        return None
    value = float(ratio[largest])
    return Finding(
        "large_updates",
        "",
        int(facts.steps[row]),
        f"Large updates: the one of step {facts.steps[largest]} changed the weights of half of the "
        f"layers by {write_number(value, 2)} of their size or more, where 0.001 is usual; "
        f"{seen.rstrip('.')}.",
        {"update_ratio": value},
        cause="An update went so far that since then units are inactive or saturated for every "
        "sample, and no gradient passes them.",
        fix=change_rate(facts, largest, 1e-3 / value),
    )


def _revive(facts: Facts, layer: str) -> tuple[str, Fix]:
    """Return why units are dead, and the fix: other biases, or some slope everywhere."""
    items = {item.path: item for item in facts.setup.layers}
    dying = [path for path, item in items.items() if read_activation(item.activation) == "relu"]
    heads = {head.path for head in list_heads(facts)}
    repairs = activate([path for path in dying if path not in heads], "leaky_relu")
    repairs |= {"learning_rate": {"factor": 0.1}}
    slope = 'se `activation="leaky_relu"` in the hidden layers'
    begin = str(items[layer].arguments.get("bias_initializer", "")) if layer in items else ""
    if _gives_zeros(facts, layer):
        return (
            f"`gamma` and `beta` of `{layer}` begin with 0: all it gives is 0, and there the "
            "activation behind it has no slope.",
            Fix(
                "Leave out `gamma_initializer`; or add what goes around it before the activation, "
                "`relu(x + branch)`: only at the end of such a branch it may be 0."
            ),
        )
    kernel = (
        read_initializer(str(items[layer].arguments.get("kernel_initializer", "")))[1]
        if (layer in items)
        else {}
    )
    ends = [kernel.get(name) or 0 for name in ("minval", "maxval", "mean")]
    if sum(ends) < 0:
        return (
            "Most of its weights begin below 0, and with inputs above 0 so do their weighted sums.",
            Fix(f"Leave `kernel_initializer` out: weights begin around 0. Or u{slope}.", repairs),
        )
    value = read_initializer(begin)[1].get("value", 0)
    if isinstance(value, int | float) and value < 0:
        return (
            f"Its biases begin with {value:g}, and inputs add less than {-value:g}: the sum is "
            "below 0 for every sample.",
            Fix(f"Leave `bias_initializer` out: biases begin with 0. Or u{slope}.", repairs),
        )
    return (
        "Their weighted sums are below 0 for every sample, or far to one side.",
        Fix(f"U{slope}, lower the learning rate, and scale the inputs.", repairs),
    )


def _gives_zeros(facts: Facts, layer: str) -> bool:
    """Check for a normalization that begins with a scale and offset of 0, and no sum behind it."""
    layers, takers = facts.setup.layers, find_takers(facts.setup)
    for item, after in zip(layers, takers, strict=True):
        if item.path == layer and is_normalization(item):
            begin = [str(item.arguments.get(f"{x}_initializer", "")) for x in ("gamma", "beta")]
            is_zero = all(text in ("Zeros", "Constant(value=0.0)") for text in begin)
            return is_zero and all(len(layers[i].takes) == 1 for i in after)
    return False


def _is_all_zero(facts: Facts, row: int, layer: int) -> bool:
    """Check a layer for weights of zero, without its biases."""
    columns = facts.layer_of == layer
    weights = columns & ~facts.units if columns.sum() > 1 else columns
    return bool((facts.per_variable("weight_norm")[row, weights] == 0).all())


def find_dead_units(facts: Facts) -> Iterator[Finding]:
    """Find layers where most units receive exactly no gradient, in bias and kernel; others do.

    Both are asked for: the bias of attention's keys can be zero by theory, a kernel's columns
    because of inputs of zero. Of several layers, the one nearest the output is named: units
    before it may be dead because of it. Units without an activation cannot be dead.
    """
    linear = [
        bool(known) and all(name.startswith(_NEVER_FLAT) for name in known.values())
        for known in facts.receivers
    ]
    units = np.flatnonzero(facts.units & ~np.array(linear)[facts.layer_of])
    limit = THRESHOLDS["dead_share"].value
    share = facts.per_variable("dead_units")[:, units]
    if not (share >= limit).any():
        return
    share = np.minimum(share, _share_of_zeros(facts)[:, units])
    dead = (share >= limit) & (facts.per_variable("norm")[:, units] > 0)
    lasting = persists(dead, facts.start, facts.ready) & ~facts.loss.good[:, None]
    row = find_first(lasting.any(axis=1))
    if row is None:
        return
    column = int(np.flatnonzero(lasting[row])[-1])
    layer, step = facts.layers[facts.layer_of[units[column]]], int(facts.steps[row])
    number, value = int(lasting[row].sum()), float(share[row, column])
    others = f", as in at least {count_layers(number - 1)} more" if number > 1 else ""
    seen = f"from step {facts.steps[facts.start[row]]} to {step} {value:.0%} of the units of "
    seen += f"`{layer}` receive no gradient{others}"
    if (overshot := _find_overshoot(facts, row, seen)) is not None:
        yield overshot
        return
    cause, fix = _revive(facts, layer)
    yield Finding(
        "dead_units",
        layer,
        step,
        f"Dead units: {seen}.",
        {"share": value, "layers": float(number)},
        cause=cause,
        fix=fix,
    )


def _share_of_zeros(facts: Facts) -> Floats:
    """Return the share of exact zeros in each variable's whole layer, (n, variables)."""
    norm, rms = facts.per_variable("norm"), facts.per_variable("rms")
    size = np.nanmax(np.square(quotient(norm, rms)), axis=0, initial=1.0)
    size = np.where(np.isfinite(size), size, 1.0) * np.ones_like(norm)
    zeros = facts.by_layer(np.add, np.nan_to_num(facts.per_variable("zeros")) * size)
    return quotient(zeros, facts.by_layer(np.add, size))[:, facts.layer_of]
