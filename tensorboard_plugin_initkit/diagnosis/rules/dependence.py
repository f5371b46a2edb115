"""Outputs that depend on too little of the inputs, or on other samples, whatever the weights."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.tell import tell
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.wiring import RECURRENT, list_regularizers
from tensorboard_plugin_initkit.record.setup import InputUse


def find_mixed_samples(facts: Facts) -> Iterator[Finding]:
    """Find an operation over the axis of the batch."""
    if facts.setup.mixes_samples:
        yield tell(
            facts,
            "mixed_samples",
            "The output for a sample depends on the other samples of its batch.",
            "An operation goes over the axis of the batch, axis 0, or moves numbers from one "
            "sample to another. In the discriminator of a GAN that may be meant.",
            "Keep the samples on axis 0 throughout: no softmax, mean or normalization over "
            "`axis=0`; attention and recurrent layers take (batch, steps, features), so leave out "
            "a `transpose` that puts the steps first; and let a `reshape` begin with the size of "
            "the batch: `keras.ops.reshape(x, (keras.ops.shape(x)[0], ...))`.",
            confidence="likely",
        )


def find_unused_inputs(facts: Facts) -> Iterator[Finding]:
    """Find inputs, or most of the places along an axis, that reach no output."""
    uses, count = facts.setup.uses, sum(use.axis == 0 for use in facts.setup.uses)
    used = {use.name for use in uses if 1 in use.used}
    known = {use.name for use in uses if use.axis == 0 and use.used != (-1,)}
    lost = sorted(known - used)
    if lost and not used:
        yield tell(
            facts,
            "unused_input",
            "The output depends on no part of the input"
            + f"{'s' * (count > 1)}: it is the same for all samples, whatever the weights.",
            "What differs from sample to sample is lost on its way to the output.",
            "Follow the input to the output. A mask must be True where there is something to see: "
            "`keras.ops.not_equal(x, 0)`. What is read, such as a class token or `h[:, 0]`, must "
            "have gone through the layers that mix it with the rest. Leave out casts to integers "
            "and `round`.",
            numbers={"inputs": count, "used": 0},
            confidence="likely",
        )
    elif lost and any(head.loss for head in facts.setup.heads) and not _adds_losses(facts):
        names = [f"{int(name) + 1}" if name.isdigit() else f"`{name}`" for name in lost]
        yield tell(
            facts,
            "unused_input",
            f"The output does not depend on input {', '.join(names)} of {count}, whatever the "
            "weights.",
            "Nothing leads from it to the output: what only it shows cannot be learned.",
            "Lead it there: `keras.layers.Concatenate()([a, b])`; let a decoder begin with the "
            "states of the encoder, `LSTM(...)(y, initial_state=[h, c])`, or attend to it.",
            numbers={"inputs": count, "unused": len(lost)},
            confidence="likely",
        )
    else:
        yield from _find_unused_places(facts)


def _adds_losses(facts: Facts) -> bool:
    """Check for losses that layers add, as of labels that are an input."""
    return bool((facts.total("penalty") > 0).any()) and not list_regularizers(facts.setup)


def list_sights(facts: Facts) -> Iterator[str]:
    """List the axes of which an output sees the beginning or the end alone, but most of it."""
    for use, places, _ in _list_ends(facts, THRESHOLDS["sight_share"].value):
        yield (
            f"Along axis {use.axis} of the input, the output sees the {places} alone: more layers, "
            "larger kernels or `dilation_rate=2**i` in the i-th see more."
        )


def _find_unused_places(facts: Facts) -> Iterator[Finding]:
    """Find an axis of which only the beginning or the end reaches an output."""
    for use, places, numbers in _list_ends(facts, THRESHOLDS["used_share"].value):
        yield tell(
            facts,
            "unused_input",
            f"Of the input{f' `{use.name}`' * bool(use.name)}, the output depends on the {places} "
            f"places along axis {use.axis} alone, whatever the weights.",
            "The others do not reach it: what only they show cannot be learned.",
            "Read what has seen them all: the last step of a causal convolution or of a recurrent "
            "layer, `h[:, -1]`, or all steps, by `keras.layers.GlobalAveragePooling1D()` or "
            "`Flatten()`.",
            numbers=numbers,
            confidence="likely",
        )


def _list_ends(facts: Facts, most: float) -> Iterator[tuple[InputUse, str, dict[str, float]]]:
    """List the axes of which an end alone is used, its places in words, and numbers."""
    sizes = {facts.ports[i].name: facts.ports[i].shape for i in facts.ports_of("x")}
    # What they have forgotten is no fault of how a model is built.
    forgets = any(RECURRENT.fullmatch(item.type) for item in facts.setup.layers)
    for use in facts.setup.uses:
        part = _find_end(use, most) if use.axis else 0
        if part < 0 and forgets:
            continue
        shape = sizes.get(use.name, ())
        if not part or use.axis > len(shape):
            continue
        size = shape[use.axis - 1]
        # As `np.array_split` cuts it.
        parts = np.array_split(np.arange(size), len(use.used))
        places = sum(len(places) for places in (parts[:part] if part > 0 else parts[part:]))
        words = f"{'first' if part > 0 else 'last'} {places} of {size}"
        yield use, words, {"axis": use.axis, "places": size, "used": places}


def _find_end(use: InputUse, share: float) -> int:
    """Return how many parts are used, if only those of an end are; below 0 for the last ones."""
    used, known = np.array(use.used) == 1, np.array(use.used) >= 0
    if known.sum() < THRESHOLDS["used_parts"].value or not 0 < used.sum() <= share * known.sum():
        return 0
    places = np.flatnonzero(used)
    if not known[: places[-1] + 1][~used[: places[-1] + 1]].any():
        return int(places[-1]) + 1
    if not known[places[0] :][~used[places[0] :]].any():
        return int(places[0]) - len(used)
    return 0
