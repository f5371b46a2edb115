"""Queries on a model's setup: outputs and inputs with their numbers, and ways between layers."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.windows import Floats
from tensorboard_plugin_initkit.record.setup import (
    ANY_SIZE,
    MODEL_INPUT,
    HeadSetup,
    LayerSetup,
    Setup,
    Shape,
    match_heads,
)

LINEAR, SIGMOIDS = ("", "linear"), ("sigmoid", "hard_sigmoid")
# A LeakyReLU that changes nothing.
SLOPE_OF_ONE = "leaky_relu(1)"
# Layers of one kernel each.
DENSE = re.compile(r"Dense|Conv[123]D")
RECURRENT = re.compile(r"LSTM|GRU|SimpleRNN|RNN|Bidirectional|ConvLSTM[123]D")
# They divide gradients by their size: the learning rate is the size of a step.
ADAPTIVE = ("Adam", "AdamW", "Nadam", "Adamax", "RMSprop", "Lion")
# Layers that hand on numbers as they are, or some of them.
_PASSING = re.compile(
    r"InputLayer|Identity|Flatten|Reshape|Permute|Masking|(Spatial|Alpha|Gaussian)?Dropout(\dD)?"
    r"|GaussianNoise|ActivityRegularization|Random\w+|Resizing|CenterCrop|(ZeroPadding|Cropping)\dD"
)


class Tensor(NamedTuple):
    """An input, target or prediction of the steps: its columns among the ports.

    Attributes:
        name: Its key or position; "" for the only one of its role.
        columns: Several where the shape of a sample changes between batches.
        shape: Shape of a sample, `ANY_SIZE` where it changes; `None` if its rank does.
    """

    name: str
    columns: tuple[int, ...]
    shape: Shape | None


class Head(NamedTuple):
    """An output of a model, with its layers and numbers.

    Attributes:
        setup: Name, activation, loss.
        layer: The layer of which it is the output; `None` if it is not known.
        kernel: The last layer with a kernel before it, or `layer` itself; `None` if not known.
        shape: Shape of a sample; `None` if it is not known.
        y, y_pred: Its target and prediction; `None` if they are not known.
    """

    setup: HeadSetup
    layer: LayerSetup | None
    kernel: LayerSetup | None
    shape: Shape | None
    y: Tensor | None
    y_pred: Tensor | None

    @property
    def activation(self) -> str:
        """Name of its last activation; "" if it is not known."""
        return read_activation(self.setup.activation)

    @property
    def units(self) -> int:
        """Number of units along the axis of the classes, 0 if it is not known."""
        if not self.shape:
            return 0
        axis = self.setup.arguments.get("axis", -1)
        axis = axis - 1 if isinstance(axis, int) and axis > 0 else -1
        return max(0, self.shape[axis if axis < len(self.shape) else -1])

    @property
    def from_logits(self) -> bool:
        """Whether the loss is told to expect logits."""
        return bool(self.setup.arguments.get("from_logits", False))

    @property
    def path(self) -> str:
        """Path of `layer`, "" if it is not known."""
        return self.layer.path if self.layer else ""

    def __str__(self) -> str:
        name = f" `{self.setup.name}`" if self.setup.name else ""
        return f"output{name} (layer `{self.path}`)" if self.path else f"output{name}"


def read_activation(name: str) -> str:
    """Return the plain name of an activation; "" if its arguments may change its range."""
    plain, _, arguments = name.partition("(")
    if name == SLOPE_OF_ONE:
        return "linear"
    if arguments and not (plain == "leaky_relu" or arguments.startswith("max_value")):
        return ""
    return {"swish": "silu", "log_sigmoid": "log_softmax", "exp": "exponential"}.get(plain, plain)


def list_tensors(facts: Facts, role: str) -> list[Tensor]:
    """List the tensors of a role, in the model's order."""
    columns: dict[str, list[int]] = {}
    for i, port in enumerate(facts.ports):
        if port.role == role:
            columns.setdefault(port.name, []).append(i)
    return [Tensor(name, tuple(own), _join_shapes(facts, own)) for name, own in columns.items()]


def _join_shapes(facts: Facts, columns: list[int]) -> Shape | None:
    shapes = {facts.ports[i].shape for i in columns}
    if len({len(shape) for shape in shapes}) > 1:
        return None
    sizes = (set(sizes) for sizes in zip(*shapes, strict=True))
    return tuple(size.pop() if len(size) == 1 else ANY_SIZE for size in sizes)


def read(facts: Facts, tensor: Tensor, statistic: str, combine: np.ufunc) -> Floats:
    """Return a statistic of a tensor, (n,), its columns combined by `np.fmin` or `np.fmax`."""
    values: Floats = combine.reduce(facts.per_port(statistic)[:, list(tensor.columns)], axis=1)
    return values


def list_heads(facts: Facts) -> list[Head]:
    """List the outputs of a model, each with its target and prediction."""
    setups, layers = facts.setup.heads, facts.setup.layers
    heads, matched = [], {role: _match_tensors(facts, role) for role in ("y", "y_pred")}
    for k, setup in enumerate(setups):
        y, y_pred = matched["y"][k], matched["y_pred"][k]
        shape = y_pred.shape if y_pred else setup.shape[1:] if setup.shape else None
        way = list(trace_back(facts.setup, setup.layer))
        layer = layers[setup.layer] if way else None
        kernel = next((layers[i] for i in way if DENSE.fullmatch(layers[i].type)), None)
        heads.append(Head(setup, layer, kernel, shape, y, y_pred))
    return heads


def _match_tensors(facts: Facts, role: str) -> list[Tensor | None]:
    """Return the target or prediction of each output."""
    tensors = list_tensors(facts, role)
    places = match_heads(facts.setup.heads, [tensor.name for tensor in tensors])
    return [None if place is None else tensors[place] for place in places]


def list_hidden(facts: Facts) -> list[LayerSetup]:
    """List the layers with a kernel that are not the last of an output."""
    last = {head.kernel.path for head in list_heads(facts) if head.kernel}
    layers = facts.setup.layers
    return [item for item in layers if DENSE.fullmatch(item.type) and item.path not in last]


def trace_back(setup: Setup, position: int) -> Iterator[int]:
    """Yield a layer and those before it, nearest first, up to the first with weights of its own.

    Normalizations are passed. It ends where several layers are taken, or unknown ones.
    """
    while 0 <= position < len(setup.layers):
        layer = setup.layers[position]
        yield position
        if (layer.weights and not is_normalization(layer)) or len(layer.takes) != 1:
            return
        position = layer.takes[0] if layer.takes[0] < position else MODEL_INPUT


def find_takers(setup: Setup) -> list[list[int]]:
    """Return for each layer the takers of its output."""
    takers: list[list[int]] = [[] for _ in setup.layers]
    for position, layer in enumerate(setup.layers):
        for taken in layer.takes:
            if 0 <= taken < len(takers):
                takers[taken].append(position)
    return takers


def list_pairs(setup: Setup, activations: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """List layers with one of some activations and the next kernels, where only these take them.

    They are kernels themselves, or activations between kernels; for no activation, kernels.
    """
    takers, kinds = find_takers(setup), ("Activation",) * (activations != LINEAR)
    for position, item in enumerate(setup.layers):
        if read_activation(item.activation) not in activations:
            continue
        after = takers[position]
        while len(after) == 1 and is_between(setup.layers[after[0]]):
            after = takers[after[0]]
        is_own = DENSE.fullmatch(item.type) or item.type in kinds
        if is_own and len(after) == 1 and DENSE.fullmatch(setup.layers[after[0]].type):
            yield position, after[0]


def is_between(item: LayerSetup) -> bool:
    """Check for a layer with nothing non-linear and no kernel."""
    is_linear = item.type == "Activation" and not item.activation
    is_linear |= not item.weights and read_activation(item.activation) == "linear"
    return is_passing(item) or item.type == "BatchNormalization" or is_linear


def list_regularizers(setup: Setup) -> list[tuple[str, str]]:
    """List the layers with a regularizer, and what it is."""
    return [
        (item.path, value)
        for item in setup.layers
        for name, value in item.arguments.items()
        if name.endswith("regularizer") and value and value != "None"
    ]


def find_first_layers(setup: Setup) -> list[LayerSetup]:
    """List the layers with an input of the model, behind those of a mere hand-over."""
    layers, reached, first = setup.layers, {MODEL_INPUT}, []
    if not setup.has_graph:
        return []
    for position, layer in enumerate(layers):
        if layer.type == "InputLayer" or reached.intersection(layer.takes):
            if is_passing(layer) or layer.type in ("Rescaling", "Concatenate"):
                reached.add(position)
            else:
                first.append(layer)
    return first


def find_rescaling(setup: Setup) -> tuple[float, float, list[LayerSetup]]:
    """Return scale and offset of the rescalings that all inputs pass first, and these layers."""
    scale, offset, layers = 1.0, 0.0, list[LayerSetup]()
    for layer in setup.layers if setup.has_graph else ():
        if layer.type == "Rescaling":
            factor, shift = (layer.arguments.get(name, math.nan) for name in ("scale", "offset"))
            if not (isinstance(factor, int | float) and isinstance(shift, int | float)):
                break
            scale, offset = scale * factor, offset * factor + shift
            layers.append(layer)
        elif not is_passing(layer) and layer.type != "Concatenate":
            break
    return scale, offset, layers


def is_passing(layer: LayerSetup) -> bool:
    """Check for a layer without an effect on numbers, but to drop or move some."""
    return _PASSING.fullmatch(layer.type) is not None


def is_normalization(layer: LayerSetup) -> bool:
    """Check for a normalization."""
    return layer.type.endswith("Normalization")


def find_input_size(facts: Facts, position: int) -> int:
    """Return the number of a layer's input features or channels, 0 if it is not known."""
    takes = facts.setup.layers[position].takes
    if len(takes) != 1:
        return 0
    if takes[0] == MODEL_INPUT:
        inputs = list_tensors(facts, "x")
        shape = inputs[0].shape or () if len(inputs) == 1 else ()
    else:
        shape = facts.setup.layers[takes[0]].shape[1:]
    return max(0, shape[-1]) if shape else 0


def write_layer(layer: LayerSetup | None, units: int, activation: str = "", more: str = "") -> str:
    """Write a layer of the same class as code, with other units and another activation."""
    arguments = [str(units)]
    kind = layer.type if layer and DENSE.fullmatch(layer.type) else "Dense"
    if layer and kind != "Dense":
        size = layer.arguments.get("kernel_size", 1)
        sizes = size if isinstance(size, list | tuple) else [size]
        arguments.append(str(sizes[0] if len(set(sizes)) == 1 else tuple(sizes)))
    arguments += [f'activation="{activation}"'] * bool(activation) + [more] * bool(more)
    return f"{kind}({', '.join(arguments)})"
