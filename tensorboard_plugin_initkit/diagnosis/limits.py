"""What a model as it is built can hardly learn, whatever its data: hints, and no faults."""

import re
from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.wiring import (
    RECURRENT,
    list_hidden,
    list_regularizers,
    list_tensors,
    read,
)

# Layers that give the same whatever the order of the steps, and those that see an order.
_ORDERLESS = {"MultiHeadAttention", "GlobalAveragePooling1D", "GlobalMaxPooling1D"}
# Layers that change inputs at random.
_RANDOM = re.compile(r"Random\w+|RandAugment|AugMix|GaussianNoise|MixUp|CutMix")
_ORDERED = {"Conv1D", "SeparableConv1D", "PositionEmbedding", "Flatten"}


def list_limits(facts: Facts) -> Iterator[str]:
    """List what the model can hardly learn, each with what to use instead."""
    layers, inputs = facts.setup.layers, list_tensors(facts, "x")
    types = [item.type for item in layers]
    recurrent = [item for item in layers if RECURRENT.fullmatch(item.type)]
    words = [item for item in layers if item.type == "Embedding"]
    padded = any(read(facts, t, "min", np.fmin)[:1].tolist() == [0] for t in inputs)
    ends = any(item.arguments.get("return_sequences") is False for item in recurrent)
    if ends and words and padded and not any(x.arguments.get("mask_zero") for x in words):
        yield (
            f"If texts are padded with 0 at their end, `{recurrent[0].type}` has forgotten them "
            'there: use `Embedding(..., mask_zero=True)`, or `pad_sequences(padding="pre")`.'
        )
    for item in layers:
        if item.type == "Masking":
            yield (
                f"`{item.path}` hides each step of nothing but {item.arguments.get('mask_value')}: "
                "leave it out where that is a value of the data, not of padding."
            )
    shapes = [tensor.shape for tensor in inputs if tensor.shape]
    steps = max((shape[0] for shape in shapes), default=0)
    if recurrent and steps >= THRESHOLDS["memory_steps"].value:
        kind = recurrent[0].type
        better = "use `GRU` or `LSTM`, and" if kind == "SimpleRNN" else "use `Conv1D` before it, or"
        yield (
            f"`{kind}` hardly learns from what comes some tens of steps before the end, and here "
            f"are {steps}: {better} shorter sequences."
        )
    pooled = sorted(_ORDERLESS.intersection(types))
    if (
        pooled
        and not recurrent
        and not _ORDERED.intersection(types)
        and types.count("Embedding") < 2
    ):
        yield (
            f"`{pooled[0]}` does not see the order of the steps: if it matters, add an `Embedding` "
            "of the positions to that of the words, or use `Conv1D` or `GRU`."
        )
    if "GlobalAveragePooling2D" in types and "Flatten" not in types:
        yield (
            "`GlobalAveragePooling2D` does not see where in a picture something is: if that "
            "matters, use `Flatten`."
        )
    share = THRESHOLDS["penalty_said"].value * facts.total("batch_loss")
    if layers and (facts.total("penalty") > share).any() and not list_regularizers(facts.setup):
        yield (
            "What is given to `add_loss`, such as a KL divergence, may outweigh the loss of the "
            "data: multiply it by a smaller factor, such as 0.01."
        )
    if noisy := [item.path for item in layers if _RANDOM.fullmatch(item.type)]:
        yield (
            f"Train once without `{'`, `'.join(noisy)}`: too much of it may destroy what is to be "
            "learned. Look at what it gives for some samples."
        )
    if narrow := tell_width(facts):
        yield narrow


def tell_width(facts: Facts) -> str:
    """Tell of hidden layers that are all narrow; "" of others."""
    hidden = [item for item in list_hidden(facts) if item.type == "Dense" and item.shape]
    widest = max((item.shape[-1] for item in hidden), default=0)
    if not 0 < widest < THRESHOLDS["few_units"].value:
        return ""
    return f"No hidden layer has more than {widest} units: use `Dense(32)` or wider ones."
