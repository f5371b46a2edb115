"""Updates too small or too large for the initial weights."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import USUAL_RATE, USUAL_RATES, Fix
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import (
    find_first,
    lower_median,
    persists,
    quotient,
    window_mean,
)
from tensorboard_plugin_initkit.diagnosis.wiring import ADAPTIVE
from tensorboard_plugin_initkit.safe_text import write_number


def find_large_updates(facts: Facts) -> Iterator[Finding]:
    """Find weights of many times their size, in half of the layers with weights at first or more.

    Those of an output rightly grow: they may begin at zero, or near it by chance. So do those of
    an embedding, which begin small.
    """
    rows = facts.first_rows
    weights = facts.norm_of_layers(facts.per_variable("weight_norm")[rows])
    small = {item.path for item in facts.setup.layers if item.type == "Embedding"}
    may_grow = [
        -1 in known or path in small
        for known, path in zip(facts.receivers, facts.layers, strict=True)
    ]
    began = (weights[0] > 0) & ~np.array(may_grow, bool)
    if not began.any():
        return
    growth = lower_median(weights[:, began] / weights[0, began])
    judged = (facts.ready & ~facts.loss.halved)[rows]
    row = find_first(judged & (growth >= THRESHOLDS["weight_growth"].value))
    if row is None:
        return
    step, value = int(facts.steps[row]), float(growth[row])
    yield Finding(
        "large_updates",
        "",
        step,
        f"Large updates: from step {facts.steps[0]} to {step} the weights of half of the layers "
        f"or more grew to {write_number(value, 2)} times their size or more: the initial weights "
        "are lost.",
        {"growth": value},
        cause="Each update is so large that it overshoots.",
        fix=change_rate(facts, row, 0.1),
    )


def find_small_updates(facts: Facts) -> Iterator[Finding]:
    """Find updates that float32 rounds away in all layers, unless the learning rate is rising.

    Only the layers with weights at the start are looked at.
    """
    rows = facts.first_rows
    ratios = facts.per_variable("update_ratio")[rows]
    if np.isnan(ratios).all():  # Not recorded.
        return
    ratio = facts.update_ratios(rows).max(axis=1, initial=-1.0)
    if (ratio < 0).all():
        return
    start, rate = facts.start[rows], facts.total("learning_rate")
    moved = (facts.per_variable("norm")[rows] > 0).any(axis=1)
    small = (ratio < THRESHOLDS["update_small"].value) & moved
    warming = rate[rows] > rate[start]
    row = find_first(persists(small, start, facts.ready[rows]) & ~warming)
    if row is None:
        return
    step, value = int(facts.steps[row]), float(ratio[row])
    cause, fix = _tell_small(facts, row, 1e-3 / max(value, 1e-6))
    yield Finding(
        "small_updates",
        "",
        step,
        f"Small updates: from step {facts.steps[facts.start[row]]} to {step} an update changes "
        f"the weights of no layer by more than {write_number(value, 2)} of their size, which "
        "float32 rounds away.",
        {"update_ratio": value},
        cause=cause,
        fix=fix,
    )


def find_unfit_updates(facts: Facts) -> Iterator[Finding]:
    """Find updates far from a thousandth of the weights, in half of the layers: a cause.

    Not while the learning rate rises. Those of plain gradient descent need not be as small. An
    adaptive optimizer moves weights by its learning rate, unless gradients change their sign: of a
    usual rate, updates must be smaller by ten.
    """
    rate = facts.total("learning_rate")
    most = np.fmax.accumulate(rate)
    flat = facts.loss.flat & ~(rate > rate[facts.start])
    # A rate that has fallen only after the loss was flat is not why.
    fallen = rate < THRESHOLDS["rate_fallen"].value * most
    flat &= ~(fallen & np.logical_or.accumulate(flat & ~fallen))
    if not flat.any():
        return
    ratio = facts.median_update
    if not ratio.size:
        return
    with np.errstate(divide="ignore"):
        ratio = np.exp(window_mean(np.log(ratio), facts.start))
    is_plain = facts.setup.optimizer == "SGD" and not facts.setup.optimizer_arguments.get(
        "momentum"
    )
    least, adaptive = (
        THRESHOLDS[f"update_{name}"].value for name in ("plain" if is_plain else "slow", "adaptive")
    )
    is_usual = (facts.setup.optimizer in ADAPTIVE) & (most >= USUAL_RATE)
    small = (ratio > 0) & (ratio < np.where(is_usual, adaptive, least))
    row = find_first(flat & (small | (ratio > THRESHOLDS["update_wild"].value)))
    if row is None:
        return
    is_slow, value = bool(small[row]), float(ratio[row])
    step = int(facts.steps[row])
    if is_slow:
        cause, fix = _tell_small(facts, row, 1e-3 / value)
    else:
        cause = "The learning rate is too large for these gradients."
        fix = change_rate(facts, row, 1e-3 / value)
    yield Finding(
        "small_updates" if is_slow else "large_updates",
        "",
        step,
        f"{'Small' if is_slow else 'Large'} updates: up to step {step} an update changes the "
        f"weights of half of the layers by {write_number(value, 2)} of their size or "
        f"{'less' if is_slow else 'more'}, where 0.001 is usual.",
        {"update_ratio": value},
        cause=cause,
        fix=fix,
        confidence="possible",
    )


def find_tight_clipping(facts: Facts) -> Iterator[Finding]:
    """Find gradients that are clipped to a tenth or less, at nearly all records: a cause."""
    flat = find_first(facts.loss.flat)
    if flat is None:
        return
    clipped = _measure_clipping(facts, flat)
    if clipped is None:
        return
    step, (value, fix) = int(facts.steps[flat]), clipped
    yield Finding(
        "tight_clipping",
        "",
        step,
        f"Tight clipping: up to step {step} gradients are clipped to {write_number(value, 2)} of "
        "their size, nearly always.",
        {"clip_ratio": value},
        cause="With plain gradient descent, each step is shorter by the same factor.",
        fix=fix,
        confidence="possible",
    )


def find_noisy_gradient(facts: Facts) -> Iterator[Finding]:
    """Find gradients that are noise of their batches, which keep the loss above a guess: a cause.

    Where there is nothing to learn, they are noise as well, at the best constant.
    """
    loss, ratio = facts.loss, lower_median(facts.per_variable("snr"))
    if not ratio.size:
        return
    with np.errstate(invalid="ignore"):
        above = loss.recent > loss.guess + THRESHOLDS["guess_margin"].value * loss.reach
        ratio = window_mean(ratio, facts.start)
        row = find_first(loss.still & above & (ratio < THRESHOLDS["noise_ratio"].value))
    if row is None:
        return
    step, value = int(facts.steps[row]), float(ratio[row])
    rate = change_rate(facts, row, 0.1)
    yield Finding(
        "noisy_gradient",
        "",
        step,
        f"Noisy gradients: up to step {step} those of successive records have little in common: "
        f"their mean, squared, is {write_number(value, 2)} of their variance, and the loss stays "
        f"at {write_number(loss.recent[row], 4)}, above the {write_number(loss.guess[row], 4)} of "
        "always predicting the same.",
        {"snr": value, "loss": float(loss.recent[row]), "guess": float(loss.guess[row])},
        cause="Each update follows the few samples of its batch more than what all have in common.",
        fix=Fix(f"Use a larger `batch_size`, which averages the noise out. {rate}", rate.repairs),
        confidence="possible",
    )


def _measure_clipping(facts: Facts, row: int) -> tuple[float, Fix] | None:
    """Return to which part of their norm gradients are clipped up to a record, and the fix.

    `None` if fewer than nine of ten records are clipped tightly. Adaptive optimizers divide the
    size of gradients out: clipping is no matter there.
    """
    if facts.setup.optimizer not in ("SGD", ""):
        return None
    clipped, raw = (
        np.sqrt(np.nansum(np.square(facts.per_variable(name)[: row + 1]), axis=1))
        for name in ("norm", "raw_norm")
    )
    ratio = quotient(clipped, raw)
    if not np.mean(ratio < THRESHOLDS["clip_tight"].value) >= THRESHOLDS["clip_share"].value:
        return None
    size = float(f"{raw.max():.1g}")
    fix = Fix(f"Use `clipnorm={size:g}` in the optimizer, or none.", {"clip": {"norm": size}})
    return float(np.nanmedian(ratio)), fix


def _tell_small(facts: Facts, row: int, factor: float) -> tuple[str, Fix]:
    """Return why updates are too small, and the fix: clipping, a rate that fell, or a low one."""
    if (clipped := _measure_clipping(facts, row)) is not None:
        part = write_number(clipped[0], 2)
        return f"Gradients are clipped to {part} of their size, nearly always.", clipped[1]
    rates = facts.total("learning_rate")[: row + 1]
    most, rate = float(np.fmax.reduce(rates)), float(rates[-1])
    if rate < THRESHOLDS["rate_fallen"].value * most:
        name = facts.setup.optimizer or "Adam"
        return (
            f"The learning rate has fallen from {write_number(most, 2)} to "
            f"{write_number(rate, 2)}, by a schedule or a callback.",
            Fix(
                f"Keep it up: `keras.optimizers.{name}(learning_rate={most:.2g})`, or a schedule "
                "whose `decay_steps` are all steps of the training. `ReduceLROnPlateau` should "
                'watch a loss with `mode="min"`, and have some `patience`.',
                {"learning_rate": {"value": float(f"{most:.2g}")}},
            ),
        )
    cause, fix = (
        "The learning rate is too small for these gradients.",
        change_rate(facts, row, factor),
    )
    if facts.setup.optimizer in ADAPTIVE and most >= USUAL_RATE:
        cause = "An adaptive optimizer moves a weight by the learning rate, unless the weight's "
        cause += "gradient changes its sign from step to step; or the weights are very large."
        fix = Fix(f"Use a larger `batch_size`. Or: {fix}", fix.repairs)
    return cause, fix


def change_rate(facts: Facts, row: int, factor: float) -> Fix:
    """Return the fix to multiply the learning rate at a record by a factor, to one digit.

    It becomes not less than a usual one where it is too small, and not more where it is too large;
    nor more than thirty usual ones, or 1: gradients as small as that need another mend.
    """
    rate: Any = facts.total("learning_rate")[row]
    way = "Raise" if factor > 1 else "Lower"
    if not rate > 0:
        return Fix(f"{way} the learning rate.")
    name = facts.setup.optimizer or "Adam"
    usual, value = USUAL_RATES.get(name, USUAL_RATE), float(f"{rate * factor:.0e}")
    most = THRESHOLDS["rate_raised"].value
    value = max(rate, usual, min(value, most * usual, 1.0)) if factor > 1 else min(value, usual)
    return Fix(
        f"{way} the learning rate: `keras.optimizers.{name}(learning_rate={value:g})`.",
        {"learning_rate": {"value": value}},
    )
