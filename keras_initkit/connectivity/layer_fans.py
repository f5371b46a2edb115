"""True fans of the weights of Keras layers, and the linear maps in the weights.

A rule for each class of layers describes the connections of its weights. A shape says nothing of
stride, groups, gates, heads, transposition, one-hot inputs and axes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_initkit.anatomy.layers_inside import layers_inside, own_weights
from keras_initkit.anatomy.weights import weights_of
from keras_initkit.connectivity.fan_formulas import (
    Connections,
    Fans,
    connections_of_window,
    convolution_fans,
    einsum_fans,
)
from keras_initkit.connectivity.kernel_view import (
    KernelView,
    view_of_depthwise,
    view_of_einsum,
    view_of_maps_side_by_side,
    view_of_scale,
    view_of_shape,
    view_of_transposed,
)

Size = Sequence[int] | None
Rule = Callable[[Any, Any, Size], KernelView | tuple[float, float] | None]

_RULES: dict[type, Rule] = {}
# A number for each element of the inputs, that it is multiplied by.
_ELEMENTWISE = Fans(1.0, 1.0)


def fans(layer: Any, weight: Any = "kernel", input_size: Size = None) -> Fans:
    """Return the true fans of a weight of a layer.

    fan_in is the number of inputs of one unit through the weight, fan_out the number of units fed
    by one input; in gated recurrent layers, within one gate. Keras's own initializers read other
    fans from the shape where there are strides, groups, depthwise or transposed convolutions,
    gates, axes of an einsum shared by inputs and outputs, or one-hot inputs. In convolutions the
    fans are those of the interior of a map, unless its size is given.

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
        input_size: Sequence of integers, the size of the map before a convolution, without
            batch and channels: then fans are means over the whole map, and padding feeds
            nothing. `None` for the interior of a large map.

    Returns:
        `Fans(fan_in, fan_out)`, two floats: under strides a mean need not be whole.

    Raises:
        ValueError: If `layer` is no layer, or not built; if no weight, or weights with different
            fans, have that name; if the weight is added, as a bias is; if nothing is known of the
            layer's class: see `register_fans`; or if `input_size` does not fit.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(
            f"`layer` must be a keras.layers.Layer. Received: layer={layer!r}. For a shape alone "
            "see `keras_initkit.connectivity.fan_formulas.fans_from_shape`."
        )
    if not layer.built:
        raise ValueError(
            f"`layer` must be built, so that it has weights. Received: {_name(layer)}, which is "
            "not. Call it on data, or `layer.build(input_shape)`."
        )
    found = [
        (own.owner, own.variable)
        for own in weights_of(layer, has_rule)
        if own.variable is weight or (isinstance(weight, str) and _is_called(own.variable, weight))
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

    Raises:
        ValueError: If an argument is no class of layers.
    """
    if not classes or not all(
        isinstance(cls, type) and issubclass(cls, keras.layers.Layer) for cls in classes
    ):
        raise ValueError(
            "`classes` must be classes of layers, as in `@register_fans(MyLayer)`. "
            f"Received: {', '.join(map(repr, classes)) or 'none'}"
        )

    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(classes, rule))
        return rule

    return register


def view_of_weight(owner: Any, variable: Any, input_size: Size = None) -> KernelView | None:
    """View a weight as its owner uses it; return `None` for a bias, which multiplies no inputs.

    Raises:
        ValueError: If nothing is known of the owner's class, or its rule returns no fans.
    """
    rule = _rule(owner)
    if rule is None:
        raise ValueError(
            "`layer` must be of a class whose fans are known. Received: weight "
            f"{variable.path} of {_name(owner)}. Write a rule for it: "
            f"`@keras_initkit.register_fans({type(owner).__name__})`."
        )
    result = rule(owner, variable, input_size)
    if result is None or isinstance(result, KernelView):
        return result
    try:
        fan_in, fan_out = map(float, result)
    except (TypeError, ValueError):
        raise ValueError(
            f"A rule for fans must return (fan_in, fan_out), two numbers, or None. Received: "
            f"{result!r}, of the rule for {type(owner).__name__}, for {variable.path}"
        ) from None
    return view_of_shape(variable.shape, Fans(fan_in, fan_out))


def has_rule(layer: Any) -> bool:
    """Check for a rule for a layer's class or one above it."""
    return _rule(layer) is not None


def is_known_call(layer: Any) -> bool:
    """Check if a layer is called as its rule has it: no user's class below the rule's has a `call`.

    Such a class may do anything with the weights that it inherits, such as x · (1 + scale).
    """
    for cls in type(layer).__mro__:
        if cls in _RULES:
            return True
        if "call" in vars(cls) and not cls.__module__.startswith("keras."):
            return False
    return False


def _rule(layer: Any) -> Rule | None:
    return next((_RULES[cls] for cls in type(layer).__mro__ if cls in _RULES), None)


def _fans(owner: Any, variable: Any, input_size: Size) -> Fans:
    view = view_of_weight(owner, variable, input_size)
    if view is None:
        raise ValueError(
            "`weight` must multiply the inputs of the layer: others have no fans. Received: "
            f"{variable.path} of {_name(owner)}."
        )
    return Fans(*map(float, view.fans))


def _is_called(variable: Any, name: str) -> bool:
    return bool(variable.path == name or variable.path.endswith("/" + name))


def _name(layer: Any) -> str:
    return f"the {type(layer).__name__} layer '{layer.name}'"


def _paths(variables: Any) -> str:
    return ", ".join(variable.path for variable in variables) or "none"


# Matrices.


@register_fans(keras.layers.Dense)
def _dense(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    if weight.name == "kernel":
        # Not of the weight, in which a quantised kernel may be packed.
        return view_of_shape(layer.kernel.shape)
    return view_of_shape(weight.shape) if weight.name.startswith("lora_kernel") else None


@register_fans(keras.layers.Embedding)
def _embedding(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    # Its inputs are one-hot: one of them is not zero.
    if weight.name == "embeddings":
        shape = layer.input_dim, layer.output_dim
        return view_of_shape(shape, Fans(1.0, float(layer.output_dim)))
    if weight.name == "lora_embeddings_a":
        return view_of_shape(weight.shape, Fans(1.0, float(weight.shape[1])))
    # Those that a `ReversibleEmbedding` leads back with, where they are not the same.
    is_matrix = weight.name in ("lora_embeddings_b", "reverse_embeddings")
    return view_of_shape(weight.shape) if is_matrix else None


@register_fans(keras.layers.EinsumDense)
def _einsum_dense(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    operands, _, outputs = layer.equation.partition("->")
    inputs, _, kernel = operands.partition(",")
    shape = tuple(layer.kernel.shape)
    sizes = dict(zip(kernel, shape, strict=True))
    # An axis that is summed without the kernel: what is the same weight of many inputs.
    lone = set(inputs) - set(kernel) - set(outputs) - {"."}
    if lone:
        input_shape = layer.get_build_config()["input_shape"]
        before, _, after = inputs.partition("...")
        known = [*zip(before, input_shape, strict=False)]
        known += zip(reversed(after), reversed(input_shape), strict=False)
        sizes |= {label: size for label, size in known if label in lone}
    if weight.name == "kernel":
        return view_of_einsum(layer.equation, shape, einsum_fans(layer.equation, sizes))
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
        equation = f"{inputs},{first}->{between}"
    else:
        equation = f"{between},{second}->{outputs}"
    return view_of_einsum(equation, weight.shape, einsum_fans(equation, sizes))


@register_fans(keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
def _attention(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    inner = next(
        inner
        for inner in layers_inside(layer, include_self=False)
        if any(weight is own for own in own_weights(inner))
    )
    view = view_of_weight(inner, weight, input_size)
    if weight.name != "kernel" or view is None or inner.name == "attention_output":
        return view
    # (inputs, heads, units): each head is a map of its own.
    return view._replace(maps=(1,), outputs=(2,))


# Convolutions.


@register_fans(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def _convolution(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    *window, inputs, filters = layer.kernel.shape
    connections = _connections(layer, window, input_size)
    if weight.name == "kernel":
        outputs = filters // layer.groups
        fans = convolution_fans(window, inputs, outputs, layer.strides, connections)
        return view_of_maps_side_by_side(layer.kernel.shape, layer.groups, fans)
    if weight.name == "lora_kernel_a":
        fans = convolution_fans(window, inputs, layer.lora_rank, layer.strides, connections)
        return view_of_shape(weight.shape, fans)
    if weight.name == "lora_kernel_b":
        fans = Fans(float(layer.lora_rank), float(filters // layer.groups))
        return view_of_shape(weight.shape, fans)
    return None


@register_fans(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def _depthwise(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    return _channelwise(layer, weight, input_size) if weight.name == "kernel" else None


@register_fans(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def _separable(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    if weight.name == "depthwise_kernel":
        return _channelwise(layer, weight, input_size)
    return view_of_shape(weight.shape) if weight.name == "pointwise_kernel" else None


def _channelwise(layer: Any, weight: Any, input_size: Size) -> KernelView:
    *window, _, multiplier = weight.shape
    connections = _connections(layer, window, input_size)
    fans = convolution_fans(window, 1, multiplier, layer.strides, connections)
    return view_of_depthwise(weight.shape, fans)


@register_fans(
    keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose
)
def _transposed_convolution(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    if weight.name != "kernel":
        return None
    *window, outputs, inputs = weight.shape
    if input_size is not None:
        # What it transposes leads from a map of the size of its outputs to one of its inputs'.
        shape = layer.compute_output_shape(_map_shape(layer, window, input_size, inputs))
        input_size = shape[2:] if layer.data_format == "channels_first" else shape[1:-1]
    connections = _connections(layer, window, input_size)
    back = convolution_fans(window, outputs, inputs, layer.strides, connections)
    return view_of_transposed(weight.shape, layer.strides, Fans(back.fan_out, back.fan_in))


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
def _recurrent(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    if weight.name not in ("kernel", "recurrent_kernel"):
        return None
    inputs, outputs = weight.shape
    fans = Fans(float(inputs), float(layer.units))
    return view_of_maps_side_by_side(weight.shape, outputs // layer.units, fans)


@register_fans(keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
def _recurrent_convolution(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    if weight.name not in ("kernel", "recurrent_kernel"):
        return None
    cell = layer.cell
    *window, inputs, outputs = weight.shape
    strides, connections = cell.strides, _connections(cell, cell.kernel_size, input_size)
    if weight.name == "recurrent_kernel":
        # It sees the map that the other kernel leads to.
        strides = (1,) * len(window)
        connections = connections and tuple(
            connections_of_window(axis.outputs, taps, padding="same")
            for axis, taps in zip(connections, window, strict=True)
        )
    fans = convolution_fans(window, inputs, cell.filters, strides, connections)
    return view_of_maps_side_by_side(weight.shape, outputs // cell.filters, fans)


# Scales.


@register_fans(
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.PReLU,
    keras.layers.Attention,
)
def _scale(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    is_scale = weight.name in ("gamma", "scale", "alpha")
    return view_of_scale(weight.shape, _ELEMENTWISE) if is_scale else None


@register_fans(keras.layers.AdditiveAttention)
def _additive_attention(layer: Any, weight: Any, input_size: Size) -> KernelView | None:
    # A score is the sum of the scaled features.
    if weight.name != "scale":
        return None
    return view_of_shape(weight.shape, Fans(float(math.prod(weight.shape)), 1.0))
