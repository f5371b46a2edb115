"""How large a signal can be behind each layer at a record, by the norms of its weights."""

from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.start import ACTIVATIONS, is_nearly_passing
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import quotient
from tensorboard_plugin_initkit.diagnosis.wiring import (
    DENSE,
    RECURRENT,
    find_input_size,
    is_normalization,
    read_activation,
)
from tensorboard_plugin_initkit.safe_text import write_number

_BOUNDED = ("sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softsign", "softmax")


def tell_overflow(facts: Facts, row: int) -> str:
    """Find the layer with an output that may be infinite, of finite inputs and weights.

    Nothing of a forward pass is left but norms. Where these are too small for any sum beyond
    float32, an operation without a value is to blame, such as a logarithm; else the weights with
    most growth.

    Returns:
        Words for it, "" if nothing is known.
    """
    is_half = facts.setup.dtype_policy.endswith("_float16")
    limit = float(np.finfo(np.float16 if is_half else np.float32).max)
    sizes = list(_bound_sizes(facts, row))
    unknown = [i for i, (_, size) in enumerate(sizes) if np.isnan(size)]
    if unknown and max((size for _, size in sizes[: unknown[0]]), default=0.0) < limit:
        place = unknown[0]
        path, before = sizes[place][0], sizes[place - 1][1] if place else 0.0
        words = f"the first layer that can have made them is `{path}`"
        words += f", from inputs of at most {write_number(before, 2)}" if before else ""
        return f"{words}; "
    norms = facts.norm_of_layers(facts.per_variable("weight_norm")[[0, row]])
    growth = np.nan_to_num(quotient(norms[1], norms[0]), posinf=0.0)
    if not growth.size or growth.max() < THRESHOLDS["weight_growth"].value:
        return ""
    path, times = facts.layers[int(growth.argmax())], write_number(growth.max(), 2)
    return f"the weights of `{path}` are {times} times as large as at first; "


def _bound_sizes(facts: Facts, row: int) -> Iterator[tuple[str, float]]:
    """Yield the layers of a model in a row, and the largest possible RMS of their outputs.

    |W x| is at most the norm of W times |x|. NaN from the first unknown layer on.
    """
    layers, x = facts.setup.layers, facts.ports_of("x")
    if len(x) != 1 or any(item.takes != (i - 1,) for i, item in enumerate(layers) if i):
        return
    mean, std = (float(facts.per_port(name)[row, x[0]]) for name in ("mean", "std"))
    size = float(np.hypot(mean, std))
    norms = facts.norm_of_layers(facts.per_variable("weight_norm")[row : row + 1])[0].tolist()
    for position, item in enumerate(layers):
        norm = norms[facts.layers.index(item.path)] if item.path in facts.layers else 0.0
        if DENSE.fullmatch(item.type) and item.shape and norm:
            field = int(np.prod(item.arguments.get("kernel_size", 1)))
            fan_in = max(1, find_input_size(facts, position)) * field
            size = norm * float(np.hypot(np.sqrt(fan_in) * size, 1) / np.sqrt(item.shape[-1]))
        elif is_normalization(item) or item.type == "Embedding":
            size = max(1.0, norm)
        elif not is_nearly_passing(item) and not RECURRENT.fullmatch(item.type):
            size = np.nan
        activation = read_activation(item.activation)
        if activation in _BOUNDED:
            size = 1.0
        elif activation not in ACTIVATIONS or RECURRENT.fullmatch(item.type):
            size = np.nan
        yield item.path, size
