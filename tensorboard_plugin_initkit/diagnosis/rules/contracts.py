"""Broken contracts between output, loss, targets and data: each is certain, from one record on."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding, Severity
from tensorboard_plugin_initkit.diagnosis.fix import Fix, activate, remove
from tensorboard_plugin_initkit.diagnosis.rules.data import (
    count_classes,
    find_bad_indices,
    find_numbered_classes,
    find_single_class,
    find_sorted_classes,
    find_zero_sample_weights,
)
from tensorboard_plugin_initkit.diagnosis.rules.structure import (
    find_frozen_model,
    find_softmax_of_one,
)
from tensorboard_plugin_initkit.diagnosis.targets import (
    BINARY,
    CATEGORICAL,
    CROSSENTROPY,
    HINGE,
    PROBABILITIES,
    REGRESSION,
    SPARSE,
    Remedy,
    Target,
    follow_target,
    suggest,
)
from tensorboard_plugin_initkit.diagnosis.tell import tell
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import find_first, find_thirds, persists
from tensorboard_plugin_initkit.diagnosis.wiring import (
    RECURRENT,
    Head,
    Tensor,
    list_heads,
    list_tensors,
    read,
    write_layer,
)
from tensorboard_plugin_initkit.record.setup import ANY_SIZE, HeadSetup, LayerSetup, Shape
from tensorboard_plugin_initkit.safe_text import write_number

INFINITE = float("inf")
# The least and the greatest value of an activation.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("sigmoid", "hard_sigmoid", "softmax", "sparsemax"), (0.0, 1.0)),
    **dict.fromkeys(("tanh", "softsign", "hard_tanh"), (-1.0, 1.0)),
    **dict.fromkeys(("relu", "softplus", "exponential", "squareplus"), (0.0, INFINITE)),
    "relu6": (0.0, 6.0),
    "log_softmax": (-INFINITE, 0.0),
    "elu": (-1.0, INFINITE),
    "celu": (-1.0, INFINITE),
    "selu": (-1.7582, INFINITE),
    "gelu": (-0.17005, INFINITE),
    "silu": (-0.27847, INFINITE),
    "mish": (-0.30885, INFINITE),
    **dict.fromkeys(("linear", "leaky_relu"), (-INFINITE, INFINITE)),
}
_SIGMOIDS = ("sigmoid", "hard_sigmoid")
_PROBABLE = (*_SIGMOIDS, "softmax", "sparsemax")
# Losses that cannot fall below zero.
_POSITIVE = CROSSENTROPY | REGRESSION | HINGE | {"categorical_hinge"}
# Others of Keras.
_KERAS = {"poisson", "cosine_similarity", "circle", "ctc"}
_SLACK = THRESHOLDS["range_slack"].value


class Case(NamedTuple):
    """An output and its target, as known at a record.

    Attributes:
        facts: Everything known of the training.
        row: Position of the record.
        head: The output.
        target: Its target up to this record; `None` if it is not known.
        is_masked: Whether samples have had a weight of 0: these may have any target.
    """

    facts: Facts
    row: int
    head: Head
    target: Target | None
    is_masked: bool

    def find(
        self, kind: str, seen: str, cause: str, fix: str | Fix, severity: Severity = "error"
    ) -> Finding:
        """Make a finding on the output."""
        numbers = {"units": float(self.head.units)}
        if self.target:
            numbers |= {"low": self.target.low, "high": self.target.high}
        return tell(
            self.facts,
            kind,
            seen,
            cause,
            fix,
            self.head.path,
            numbers,
            row=self.row,
            severity=severity,
            confidence="likely",
        )

    def find_logits(self, seen: str) -> Finding:
        """Make a finding on an output without probabilities: it may be logits."""
        remedy = self.remedy
        fix = remedy.as_fix()
        if remedy.loss == f'"{self.loss}"':
            text = f"Use `loss={write_loss(self.loss, True)}`, or {remedy}"
            fix = Fix(text, fix.repairs or write_repair(self.head, self.loss, True))
        cause = "Outside of 0..1 the loss is cut off, and there its gradient is zero or wrong."
        return self.find("logits", seen, cause, fix)

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return self.head.setup.loss

    @property
    def remedy(self) -> Remedy:
        """The output and loss for the targets."""
        return suggest(self.head, self.target)


def find_broken_heads(facts: Facts) -> Iterator[Finding]:
    """Find outputs in conflict with their loss or targets: one finding each, the root of it."""
    for head in list_heads(facts):
        found = next(_check_head(facts, head), None)
        if found:
            yield found


def _check_head(facts: Facts, head: Head) -> Iterator[Finding]:
    if not head.setup.loss or head.setup.arguments.get("loss_weight") == 0:
        return
    weights = [read(facts, t, "min", np.fmin) == 0 for t in list_tensors(facts, "sample_weight")]
    masked = np.logical_or.reduce(weights) if weights else np.zeros(0, bool)
    for row, target in follow_target(facts, head.y):
        case = Case(facts, row, head, target, bool(masked[: row + 1].any()))
        yield from filter(None, (check(case) for check in _CHECKS))
    if finding := _check_predictions(facts, head, target):
        yield finding


def _check_predictions(facts: Facts, head: Head, target: Target | None) -> Finding | None:
    """Check predictions for probabilities, where the activation is not known."""
    if head.y_pred is None or head.setup.loss not in CROSSENTROPY or head.from_logits:
        return None
    low, high = read(facts, head.y_pred, "min", np.fmin), read(facts, head.y_pred, "max", np.fmax)
    is_scaled = head.setup.loss in CATEGORICAL - SPARSE  # by the loss itself
    row = find_first((low < -_SLACK) | (high > 1 + _SLACK) & (not is_scaled))
    if row is None:
        return None
    case = Case(facts, row, head, target, False)
    seen = f"The {head} goes from {low[row]:.3g} to {high[row]:.3g}"
    return case.find_logits(f"{seen}, and `{case.loss}` expects probabilities in 0..1.")


def _check_one_unit(case: Case) -> Finding | None:
    """Check for several classes on one unit."""
    head = case.head
    if head.units != 1:
        return None
    if case.loss == "cosine_similarity" and case.target and case.target.width == 1:
        seen = f"The {head} has one unit, and its loss is `cosine_similarity`: the sign alone."
        cause = "This loss compares the directions of vectors: a single number has no other slope."
        return case.find("loss_choice", seen, cause, case.remedy.as_fix())
    if head.activation == "softmax" and _is_softmax_of_one(head.layer):
        seen = f"The {head} is a softmax over one unit, which is always 1."
        cause = "The outputs of a softmax sum to 1: with one unit nothing can be learned."
    elif not head.activation and head.y_pred and _are_all(case, head.y_pred, 1.0):
        seen = f"The {head} is 1 for every sample, as a softmax over one unit is."
        cause = "Nothing can be learned from an output that is always the same."
    elif case.loss in CATEGORICAL:
        seen = f"The {head} has one unit, and its loss is `{case.loss}`, which is then always 0."
        cause = "This loss compares the units of several classes: with one there is no choice."
    else:
        return None
    return case.find("single_unit_softmax", seen, cause, case.remedy.as_fix())


def _are_all(case: Case, tensor: Tensor, value: float) -> bool:
    """Check that all elements of a tensor have a value, at all records so far."""
    low, high = (read(case.facts, tensor, *way) for way in (("min", np.fmin), ("max", np.fmax)))
    return bool((low == value).all() and (high == value).all())


def _is_softmax_of_one(layer: LayerSetup | None) -> bool:
    """Check for a softmax along the last axis, if the layer tells its axis."""
    return layer is None or layer.arguments.get("axis", -1) in (-1, len(layer.shape) - 1)


def _check_dropout(case: Case) -> Finding | None:
    """Check for a dropout as the last layer."""
    head = case.head
    if head.layer is None or "Dropout" not in head.layer.type:
        return None
    seen = f"The {head} is a dropout: in training some outputs are 0, and the others are larger."
    cause = "The loss of a dropped output cannot be reduced, and the rest learn another scale."
    fix = Fix("Move the `Dropout` before the last `Dense`, or remove it.", remove(head.path))
    return case.find("output_dropout", seen, cause, fix)


def _check_task(case: Case) -> Finding | None:
    """Check for a cross-entropy of measured numbers."""
    target, head = case.target, case.head
    if target is None or case.loss not in CROSSENTROPY or not target.integers < 1:
        return None
    if (target.low >= -_SLACK and target.high <= 1 + _SLACK) or case.is_masked:
        return None
    remedy = case.remedy
    seen = f"The targets of the {head} are numbers from {target.span}; `{case.loss}` is for classes"
    cause = "A cross-entropy compares probabilities of classes, in 0..1, not measured numbers."
    return case.find("loss_choice", f"{seen}.", cause, remedy.as_fix())


def _check_activation(case: Case) -> Finding | None:
    """Check the output's activation against the loss: for probabilities, or logits."""
    head, loss, activation = case.head, case.loss, case.head.activation
    if loss == "poisson" and activation in ("linear", "tanh", "leaky_relu"):
        seen = f"The {head} can be negative, and its loss `poisson` takes its logarithm."
        fix = Fix(
            f"Use `{write_layer(head.kernel, max(1, head.units), 'exponential')}`.",
            {"activation": {"layers": {head.path: "exponential"}}},
        )
        cause = "The logarithm of a negative number is NaN."
        return case.find("head_activation", seen, cause, fix, "warning")
    if loss not in PROBABILITIES or activation not in RANGES:
        return None
    if activation in _PROBABLE:
        return _check_logits(case) or _check_choice(case)
    is_scaled = loss in CATEGORICAL - SPARSE and activation in ("exponential", "softplus")
    if head.from_logits or is_scaled:
        return None
    remedy = case.remedy
    if activation in ("linear", "log_softmax") and loss in CROSSENTROPY:
        has = "has no activation" if activation == "linear" else f"ends in `{activation}`"
        return case.find_logits(f"The {head} {has}, and `{loss}` expects probabilities in 0..1.")
    low, high = RANGES[activation]
    seen = f"The {head} ends in `{activation}`, and `{loss}` expects probabilities in 0..1."
    limits = f"{low:g} to {high:g}" if high < INFINITE else f"at least {low:g}"
    limits = limits if low > -INFINITE else "any number"
    cause = (
        f"It gives {limits}: at or below 0, and above 1, the loss is cut off, without a gradient."
    )
    return case.find("head_activation", seen, cause, remedy.as_fix())


def _check_logits(case: Case) -> Finding | None:
    """Check for probabilities taken for logits by the loss."""
    head = case.head
    if not head.from_logits:
        return None
    seen = (
        f"The {head} ends in `{head.activation}`, but its loss `{case.loss}` is told to expect "
        "logits, the numbers before an activation."
    )
    right = write_loss(case.loss, False)
    fix = Fix(
        f'Use `loss={right}`, or remove `activation="{head.activation}"`.',
        write_repair(head, case.loss, False),
    )
    if case.facts.setup.backend == "tensorflow":
        cause = "On TensorFlow Keras mostly notices this, and takes the numbers before it."
        return case.find("logits", seen, cause, fix, "warning")
    cause = f"Then `{head.activation}` is applied twice, which flattens output and gradient."
    return case.find("logits", seen, cause, fix)


def _check_choice(case: Case) -> Finding | None:
    """Check for exclusive classes in the output and not in the loss, or the other way round."""
    head, target = case.head, case.target
    if case.loss in BINARY and head.activation == "softmax" and head.units > 1:
        remedy = case.remedy
        seen = f"The {head} is a softmax of {head.units} classes, its loss is `{case.loss}`."
        cause = (
            "A softmax chooses one of the classes; binary cross-entropy asks about each class "
            "separately."
        )
        if target is not None and target.is_multi_hot:
            seen += " The targets have several classes at once."
            return case.find("loss_choice", seen, cause, remedy.as_fix())
        loss = "categorical_crossentropy"
        one = Remedy("", f'"{loss}"', repairs=write_repair(case.head, loss, False))
        fix = one.as_fix(f"Use {one} For several classes at once, a sigmoid for each.")
        # Of two classes both losses are the same.
        return case.find("loss_choice", seen, cause, fix, "warning" if head.units > 2 else "note")
    if case.loss in CATEGORICAL and head.activation in _SIGMOIDS:
        seen = f"The {head} has independent sigmoids, but `{case.loss}` is for one class of n."
        cause = "The probabilities do not sum to 1: nothing pushes the wrong classes down."
        return case.find("loss_choice", seen, cause, case.remedy.as_fix())
    most = THRESHOLDS["ones_per_row"].value
    several = target is not None and target.is_multi_hot and target.ones > most
    if case.loss in CATEGORICAL - SPARSE and head.activation == "softmax" and several:
        assert target is not None
        seen = (
            f"The targets of the {head} have {target.ones:.2g} ones per row, but its softmax with "
            f"`{case.loss}` is for exactly one."
        )
        cause = "The probabilities of a softmax sum to 1: two classes cannot both be near 1."
        return case.find("loss_choice", seen, cause, case.remedy.as_fix())
    return None


def _check_shape(case: Case) -> Finding | None:
    """Check the shape of targets against the output's, as Keras makes them alike."""
    head, target, loss = case.head, case.target, case.loss
    known = PROBABILITIES | REGRESSION | {"poisson"}
    if target is None or target.shape is None or head.shape is None or loss not in known:
        return None
    if head.setup.arguments.get("axis", -1) not in (-1, len(head.shape)):
        return None
    y, shape = target.shape, head.shape
    if loss in SPARSE:
        if _are_alike(y, shape[:-1]) or _are_alike(y, (*shape[:-1], 1)):
            return None
    elif _are_alike(*squeeze(y, shape)):
        return None
    seen = f"The {head} has the shape {_write_batch(shape)}, its targets {_write_batch(y)}."
    if loss in CROSSENTROPY:
        cause = f"`{loss}` expects targets of the output's shape, one number for each unit."
        if loss in SPARSE:
            cause = f"`{loss}` expects the number of the class, without an axis for the classes."
        return case.find("label_form", seen, cause, case.remedy.as_fix())
    cause = (
        "Numbers are repeated until both fit, so that outputs are compared with targets that are "
        "not theirs, or the training stops with an error."
    )
    if len(shape) > 1 and len(y) < len(shape):
        recurrent = any(RECURRENT.fullmatch(item.type) for item in case.facts.setup.layers)
        where = "in the last recurrent layer" if recurrent else "before the last `Dense`"
        code = "return_sequences=False" if recurrent else "keras.layers.Flatten()"
        fix = Fix(f"Give one output per sample: `{code}` {where}.")
    else:
        fix = case.remedy.as_fix()
    if any(tensor.shape == shape for tensor in list_tensors(case.facts, "x")):
        fix = Fix(f"{fix} If outputs are to be like the inputs: `model.fit(x, x)`.", fix.repairs)
    return case.find("target_shape", seen, cause, fix)


def squeeze(y: Shape, y_pred: Shape) -> tuple[Shape, Shape]:
    """Return the shapes of samples after `keras.losses` has made their ranks alike."""
    long, short = (y, y_pred) if len(y) > len(y_pred) else (y_pred, y)
    if len(long) == len(short) + 1 and long[-1] == 1:
        if not short:
            return long, long
        return (y[:-1], y_pred) if long is y else (y, y_pred[:-1])
    return y, y_pred


def _are_alike(some: Shape, other: Shape) -> bool:
    return len(some) == len(other) and all(
        a == b or ANY_SIZE in (a, b) for a, b in zip(some, other, strict=True)
    )


def _write_batch(shape: Shape) -> str:
    sizes = ("?" if size == ANY_SIZE else str(size) for size in shape)
    return f"({', '.join(('batch', *sizes))})"


def _check_labels(case: Case) -> Finding | None:
    """Check the labels of classes."""
    head, target, loss = case.head, case.target, case.loss
    if target is None or loss not in CROSSENTROPY | HINGE or case.is_masked:
        return None
    fix = case.remedy.as_fix()
    if loss in HINGE:
        if not target.is_integer or (target.high <= 1 and target.low >= -1):
            return None
        seen = f"The labels of the {head} go from {target.span}, its loss is `{loss}`."
        cause = f"`{loss}` is for two classes, with the labels -1 and 1, or 0 and 1."
        return case.find("label_form", seen, cause, fix)
    if loss in SPARSE:
        if target.integers < 1:
            seen = f"The labels of the {head} are fractions, from {target.span}."
            cause = "They are rounded down to the number of a class."
            return case.find("label_form", seen, cause, fix)
        ignored = head.setup.arguments.get("ignore_class")
        is_below = target.low < 0 and target.low != ignored
        if not is_below and not (target.high >= head.units > 0 and target.high != ignored):
            return None
        places = f"{head.units} units are for 0 to {head.units - 1}"
        seen = f"The labels of the {head} go from {target.span}; {places}."
        cause = "A label is the number of a unit, counted from 0: other labels have no unit."
        if target.low >= 1 and target.high == head.units:
            cause += " These labels are counted from 1."
            fix = Fix(f"{fix} If there is also a class 0: {head.units + 1} units.", fix.repairs)
        return case.find("label_form", seen, cause, fix)
    shifted = target.is_integer and (target.low, target.high) == (1, 2)
    if loss in BINARY and (target.is_plus_minus_one or shifted):
        seen = f"The labels of the {head} are {target.low:g} and {target.high:g}."
        cause = f"`{loss}` expects 0 and 1: with others its loss falls below 0 without end."
        return case.find("label_form", seen, cause, fix)
    return None


def _check_range(case: Case) -> Finding | None:
    """Check for targets out of the output's reach.

    A few that lie a little beyond it, by less than half of their standard deviation, cost little.
    """
    head, target, loss = case.head, case.target, case.loss
    if target is None or loss not in PROBABILITIES | REGRESSION - SPARSE or loss in SPARSE:
        return None
    low, high = RANGES.get(head.activation, (-INFINITE, INFINITE))
    if loss in PROBABILITIES:
        low, high = 0.0, 1.0
    span = high - low if high - low < INFINITE else target.high - target.low
    slack = _SLACK * span
    if loss not in PROBABILITIES:
        spread = np.sqrt(np.nan_to_num(target.variance))
        slack = max(slack, THRESHOLDS["target_beyond"].value * spread)
    beyond = target.low < low - slack or target.high > high + slack
    if not beyond or case.is_masked or _leaves(case.facts, head, low, high):
        return None
    limits = f"{low:g} to {high:g}" if high < INFINITE else f"at least {low:g}"
    end = f"ends in `{head.activation}` and gives {limits}"
    if RANGES.get(head.activation) != (low, high):
        end = f"has the loss `{loss}`, for {limits}"
    seen = f"The targets go from {target.span}; the {head} {end}."
    cause = "It cannot come near targets outside of this range."
    return case.find("target_range", seen, cause, case.remedy.as_fix())


def _leaves(facts: Facts, head: Head, low: float, high: float) -> bool:
    """Check for predictions outside of an activation's range: something else follows it."""
    if head.y_pred is None or head.setup.loss in PROBABILITIES:
        return False
    least = np.fmin.reduce(read(facts, head.y_pred, "min", np.fmin), initial=np.nan)
    most = np.fmax.reduce(read(facts, head.y_pred, "max", np.fmax), initial=np.nan)
    return bool(least < low - _SLACK or most > high + _SLACK)


def write_loss(loss: str, from_logits: bool) -> str:
    """Write one of Keras's cross-entropies as code."""
    name = "".join(word.capitalize() for word in loss.split("_"))
    return f"keras.losses.{name}(from_logits={from_logits})"


def write_repair(head: Head, loss: str, from_logits: bool) -> dict[str, dict[str, Any]]:
    """Write the repair of an output's loss."""
    return {"loss": {"head": head.setup.name, "loss": loss, "from_logits": from_logits}}


# In this order: the first that speaks is the root.
_CHECKS: tuple[Callable[[Case], Finding | None], ...] = (
    _check_one_unit,
    _check_dropout,
    _check_task,
    _check_activation,
    _check_shape,
    _check_labels,
    _check_range,
)


def find_unreachable_targets(facts: Facts) -> Iterator[Finding]:
    """Find targets far out of the output's reach under an unknown loss: it may compare others."""
    for head in list_heads(facts):
        low, high = RANGES.get(head.activation, (-INFINITE, INFINITE))
        if not is_own_loss(head.setup) or high - low == INFINITE:
            continue
        for row, target in follow_target(facts, head.y):
            if target is None or target.shape is None or head.shape is None:
                continue
            beyond = max(low - target.low, target.high - high) / (high - low)
            is_far = beyond > THRESHOLDS["target_far"].value
            if is_far and _are_alike(*squeeze(target.shape, head.shape)):
                case = Case(facts, row, head, target, False)
                seen = f"The targets go from {target.span}; the {head} ends in `{head.activation}`"
                cause = f"The output gives {low:g} to {high:g}, if the loss compares the two."
                fix = Fix(
                    f"Use `{write_layer(head.kernel, head.units)}`.",
                    activate([head.path], "linear"),
                )
                if not case.remedy.layer:  # pixels to be scaled
                    fix = case.remedy.as_fix()
                yield case.find("target_range", f"{seen}.", cause, fix, "warning")
                break


def find_hidden_softmax_of_one(facts: Facts) -> Iterator[Finding]:
    """Find softmaxes over an axis of size one inside the model, as in attention scores."""
    heads = {head.path for head in list_heads(facts)}
    return find_softmax_of_one(facts, [x for x in facts.setup.layers if x.path not in heads])


def find_negative_loss(facts: Facts) -> Iterator[Finding]:
    """Find an impossible loss below 0, where no output is known to be the reason."""
    heads = facts.setup.heads
    if len(heads) != 1 or heads[0].loss not in _POSITIVE or next(find_broken_heads(facts), None):
        return
    if heads[0].arguments.get("loss_weight", 1.0) <= 0:
        return
    weights = list_tensors(facts, "sample_weight")
    if any((read(facts, tensor, "min", np.fmin) < 0).any() for tensor in weights):
        return
    loss, penalty = facts.total("loss"), facts.total("penalty")
    with np.errstate(invalid="ignore"):
        row = find_first((loss < 0) & (loss - penalty < -1e-3 * np.abs(penalty) - 1e-6))
    if row is None:
        return
    yield tell(
        facts,
        "negative_loss",
        f"The loss `{heads[0].loss}` is {loss[row]:.3g} at step {facts.steps[row]}, and it cannot "
        "be below 0.",
        "The targets are not of the kind that this loss is for, such as labels outside of 0..1.",
        "Print `y.min(), y.max()`. For classes 0 to n - 1 use `Dense(n, "
        'activation="softmax")` with `loss="sparse_categorical_crossentropy"`.',
        numbers={"loss": loss[row]},
        row=row,
        severity="error",
    )


def find_runaway_loss(facts: Facts) -> Iterator[Finding]:
    """Find a loss of one's own that begins below 0 and falls faster and faster: a wrong sign.

    What has a least value comes down to it ever more slowly.
    """
    heads, steps, loss = facts.setup.heads, facts.steps, facts.loss.value
    if len(heads) != 1 or not is_own_loss(heads[0]) or "fault" in heads[0].arguments:
        return
    middle, late = (np.minimum(place, len(loss) - 1) for place in find_thirds(steps))
    with np.errstate(invalid="ignore"):
        falls = loss[late] - loss > loss[middle] - loss[late]
        falls &= (loss[middle] > loss[late]) & (loss[:1] < 0)
        falls &= loss < THRESHOLDS["loss_runaway"].value * loss[:1]
        falls &= facts.find_late("patience_at_end")
    row = find_first(falls)
    if row is not None:
        yield tell(
            facts,
            "negative_loss",
            f"The loss `{heads[0].loss}` was {loss[0]:.3g} at first, is {loss[row]:.3g} at step "
            f"{steps[row]}, and falls faster and faster.",
            "It has no minimum: training minimizes the opposite of what you want.",
            "Change the sign of the loss: a distance or an error should be small, a likelihood or "
            "a similarity large, so write `return -likelihood`. Are the labels the wrong way "
            "round, 0 for 1?",
            numbers={"loss": loss[row]},
            row=row,
        )


def find_unfit_losses(facts: Facts) -> Iterator[Finding]:
    """Find losses of one's own that are not smallest where outputs are what they should be."""
    for head in list_heads(facts):
        arguments, name = head.setup.arguments, head.setup.loss
        if (fault := arguments.get("fault")) in _FAULTS_OF_LOSSES:
            numbers = {name: x for name, x in arguments.items() if name.startswith("of_")}
            kind, seen, cause, fix = _FAULTS_OF_LOSSES[fault]
            if not seen:
                right, constant = numbers["of_targets"], numbers["of_constant"]
                seen = f"is {right:.3g} for outputs that are the targets, and {constant:.3g} for "
                seen += "outputs that are the same for all samples."
            seen = f"The loss `{name}` {seen}"
            yield tell(facts, kind, seen, cause, fix, head.path, numbers, severity="error")


# Of each fault of a loss, as it was asked: the kind, what is seen if it is no value for right
# outputs, the cause, and what helps.
_FAULTS_OF_LOSSES = {
    "pairs": (
        "label_form",
        "is small where the outputs are far from 0 for pairs of one label; but the inputs of these "
        "are nearer to each other than those of the other label.",
        "It makes distances small, 0, for the other label: pairs that are alike are pushed apart.",
        "Exchange the two terms of the loss, or give it `1 - y`: it should take the square of the "
        "distance where a pair is alike, and `maximum(margin - distance, 0) ** 2` where it is not.",
    ),
    "sign": (
        "loss_choice",
        "",
        "It is largest where outputs are right, and training makes it small: its sign is wrong, or "
        "it is a similarity or an overlap, as a Dice coefficient.",
        "Change its sign: `return -value`; or, for a coefficient from 0 to 1, `return 1 - value`.",
    ),
    "swapped": (
        "loss_choice",
        "",
        "Its arguments are in the wrong order: with targets and outputs exchanged it is as it "
        "should be.",
        "Begin it with `def loss(y_true, y_pred):`. Keras gives the targets first.",
    ),
    "labels": (
        "label_form",
        "",
        "The labels are 0 and 1; with -1 and 1 the loss is as it should be: a hinge loss "
        "multiplies by them, so that samples of class 0 teach nothing.",
        "Use `y = 2 * y - 1`, a linear or tanh output, and its sign as the class.",
    ),
    "samples": (
        "target_shape",
        "",
        "Each output has to be compared with its own target, before the mean is taken. Shapes as "
        "(batch,) and (batch, 1) compare each output with the targets of all samples; a mean "
        "before the square lets errors cancel out; and a difference alone has no minimum.",
        "Use `y_true = keras.ops.reshape(y_true, keras.ops.shape(y_pred))` in the loss, square or "
        "take the absolute value first, and then the mean over `axis=-1`. Are the labels of a kind "
        "that this loss is for, and does each class add to it?",
    ),
}


def find_errors_of_nothing(facts: Facts) -> Iterator[Finding]:
    """Find an error in percent of targets that are 0, or next to it."""
    heads = list_heads(facts)
    loss, limit = facts.loss.value, THRESHOLDS["percentage_most"].value
    if [head.setup.loss for head in heads] != ["mean_absolute_percentage_error"]:
        return
    row = find_first(persists(loss > limit, facts.start, facts.ready))
    y = heads[0].y
    if row is None or y is None:
        return
    low, mean, std = (read(facts, y, name, np.fmin)[: row + 1] for name in ("min", "mean", "std"))
    if not (low < 100 / limit * (np.abs(mean) + std)).any():
        return
    yield tell(
        facts,
        "loss_choice",
        f"The {heads[0]} is off by {write_number(loss[row], 2)} percent of its targets, which are "
        "0 or nearly 0 for some samples.",
        "Each error is divided by its target: those of targets near 0 outweigh all others.",
        'Use `loss="mean_absolute_error"`, or `"mean_squared_logarithmic_error"` for targets from '
        "0 upwards.",
        heads[0].path,
        {"loss": loss[row]},
        row=row,
        confidence="likely",
    )


def find_empty_losses(facts: Facts) -> Iterator[Finding]:
    """Find losses of one's own that are exactly 0 from the first step on, without a gradient."""
    heads, nothing = facts.setup.heads, facts.loss.value == 0
    nothing &= (facts.per_variable("norm") == 0).all(axis=1)
    row = find_first(np.logical_and.accumulate(nothing) & facts.ready)
    if row is not None and facts.layers and heads and all(map(is_own_loss, heads)):
        name = heads[0].loss
        yield tell(
            facts,
            "no_gradient",
            f"The loss `{name}` is exactly 0 from step {facts.steps[0]} to {facts.steps[row]}, and "
            "so are all gradients.",
            "A mask or weight in it leaves out every sample, or it compares a thing with itself.",
            f"Print what `{name}` keeps: `keras.ops.sum(mask)`, and the values that it compares "
            "labels with, such as the number of the padding.",
            row=row,
            confidence="likely",
        )


def find_broadcast_losses(facts: Facts) -> Iterator[Finding]:
    """Find a loss of one's own that seems to compare each output with the targets of all samples.

    Keras makes the shapes (batch,) and (batch, 1) alike for its own losses and for functions, which
    may change one of them all the same: that is asked where the loss falls no more. A class of
    one's own has to make them alike itself. If it does not, the mean of the targets is best.
    """
    over, patient = facts.loss.over, facts.find_late("patience_steps")
    for head in list_heads(facts):
        y, y_pred, loss = head.y, head.y_pred, head.setup.loss
        if y is None or y_pred is None or not {y.shape, y_pred.shape} <= {(), (1,)}:
            continue
        if "fault" in head.setup.arguments:  # it was asked
            continue
        is_function = bool(loss) and "reduction" not in head.setup.arguments and "." not in loss
        if (loss and not is_own_loss(head.setup)) or not (is_function or y.shape != y_pred.shape):
            continue
        is_doubtful = is_function or not loss  # of a step of one's own targets may be anything
        late = patient | over
        if is_doubtful:
            late = (facts.loss.still if not loss else facts.loss.flat) | over & (
                facts.loss.fell < THRESHOLDS["loss_fell"].value
            )
        shapes = [_write_batch(tensor.shape or ()) for tensor in (y_pred, y)]
        spread, wanted = (read(facts, tensor, "batch_std", np.fmax) for tensor in (y_pred, y))
        row = find_first(late & (spread < THRESHOLDS["broadcast_spread"].value * wanted))
        if row is not None:
            yield tell(
                facts,
                "target_shape",
                f"The {head} has the shape {shapes[0]}, its targets {shapes[1]}, and its loss "
                f"{f'`{loss}` ' * bool(loss)}is your own; outputs differ by "
                f"{spread[row]:.2g} from sample to sample, targets by {wanted[row]:.2g}.",
                "If the two have other shapes where the loss takes their difference, such as "
                "(batch,) and (batch, 1), each output is compared with the targets of all samples: "
                "then the mean is the best answer.",
                "Use `y_pred = keras.ops.reshape(y_pred, (-1,))` and the same of `y_true` in the "
                "loss: both, or none. In a class or step of your own also `y = y.reshape(-1, 1)`.",
                head.path,
                {"spread": spread[row], "wanted": wanted[row]},
                row=row,
                confidence="possible" if is_doubtful else "likely",
            )


def is_own_loss(head: HeadSetup) -> bool:
    """Check for a loss that is not one of Keras's."""
    return bool(head.loss) and head.loss not in PROBABILITIES | _POSITIVE | _KERAS


def find_uncounted_classes(facts: Facts) -> Iterator[Finding]:
    """Find classes that weights of samples take out: of weight 0, or rare ones made rarer.

    It is asked where samples have one weight each.
    """
    weights, (head, *others) = list_tensors(facts, "sample_weight"), [*list_heads(facts), None]
    if head is None or head.y is None or others != [None] or len(weights) != 1:
        return
    if head.setup.loss not in CROSSENTROPY or weights[0].shape:
        return
    counted, weighted = count_classes(facts, head, weights[0])
    classes, entropy = count_classes(facts, head, head.y)
    long = facts.find_late("patience_at_end") | facts.loss.over
    low = np.fmin.accumulate(read(facts, weights[0], "min", np.fmin))
    none = (low == 0) & (counted < classes)
    # Advantages, as of policy gradients, go down to 0 and below.
    fewer = (low > 0) & (weighted < THRESHOLDS["entropy_weighted"].value * entropy)
    row = find_first(long & (none | fewer))
    if row is None:
        return
    missing = classes[row] - counted[row]
    if none[row]:
        seen = f"All samples of {missing:.0f} of the {classes[row]:.0f} classes have had a weight "
        seen += f"of 0 up to step {facts.steps[row]}."
        cause = "Samples that do not count teach nothing: these classes are never predicted."
    else:
        alone, both = np.exp([entropy[row], weighted[row]])
        seen = "Sample weights make frequent classes count still more: labels are as varied as "
        seen += f"{alone:.3g} classes of one size, and with the weights as {both:.3g}."
        cause = "Rare classes hardly count then: the weights are the wrong way round."
    yield tell(
        facts,
        "rare_classes",
        seen,
        cause,
        "Give rare classes the larger weights: `class_weight={c: len(y) / (n_classes * "
        "np.sum(y == c)) for c in range(n_classes)}`. Or leave `class_weight` out.",
        head.path,
        {"classes": classes[row], "counted": counted[row], "entropy": entropy[row]}
        | {"weighted": weighted[row]},
        row=row,
        confidence="likely",
    )


def find_idle_outputs(facts: Facts) -> Iterator[Finding]:
    """Find outputs with metrics, and a loss weight of 0: a mere note, if there are others."""
    heads = list_heads(facts)
    for head in heads:
        if head.setup.arguments.get("loss_weight") == 0 and (head.setup.metrics or len(heads) == 1):
            yield tell(
                facts,
                "no_gradient",
                f"The {head} has a loss weight of 0.",
                "Nothing is learned from its targets.",
                "Use another weight in `compile(loss_weights=...)` if it should be learned.",
                severity="note" if len(heads) > 1 else "warning",
                confidence="certain",
            )


# Told at once: errors, which are certain, and hints.
CONTRACT_RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    find_broken_heads,
    find_unreachable_targets,
    find_hidden_softmax_of_one,
    find_negative_loss,
    find_runaway_loss,
    find_unfit_losses,
    find_errors_of_nothing,
    find_broadcast_losses,
    find_empty_losses,
    find_uncounted_classes,
    find_idle_outputs,
    find_frozen_model,
    find_zero_sample_weights,
    find_bad_indices,
    find_single_class,
    find_sorted_classes,
    find_numbered_classes,
)
