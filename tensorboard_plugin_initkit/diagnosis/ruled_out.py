"""The verdict "nothing wrong found, but it does not learn", with what was ruled out."""

import dataclasses
import functools
import operator
from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.depth import judge_depth
from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.limits import list_limits, tell_width
from tensorboard_plugin_initkit.diagnosis.rules.dependence import list_sights
from tensorboard_plugin_initkit.diagnosis.rules.progress import find_constant_loss, tell_guessing
from tensorboard_plugin_initkit.diagnosis.tell import tell
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import Bools, find_first, window_mean
from tensorboard_plugin_initkit.diagnosis.wiring import list_heads

_LOOK_AT_STEP = (
    "Print what the loss compares, of one batch: do targets differ from sample to sample, do they "
    "go with the outputs row by row, are they the very numbers that the inputs were made of (noise "
    "must be drawn once), and is the loss smallest where outputs are right?"
)


def find_not_learning(facts: Facts, fits: bool = True) -> Iterator[Finding]:
    """Find trainings that do not learn, for long or to the end; it says what was ruled out.

    That output, loss and targets fit each other is among it, unless something else was found.
    """
    loss = facts.loss
    planned = facts.setup.steps - facts.steps[:1]
    halfway = facts.steps - facts.steps[:1] >= THRESHOLDS["halfway"].value * planned
    waited = facts.find_late("verdict_steps") & (halfway | facts.find_late("plateau_steps"))
    stays = loss.failed & (loss.fell < THRESHOLDS["loss_fell"].value)
    row = find_first(loss.guessing & (waited | loss.over) | stays | _find_learnt_by_heart(facts))
    symptoms = [*find_constant_loss(facts), *([] if row is None else [tell_guessing(facts, row)])]
    if not symptoms:
        return
    symptom = min(symptoms, key=lambda finding: finding.rank)
    place = int(np.searchsorted(facts.steps, symptom.rank))
    reasons = dict(_list_reasons(facts, place, fits))
    message = symptom.message.partition(": ")[2]
    fix = " ".join([*list_sights(facts), *list_limits(facts), ""]) + (
        "Let the model learn one batch by heart. If it can, look at inputs and targets as the "
        "model gets them: are both in the same order (shuffled together), is a sample still what "
        "it was (a `reshape` in place of a `transpose` scrambles it), and can the target be told "
        "from it at all? If it cannot, try learning rates ten times larger and smaller, and a "
        "wider model."
    )
    falls = loss.fell[place] > THRESHOLDS["loss_fell"].value
    if falls:
        fix += " As the loss still falls, more `epochs` may help, too."
    # By less than a weak relation under noise gives, but it is no longer falling.
    is_doubtful = loss.recent[place] < loss.guess[place] and not (
        falls or loss.guessing[place] or loss.failed[place]
    )
    yield dataclasses.replace(
        symptom,
        kind="not_learning",
        severity="note" if is_doubtful else "warning",
        message=f"Nothing wrong was found, but {message}",
        evidence=functools.reduce(operator.or_, reasons.values(), symptom.evidence),
        cause=f"Ruled out: {'; '.join(reasons) or 'nothing, too little is recorded'}.",
        fix=Fix(fix),
        confidence="possible",
    )


def find_part_learned(facts: Facts) -> Iterator[Finding]:
    """Find the end of a training with most of its loss left, by few units.

    A mere note: much of the loss may be noise.
    """
    loss, last = facts.loss, len(facts.steps) - 1
    narrow = tell_width(facts)
    recent, known = float(loss.recent[last]), loss.guess[last]
    whole = float(loss.value[0] if np.isnan(known) else known)
    is_left = recent > THRESHOLDS["loss_halved"].value * whole
    is_slow = loss.fell[last] < THRESHOLDS["loss_falling"].value
    if narrow and loss.over[last] and is_left and is_slow:
        yield tell(
            facts,
            "not_learning",
            f"Learned in part: the loss hardly falls any more and is {recent:.4g}; always "
            f"predicting the same gives about {whole:.4g}.",
            "So few units make few folds: they stay at what a part of the samples shows.",
            f"{narrow} Or train for longer.",
            facts.layer_of_head(0),
            {"loss": recent, "guess": whole},
            row=last,
            severity="note",
        )


def find_own_step(facts: Facts) -> Iterator[Finding]:
    """Find the end of a training in steps of one's own with most of its loss left: a note.

    Of such a step hardly more is known than the loss. With several optimizers it may be meant to
    stay.
    """
    loss, last = facts.loss, len(facts.steps) - 1
    first, recent = float(loss.value[0]), float(loss.recent[last])
    is_own = not any(head.loss for head in facts.setup.heads) and len(facts.setup.heads) == 1
    is_left = recent > THRESHOLDS["loss_halved"].value * first
    patient = facts.find_late("patience_at_end")[last]
    if is_own and is_left and patient and loss.over[last] and len(facts.optimizers) == 1:
        yield tell(
            facts,
            "not_learning",
            f"Learned in part: the loss of a step of your own was {first:.4g} at first and is "
            f"{recent:.4g} in the end.",
            "What it compares is not known.",
            " ".join([*_tell_shapes(facts), _LOOK_AT_STEP]),
            facts.layer_of_head(0),
            {"loss": recent, "first": first},
            row=last,
            severity="note",
        )


def _tell_shapes(facts: Facts) -> Iterator[str]:
    """Say what shapes of targets and outputs do, where they differ or are not known."""
    (head,) = list_heads(facts)
    if not facts.ports or (head.y and head.y_pred and head.y.shape != head.y_pred.shape):
        yield (
            "Print the shapes of targets and outputs, and of their difference: Keras does not make "
            "them alike in such a step, and targets (batch,) and outputs (batch, 1) compare each "
            "output with the targets of all samples, so that the mean is best: `y = "
            "keras.ops.reshape(y, keras.ops.shape(y_pred))`."
        )


def _find_learnt_by_heart(facts: Facts) -> Bools:
    """Find the end of a training that is hardly better than guessing, with usual updates.

    Or no better at all, for long. Its loss still falls, slowly: samples are learned one by one,
    and nothing that they have in common. With a weak relation under noise it would fall fast, and
    then no more.
    """
    loss, margin = facts.loss, THRESHOLDS["heart_margin"].value
    if not loss.over.any():
        return loss.over
    ratio = facts.median_update
    size = window_mean(ratio, facts.start) if ratio.size else np.zeros(len(facts.steps))
    is_better = ~loss.failed & (loss.guess > loss.recent)
    return (
        loss.over
        & facts.find_late("patience_steps")
        & (is_better | loss.failed & facts.find_late("verdict_steps"))
        & (loss.recent >= loss.guess - margin * loss.reach)
        & (loss.fell > 0)
        & (loss.fell < THRESHOLDS["loss_falling"].value)
        & (THRESHOLDS["update_near"].value * size > THRESHOLDS["update_usual"].value)
    )


def _list_reasons(facts: Facts, row: int, fits: bool) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each kind of fault looked for in vain, and its numbers."""
    if fits and any(head.loss for head in facts.setup.heads) and facts.ports_of("y"):
        yield "output, loss and targets fit each other", {}
    if inputs := facts.ports_of("x"):
        mean, std = (facts.per_port(name)[row, inputs[0]] for name in ("mean", "std"))
        numbers = {"input_mean": float(mean), "input_std": float(std)}
        yield f"inputs have a mean of {mean:.2g} and a standard deviation of {std:.2g}", numbers
    factors = [judgement.line_at(row).factor for judgement in judge_depth(facts)]
    if factors and np.isfinite(factors[0]):
        text = f"the gradient changes by ×{factors[0]:.2g} per layer towards the input"
        yield text, {"factor": factors[0]}
    dead = facts.per_variable("dead_units")[row]
    share = float(np.nanmax(dead, initial=-1))
    if 0 <= share < THRESHOLDS["dead_share"].value:
        yield f"at most {share:.0%} of the units of a layer have no gradient", {"dead_units": share}
    ratio = facts.update_ratios(slice(row, row + 1))
    if np.nan_to_num(ratio).any():
        size = float(np.nanmedian(ratio))
        yield f"an update changes the weights by {size:.1g} of their size", {"update_ratio": size}
