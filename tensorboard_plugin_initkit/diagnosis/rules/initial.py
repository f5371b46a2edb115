"""Weights and layers that begin with numbers too small, too large or all the same."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.start import (
    ACTIVATIONS,
    is_constant,
    judge_start,
    read_chain,
    read_initializer,
    read_variance,
)
from tensorboard_plugin_initkit.diagnosis.tell import tell
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.wiring import (
    DENSE,
    LINEAR,
    RECURRENT,
    SIGMOIDS,
    Tensor,
    find_first_layers,
    find_input_size,
    is_normalization,
    list_heads,
    list_hidden,
    list_pairs,
    list_tensors,
    read,
    write_layer,
)
from tensorboard_plugin_initkit.record.setup import LayerSetup
from tensorboard_plugin_initkit.safe_text import write_number


def find_bad_start(facts: Facts) -> Iterator[Finding]:
    """Find initializers too small or too large for the depth of a chain."""
    inputs = list_tensors(facts, "x")
    variance = 1.0
    first = find_first_layers(facts.setup)
    is_normal = bool(first) and is_normalization(first[0])
    if len(inputs) == 1 and len(facts.steps) and not is_normal:
        mean, std = (float(read(facts, inputs[0], name, np.fmax)[0]) for name in ("mean", "std"))
        variance = mean**2 + std**2 if mean**2 + std**2 > 0 else 1.0
    if told := judge_start(read_chain(facts), variance):
        yield tell(facts, "bad_start", *told, confidence="likely")


def find_saturated_units(facts: Facts) -> Iterator[Finding]:
    """Find sigmoids and tanhs whose weights begin so large that most samples saturate them."""
    pairs = list(list_pairs(facts.setup, (*SIGMOIDS, "tanh")))
    hidden = [facts.setup.layers[i].path for i, _ in pairs]
    for position, _ in pairs:
        item = facts.setup.layers[position]
        fan_in = find_input_size(facts, position) * (item.type == "Dense")
        text = str(item.arguments.get("kernel_initializer", ""))
        variance = read_variance(text, fan_in, item.shape[-1]) if fan_in and item.shape else None
        norm = float(np.sqrt(fan_in * (variance or 0.0)))
        if norm > THRESHOLDS["saturating_norm"].value:
            seen = f"The weights of `{item.path}` begin {norm:.3g} times as large as usual, by "
            fix = Fix(
                "Leave `kernel_initializer` out: that of Keras suits the number of inputs.",
                {"reinitialize": {"layers": hidden, "initializer": "GlorotUniform"}},
            )
            yield tell(
                facts,
                "bad_start",
                f"{seen}`{text}`.",
                f"Its {item.activation} is saturated for nearly all samples: no slope is left.",
                fix,
                item.path,
                {"norm": norm},
                confidence="likely",
            )
            return


def find_equal_weights(facts: Facts) -> Iterator[Finding]:
    """Find hidden layers with equal units: they stay equal if the next layer's are, too."""
    layers, alike = facts.setup.layers, []
    pairs = list(list_pairs(facts.setup, (*LINEAR, *ACTIVATIONS)))
    for position, _ in pairs:
        if is_constant(str(layers[position].arguments.get("kernel_initializer", ""))):
            alike.append(layers[position].path)
    for position, after in pairs:
        item, behind = layers[position], layers[after]
        text, other = (str(x.arguments.get("kernel_initializer", "")) for x in (item, behind))
        if is_constant(text) and _count_units(item) != 1:
            yield _tell_equal(item, alike, behind if is_constant(other) else None, facts)
            return
    # In a layer of one's own it is not known what follows: zeros may be meant.
    heads = {head.path for head in list_heads(facts)}
    for item in layers:
        text = str(item.arguments.get("kernel_initializer", ""))
        is_own = "/" in item.path and item.path not in heads and DENSE.fullmatch(item.type)
        is_equal = is_constant(text) and read_initializer(text)[0] != "Zeros"
        if is_own and is_equal and item.trainable and _count_units(item) != 1:
            yield _tell_equal(item, [item.path], None, facts)
            return


def _count_units(item: LayerSetup) -> int:
    """Return the units of a layer with a kernel, also of one whose output's shape is not known."""
    given = item.arguments.get("units", item.arguments.get("filters", 64))
    return int(item.shape[-1] if item.shape else given)


def _tell_equal(
    item: LayerSetup, alike: list[str], behind: LayerSetup | None, facts: Facts
) -> Finding:
    """Tell of a layer of equal units, with the one after it if its are equal, too."""
    code = write_layer(item, _count_units(item), item.activation)
    return tell(
        facts,
        "equal_weights",
        f"All weights of the hidden layer `{item.path}` begin with the same value, by "
        f"`{item.arguments['kernel_initializer']}`"
        + (f", and so do those of `{behind.path}` after it." if behind else "."),
        "Its units are equal and get equal gradients: they learn what one unit could learn.",
        Fix(
            f"Use `{code}`, with the usual `kernel_initializer`.",
            {"reinitialize": {"layers": alike, "initializer": "GlorotUniform"}},
        ),
        item.path,
        confidence="certain" if behind else "likely",
    )


def find_large_weights(facts: Facts) -> Iterator[Finding]:
    """Find variables that begin with numbers far above those of any initializer of Keras.

    The bias of an output may: it can begin with the mean of the targets. So may single numbers.
    """
    variables, sizes = facts.records.layout.variables, facts.records.layout.sizes
    if not variables or not facts.is_begin:
        return
    heads = {head.kernel.path for head in list_heads(facts) if head.kernel}
    may = [
        variable.size == 1 or (len(variable.shape) == 1 and (variable.layer in heads or not heads))
        for variable in variables
    ]
    initial = facts.per_variable("weight_norm")[0] / np.sqrt(sizes)
    initial = np.where(may, 0.0, np.nan_to_num(initial, posinf=0.0))
    column = int(initial.argmax())
    if initial[column] > THRESHOLDS["weight_large"].value:
        path = variables[column].path
        yield tell(
            facts,
            "bad_start",
            f"`{path}` begins with numbers of size {write_number(float(initial[column]), 2)}.",
            "Those of Keras's initializers are about 1 or less: what these are added to or "
            "multiplied with drowns in them, or the activation behind them is saturated.",
            "Leave out its initializer, or use one of less than 1: "
            "`keras.initializers.RandomNormal(stddev=0.05)`.",
            facts.layers[facts.layer_of[column]],
            {"size": initial[column]},
        )


def find_large_outputs(facts: Facts) -> Iterator[Finding]:
    """Find outputs without an activation that begin far beyond all inputs and targets."""
    if not facts.is_begin:
        return
    inputs = [_read_size(facts, tensor) for tensor in list_tensors(facts, "x")]
    for head in list_heads(facts):
        if head.y is None or head.y_pred is None or head.activation != "linear":
            continue
        output, usual = _read_size(facts, head.y_pred), max(_read_size(facts, head.y), *inputs, 1.0)
        if output > THRESHOLDS["output_large"].value * usual:
            recurrent = [
                item.path
                for item in facts.setup.layers
                if RECURRENT.fullmatch(item.type)
                and "Orthogonal" not in str(item.arguments.get("recurrent_initializer", ""))
            ]
            paths = [item.path for item in list_hidden(facts) if item.trainable]
            paths += [head.kernel.path] if head.kernel else []
            yield tell(
                facts,
                "bad_start",
                f"The {head} begins with numbers up to {output:.2g}; inputs and targets go up "
                f"to {usual:.2g}.",
                "Initial weights make the signal larger in each layer, or in each step of a "
                "sequence, and the gradient as well.",
                f"Leave `recurrent_initializer` out in `{recurrent[0]}`: that of Keras is "
                "orthogonal."
                if recurrent
                else Fix(
                    "Start the layers together: `keras_initkit.initialize(model, x)`; where sums "
                    "`x + layer(x)` follow each other, put a `LayerNormalization()` before each "
                    "`layer`.",
                    {"initialize": {"layers": paths}} if paths else {},
                ),
                recurrent[0] if recurrent else head.path,
                {"output": output, "usual": usual},
                confidence="likely",
            )
            return


def _read_size(facts: Facts, tensor: Tensor) -> float:
    """Return the largest magnitude of the first record; 0 if it is not known."""
    ends = [read(facts, tensor, name, np.fmax)[:1] for name in ("min", "max")]
    return float(np.nanmax(np.abs(np.concatenate(ends)), initial=0.0))


def find_large_epsilons(facts: Facts) -> Iterator[Finding]:
    """Find normalizations with an epsilon that is not small beside a variance of 1."""
    for item in facts.setup.layers:
        epsilon = item.arguments.get("epsilon") if is_normalization(item) else None
        if isinstance(epsilon, int | float) and epsilon > THRESHOLDS["epsilon_large"].value:
            yield tell(
                facts,
                "bad_start",
                f"`{item.path}` has an epsilon of {epsilon:g}.",
                f"It divides by the root of variance plus epsilon, {np.sqrt(1 + epsilon):.2g} for "
                "a variance of 1: in each such layer the signal shrinks, and the gradient with it.",
                "Leave `epsilon` out: that of Keras is 0.001 or less.",
                item.path,
                {"epsilon": epsilon},
            )
            return
