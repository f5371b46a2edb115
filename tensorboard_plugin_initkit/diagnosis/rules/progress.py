"""Symptoms of a training that does not learn, whatever the cause: by output and loss."""

import math
from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.rules.updates import (
    change_rate,
    lower_median,
    update_ratios,
)
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import Bools, find_first, persists


def find_constant_output(facts: Facts) -> Iterator[Finding]:
    """Find outputs that are the same for all samples of a batch, though inputs and targets differ.

    A loss that falls is no excuse: the best constant is learned, too. It is asked for the window
    of slopes over depth, which are a cause of it.
    """
    start, ready = facts.find_windows("depth_window_steps")
    spread = facts.per_port("batch_std")
    low, high, mean = (facts.per_port(name) for name in ("min", "max", "mean"))
    size = np.abs(mean) + (high - low)
    varied = (spread[:, facts.ports_of("x")] > 0).any(axis=1)
    for head, (target, output) in enumerate(
        zip(facts.ports_of("y"), facts.ports_of("y_pred"), strict=False)
    ):
        if facts.setup.heads and not facts.setup.heads[head].loss:
            continue
        still = spread[:, output] <= THRESHOLDS["output_still"].value * size[:, output]
        still &= varied & (spread[:, target] > 0)
        row = find_first(persists(still, start, ready))
        if row is None:
            continue
        name = facts.ports[output].name
        step, value = int(facts.steps[row]), float(mean[row, output])
        yield Finding(
            "constant_output",
            facts.layer_of_head(head),
            step,
            f"Constant output: from step {facts.steps[start[row]]} to {step} the output"
            f"{f' `{name}`' if name else ''} is the same for all samples of a batch, {value:.3g} "
            f"on average; inputs and targets differ.",
            {"mean": value, "batch_std": float(spread[row, output])},
            cause="Nothing of the input reaches the output: its activation is saturated or cut "
            "off, or units before it are dead, or the signal is lost over depth.",
            fix=Fix(
                "Give the output an activation with the range of the targets, scale inputs and "
                "targets, and lower the learning rate."
            ),
        )


def find_no_better_than_guessing(facts: Facts) -> Iterator[Finding]:
    """Find trainings that are no better than the best constant prediction, and stay so."""
    row = find_first(facts.loss.guessing)
    if row is not None:
        yield tell_guessing(facts, row)


def tell_guessing(facts: Facts, row: int) -> Finding:
    """Tell how far the loss at a record is from that of the best constant."""
    loss = facts.loss
    step, recent, guess = int(facts.steps[row]), float(loss.recent[row]), float(loss.guess[row])
    return Finding(
        "no_better_than_guessing",
        facts.layer_of_head(0) if len(facts.setup.heads) == 1 else "",
        step,
        f"No better than guessing: up to step {step} the loss is {recent:.4g} on average, and "
        f"always predicting the same, whatever the input, has {guess:.4g}.",
        {"loss": recent, "guess": guess, "fell": float(loss.fell[row])},
    )


def find_rising_loss(facts: Facts) -> Iterator[Finding]:
    """Find losses that grow: far above the first ones, or for long at twice them.

    Twice is asked of losses with a known best constant only, and above it: in adversarial and
    reinforcement learning a loss may rise for good.
    """
    loss, records = facts.loss.value, int(THRESHOLDS["window_records"].value)
    first = np.nan if len(loss) < records else np.median(loss[:records])
    if not first > 0:
        return
    far = persists(loss > THRESHOLDS["loss_grown"].value * first, facts.start, facts.ready)
    above = (loss > (1 + THRESHOLDS["loss_risen"].value) * first) & (loss > facts.loss.guess)
    start = np.minimum(facts.start, np.maximum(np.arange(len(loss)) - 9, 0))
    row = find_first(far | persists(above, start, facts.ready & (np.arange(len(loss)) >= 9)))
    if row is None:
        return
    step, factor = int(facts.steps[row]), float(loss[row] / first)
    yield Finding(
        "rising_loss",
        "",
        step,
        f"Rising loss: at step {step} the loss is {loss[row]:.3g}, {factor:.3g} times what it was "
        f"up to step {facts.steps[records - 1]}.",
        {"factor": factor, "loss": float(loss[row])},
        cause="Updates overshoot: each one makes the loss larger.",
        fix=change_rate(facts, row, 0.1),
    )


def find_constant_loss(facts: Facts) -> Iterator[Finding]:
    """Find compiled losses, other than 0, that do not move at all though there are gradients."""
    if not any(head.loss for head in facts.setup.heads):
        return  # a step of one's own may return any number
    loss, norm = facts.loss.value, facts.per_variable("norm")
    same = np.abs(np.diff(loss, prepend=np.nan)) <= THRESHOLDS["loss_still"].value * np.abs(loss)
    still: Bools = same & (loss != 0)
    if not still.any():
        return
    still &= (norm > 0).any(axis=1)
    # Not earlier where few steps are planned: a loss may be rounded.
    long = facts.steps - facts.steps[0] >= THRESHOLDS["window_steps"].value
    row = find_first(persists(still, facts.start, facts.ready & long))
    if row is None:
        return
    step = int(facts.steps[row])
    yield Finding(
        "constant_loss",
        "",
        step,
        f"Constant loss: from step {facts.steps[facts.start[row]]} to {step} the loss is "
        f"{loss[row]:.6g} and does not move, though there are gradients.",
        {"loss": float(loss[row])},
    )


def find_early_end(facts: Facts) -> Iterator[Finding]:
    """Find trainings that end while a compiled loss still falls, and less than half is learned.

    Of a training too short to judge, one that does not is found, if it is no better than guessing.
    """
    steps, loss = facts.steps, facts.loss
    last = len(steps) - 1
    if not facts.is_over or not any(head.loss for head in facts.setup.heads):
        return
    known = loss.value[np.isfinite(loss.value)]
    half = THRESHOLDS["loss_halved"].value
    limit = loss.guess[last] - half * loss.reach[last]
    if np.isnan(limit):
        limit = half * known[:1].max(initial=0)
    fell = float(loss.fell[last])
    updates = facts.setup.steps or int(steps[last] + 1)
    margin = THRESHOLDS["guess_margin"].value * loss.reach[last]
    at_guess = loss.recent[last] > loss.guess[last] - margin
    is_short = at_guess and updates < THRESHOLDS["patience_steps"].value
    still = fell > THRESHOLDS["loss_fell"].value
    if not (still or (is_short and fell > 0)) or not loss.recent[last] > limit:
        return
    fix = Fix("Train for longer: more `epochs` in `model.fit`, or a smaller `batch_size`.")
    ratio = lower_median(update_ratios(facts, slice(int(facts.start[last]), None)))
    value = float(np.median(ratio)) if ratio.size else math.nan
    factor = THRESHOLDS["update_usual"].value / value if value > 0 else 1.0
    if factor > 3:
        also = change_rate(facts, last, min(100, factor))
        fix = Fix(f"{fix} {also}", also.repairs)
    yield Finding(
        "ended_early",
        "",
        int(steps[last]),
        f"Ended early: the training ends after {updates} updates while the loss, "
        f"{loss.value[last]:.3g}, still falls: by {fell:.1%} from the middle third of the "
        "training to the last.",
        {"updates": float(updates), "fell": fell, "loss": float(loss.value[last])}
        | ({"update_ratio": value} if value > 0 else {}),
        severity="note",
        cause="Too few updates of the weights were made.",
        fix=fix,
        confidence="possible",
    )
