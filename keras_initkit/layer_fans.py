"""True fans of the weights of Keras layers.

A rule for each class of layers says what its weights connect: what no shape tells is stride,
groups, gates, transposition, one-hot inputs and axes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_initkit.fan_formulas import (
    Connections,
    Fans,
    connections_of_window,
    convolution_fans,
    einsum_fans,
    transposed,
)
from keras_initkit.layers_inside import layers_inside, own_weights

Size = Sequence[int] | None
Rule = Callable[[Any, Any, Size], Fans | None]

_RULES: dict[type, Rule] = {}
# A number for each element of the inputs, that it is multiplied by.
_ELEMENTWISE = Fans(1.0, 1.0)


def fans(layer: Any, weight: Any = "kernel", input_size: Size = None) -> Fans:
    """Return the true fans of a weight of a layer.

    fan_in is the number of inputs that feed one unit through the weight, fan_out the number of
    units that one input feeds; of gated recurrent layers, within one gate. They differ from what
    Keras's own initializers read from the shape where there are strides, groups, depthwise or
    transposed convolutions, gates, axes of an einsum that inputs and outputs share, or one-hot
    inputs. In convolutions they are those of the interior of a map, unless its size is given.

    Examples:
    >>> layer = keras.layers.Conv2D(32, 3, strides=2, groups=4)
    >>> layer.build((None, 28, 28, 16))
    >>> keras_initkit.fans(layer)
    Fans(fan_in=36.0, fan_out=18.0)

    Args:
        layer: A built `keras.layers.Layer`.
        weight: One of `layer.weights`; or the name or the end of the path of one, such as
            "recurrent_kernel" or "query/kernel". All weights that it names must have the same
            fans.
        input_size: Sequence of integers, the size of the map that a convolution sees, without
            batch and channels: then fans are means over the whole map, in which padding feeds
            nothing. `None` for the interior of a large map.

    Returns:
        `Fans(fan_in, fan_out)`, two floats: under strides a mean need not be whole.

    Raises:
        ValueError: If the layer is not built; if no weight, or weights with different fans, have
            that name; if the weight is added, as a bias is; if nothing is known of the layer's
            class, for which `register_fans` helps; or if `input_size` does not fit.
    """
    if not layer.built:
        raise ValueError(
            f"`layer` must be built, so that it has weights. Received: {_name(layer)}, which is "
            "not. Call it on data, or `layer.build(input_shape)`."
        )
    found = [
        (owner, variable)
        for owner, variable in _owned(layer)
        if variable is weight or (isinstance(weight, str) and _is_called(variable, weight))
    ]
    if not found:
        shown = repr(weight) if isinstance(weight, str) else getattr(weight, "path", weight)
        raise ValueError(
            f"`weight` must be a weight of the layer, or the end of the path of one. Received: "
            f"weight={shown}. The weights of {_name(layer)} are {_paths(layer.weights)}."
        )
    all_fans = {_fans(owner, variable, input_size) for owner, variable in found}
    if len(all_fans) > 1:
        raise ValueError(
            "`weight` must name weights with the same fans. Received: "
            f"weight={weight!r}, which is the name of {_paths(v for _, v in found)}. Write more of "
            "the path, or pass the weight itself."
        )
    return all_fans.pop()


def register_fans(*classes: type) -> Callable[[Rule], Rule]:
    """Make a function the rule for the fans of layers of some classes and their subclasses.

    Example:
    ```python
    @keras_initkit.register_fans(MyLowRankDense)
    def low_rank_fans(layer, weight, input_size):
        if weight.name in ("a", "b"):
            return weight.shape[0], weight.shape[1]
        return None  # a bias
    ```

    Args:
        *classes: Classes of layers. A later rule for a class replaces an earlier one.

    Returns:
        A decorator of a function of the layer, the weight (a `keras.Variable`) and the size of
        the map (a sequence of integers, or `None`). It returns `(fan_in, fan_out)`, or `None` for
        a weight that does not multiply inputs.
    """

    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(classes, rule))
        return rule

    return register


def _owned(layer: Any) -> list[tuple[Any, Any]]:
    """The weights of a layer, each with the outermost layer inside that has a rule for it."""
    owned: dict[int, tuple[Any, Any]] = {}
    for inner in layers_inside(layer):
        weights = inner.weights if _rule(inner) else own_weights(inner)
        for variable in weights:
            owned.setdefault(id(variable), (inner, variable))
    return list(owned.values())


def _rule(layer: Any) -> Rule | None:
    return next((_RULES[cls] for cls in type(layer).__mro__ if cls in _RULES), None)


def _fans(layer: Any, variable: Any, input_size: Size) -> Fans:
    rule = _rule(layer)
    if rule is None:
        raise ValueError(
            "`layer` must be of a class whose fans are known. Received: weight "
            f"{variable.path} of {_name(layer)}. Write a rule for it: "
            f"`@keras_initkit.register_fans({type(layer).__name__})`."
        )
    result = rule(layer, variable, input_size)
    if result is None:
        raise ValueError(
            "`weight` must multiply the inputs of the layer: others have no fans. Received: "
            f"{variable.path} of {_name(layer)}."
        )
    return Fans(*map(float, result))


def _is_called(variable: Any, name: str) -> bool:
    return bool(variable.path == name or variable.path.endswith("/" + name))


def _name(layer: Any) -> str:
    return f"the {type(layer).__name__} layer '{layer.name}'"


def _paths(variables: Any) -> str:
    return ", ".join(variable.path for variable in variables) or "none"


# Matrices.


@register_fans(keras.layers.Dense)
def _dense(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    inputs, outputs = layer.kernel.shape
    if weight.name == "kernel":
        # Not of the weight, in which a quantised kernel may be packed.
        return Fans(inputs, outputs)
    return _matrix(weight) if weight.name.startswith("lora_kernel") else None


@register_fans(keras.layers.Embedding)
def _embedding(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    # Its inputs are one-hot: one of them is not zero.
    if weight.name == "embeddings":
        return Fans(1, layer.output_dim)
    if weight.name == "lora_embeddings_a":
        return Fans(1, weight.shape[1])
    # Those that a `ReversibleEmbedding` leads back with, where they are not the same.
    is_matrix = weight.name in ("lora_embeddings_b", "reverse_embeddings")
    return _matrix(weight) if is_matrix else None


@register_fans(keras.layers.EinsumDense)
def _einsum_dense(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    operands, _, outputs = layer.equation.partition("->")
    inputs, _, kernel = operands.partition(",")
    sizes = dict(zip(kernel, layer.kernel.shape, strict=True))
    # An axis that is summed without the kernel: what is the same weight of many inputs.
    lone = set(inputs) - set(kernel) - set(outputs) - {"."}
    if lone:
        shape = layer.get_build_config()["input_shape"]
        before, _, after = inputs.partition("...")
        known = [*zip(before, shape, strict=False)]
        known += zip(reversed(after), reversed(shape), strict=False)
        sizes |= {label: size for label, size in known if label in lone}
    if weight.name == "kernel":
        return einsum_fans(layer.equation, sizes)
    if weight.name not in ("lora_kernel_a", "lora_kernel_b"):
        return None
    # kernel = a · b, over the rank; the one that has the summed axes comes first.
    last, rank = kernel[-1], "R"
    sizes[rank] = layer.lora_rank
    a, b = kernel[:-1] + rank, rank + last
    if last in outputs:
        between = outputs.replace(last, rank + last * (last in inputs))
        first, second = a, b
    else:
        between = inputs.replace(last, rank)
        first, second = b, a
    if (weight.name == "lora_kernel_a") == (first is a):
        return einsum_fans(f"{inputs},{first}->{between}", sizes)
    return einsum_fans(f"{between},{second}->{outputs}", sizes)


def _matrix(weight: Any) -> Fans:
    inputs, outputs = weight.shape
    return Fans(inputs, outputs)


# Convolutions.


@register_fans(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def _convolution(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    *window, inputs, filters = layer.kernel.shape
    connections = _connections(layer, window, input_size)
    if weight.name == "kernel":
        outputs = filters // layer.groups
        return convolution_fans(window, inputs, outputs, layer.strides, connections)
    if weight.name == "lora_kernel_a":
        return convolution_fans(window, inputs, layer.lora_rank, layer.strides, connections)
    if weight.name == "lora_kernel_b":
        return Fans(layer.lora_rank, filters // layer.groups)
    return None


@register_fans(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def _depthwise(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    if weight.name != "kernel":
        return None
    *window, _, multiplier = weight.shape
    connections = _connections(layer, window, input_size)
    return convolution_fans(window, 1, multiplier, layer.strides, connections)


@register_fans(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def _separable(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    *window, inputs, outputs = weight.shape if weight.name != "bias" else (0, 0)
    if weight.name == "depthwise_kernel":
        connections = _connections(layer, window, input_size)
        return convolution_fans(window, 1, outputs, layer.strides, connections)
    return Fans(inputs, outputs) if weight.name == "pointwise_kernel" else None


@register_fans(
    keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose
)
def _transposed_convolution(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    if weight.name != "kernel":
        return None
    *window, outputs, inputs = weight.shape
    if input_size is not None:
        # What it transposes leads from a map of the size of its outputs to one of its inputs'.
        shape = layer.compute_output_shape(_map_shape(layer, window, input_size, inputs))
        input_size = shape[2:] if layer.data_format == "channels_first" else shape[1:-1]
    connections = _connections(layer, window, input_size)
    return transposed(convolution_fans(window, outputs, inputs, layer.strides, connections))


def _connections(
    layer: Any, window: Sequence[int], input_size: Size
) -> tuple[Connections, ...] | None:
    if input_size is None:
        return None
    _check_size(window, input_size)
    return tuple(
        connections_of_window(size, taps, stride, dilation, layer.padding)
        for size, taps, stride, dilation in zip(
            input_size, window, layer.strides, layer.dilation_rate, strict=True
        )
    )


def _map_shape(
    layer: Any, window: Sequence[int], input_size: Sequence[int], channels: int
) -> tuple[int, ...]:
    _check_size(window, input_size)
    if layer.data_format == "channels_first":
        return (1, channels, *input_size)
    return (1, *input_size, channels)


def _check_size(window: Sequence[int], input_size: Sequence[int]) -> None:
    if len(input_size) != len(window):
        raise ValueError(
            f"`input_size` must have {len(window)} numbers, one for each axis of the window. "
            f"Received: input_size={tuple(input_size)}"
        )


# Recurrent layers, whose kernels hold the gates side by side.


@register_fans(keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)
def _recurrent(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    is_kernel = weight.name in ("kernel", "recurrent_kernel")
    return Fans(weight.shape[0], layer.units) if is_kernel else None


@register_fans(keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
def _recurrent_convolution(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    cell = layer.cell
    if weight.name == "kernel":
        *window, inputs, _ = weight.shape
        connections = _connections(cell, window, input_size)
        return convolution_fans(window, inputs, cell.filters, cell.strides, connections)
    if weight.name == "recurrent_kernel":
        *window, inputs, _ = weight.shape
        ones = (1,) * len(window)
        # It sees the map that the other kernel leads to.
        state = _connections(cell, cell.kernel_size, input_size)
        connections = state and tuple(
            connections_of_window(axis.outputs, taps, padding="same")
            for axis, taps in zip(state, window, strict=True)
        )
        return convolution_fans(window, inputs, cell.filters, ones, connections)
    return None


# Scales.


@register_fans(
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.PReLU,
    keras.layers.Attention,
)
def _scale(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    return _ELEMENTWISE if weight.name in ("gamma", "scale", "alpha") else None


@register_fans(keras.layers.AdditiveAttention)
def _additive_attention(layer: Any, weight: Any, input_size: Size) -> Fans | None:
    # A score is the sum of the scaled features.
    return Fans(math.prod(weight.shape), 1) if weight.name == "scale" else None
