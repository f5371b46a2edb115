"""The course of the loss: if it falls, and if it is better than that of the best constant."""

from typing import Any, NamedTuple, Self

import numpy as np

from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import (
    Bools,
    Floats,
    Ints,
    find_thirds,
    find_windows,
    mean_of_known,
    quotient,
    window_mean,
)
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import HeadSetup, Setup, match_heads

CROSSENTROPIES = {
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
}
# The statistic of targets with the loss of the best constant, or its square.
_BEST_CONSTANT = {
    "categorical_crossentropy": "entropy",
    "sparse_categorical_crossentropy": "entropy",
    "binary_crossentropy": "binary_entropy",
    "mean_squared_error": "variance",
    "mean_absolute_error": "variance",
}
_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class Loss(NamedTuple):
    """Course of the data loss at each record, (n,). Where it is not known, masks are False.

    Attributes:
        value: The loss without penalties, as far as those are known.
        guess: The loss of the best constant prediction for the targets so far; NaN if unknown.
        reach: How much less than that is possible.
        recent: Mean over the last third of the training so far.
        fell: Part of the loss that was lost since the third before.
        halved, falling, gone, risen: Masks, by means over windows.
        flat: Mask of the records where it falls no more, and is still what it was at first or what
            a constant reaches.
        guessing: Mask of the records where it is flat and not better than the best constant.
        still: Mask of the records where it falls no more, and most of it is left.
        far: Mask of the records where it is far above the best constant's, and hardly comes nearer,
            though training has gone on for long; in the end, where it is above it.
        failed: Mask of the last record, if the training is over, was not short, and is not better
            than the best constant.
        left: Mask of the last record, if the training is over, and most of the best constant's
            loss is left, even if it falls.
        over: Mask of the last record, if no more will come.
    """

    value: Floats
    guess: Floats
    reach: Floats
    recent: Floats
    fell: Floats
    halved: Bools
    falling: Bools
    gone: Bools
    risen: Bools
    flat: Bools
    guessing: Bools
    still: Bools
    far: Bools
    failed: Bools
    left: Bools
    over: Bools

    @property
    def good(self) -> Bools:
        """Records where the loss speaks for the training."""
        return self.halved | self.falling

    def at(self, rows: Any) -> Self:
        """Select rows."""
        return type(self)(*(array[rows] for array in self))


def read_loss(history: GradientHistory, setup: Setup, ended: bool = False) -> Loss:
    """Compare the loss with the first one, with what it was before, and with the best constant.

    Masks of windows are by the mean of each window, the first loss, and the window before; a good
    loss is one that has halved or falls, unless it is impossible or one that a constant has, too.

    Args:
        history: The records.
        setup: The model, with the number of planned steps; empty if it is not known.
        ended: If no more records will come.
    """
    steps, loss = history.steps, _data_loss(history, setup)
    over = _find_end(steps, setup.steps, ended)
    guess, reach = _best_constant(history, setup)
    start, _ = find_windows(steps, THRESHOLDS["window_steps"].value, setup.steps)
    known = loss[np.isfinite(loss)]
    first = known[0] if len(known) else np.nan
    now = window_mean(loss, start)
    # The window before; at the beginning there is none, and the first loss stands for it.
    previous = np.where(start > 0, now[np.maximum(start - 1, 0)], first)
    losses = {head.loss for head in setup.heads}
    possible = (now >= 0) | (not losses or not losses <= CROSSENTROPIES)
    margin, guess_far, fell_errors, guess_errors, first_left = (
        THRESHOLDS[name].value
        for name in ("guess_margin", "guess_far", "fell_errors", "guess_errors", "first_left")
    )
    with np.errstate(invalid="ignore"):
        at_guess = now >= guess - margin * reach
        halved = (now < first) & (first - now >= THRESHOLDS["loss_halved"].value * abs(first))
        lost = previous - now >= THRESHOLDS["loss_falling"].value * np.abs(previous)
        risen = (now > first) & (now - first >= THRESHOLDS["loss_risen"].value * abs(first))
        gone = np.abs(now) <= THRESHOLDS["loss_gone"].value * abs(first)
        falling = (now < previous) & lost & possible
    recent, fell, (error, doubt), ready = _compare_thirds(steps, loss, over)
    elapsed = steps - steps[:1]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Of a noisy loss it is hard to say that it does not fall.
        sure = np.maximum(fell, 0) + fell_errors * doubt < THRESHOLDS["loss_falling"].value
        still = ready & sure & (fell < THRESHOLDS["loss_fell"].value) & ~falling
        limit = np.where(np.isnan(guess), first_left * first, guess - margin * reach)
        behind = recent >= limit
        # Less than the margin counts if it is more than the noise of batches.
        least = np.clip(guess_errors * error, THRESHOLDS["guess_error"].value, margin)
        is_guess = recent >= guess - least * reach
        guessing = still & is_guess
        # A cross-entropy is above the constant's where classes are right, and a few are far off.
        fast = THRESHOLDS["loss_falling" if losses & CROSSENTROPIES else "loss_halved"].value
        # The mean of a few losses of single samples says little.
        place = np.arange(1, len(steps) + 1)
        noise = error * np.sqrt((place - find_thirds(steps)[1]) / (place - start))
        ends = over & (now >= guess - np.fmax(margin, noise) * reach) & ~(fell > fast)
        failed = ends & is_guess & (elapsed >= THRESHOLDS["patience_steps"].value)
        is_short = elapsed < THRESHOLDS["patience_at_end"].value
        left = over & ~is_short & (now > guess - (1 - THRESHOLDS["loss_halved"].value) * reach)
        times = np.where(is_short, guess_far, 1)
        thirds = quotient(np.log(recent / guess), -np.log1p(-np.clip(fell, 0, 1)))
        planned = quotient(3 * (setup.steps - steps), elapsed)  # thirds that are still to come
        far = ready & (recent > guess_far * guess)
        far &= thirds > np.fmax(THRESHOLDS["guess_thirds"].value, planned)
        far |= ends & (recent > times * guess)
        whole = np.where(np.isnan(guess), first, guess)
        most = still & (recent > THRESHOLDS["loss_halved"].value * whole)
    halved &= possible & ~at_guess
    return Loss(
        *(loss, guess, reach, recent, fell, halved, falling, gone, risen),
        *(still & behind, guessing, most, far, failed, left, over),
    )


def _find_end(steps: Ints, planned: int, ended: bool) -> Bools:
    """Find the last record, if no more will come, as far as it is known; (n,)."""
    over = np.zeros(len(steps), bool)
    gap = int(np.diff(steps).max(initial=1))
    over[-1:] = ended | ((planned > 0) & (planned <= steps[-1:] + gap))
    return over


def _compare_thirds(
    steps: Ints, loss: Floats, over: Bools
) -> tuple[Floats, Floats, tuple[Floats, Floats], Bools]:
    """Compare the last third of the training up to each record with the third before.

    When the training is over, its last record can be judged a little earlier.

    Returns:
        The mean of the last third, in which single large losses count little; what was lost since
        the third before, by geometric means, as a part; the standard errors of both, as a part;
        and if there is enough of it to judge. Losses of zero or less have no such means: all are
        NaN from there on.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.log(loss)
    there = ~np.isnan(level) | (loss <= 0)
    level = np.where(there, level, 0.0)
    sums = [np.concatenate([[0.0], np.cumsum(array)]) for array in (there, level, np.square(level))]
    elapsed = steps - steps[:1]
    end = np.arange(len(steps)) + 1
    middle, late = find_thirds(steps)
    with np.errstate(invalid="ignore"):
        (count, mean, error), (former, before, former_error) = (
            _mean_and_error(*(array[stop] - array[begin] for array in sums))
            for begin, stop in ((late, end), (middle, late))
        )
    least = THRESHOLDS["window_records"].value
    patient = elapsed >= THRESHOLDS["patience_steps"].value
    patient |= over & (elapsed >= THRESHOLDS["patience_at_end"].value)
    ready = patient & (former >= least) & (count >= least)
    # Of noisy losses the geometric mean is below the usual one, which the best constant's loss is.
    noise = np.minimum(count * np.square(error) / 2, THRESHOLDS["guess_margin"].value)
    recent, fell = np.exp(mean + noise), -np.expm1(mean - before)
    return recent, fell, (error, np.hypot(error, former_error)), ready


def _mean_and_error(count: Floats, total: Floats, squares: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the number of values, their mean and its standard error, from their sums."""
    mean = quotient(total, count)
    variance = np.maximum(quotient(squares, count) - np.square(mean), 0)
    return count, mean, np.sqrt(quotient(variance, count))


def _data_loss(history: GradientHistory, setup: Setup) -> Floats:
    """Return the loss without its penalties, where they are known, (n,).

    Where no output has a compiled loss, the penalty is all of the loss.
    """
    loss, batch, penalty = (
        mean_of_known(history[name]) for name in ("loss", "batch_loss", "penalty")
    )
    if not any(head.loss for head in setup.heads):
        return loss
    # The loss is a mean since the record before, the others are of the step itself.
    share = np.where((batch == 0) | (penalty == 0), 1.0, 1 - quotient(penalty, batch))
    return loss * np.where(np.isnan(share), 1.0, share)


def _best_constant(history: GradientHistory, setup: Setup) -> tuple[Floats, Floats]:
    """Return the loss of the best constant predictions, and how much less is possible, (n,).

    NaN where it is not known: with weights of samples, and where a mask leaves samples out.
    """
    total = np.zeros((2, len(history)))
    targets = [i for i, port in enumerate(history.ports) if port.role == "y"]
    heads = [head for head in setup.heads if head.loss]
    if (
        not heads
        or len(heads) != len(targets)
        or any(port.role == "sample_weight" for port in history.ports)
        or any(item.type == "Masking" or item.arguments.get("mask_zero") for item in setup.layers)
    ):
        return total[0] * np.nan, total[1] * np.nan
    places = match_heads(heads, [history.ports[i].name for i in targets])
    for head, place in zip(heads, places, strict=True):
        if place is None:
            continue
        weight = head.arguments.get("loss_weight", 1)
        total += weight * np.stack(_best_constant_of(history, head, targets[place]))
    return total[0], total[1]


def _best_constant_of(
    history: GradientHistory, head: HeadSetup, column: int
) -> tuple[Floats, Floats]:
    """Return what `_best_constant` does, for the targets of one output."""

    def of_targets(statistic: str) -> Floats:
        return history.per_port(statistic)[:, column]

    arguments = head.arguments
    is_plain = arguments.get("reduction", "mean") in _MEANS and not arguments.get("label_smoothing")
    if head.loss not in _BEST_CONSTANT or not is_plain:
        return (np.full(len(history), np.nan),) * 2
    guess = of_targets(_BEST_CONSTANT[head.loss])
    if head.loss == "mean_absolute_error":  # That of the median is not larger than this.
        guess = np.sqrt(guess)
    if head.loss == "categorical_crossentropy":
        guess = np.where(of_targets("one_hot") > THRESHOLDS["nearly_all"].value, guess, np.nan)
    if head.loss == "binary_crossentropy":
        # The entropy H of the mean of fractions is larger than their mean entropy by at least
        # twice their variance, since H'' is -4 or less.
        crisp = of_targets("integers") > THRESHOLDS["nearly_all"].value
        return guess, np.where(crisp, guess, 2 * of_targets("variance"))
    return guess, guess
