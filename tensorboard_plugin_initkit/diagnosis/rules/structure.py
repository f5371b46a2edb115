"""Faults in how a model is built and compiled, told where its training fails to learn."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Confidence, Finding
from tensorboard_plugin_initkit.diagnosis.fix import (
    USUAL_RATE,
    USUAL_RATES,
    Fix,
    activate,
    remove,
)
from tensorboard_plugin_initkit.diagnosis.rules.dependence import (
    find_mixed_samples,
    find_unused_inputs,
)
from tensorboard_plugin_initkit.diagnosis.rules.initial import (
    find_bad_start,
    find_equal_weights,
    find_large_epsilons,
    find_large_outputs,
    find_large_weights,
    find_saturated_units,
)
from tensorboard_plugin_initkit.diagnosis.rules.strength import find_half_weights
from tensorboard_plugin_initkit.diagnosis.start import read_initializer
from tensorboard_plugin_initkit.diagnosis.targets import follow_target, suggest
from tensorboard_plugin_initkit.diagnosis.tell import tell
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import Floats, find_first, persists
from tensorboard_plugin_initkit.diagnosis.wiring import (
    ADAPTIVE,
    DENSE,
    LINEAR,
    SIGMOIDS,
    SLOPE_OF_ONE,
    Head,
    find_input_size,
    is_between,
    is_normalization,
    list_heads,
    list_pairs,
    list_regularizers,
    read,
    read_activation,
    trace_back,
    write_layer,
)
from tensorboard_plugin_initkit.record.setup import ANY_SIZE, LayerSetup
from tensorboard_plugin_initkit.safe_text import write_part


def find_missing_activations(facts: Facts) -> Iterator[Finding]:
    """Find layers with a kernel straight behind another one: both are no more than one.

    Not meant are factors of a kernel: a layer narrower than both its neighbours, without a bias,
    or a convolution of size 1.
    """
    setup = facts.setup
    linear = [i for i, after in list_pairs(setup, LINEAR) if _is_needless(facts, i, after)]
    if not linear:
        return
    layers = [setup.layers[i] for i in linear]
    others = sum(1 for item in setup.layers if read_activation(item.activation) not in LINEAR)
    names = ", ".join(f"`{item.path}`" for item in layers)
    fix = write_layer(layers[0], layers[0].shape[-1], "relu")
    seen = f"Without an activation: {names}" + (
        ", and no other layer has one." * (not others) or "."
    )
    if any(item.activation == SLOPE_OF_ONE for item in setup.layers):
        seen += " (A LeakyReLU with `negative_slope=1` is none.)"
    yield tell(
        facts,
        "no_activation",
        seen,
        "Two layers with nothing between them do no more than one: the product of two matrices is "
        "a matrix.",
        Fix(f"Use `{fix}`.", activate((item.path for item in layers), "relu")),
        layers[0].path,
        {"layers": len(layers)},
    )


def _is_needless(facts: Facts, position: int, after: int) -> bool:
    first, second = facts.setup.layers[position], facts.setup.layers[after]
    if first.activation and read_activation(first.activation) != "linear":
        return False
    if not first.shape or not second.shape:
        return False
    small = (1, [1], [1, 1], [1, 1, 1], (1, 1), None)
    pointwise = any(
        item.type != "Dense" and item.arguments.get("kernel_size") in small
        for item in (first, second)
    )
    if pointwise or first.type != second.type or first.arguments.get("use_bias") is False:
        return False
    size = find_input_size(facts, position)
    return not first.shape[-1] < min(size or first.shape[-1], second.shape[-1])


def find_deep_sigmoids(facts: Facts) -> Iterator[Finding]:
    """Find two or more hidden layers with a sigmoid; gates do not count."""
    setup = facts.setup
    hidden = [setup.layers[i] for i, _ in list_pairs(setup, SIGMOIDS)]
    if len(hidden) < THRESHOLDS["sigmoid_layers"].value:
        return
    paths = [item.path for item in hidden]
    fix = write_layer(hidden[0], hidden[0].shape[-1], "relu") if hidden[0].shape else "relu"
    received = _find_received(facts, paths[0], paths[-1])
    lost = f": it receives {write_part(received)} of the gradient of `{paths[-1]}`"
    yield tell(
        facts,
        "deep_sigmoids",
        f"{len(hidden)} hidden layers have a sigmoid, from `{paths[0]}` on"
        f"{lost if received < 1 else ''}.",
        "The slope of a sigmoid is at most 1/4: each of them makes the gradient at least four "
        "times smaller.",
        Fix(
            f"Use `{fix}` in the hidden layers, with `kernel_initializer=HeNormal()`; keep the "
            "sigmoid of an output. Or start the layers together, as they are: "
            "`keras_initkit.initialize(model, x)`.",
            activate(paths, "relu")
            | {"reinitialize": {"layers": paths, "initializer": "HeNormal"}},
        ),
        hidden[0].path,
        {"layers": len(hidden)},
    )


def _find_received(facts: Facts, first: str, last: str) -> float:
    """Return the part of a layer's gradient that another one receives at first; NaN if unknown."""
    records = facts.records.select(slice(0, 1))
    if not len(records) or "signal" not in records or not {first, last} <= {*records.layers}:
        return float("nan")
    places = [records.layers.index(layer) for layer in (first, last)]
    received, sent = records["signal"][0, places].tolist()
    return received / sent if sent else float("nan")


def find_hidden_softmax(facts: Facts) -> Iterator[Finding]:
    """Find a softmax in front of a layer with a kernel."""
    hidden = [facts.setup.layers[i] for i, _ in list_pairs(facts.setup, ("softmax",))]
    # One unit is told as a contract.
    hidden = [item for item in hidden if not item.shape or item.shape[-1] > 1]
    for item in hidden[:1]:
        yield tell(
            facts,
            "hidden_softmax",
            f"The hidden layer `{item.path}` has a softmax.",
            "A softmax leaves little more than which unit is largest: the sum of all is 1, and "
            "most are near 0.",
            Fix(
                f"Use `{write_layer(item, item.shape[-1] if item.shape else 64, 'relu')}`.",
                activate((item.path for item in hidden), "relu"),
            ),
            item.path,
        )


def find_outputs_of_one(facts: Facts) -> Iterator[Finding]:
    """Find softmaxes over an axis of size one at outputs whose loss is not known: a cause."""
    heads = {head.path for head in list_heads(facts) if not head.setup.loss}
    layers = [item for item in facts.setup.layers if item.path in heads]
    for finding in find_softmax_of_one(facts, layers):
        yield dataclasses.replace(finding, severity="warning", confidence="likely")


def find_softmax_of_one(facts: Facts, layers: Iterable[LayerSetup]) -> Iterator[Finding]:
    """Find softmaxes among layers that are over an axis of size one."""
    for layer in layers:
        if layer.activation != "softmax":
            continue
        axis = layer.arguments.get("axis", -1)
        units = layer.arguments.get("units", layer.arguments.get("filters", 0))
        shape = layer.shape or (ANY_SIZE, units if DENSE.fullmatch(layer.type) else 0)
        is_known = DENSE.fullmatch(layer.type) or layer.type in ("Softmax", "Activation")
        is_place = isinstance(axis, int) and -len(shape) <= axis < len(shape)
        if is_known and is_place and shape[axis] == 1:
            yield tell(
                facts,
                "single_unit_softmax",
                f"Layer `{layer.path}` is a softmax over an axis of size 1, so all it gives is 1.",
                "A softmax sums to 1 along its axis: with one element nothing is learned.",
                "Use `keras.layers.Softmax(axis=1)` for weights over the steps of a sequence, "
                'or `activation="sigmoid"` for a gate, or for two classes.',
                layer.path,
                {"axis": axis},
                severity="error",
            )


def find_output_faults(facts: Facts) -> Iterator[Finding]:
    """Find layers out of place between the last kernel and the output."""
    for head in list_heads(facts):
        position = head.setup.layer
        if head.layer is None or not head.setup.loss:
            continue
        way = [facts.setup.layers[i] for i in trace_back(facts.setup, position)]
        if head.kernel is None or not way[-1].weights or is_normalization(way[-1]):
            continue
        yield from _find_second_activation(facts, head, way)
        for item in way[:-1]:
            if "Dropout" in item.type and item is not head.layer:  # told as a contract
                yield tell(
                    facts,
                    "output_dropout",
                    f"`{item.path}` drops values of the {head} at random.",
                    "In training some outputs are 0 whatever the input, and the loss of these "
                    "stays.",
                    Fix(
                        "Move the `Dropout` before the last layer with weights, or remove it.",
                        remove(item.path),
                    ),
                    item.path,
                    confidence="likely",
                )
            if item.type == "BatchNormalization":
                yield tell(
                    facts,
                    "output_normalization",
                    f"`{item.path}` normalizes the {head}.",
                    "In training each output has mean 0 and standard deviation 1 in a batch, "
                    "whatever the layers before it do; in use it has another scale.",
                    Fix(
                        "Remove this `BatchNormalization`, or move it before the last `Dense`.",
                        remove(item.path),
                    ),
                    item.path,
                )
        if head.activation == "relu" and head.kernel.shape:
            yield _tell_relu(facts, head, head.kernel)


def _tell_relu(facts: Facts, head: Head, kernel: LayerSetup) -> Finding:
    """Tell of an output that ends in a ReLU; it is certain where that has cut off everything."""
    row = None
    if head.y and head.y_pred:
        high, wanted = (read(facts, tensor, "max", np.fmax) for tensor in (head.y_pred, head.y))
        row = find_first(persists((high == 0) & (wanted > 0), facts.start, facts.ready))
    seen = f"The {head} ends in `relu`"
    if row is not None:
        begin = facts.steps[facts.start[row]]
        seen += f", and from step {begin} to {facts.steps[row]} it is 0 for every sample"
    text = f"Use `{write_layer(kernel, kernel.shape[-1])}`"
    text += ", or `softplus` for an output that has to be positive."
    fix = Fix(text, activate([head.path], "linear"))
    if row is not None and head.y:
        *_, (_, target) = follow_target(facts, head.y)
        fix = suggest(head, target).as_fix()
    return tell(
        facts,
        "head_activation",
        f"{seen}.",
        "Where it is 0 there is no gradient: an output that is 0 for all samples stays so.",
        fix,
        head.path,
        row=row or 0,
        confidence="possible" if row is None else "certain",
    )


def _find_second_activation(facts: Facts, head: Head, way: list[LayerSetup]) -> Iterator[Finding]:
    active = []
    for item in way:
        name = read_activation(item.activation)
        if name not in (*LINEAR, "leaky_relu"):
            active.append((item, name))
        elif not is_between(item):  # such as pooling
            break
    if len(active) < 2:
        return
    (_, last), (item, name) = active[:2]
    sure: Confidence = "certain" if last == name == "softmax" else "likely"
    path = f"`{item.path}`"
    code = write_layer(head.kernel, item.shape[-1] if item.shape else head.units)
    yield tell(
        facts,
        "double_activation",
        f"The {head} ends in `{last}`, directly after the `{name}` of {path}.",
        f"`{name}` limits what `{last}` receives, and so which outputs it can reach.",
        Fix(f"Use `{code}` before `{last}`.", activate([item.path], "linear")),
        item.path,
        confidence=sure,
    )


def find_wrong_axis(facts: Facts) -> Iterator[Finding]:
    """Find a BatchNormalization behind a convolution, over another axis than the channels'."""
    layers = facts.setup.layers
    for position, item in enumerate(layers):
        if item.type != "BatchNormalization" or len(item.shape) < 3:
            continue
        way = [layers[i] for i in trace_back(facts.setup, position)]
        before = way[-1]
        axis = item.arguments.get("axis", -1)
        axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
        is_moved = any(step.type in ("Reshape", "Permute", "Flatten") for step in way)
        if not before.type.startswith("Conv") or not isinstance(axis, int) or is_moved:
            continue
        is_first = before.arguments.get("data_format") == "channels_first"
        right = 1 if is_first else len(item.shape) - 1
        if axis % len(item.shape) != right:
            fix = "BatchNormalization(axis=1)" if is_first else "BatchNormalization()"
            yield tell(
                facts,
                "wrong_axis",
                f"`{item.path}` normalizes axis {axis} of {item.shape}; the channels of "
                f"`{before.path}` are axis {right}.",
                "Rows of the picture are normalized, and not its channels.",
                Fix(f"Use `{fix}`.", {"rebuild": {"layers": {item.path: {"axis": right}}}}),
                item.path,
                {"axis": axis},
                confidence="likely",
            )


def find_normalized_units(facts: Facts) -> Iterator[Finding]:
    """Find a LayerNormalization over a single number, of which nothing is left: certain."""
    for item in facts.setup.layers:
        axis = item.arguments.get("axis", -1)
        axes = axis if isinstance(axis, list | tuple) else [axis]
        is_place = all(isinstance(i, int) and -len(item.shape) <= i < len(item.shape) for i in axes)
        if item.type == "LayerNormalization" and is_place and {item.shape[i] for i in axes} == {1}:
            seen = f"`{item.path}` normalizes over axis {axis} of {item.shape}, of size 1."
            cause = (
                "The mean of one number is the number itself: subtracting it leaves 0 for every "
            )
            cause += "sample."
            fix = Fix("Remove it, or put it before the last `Dense`.", remove(item.path))
            yield tell(facts, "wrong_axis", seen, cause, fix, item.path, severity="error")


def find_frozen_model(facts: Facts) -> Iterator[Finding]:
    """Find a model without any trained weights, a certain fault."""
    weighted = [item for item in facts.setup.layers if item.weights]
    if facts.setup.layers and not weighted and not facts.layers:
        yield tell(
            facts,
            "frozen",
            "No layer of the model has weights.",
            "There is nothing to train. Arrays that a layer of your own keeps are constants.",
            "Make weights by `self.add_weight(...)` in `build`, and keep layers as attributes.",
            severity="error",
        )
    if weighted and not any(item.trainable for item in weighted):
        yield tell(
            facts,
            "frozen",
            f"None of the {len(weighted)} layers with weights is trained.",
            "`trainable` is False in all of them: nothing can change.",
            Fix(
                "Use `for layer in model.layers: layer.trainable = True`, and compile again.",
                {"trainable": {"layers": []}},
            ),
            severity="error",
        )


def find_made_layers(facts: Facts) -> Iterator[Finding]:
    """Find a `call` that makes layers with weights anew: certain, even if others can learn."""
    for item in facts.setup.layers:
        if kind := item.arguments.get("makes"):
            seen = f"The `call` of `{item.type}` makes a new `{kind}` whenever it is called."
            cause = "Each has new random weights that no optimizer knows: they are never trained."
            fix = f"Make it once: `self.inner = {kind}(...)` in `__init__` of `{item.type}`."
            yield tell(facts, "frozen", seen, cause, fix, item.path, severity="error")
            return


def find_frozen_zeros(facts: Facts) -> Iterator[Finding]:
    """Find layers that are not trained and whose weights are all zero: certain."""
    for item in facts.setup.layers:
        if item.arguments.get("is_zero"):
            seen = f"All weights of `{item.path}` are 0, and it is not trained."
            cause = "It gives the same for every input. Of an embedding, the words may not have "
            cause += "been found in the file of vectors: look at upper and lower case."
            fix = f"Print how many rows of the weights are not 0. Or train `{item.path}`: leave "
            fix += "out its weights and `trainable=False`."
            yield tell(facts, "equal_weights", seen, cause, fix, item.path, severity="error")
            return


def find_frozen_head(facts: Facts) -> Iterator[Finding]:
    """Find an untrained last layer behind trained ones."""
    if not any(item.trainable for item in facts.setup.layers if item.weights):
        return
    for head in list_heads(facts):
        if head.kernel is not None and head.kernel.weights and not head.kernel.trainable:
            path = head.kernel.path
            seen = f"`{path}`, the last layer before the {head}, is not trained."
            cause = "What it makes of its inputs cannot change. (In a GAN that is intended.)"
            text = f"Use `layer.trainable = True` for `{path}`, and compile again."
            fix = Fix(text, {"trainable": {"layers": [path]}})
            yield tell(facts, "frozen", seen, cause, fix, path)
            return


def find_frozen_base(facts: Facts) -> Iterator[Finding]:
    """Find a model of which three of four layers with weights, or more, are not trained."""
    weighted = [item for item in facts.setup.layers if item.weights]
    held = [item for item in weighted if not item.trainable]
    if not THRESHOLDS["frozen_share"].value * len(weighted) <= len(held) < len(weighted):
        return
    yield tell(
        facts,
        "frozen",
        f"{len(held)} of {len(weighted)} layers with weights are not trained, up to "
        f"`{held[-1].path}`.",
        "What they make of the inputs cannot change: if their weights are random, or were trained "
        "on other kinds of inputs, hardly anything can be learned from it.",
        Fix(
            'Load trained weights (`weights="imagenet"`, and `preprocess_input` of the same '
            "module for the inputs), or train these layers: `layer.trainable = True`, and compile "
            "again.",
            {"trainable": {"layers": [item.path for item in held]}},
        ),
        held[-1].path,
        {"layers": len(held)},
    )


def find_strong_dropout(facts: Facts) -> Iterator[Finding]:
    """Find dropouts that leave hardly anything of the signal."""
    dropouts = [item for item in facts.setup.layers if "Dropout" in item.type]
    rates = [float(item.arguments.get("rate", 0) or 0) for item in dropouts]
    kept = float(np.prod([1 - rate for rate in rates]))
    least = THRESHOLDS["dropout_kept"].value
    if not rates or (max(rates) < THRESHOLDS["dropout_rate"].value and kept > least):
        return
    layer = dropouts[int(np.argmax(rates))]
    yield tell(
        facts,
        "strong_dropout",
        f"`{layer.path}` drops {max(rates):.0%} of its inputs; all dropouts together leave "
        f"{kept:.2g} of a signal.",
        "What is left differs so much from step to step that the layers after it learn noise.",
        Fix(
            "Use `Dropout(0.2)`, or none until the model learns the training data.",
            {"rebuild": {"layers": {item.path: {"rate": 0.2} for item in dropouts}}},
        ),
        layer.path,
        {"rate": max(rates), "kept": kept},
    )


def find_single_samples(facts: Facts) -> Iterator[Finding]:
    """Find batches of one sample in front of a BatchNormalization over the samples alone."""
    ports = facts.ports_of("x") + facts.ports_of("y")
    spread, mean = (facts.per_port(name)[:, ports] for name in ("batch_std", "mean"))
    row = find_first(facts.ready)
    # Equal samples in a batch, and others in the next one.
    if row is None or (spread != 0).any() or not np.ptp(mean, axis=0).any():
        return
    for item in facts.setup.layers:
        if item.type == "BatchNormalization" and item.trainable and len(item.shape) == 2:
            seen = f"Batches have one sample, and `{item.path}` normalizes over the batch."
            cause = "The mean of one sample is the sample itself: subtracting it leaves 0."
            fix = "Use a larger `batch_size` in `model.fit`, such as 32, or `LayerNormalization()`."
            yield tell(
                facts, "single_samples", seen, cause, fix, item.path, row=row, confidence="likely"
            )
            return


def find_weight_decay(facts: Facts) -> Iterator[Finding]:
    """Find a weight decay that takes more than a hundredth of the weights in a step."""
    decay = facts.setup.optimizer_arguments.get("weight_decay") or 0.0
    rate = float(facts.total("learning_rate")[0]) if len(facts.steps) else 0.0
    if rate * decay > THRESHOLDS["decay_share"].value:
        seen = f"The weight decay is {decay:g}: each step takes {rate * decay:.2g} of all weights."
        cause = "The weights are pulled to zero faster than the data can build them up."
        fix = f"Use `{facts.setup.optimizer}(learning_rate={rate:g}, weight_decay=0.004)`."
        numbers = {"weight_decay": decay, "learning_rate": rate}
        yield tell(facts, "strong_penalty", seen, cause, fix, numbers=numbers, confidence="likely")


def find_overwriting_averages(facts: Facts) -> Iterator[Finding]:
    """Find an optimizer that replaces weights by averages that have hardly followed them.

    Over k steps of equal size an average with momentum m comes up by
    1 - m (1 - mᵏ) / (k (1 - m)) of them.
    """
    arguments = facts.setup.optimizer_arguments
    momentum = arguments.get("ema_momentum") or 0.0
    steps = arguments.get("ema_overwrite_frequency") or 0
    if not (arguments.get("use_ema") and steps and 0 < momentum < 1):
        return
    kept = 1 - momentum * (1 - momentum**steps) / (steps * (1 - momentum))
    if kept < THRESHOLDS["average_followed"].value:
        yield tell(
            facts,
            "small_updates",
            f"Every {steps} steps the weights are replaced by their averages, with "
            f"`ema_momentum={momentum:g}`: they keep {kept:.2g} of the way that they went.",
            "The averages follow the weights slowly, and throw them back to where they were.",
            f"Use `ema_momentum={1 - 1 / max(2, steps / 10):.2g}`, or leave `use_ema` out.",
            numbers={"ema_momentum": momentum, "steps": steps, "kept": kept},
            confidence="likely",
        )


def find_tight_constraints(facts: Facts) -> Iterator[Finding]:
    """Find constraints that hold the weights of units next to zero."""
    for item in facts.setup.layers:
        for name, text in item.arguments.items():
            if not name.endswith("_constraint"):
                continue
            value = read_initializer(str(text))[1].get("max_value")
            if isinstance(value, int | float) and value < THRESHOLDS["constraint_norm"].value:
                seen = f"`{name}` of `{item.path}` is `{text}`: it holds weights to a size of "
                seen += f"{value:.2g} a unit."
                cause = "Hardly anything of a signal is left behind weights next to zero."
                fix = "Leave the constraint out, or use `keras.constraints.MaxNorm(3)`."
                numbers = {"max_value": value}
                yield tell(
                    facts,
                    "strong_penalty",
                    seen,
                    cause,
                    fix,
                    item.path,
                    numbers,
                    confidence="likely",
                )
                return


def find_penalties(facts: Facts) -> Iterator[Finding]:
    """Find penalties larger than the loss of the data, over a window; or by far at first."""
    if not len(facts.steps):
        return
    loss, penalty = facts.total("batch_loss"), facts.total("penalty")
    some, most = (THRESHOLDS[f"penalty_{name}"].value for name in ("share", "most"))
    with np.errstate(invalid="ignore"):
        heavy = (penalty > some * loss) & (loss > 0)
        huge = (penalty > most * loss) & (loss > 0)
    row = find_first(persists(heavy, facts.start, facts.ready))
    items = facts.setup.layers
    own = list_regularizers(facts.setup)
    kills = any(item.arguments.get("activity_regularizer", "None") != "None" for item in items)
    if row is None and (huge[0] or (heavy[0] and kills)):  # it may do its harm before it falls
        row = 0
    at = row
    if row is None and heavy[0] and not own:  # a KL divergence takes what codes tell, and is gone
        light = penalty < THRESHOLDS["penalty_said"].value * loss
        row, at = find_first(light & facts.ready), 0
    if row is None or at is None:
        return
    is_huge = bool(persists(huge, facts.start, facts.ready)[-1])
    named = ", ".join(f"`{value}` in `{path}`" for path, value in own[:3])
    yield tell(
        facts,
        "strong_penalty",
        f"Up to step {facts.steps[at]} penalties make up {penalty[at]:.3g} of a loss of "
        f"{loss[at]:.3g}: {named or '`add_loss` of a layer'}.",
        "The weights are pulled towards zero more than towards fitting the data."
        if own
        else "The layers follow it more than they follow the data.",
        Fix(
            "Use a tenth of it, or less: `keras.regularizers.L2(1e-4)`.",
            {"regularizers": {"layers": sorted({path for path, _ in own}), "l2": 1e-4}},
        )
        if own
        else "Multiply what is given to `add_loss` by a smaller factor: a sum, as a KL divergence "
        "over a code, is far larger than a mean over the numbers of an output.",
        own[0][0] if own else "",
        {"penalty": penalty[at], "loss": loss[at]},
        row=row,
        confidence="likely" if is_huge else "possible",
    )


def find_learning_rates(facts: Facts) -> Iterator[Finding]:
    """Find a learning rate of 0, or too large for an optimizer of the kind of Adam.

    Of several optimizers only the model's own is described in its setup.
    """
    if len(facts.optimizers) > 1:
        return
    rate = facts.total("learning_rate") if len(facts.steps) else np.zeros(0)
    given = facts.setup.optimizer_arguments.get("learning_rate")
    if np.isnan(rate).all() and isinstance(given, int | float):
        rate = np.full(max(1, len(rate)), float(given))
    high = THRESHOLDS["adaptive_rate"].value
    name = facts.setup.optimizer
    if not len(rate):
        return
    # A single record, as before a training, may be the first one of a schedule that rises.
    ended = facts.ready if len(facts.steps) > 1 else np.full(len(rate), given == 0)
    zero = find_first(np.logical_and.accumulate(rate == 0) & ended)
    large = find_first(rate >= high) if name in ADAPTIVE else None
    usual, row = USUAL_RATES.get(name, USUAL_RATE), 0
    code = f"{name or 'Adam'}(learning_rate={usual:g})"
    text = f"Use `{code}`."
    if zero is not None:
        seen = "The learning rate is 0."
        cause, value = "No weight changes.", 0.0
        text += " If a schedule or a callback makes it 0, as `epoch // 10` does, mend that."
    elif large is not None:
        value = float(rate[large])
        seen = f"The learning rate is {value:.3g}, with {name}."
        cause = f"{name} changes each weight by about the learning rate in a step, whatever its "
        cause += "gradient; the weights themselves are mostly below 1."
    elif (rising := _find_endless_warm_up(facts, rate, usual)) is not None:
        row, value = rising, float(rate[rising])
        seen = f"The learning rate still rises at step {facts.steps[row]}, where it is {value:.2g}"
        seen += f"; {facts.setup.steps} are planned." * (facts.setup.steps > 0) or "."
        cause = "Its warm-up takes most of the training, or all of it: weights hardly change."
        text = f"Warm up for a tenth of the steps of the training, or not at all: `{code}`."
    else:
        return
    fix = Fix(text, {"learning_rate": {"value": usual}})
    is_huge = value >= THRESHOLDS["adaptive_rate_sure"].value
    sure: Confidence = "certain" if zero is not None else "likely" if is_huge else "possible"
    numbers = {"learning_rate": value}
    yield tell(facts, "learning_rate", seen, cause, fix, numbers=numbers, row=row, confidence=sure)


def _find_endless_warm_up(facts: Facts, rate: Floats, usual: float) -> int | None:
    """Find a rate far below usual ones that rises up to half of the planned steps, or the end."""
    if len(facts.steps) != len(rate):
        return None
    planned = facts.setup.steps - int(facts.steps[:1].sum())
    is_half = facts.steps - facts.steps[:1] >= THRESHOLDS["halfway"].value * planned
    is_late = is_half if planned > 0 else facts.loss.over
    is_rising = np.logical_and.accumulate(np.diff(rate, prepend=-1.0) > 0)
    is_low = rate < THRESHOLDS["rate_fallen"].value * usual
    return find_first(is_late & facts.ready & is_rising & is_low)


# Told where the training fails to learn, the surest first.
STRUCTURE_CAUSES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    find_learning_rates,
    find_made_layers,
    find_half_weights,
    find_frozen_zeros,
    find_frozen_head,
    find_penalties,
    find_weight_decay,
    find_overwriting_averages,
    find_tight_constraints,
    find_single_samples,
    find_equal_weights,
    find_output_faults,
    find_wrong_axis,
    find_normalized_units,
    find_hidden_softmax,
    find_outputs_of_one,
    find_mixed_samples,
    find_unused_inputs,
    find_large_weights,
    find_saturated_units,
    find_deep_sigmoids,
    find_large_epsilons,
    find_bad_start,
    find_large_outputs,
    find_missing_activations,
    find_strong_dropout,
    find_frozen_base,
)
