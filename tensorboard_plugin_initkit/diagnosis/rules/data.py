"""Faults of the data: useless numbers, scales too large or small, a loss for other targets."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Confidence, Finding, Severity
from tensorboard_plugin_initkit.diagnosis.fix import Fix, remove
from tensorboard_plugin_initkit.diagnosis.targets import (
    BINARY,
    CATEGORICAL,
    CROSSENTROPY,
    DIFFERENCES,
    REGRESSION,
    Target,
    are_pixels,
    follow_target,
    suggest,
)
from tensorboard_plugin_initkit.diagnosis.tell import tell
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import Floats, find_first
from tensorboard_plugin_initkit.diagnosis.wiring import (
    ADAPTIVE,
    DENSE,
    RECURRENT,
    Head,
    Tensor,
    find_first_layers,
    find_rescaling,
    list_heads,
    list_tensors,
    read,
)
from tensorboard_plugin_initkit.record.setup import MODEL_INPUT, LayerSetup

# Constant features that were standardized have standard deviations as small as this.
_ROUNDING = 1e-6
_WORDS = (
    "If these are numbers of words or categories, begin with `Embedding(int(x.max()) + 1, 32)`. If "
    "they are measured:"
)


def find_zero_sample_weights(facts: Facts) -> Iterator[Finding]:
    """Find sample weights of zero only, in the first record."""
    for tensor in list_tensors(facts, "sample_weight"):
        low, high = read(facts, tensor, "min", np.fmin), read(facts, tensor, "max", np.fmax)
        if len(low) and low[0] == high[0] == 0:
            yield tell(
                facts,
                "zero_sample_weights",
                f"All sample weights of step {facts.steps[0]} are 0: no sample counts.",
                "Each sample's loss is multiplied by its weight: nothing is left to learn.",
                "Print `sample_weight.min(), sample_weight.max()`, or leave the argument out.",
                numbers={"high": 0},
                severity="error",
            )
            return


def find_bad_indices(facts: Facts) -> Iterator[Finding]:
    """Find inputs of an embedding outside of its indices."""
    first = find_first_layers(facts.setup)
    inputs = list_tensors(facts, "x")
    # Of inputs that are rescaled first, other numbers were measured.
    is_rescaled = bool(find_rescaling(facts.setup)[2])
    others = [item for item in first if item.type != "Embedding"]
    first = [item for item in first if item.type == "Embedding"]
    if not first or is_rescaled:
        return
    if others:  # whose inputs have other shapes
        shapes = [item.shape[1:-1] for item in first]
        inputs = [tensor for tensor in inputs if tensor.shape in shapes]
        if len(inputs) != len(first):
            return
    sizes = [layer.arguments.get("input_dim", 0) for layer in first]
    # Which of several inputs an embedding takes is not known.
    size = max(sizes) if all(sizes) else 0
    for tensor in inputs:
        low, high, integers = (
            combine.accumulate(read(facts, tensor, name, combine))
            for name, combine in (("min", np.fmin), ("max", np.fmax), ("integers", np.fmin))
        )
        row = find_first((integers < 1) | (low < 0) | ((high >= size) & (size > 0)))
        if row is None:
            continue
        least, most = float(low[row]), float(high[row])
        seen = f"The inputs go from {least:.4g} to {most:.4g}"
        seen += ", with fractions" if integers[row] < 1 else ""
        layer = first[sizes.index(size)] if size else first[0]
        if integers[row] < 1:
            text = "If they are words, give their numbers as they are, integers that are not scaled"
            fix = Fix(f"{text}. If they are measured, remove the `Embedding`: use `Dense`.")
        elif least < 0:
            fix = Fix(f"Add {-int(least)} to the inputs, and as many rows to the `Embedding`.")
        else:
            count = int(most) + 1
            fix = Fix(
                f"Use `Embedding({count}, {layer.arguments.get('output_dim', 'units')})`.",
                {"rebuild": {"layers": {layer.path: {"input_dim": count}}}},
            )
        yield tell(
            facts,
            "embedding_indices",
            f"{seen}; the embedding `{layer.path}` has the indices 0 to {max(size - 1, 0)}.",
            "An embedding looks up rows by number: fractions are cut off, and a number out of "
            "range has no row.",
            fix,
            layer.path,
            {"low": least, "high": most, "size": size},
            row=row,
            severity="error",
        )
        return


def find_input_scales(facts: Facts) -> Iterator[Finding]:
    """Find constant inputs, and those far from unit scale in front of layers with a kernel."""
    layers = find_first_layers(facts.setup)
    kernels = all(DENSE.fullmatch(item.type) or RECURRENT.fullmatch(item.type) for item in layers)
    if not layers or not len(facts.steps):
        return
    records, inputs = int(THRESHOLDS["window_records"].value), list_tensors(facts, "x")
    rescaled = find_rescaling(facts.setup)
    kernels &= not np.isnan(rescaled[:2]).any()
    for tensor in inputs:
        # Beside pictures, which a model begins by rescaling, features are others.
        is_other = len(tensor.shape or ()) == 1 and any(
            x.takes == (MODEL_INPUT,) and len(x.shape or ()) > 2 for x in rescaled[2]
        )
        scale, offset, rescalings = (1.0, 0.0, []) if is_other else rescaled
        mean, std, low_std, high_std, whole, spread = (
            float(read(facts, tensor, name, np.fmax)[0])
            for name in ("mean", "std", "low_std", "high_std", "integers", "batch_std")
        )
        low, high = (  # samples may come one by one
            float(combine.reduce(read(facts, tensor, name, combine)[:records]))
            for name, combine in (("min", np.fmin), ("max", np.fmax))
        )
        size, small, far, ratio = (
            THRESHOLDS[f"input_{name}"].value for name in ("size", "small", "offset", "scales")
        )
        mean, std = mean * scale + offset, std * abs(scale)
        numbers = {"mean": mean, "std": std, "low_std": low_std, "high_std": high_std}
        named = f"inputs `{tensor.name}`" if tensor.name else "inputs"
        seen = f"The {named} of step {facts.steps[0]} have mean {mean:.3g} and vary by {std:.3g}"
        if rescalings:
            seen += f" after `{rescalings[-1].path}`"
        if low == high:
            finding = _tell(facts, "constant_input", f"The {named} are all {low:.4g}.", numbers)
            varied = [
                head.y and (read(facts, head.y, "batch_std", np.fmax) > 0).all()
                for head in list_heads(facts)
            ]
            is_all = len(inputs) == 1 and len(facts.steps) > 1 and any(varied)
            yield dataclasses.replace(finding, confidence="certain") if is_all else finding
        elif not kernels:  # tokens, or normalized
            continue
        # The numbers of a single sample tell their size, and nothing of their spread.
        elif max(abs(mean), std) > size or (
            spread != 0 and (abs(mean) > far * std or 0 < std < small)
        ):
            is_list = len(tensor.shape or ()) < 2 or (tensor.shape or ())[1:] == (1,)
            fix = _fix_inputs(facts, (low, high), whole == 1 and not is_list, rescalings)
            if whole == 1 and is_list and _may_be_words(facts, low, high, 2 * low_std > high_std):
                fix = Fix(f"{_WORDS} {fix}", fix.repairs)
            found = _tell(facts, "input_scale", f"{seen}: far from 0 and 1.", numbers, fix)
            extreme, remote = (
                THRESHOLDS[f"{name}_extreme"].value for name in ("input_size", "input_offset")
            )
            is_extreme = max(abs(mean), std) > extreme or (spread != 0 and abs(mean) > remote * std)
            yield dataclasses.replace(found, confidence="likely") if is_extreme else found
        elif high_std > ratio * low_std > _ROUNDING * ratio * high_std:
            seen = f"The features of the {named} vary by {low_std:.2g} to {high_std:.2g}."
            yield _tell(facts, "feature_scales", seen, numbers)


def find_useless_normalizations(facts: Facts) -> Iterator[Finding]:
    """Find a first Normalization without statistics of the inputs: of none, or of one sample.

    Before `adapt` it has a mean of 0 and a standard deviation of 1, after it on a single sample
    one of 0, and Keras divides by 1e-7 then.
    """
    inputs = list_tensors(facts, "x")
    if len(inputs) != 1 or not len(facts.steps):
        return
    mean, std = (float(read(facts, inputs[0], name, np.fmax)[0]) for name in ("mean", "std"))
    for item in find_first_layers(facts.setup):
        held = item.arguments.get("mean"), item.arguments.get("std")
        is_far = max(abs(mean), std) > THRESHOLDS["input_size"].value
        if held == ([0, 0], [1, 1]) and is_far:
            seen = "has a mean of 0 and a standard deviation of 1, as before `adapt`"
        elif held[1] == [0, 0] and std > 0:
            seen = "has a standard deviation of 0, as after `adapt` on a single sample"
        else:
            continue
        seen = f"`{item.path}` {seen}; the inputs of step {facts.steps[0]} have mean {mean:.3g} "
        fix = Fix(
            f"Call `adapt(x)` of `{item.path}` with all inputs of the training before you build "
            "and compile the model, or use `keras_initkit.with_normalization(model, x)`."
        )
        numbers = {"mean": mean, "std": std}
        yield _tell(facts, "input_scale", f"{seen}and vary by {std:.3g}.", numbers, fix, item.path)


def find_value_ranges(facts: Facts) -> Iterator[Finding]:
    """Find augmentations for pixels up to 255 on others, or the other way round."""
    inputs, (scale, offset, _) = list_tensors(facts, "x"), find_rescaling(facts.setup)
    if len(inputs) != 1 or not len(facts.steps):
        return
    most = float(read(facts, inputs[0], "max", np.fmax)[0]) * scale + offset
    far = THRESHOLDS["value_range"].value
    for item in facts.setup.layers:
        high = (item.arguments.get("value_range") or [0, 0])[-1]
        # It changes differences from the mean alone, and cuts off what is beyond.
        is_wide = high > far * most and item.type != "RandomContrast"
        if high > 0 and most > 0 and (is_wide or most > far * high):
            seen = f"`{item.path}` is for values up to {high:g}; the inputs of step "
            seen += f"{facts.steps[0]} go up to {most:.3g}."
            fix = f"Use `{item.type}(..., value_range=(0, {1 if is_wide else 255}))`."
            numbers = {"high": most, "value_range": high}
            cause = "What is left of a picture after it is nearly all black or white."
            yield tell(facts, "input_scale", seen, cause, fix, item.path, numbers)


def find_rare_classes(facts: Facts) -> Iterator[Finding]:
    """Find the end of a training with rare classes of which less than half is learned: a note."""
    loss, last = facts.loss, len(facts.steps) - 1
    heads = list_heads(facts)
    if len(heads) != 1 or heads[0].y is None or heads[0].setup.loss not in CROSSENTROPY:
        return
    classes, entropy = count_classes(facts, heads[0], heads[0].y)
    is_rare = classes[last] > 1 and entropy[last] < THRESHOLDS["rare_entropy"].value
    if (
        is_rare
        and loss.over[last]
        and loss.recent[last] > (THRESHOLDS["loss_halved"].value * loss.guess[last])
    ):
        seen = f"Most labels of the {heads[0]} are of one class{_tell_others(entropy[last])}; "
        seen += f"the loss in the end is {loss.recent[last]:.2g}."
        numbers = {"entropy": float(entropy[last]), "loss": float(loss.recent[last])}
        severity: Severity = "warning" if loss.failed[last] else "note"
        layer = heads[0].path
        yield _tell(facts, "rare_classes", seen, numbers, None, layer, last, severity)


def find_missing_classes(facts: Facts) -> Iterator[Finding]:
    """Find the end of a training in which one of a few classes never came: a note."""
    last = len(facts.steps) - 1
    for head in list_heads(facts):
        if head.y is None or head.setup.loss not in CATEGORICAL or not facts.loss.over[last]:
            continue
        classes = float(count_classes(facts, head, head.y)[0][last])
        if 1 < classes < head.units <= THRESHOLDS["few_classes"].value and facts.ready[last]:
            yield tell(
                facts,
                "rare_classes",
                f"Only {classes:.0f} of the {head.units} classes of the {head} came.",
                "What never comes is never learned.",
                "Shuffle x and y together before you divide them: `validation_split` takes the "
                "last rows, which have classes of their own where data are sorted.",
                head.path,
                {"classes": classes},
                row=last,
                severity="note",
            )


def _may_be_words(facts: Facts, low: float, high: float, are_alike: bool) -> bool:
    """Check for numbers of a vocabulary by their range, in a model for sequences or alike."""
    kinds = [item.type for item in facts.setup.layers]
    are_alike |= any(kind == "Conv1D" or RECURRENT.fullmatch(kind) for kind in kinds)
    is_wide = low >= 0 and high > THRESHOLDS["word_numbers"].value
    return (
        is_wide and are_alike and "Embedding" not in kinds and not any(_list_large_targets(facts))
    )


def _fix_inputs(
    facts: Facts, span: tuple[float, float], is_picture: bool, rescalings: list[LayerSetup]
) -> Fix:
    """Return the fix for inputs of another scale, by their span: other layers, or normalization."""
    low, high = span
    if rescalings:
        path = rescalings[-1].path
        text = f"Remove `{path}`, if they are also scaled elsewhere, or choose its `scale` for "
        return Fix(f"{text}inputs from {low:.3g} to {high:.3g}, such as 1 / 255.", remove(path))
    if is_picture and are_pixels(low, high):
        return Fix(
            "Begin the model with `keras.layers.Rescaling(1 / 255)`, or normalize its inputs: "
            "`keras_initkit.with_normalization(model, x)`.",
            _NORMALIZE.repairs,
        )
    for large, *_ in _list_large_targets(facts):  # as of a series that goes on
        return Fix(
            "Normalize both: `keras_initkit.with_normalization(model, x, y)`.",
            _begin_head(large) | {"normalize": {"inputs": True, "targets": True}},
        )
    return _NORMALIZE


def find_target_scales(facts: Facts) -> Iterator[Finding]:
    """Find large targets under a linear output and a loss of differences.

    An adaptive optimizer goes to them at its own pace, and faster as all layers grow: if it may
    come there at all, it has half of the planned steps.
    """
    gone = facts.steps - facts.steps[:1]
    planned = facts.setup.steps - int(facts.steps[:1].sum())
    for head, mean, std in _list_large_targets(facts):
        seen = f"The targets have mean {mean:.3g} and vary by {std:.3g}, the {head} begins near 0."
        fix = Fix(
            f"Use `y = (y - {mean:.3g}) / {max(std, 1e-3 * abs(mean)):.3g}`, and undo it after "
            "`predict`; `keras_initkit.with_normalization(model, x, y)` does both.",
            _begin_head(head) | {"normalize": {"inputs": False, "targets": True}},
        )
        row: int | None = 0
        way = float(facts.total("learning_rate")[0]) * planned
        if facts.setup.optimizer in ADAPTIVE and (
            max(abs(mean), std) < THRESHOLDS["target_pace"].value * way
        ):
            row = find_first((gone >= THRESHOLDS["halfway"].value * planned) | facts.loss.over)
        if row is not None:
            numbers = {"mean": mean, "std": std}
            yield _tell(facts, "target_scale", seen, numbers, fix, head.path, row)


def _list_large_targets(facts: Facts) -> Iterator[tuple[Head, float, float]]:
    """List linear outputs under a loss of differences with large targets: their mean and sd."""
    for head in list_heads(facts):
        if head.y is None or head.setup.loss not in DIFFERENCES or not len(facts.steps):
            continue
        mean, std = (float(read(facts, head.y, name, np.fmax)[0]) for name in ("mean", "std"))
        if head.activation == "linear" and max(abs(mean), std) > THRESHOLDS["target_size"].value:
            yield head, mean, std


def _begin_head(head: Head) -> dict[str, dict[str, Any]]:
    """Write the repair of an output that is to predict on another scale: it begins anew."""
    if head.kernel is None:
        return {}
    return {"reinitialize": {"layers": [head.kernel.path], "initializer": "GlorotUniform"}}


def find_single_class(facts: Facts) -> Iterator[Finding]:
    """Find labels of one class only where the loss is near 0: nothing but a constant is learned.

    Or up to the end of a training that was not short.
    """
    for finding in find_few_classes(facts):
        row = int(np.searchsorted(facts.steps, finding.rank))
        late = facts.loss.value[row:] < THRESHOLDS["label_entropy"].value
        late |= (facts.loss.over & (facts.steps >= THRESHOLDS["patience_at_end"].value))[row:]
        if finding.kind == "one_class" and (begin := find_first(late)) is not None:
            yield dataclasses.replace(finding, step=int(facts.steps[row + begin]))


def find_sorted_classes(facts: Facts) -> Iterator[Finding]:
    """Find batches of one class each, though several are frequent: data sorted by class."""
    for head in list_heads(facts):
        if head.y is None or head.setup.loss not in CROSSENTROPY:
            continue
        spread = read(facts, head.y, "batch_std", np.fmax)
        _, entropy = count_classes(facts, head, head.y)
        several = (facts.per_port("batch_std")[:, facts.ports_of("x")] > 0).any(axis=1)
        count, alike = np.cumsum(several), np.cumsum(several & (spread == 0))
        row = find_first(
            (count >= THRESHOLDS["sorted_records"].value)
            & (alike >= THRESHOLDS["window_share"].value * count)
            & (entropy > THRESHOLDS["sorted_entropy"].value)
        )
        if row is None:
            continue
        seen = f"In {alike[row]} of {count[row]} recorded batches all labels of the {head} are of "
        seen += "one class, but not always of the same one: the data are sorted by class."
        numbers = {"alike": float(alike[row]), "batches": float(count[row])}
        cause = "Each batch teaches the model to predict one class always, the next ones another."
        fix = _REASONS["one_class"][1]
        yield tell(
            facts, "one_class", seen, cause, fix, head.path, numbers, row=row, severity="error"
        )


def find_few_classes(facts: Facts) -> Iterator[Finding]:
    """Find labels of one class only, or nearly, over a window."""
    for head in list_heads(facts):
        if head.y is None or head.setup.loss not in CROSSENTROPY:
            continue
        classes, entropy = count_classes(facts, head, head.y)
        row = find_first((entropy < THRESHOLDS["label_entropy"].value) & facts.ready)
        if row is None:
            continue
        numbers = {"classes": float(classes[row]), "entropy": float(entropy[row])}
        step, fix = int(facts.steps[row]), None
        if classes[row] == 1:
            seen = f"Up to step {step} all labels of the {head} are of one class."
            yield _tell(facts, "one_class", seen, numbers, fix, head.path, row)
        else:
            seen = f"Up to step {step} nearly all labels of the {head} are of one class"
            seen += f"{_tell_others(entropy[row])}."
            yield _tell(facts, "rare_classes", seen, numbers, fix, head.path, row)


def _tell_others(entropy: float) -> str:
    """Tell how many labels are not of the most frequent class, at most: as many as of two."""
    share = np.linspace(1e-6, 0.5, 5000)
    known = -share * np.log(share) - (1 - share) * np.log1p(-share)
    return f", and at most {np.interp(entropy, known, share):.1%} of others"


def count_classes(facts: Facts, head: Head, labels: Tensor) -> tuple[Floats, Floats]:
    """Return the number of an output's classes up to each record, and their entropy in nats.

    Labels are its targets, or the weights of samples: then those with another weight than 0 count.
    """
    if head.units == 1:  # the classes 0 and 1
        entropy, variance = (
            read(facts, labels, name, np.fmax) for name in ("binary_entropy", "variance")
        )
        return np.where(variance == 0, 1.0, 2.0), entropy
    classes, entropy = (read(facts, labels, name, np.fmax) for name in ("classes", "entropy"))
    return classes, entropy


def find_other_losses(facts: Facts) -> Iterator[Finding]:
    """Find losses for other targets, which work less well: for exclusive classes.

    With a question about each class networks mostly learn, and begin slowly: it is told late.
    """
    late = find_first(facts.find_late("verdict_steps") | facts.loss.over)
    for head, target in _list_targets(facts):
        loss, seen, row = head.setup.loss, "", 0
        if loss in BINARY and target.is_one_hot and head.units == target.width:
            seen = f"The targets of the {head} have one class per row, but `{loss}` asks about "
            seen += f"each of the {head.units} classes separately."
            if late is None:
                continue
            row = late
        elif loss in REGRESSION and (target.is_one_hot or _are_labels(head, target)):
            seen = f"The targets of the {head} are classes, but `{loss}` is for numbers."
        if seen and not _are_two(head, target):
            yield _tell_loss(facts, head, target, seen, row)


def find_losses_of_two_classes(facts: Facts) -> Iterator[Finding]:
    """Find losses for numbers where the targets are two classes: these learn, if slowly."""
    for head, target in _list_targets(facts):
        if head.setup.loss in REGRESSION and _are_two(head, target):
            seen = f"The targets of the {head} are 0 and 1, but `{head.setup.loss}` is for numbers."
            yield _tell_loss(facts, head, target, seen)


def find_numbered_classes(facts: Facts) -> Iterator[Finding]:
    """Find a few classes, by number, that are learned as one number, or an accuracy of numbers.

    These are mere notes.
    """
    for head, target in _list_targets(facts):
        named = any("acc" in metric for metric in head.setup.metrics)
        if head.setup.loss in REGRESSION and named and target.integers < 1:
            seen = f"The targets of the {head} are numbers, but its metric is an accuracy."
            cause = "An accuracy counts outputs that equal the target: with numbers, none does."
            fix = 'Use `metrics=["mae"]`, the mean absolute error.'
            yield tell(facts, "loss_choice", seen, cause, fix, head.path, severity="note")
        is_few = target.low in (0, 1) and 2 <= target.high <= THRESHOLDS["few_classes"].value
        is_one = head.units == 1 and head.setup.loss in REGRESSION
        if is_one and is_few and _are_labels(head, target):
            seen = f"The targets of the {head} are integers from {target.span}, and its metric is "
            seen += f"an accuracy. If they are classes, `{head.setup.loss}` is not for them."
            finding = _tell_loss(facts, head, target, seen)
            yield dataclasses.replace(finding, severity="note")


def _list_targets(facts: Facts) -> Iterator[tuple[Head, Target]]:
    """List outputs with the targets of their first record, where these are known."""
    for head in list_heads(facts):
        _, target = next(follow_target(facts, head.y))
        if target is not None:
            yield head, target


def _tell_loss(facts: Facts, head: Head, target: Target, seen: str, row: int = 0) -> Finding:
    numbers = {"low": target.low, "high": target.high, "units": float(head.units)}
    fix = suggest(head, target).as_fix()
    return _tell(facts, "loss_choice", seen, numbers, fix, head.path, row)


def _are_two(head: Head, target: Target) -> bool:
    """Check for the classes 0 and 1 on one unit."""
    return head.units == 1 and target.integers == 1 and (target.low, target.high) == (0, 1)


def _are_labels(head: Head, target: Target) -> bool:
    """Check for integers with an accuracy as metric."""
    return target.integers == 1 and any("acc" in metric for metric in head.setup.metrics)


def find_negative_sample_weights(facts: Facts) -> Iterator[Finding]:
    """Find negative sample weights: right where they are advantages, in policy gradients."""
    for tensor in list_tensors(facts, "sample_weight"):
        low = read(facts, tensor, "min", np.fmin)
        row = find_first(low < 0)
        if row is not None:
            seen = f"Sample weights go down to {low[row]:.3g} at step {facts.steps[row]}."
            yield _tell(facts, "negative_sample_weights", seen, {"low": float(low[row])}, row=row)


# Of each kind, why it stops learning, and what helps.
_NORMALIZE = Fix(
    "Begin the model with normalized inputs: `keras_initkit.with_normalization(model, x)`.",
    {"normalize": {"inputs": True, "targets": False}},
)
_REASONS: dict[str, tuple[str, str | Fix]] = {
    "constant_input": ("Nothing can be learned from a constant input.", "Print `x`."),
    "input_scale": (
        "Initial weights suit inputs of mean 0 and standard deviation 1: with others, units "
        "begin far to one side, and no learning rate suits all weights.",
        _NORMALIZE,
    ),
    "feature_scales": ("Features of small scale hardly count next to the others.", _NORMALIZE),
    "target_scale": (
        "Weights change by about the learning rate per step, and have far to go.",
        "Normalize the targets.",
    ),
    "one_class": (
        "A constant output is the best answer so far. Data sorted by class is often the reason.",
        "Print `np.unique(y)`. If there are several classes, shuffle the data: `order = "
        "np.random.permutation(len(x)); x, y = x[order], y[order]`, and look if a generator of "
        "batches goes on. If there is one, look at how labels are made: were they scaled or cut?",
    ),
    "rare_classes": (
        "A constant output is nearly as good as any.",
        "Give rare classes more weight: `model.fit(..., class_weight={0: 1.0, 1: 20.0})`, and look "
        "at `keras.metrics.Recall()` or `AUC()`: the accuracy is high for a constant, too.",
    ),
    "loss_choice": ("A loss for this kind of targets learns better.", ""),
    "negative_sample_weights": (
        "Samples with a negative weight are unlearned: their loss grows without end.",
        "Use `sample_weight=np.maximum(sample_weight, 0)`.",
    ),
}


def _tell(
    facts: Facts,
    kind: str,
    seen: str,
    numbers: dict[str, float],
    fix: Fix | None = None,
    layer: str = "",
    row: int = 0,
    severity: Severity = "warning",
) -> Finding:
    """Make a finding of a cause."""
    cause, usual = _REASONS[kind]
    sure: Confidence = "likely" if kind in ("constant_input", "one_class") else "possible"
    return tell(
        facts,
        kind,
        seen,
        cause,
        fix or usual,
        layer,
        numbers,
        row=row,
        confidence=sure,
        severity=severity,
    )


# Told where the training fails to learn.
DATA_CAUSES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    find_few_classes,
    find_value_ranges,
    find_input_scales,
    find_useless_normalizations,
    find_target_scales,
    find_negative_sample_weights,
)
