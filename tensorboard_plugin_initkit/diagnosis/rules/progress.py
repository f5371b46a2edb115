"""Symptoms of a training that does not learn, whatever the cause: by output and loss."""

import math
from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.limits import list_limits
from tensorboard_plugin_initkit.diagnosis.rules.updates import (
    change_rate,
)
from tensorboard_plugin_initkit.diagnosis.tell import tell
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import (
    Bools,
    find_first,
    find_thirds,
    persists,
    quotient,
    window_mean,
)
from tensorboard_plugin_initkit.diagnosis.wiring import find_first_layers, list_tensors, read


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
        cause, fix = _tell_cut(facts, row)
        yield Finding(
            "constant_output",
            facts.layer_of_head(head),
            step,
            f"Constant output: from step {facts.steps[start[row]]} to {step} the output"
            f"{f' `{name}`' if name else ''} is the same for all samples of a batch, {value:.3g} "
            f"on average, although inputs and targets differ.",
            {"mean": value, "batch_std": float(spread[row, output])},
            cause=cause,
            fix=fix,
        )


def _tell_cut(facts: Facts, row: int) -> tuple[str, Fix]:
    """Return why nothing of the input reaches the output, and the fix: a layer may get zeros.

    The gradient of a kernel is a product with what its layer receives, and that of a bias is not.
    """
    norm = facts.per_variable("norm")[facts.start[row] : row + 1]
    paths = [variable.path for variable in facts.records.layout.variables]
    for i in np.flatnonzero((norm == 0).all(axis=0)).tolist():
        bias = f"{paths[i].removesuffix('kernel')}bias"
        if paths[i].endswith("/kernel") and bias in paths and norm[:, paths.index(bias)].all():
            layer = facts.layers[facts.layer_of[i]]
            return (
                f"`{layer}` receives zeros alone: the gradient of its kernel is 0, and that of its "
                "bias is not. An embedding of zeros, as of words that were not found, does "
                "so, or a mask.",
                Fix(
                    f"Print what `{layer}` receives. Give what comes before it other weights than "
                    "zeros, or train it: `trainable=True`."
                ),
            )
    usual = (
        "give the output an activation with the range of the targets, scale inputs and targets, "
    )
    usual += "and lower the learning rate."
    limits = [*list_limits(facts), "Otherwise: "]
    return (
        "Nothing of the input reaches the output: its activation is saturated or cut off, units "
        "before it are dead, or the signal is lost over depth or time.",
        Fix(" ".join(limits) + usual if len(limits) > 1 else usual.capitalize()),
    )


def find_no_better_than_guessing(facts: Facts) -> Iterator[Finding]:
    """Find trainings no better than the best constant prediction for good."""
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
        f"No better than guessing: up to step {step} the loss is {recent:.4g} on average; always "
        f"predicting the same, whatever the input, gives {guess:.4g}.",
        {"loss": recent, "guess": guess, "fell": float(loss.fell[row])},
    )


def find_rising_loss(facts: Facts) -> Iterator[Finding]:
    """Find growing losses: far above the first ones, for long at twice them, or up all the time.

    The last two are asked of losses with a known best constant only, and above it: in adversarial
    and reinforcement learning a loss may rise for good.
    """
    loss, records = facts.loss.value, int(THRESHOLDS["window_records"].value)
    first = np.nan if len(loss) < records else np.median(loss[:records])
    if not first > 0:
        return
    far = persists(loss > THRESHOLDS["loss_grown"].value * first, facts.start, facts.ready)
    above = (loss > (1 + THRESHOLDS["loss_risen"].value) * first) & (loss > facts.loss.guess)
    before = np.arange(len(loss)) + 1 - int(THRESHOLDS["rising_records"].value)
    start = np.minimum(facts.start, np.maximum(before, 0))
    above = persists(above, start, facts.ready & (before >= 0))
    with np.errstate(invalid="ignore"):
        least = THRESHOLDS["loss_climbed"].value * np.maximum(first, facts.loss.guess)
        climbs = facts.loss.fell < -THRESHOLDS["loss_falling"].value
        climbs &= (facts.loss.recent > least) & facts.find_late("patience_steps")
    row = find_first(far | above | climbs)
    if row is None:
        return
    step, factor = int(facts.steps[row]), float(loss[row] / first)
    cause, fix = _tell_rise(facts, row)
    yield Finding(
        "rising_loss",
        "",
        step,
        f"Rising loss: at step {step} the loss is {loss[row]:.3g}, {factor:.3g} times what it was "
        f"up to step {facts.steps[records - 1]}.",
        {"factor": factor, "loss": float(loss[row])},
        cause=cause,
        fix=fix,
    )


def _tell_rise(facts: Facts, row: int) -> tuple[str, Fix]:
    """Return why a loss rises, and the fix: targets that grow, a wrong sign, or a high rate."""
    y, records = facts.ports_of("y"), int(THRESHOLDS["window_records"].value)
    mean, std = (facts.per_port(name)[: row + 1, y] for name in ("mean", "std"))
    size = np.hypot(mean, std).max(axis=1, initial=0.0)
    before, now = np.median(size[:records]), np.median(size[-records:])
    if now > (1 + THRESHOLDS["loss_risen"].value) * before:
        return (
            f"The targets grow: at first they are of the size of {before:.3g}, now of {now:.3g}. "
            "They are made of the model's own outputs, as in Q-learning, or come in order of size.",
            Fix(
                "In Q-learning take targets from a copy of the model that seldom changes, "
                "`target.set_weights(model.get_weights())`, with a discount below 1 and the "
                "reward alone where an episode ends, and scale rewards to about 1. Other data: "
                "shuffle them."
            ),
        )
    ratio = facts.median_update[int(facts.start[row]) : row + 1]
    lower = change_rate(facts, row, 0.1)
    if ratio.size and 0 < np.median(ratio) <= THRESHOLDS["swing_update"].value:
        return (
            "Updates are not large, and the loss grows with them: they go uphill, by a wrong sign "
            "of gradient or loss, or follow something else than this loss.",
            Fix(
                "Look at signs: gradients go to the optimizer as they are, and a loss is small "
                f"where outputs are right. If that is so: {lower}",
                lower.repairs,
            ),
        )
    if facts.setup.backend == "torch":
        own = (
            "In a `train_step` of your own call `self.zero_grad()` before `loss.backward()`: else "
        )
        lower = Fix(f"{lower} {own}gradients of all steps add up.", lower.repairs)
    return "Updates overshoot: each one makes the loss larger.", lower


def find_oscillation(facts: Facts) -> Iterator[Finding]:
    """Find losses on both sides of the best constant's in turn, far above it and below.

    In the last two thirds of the training so far they do so several times, and their mean neither
    falls nor is as low as the best constant's: a cyclic learning rate does not do so. Updates
    must be large, as batches differ, too.
    """
    steps, value, guess = facts.steps, facts.loss.value, facts.loss.guess
    elapsed = steps - steps[:1]
    high = value > THRESHOLDS["swing"].value * guess
    side = np.where(high, 1, np.where(value < guess, -1, 0))
    # The last side that each record before was on.
    last = np.maximum.accumulate(np.where(side != 0, np.arange(len(side)), 0))
    former = side[np.append(0, last[:-1])]
    swings = np.cumsum(high & (former == -1))
    middle, late = find_thirds(steps)
    sums = [np.append(0.0, np.cumsum(x)) for x in (np.isfinite(value), np.nan_to_num(value))]
    end = np.arange(len(steps)) + 1
    before, now = (
        quotient(sums[1][stop] - sums[1][begin], sums[0][stop] - sums[0][begin])
        for begin, stop in ((middle, late), (late, end))
    )
    patient = elapsed >= THRESHOLDS["patience_steps"].value
    patient |= facts.loss.over & (elapsed >= THRESHOLDS["patience_at_end"].value)
    ratio = facts.median_update
    large = window_mean(ratio, facts.start) if ratio.size else np.zeros(len(steps))
    row = find_first(
        patient
        & (large > THRESHOLDS["swing_update"].value)
        & (swings - swings[np.minimum(middle, end - 1)] >= THRESHOLDS["swings"].value)
        & (np.minimum(before, now) > THRESHOLDS["swing_mean"].value * guess)
        & (now > (1 - THRESHOLDS["swing_fall"].value) * before)
    )
    if row is None:
        return
    step, begin = int(steps[row]), int(middle[row])
    count = int(swings[row] - swings[min(begin, row)])
    low, top = np.nanmin(value[begin : row + 1]), np.nanmax(value[begin : row + 1])
    yield Finding(
        "oscillation",
        "",
        step,
        f"Oscillation: from step {steps[begin]} to {step} the loss swings up {count} times, "
        f"between {low:.3g} and {top:.3g}, and its mean, {now[row]:.3g}, does not fall; always "
        f"predicting the same gives {guess[row]:.3g}.",
        {"swings": float(count), "low": float(low), "high": float(top), "mean": float(now[row])},
        cause="Each update overshoots the minimum: the learning rate is too large.",
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
    long = facts.find_late("window_steps")
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

    Half of the error is a quarter of a squared one. Trainings too short to judge are found, too, if
    they are no better than guessing. It is a note, unless nothing was learned at all.
    """
    steps, loss = facts.steps, facts.loss
    last = len(steps) - 1
    losses = {head.loss for head in facts.setup.heads if head.loss}
    if not loss.over[last] or not losses:
        return
    known = loss.value[np.isfinite(loss.value)]
    left = THRESHOLDS["loss_halved"].value
    if losses == {"mean_squared_error"}:
        left = left**2
    limit = loss.guess[last] - (1 - left) * loss.reach[last]
    if np.isnan(limit):
        limit = left * known[:1].max(initial=0)
    fell, value = float(loss.fell[last]), float(loss.value[last])
    updates, is_stopped = _count_updates(facts)
    margin = THRESHOLDS["guess_margin"].value * loss.reach[last]
    at_guess = loss.recent[last] > loss.guess[last] - margin
    is_short = at_guess and updates < THRESHOLDS["patience_steps"].value
    still = fell > THRESHOLDS["loss_fell"].value
    if not (still or is_short) or not loss.recent[last] > limit:
        return
    made = f"{updates} of {facts.setup.steps} planned" if is_stopped else f"{updates}"
    seen = f"Ended early: the training ends after {made} updates while the loss, {value:.3g}, "
    if still:
        seen += f"still falls: by {fell:.1%} from the middle third of the training to the last."
    else:
        seen += f"is no better than always predicting the same, which gives {loss.guess[last]:.3g}."
    cause, fix, ratio = _tell_end(facts, is_stopped)
    if at_guess and not is_short:
        fix = Fix(" ".join([*list_limits(facts), str(fix)]), fix.repairs)
    if is_short and not is_stopped:
        again = "If `fit` is called in a loop, build and compile the model once, before it."
        fix = Fix(f"{fix} {again}", fix.repairs)
    yield Finding(
        "ended_early",
        "",
        int(steps[last]),
        seen,
        {"updates": float(updates), "fell": fell, "loss": value}
        | ({"update_ratio": ratio} if ratio > 0 else {}),
        severity="warning" if loss.failed[last] else "note",
        cause=cause,
        fix=fix,
        confidence="possible",
    )


def _count_updates(facts: Facts) -> tuple[int, bool]:
    """Return how many updates a training has made in the end, and if more were planned."""
    made, planned = int(facts.steps[-1]) + 1, facts.setup.steps
    is_stopped = made < THRESHOLDS["planned_share"].value * planned
    return made if is_stopped else max(made, planned), is_stopped


def find_early_averages(facts: Facts) -> Iterator[Finding]:
    """Find the end of a good training before the averages of a batch normalization are right.

    They begin as those of units of mean 0 and standard deviation 1, which inputs may be far from;
    of others that is not known, and it is a note.
    """
    last = len(facts.steps) - 1
    if not facts.loss.over[last] or facts.loss.left[last] or not facts.is_begin:
        return
    batches = _count_updates(facts)[0] * (
        facts.setup.optimizer_arguments.get("gradient_accumulation_steps") or 1
    )
    paths = [variable.path for variable in facts.records.layout.variables]
    weights = dict(zip(paths, facts.per_variable("weight_norm")[0].tolist(), strict=True))
    first, inputs = find_first_layers(facts.setup), list_tensors(facts, "x")
    sizes = [np.abs(read(facts, x, name, np.fmax)[0]) for x in inputs for name in ("mean", "std")]
    is_far = max(sizes, default=0.0) > THRESHOLDS["input_size"].value
    for item in facts.setup.layers:
        if item.type != "BatchNormalization" or not item.trainable:
            continue
        if weights.get(f"{item.path}/beta", 0.0) != 0:  # trained before
            continue
        left, is_raw = item.arguments.get("momentum", 0.0) ** batches, is_far and item in first
        if left > THRESHOLDS["average_left" if is_raw else "average_begin"].value:
            yield tell(
                facts,
                "moving_average",
                f"After {batches} batches the moving averages of `{item.path}` are "
                f"still {left:.0%} of what they began with, mean 0 and standard deviation 1.",
                "`evaluate` and `predict` use them, and the training does not: it can be good, and "
                "predictions are not.",
                "Use `BatchNormalization(momentum=0.9)`, train for longer, or normalize inputs "
                "before the training: `keras_initkit.with_normalization(model, x)`.",
                item.path,
                {"batches": batches, "left": left},
                row=last,
                severity="warning" if is_raw else "note",
            )
            return


def _tell_end(facts: Facts, is_stopped: bool) -> tuple[str, Fix, float]:
    """Return why a training ended too early, the fix, and the size of its last updates.

    These are relative to the weights; NaN if they are not known. Small ones are to be larger.
    """
    last = len(facts.steps) - 1
    fix = Fix("Train for longer: more `epochs` in `model.fit`, or a smaller `batch_size`.")
    cause = "The weights were updated too few times."
    if is_stopped:
        cause += " You or a callback, such as `EarlyStopping`, stopped the training."
        text = 'Train to the end: give `EarlyStopping` more `patience`, and `mode="min"` for a '
        fix = Fix(f'{text}loss, `mode="max"` for an accuracy.')
    ratios = facts.median_update[int(facts.start[last]) :]
    ratio = float(np.median(ratios)) if ratios.size else math.nan
    factor = THRESHOLDS["update_usual"].value / ratio if ratio > 0 else 1.0
    if factor > THRESHOLDS["update_near"].value:
        also = change_rate(facts, last, min(100, factor))
        fix = Fix(f"{fix} {also}", also.repairs)
    return cause, fix, ratio
