"""The path of a layer's output through the graph, to the nearest activation or the next kernel."""

import functools
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from keras_initkit.anatomy.graph import Call, Graph
from keras_initkit.anatomy.layers_inside import layers_inside

LINEAR = "linear"

NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
)
_ATTENTIONS = (keras.layers.Attention, keras.layers.AdditiveAttention)
_HEADS = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_ADDING = {"Add", "Average", "Subtract"}
# Classes of layers and operations that leave a signal as it is, or nearly. The operations behind
# functions of `keras.ops` have no public class.
_PASSING = re.compile(
    r"(Adaptive|Global)?(Average|Max)Pool(ing)?(\dD)?|(Spatial|Gaussian|Alpha)?Dropout(\dD)?"
    r"|ZeroPadding\dD|Cropping\dD|UpSampling\dD|GaussianNoise|ActivityRegularization|Identity"
    r"|Activation|Masking|Reshape|Flatten|Permute|RepeatVector|Concatenate|Add|Average|Subtract"
    r"|BroadcastTo|Cast|Copy|ExpandDims|Flip|GetItem|Mean|Moveaxis|Pad|Ravel|Repeat|Roll|Split"
    r"|Squeeze|Stack|StopGradient|Swapaxes|Tile|Transpose"
)

# Tells of a layer if there is a rule for its kernels.
HasRule = Callable[[Any], bool]

# Of a call on a signal: it ends at kernels and attention, is normalized, is added to others, is put
# beside them, passes with hardly a change, or what happens is unknown.
Effect = Literal["kernel", "normalization", "add", "join", "pass", "unknown"]


class Activation(NamedTuple):
    """An activation; a layer's unusual arguments are in its name, as in "leaky_relu(0.1)"."""

    name: str
    function: Callable[[Any], Any]


class Following(NamedTuple):
    """The way of a layer's output to the next activation.

    Attributes:
        activation: Name of the activation; "linear" if the signal reaches the next weights or the
            output without one; `None` if unknown.
        function: The activation, a callable; `None` for "linear".
        normalization: The normalization layer before the activation, or `None`.
        adds: Whether the signal is added to others before the activation.
        is_sum_normalized: Whether it is added before the normalization.
        joins: Whether the normalization takes it side by side with others.
        is_gate: Whether another signal is multiplied by the activation's output.
        is_last: Whether no kernels follow.
    """

    activation: str | None = None
    function: Callable[[Any], Any] | None = None
    normalization: Any = None
    adds: bool = False
    is_sum_normalized: bool = False
    joins: bool = False
    is_gate: bool = False
    is_last: bool = False

    @property
    def is_known(self) -> bool:
        """Whether it is known what takes the signal: a normalization, an activation or weights."""
        return self.activation is not None or self.normalization is not None

    @property
    def text(self) -> str:
        """The same in words, such as "BatchNormalization, add, relu"."""
        parts = ["add"] if self.adds else []
        if self.normalization is not None:
            name = type(self.normalization).__name__
            parts = [*parts, name] if self.is_sum_normalized else [name, *parts]
        parts.append(self.activation or "unknown")
        return ", ".join(parts) + (" as a gate" if self.is_gate else "")


def follow(graph: Graph, layers: Sequence[Any], has_rule: HasRule) -> Following:
    """Follow the output of a layer's kernels.

    A signal with several ways to go, as in residual networks, is followed to the nearest
    activation on any of them.

    Args:
        graph: The model's graph.
        layers: The layers around a weight, from the model to its holder.
        has_rule: Tells of a layer if there is a rule for its kernels.
    """
    holder = layers[-1]
    caller = find_caller(graph, layers)
    tensors = graph.made.get(id(caller), [])
    if _is_inside(layers):
        return Following(LINEAR)
    # Up to the next kernels, and no further: models may have thousands.
    reached = graph.reach(tensors, lambda call: not _has_kernel(call.operation, has_rule))
    is_last = not graph.outputs.isdisjoint(reached) and not any(
        _has_kernel(call.operation, has_rule) for call in graph.calls_on(reached)
    )
    own = own_activation(holder)
    if own is not None:
        return Following(*own, is_last=is_last, is_gate=graph.is_gate(tensors))
    if caller is None or not makes_output_of(holder, caller):
        return Following()
    return _search(graph, tensors, has_rule)._replace(is_last=is_last)


def find_receivers(
    graph: Graph, layers: Sequence[Any], has_rule: HasRule
) -> list[tuple[Any | None, str]]:
    """List the layers with weights that take the output of a layer, nearest first.

    Only ways that are understood all along count: through activations, sums, reshapes and the
    like, to a layer of Keras.

    Returns:
        Pairs of a layer, `None` for an output of the model, and the last activation before it.
    """
    caller = find_caller(graph, layers)
    if caller is None or _is_inside(layers) or not makes_output_of(layers[-1], caller):
        return []
    own = own_activation(layers[-1])
    ways = dict.fromkeys(graph.made[id(caller)], own.name if own else LINEAR)
    found: list[tuple[Any | None, str]] = []
    for tensor in (waiting := list(ways)):  # which grows
        if tensor in graph.outputs:
            found.append((None, ways[tensor]))
        for call in graph.takers.get(tensor, []):
            operation, effect = call.operation, classify(call, has_rule)
            if type(operation).__name__ == "StopGradient" or effect == "unknown":
                continue
            if isinstance(operation, keras.layers.Layer) and operation.weights:
                if type(operation).__module__.startswith("keras."):
                    found.append((operation, ways[tensor]))
            elif effect != "kernel":
                name = effect.name if isinstance(effect, Activation) else ways[tensor]
                new = [output for output in call.outputs if output not in ways]
                ways |= dict.fromkeys(new, name)
                waiting += new
    return found


def classify(call: Call, has_rule: HasRule) -> Activation | Effect:
    """Classify a call by its effect on a signal."""
    operation = call.operation
    if operation is None:
        return "pass"
    passes = _passes(operation)
    activation = as_activation(operation, len(call.inputs))
    if activation is not None:
        return activation
    if isinstance(operation, NORMALIZATIONS):
        return "normalization"
    if isinstance(operation, _ATTENTIONS) or _has_kernel(operation, has_rule):
        return "kernel"
    if not passes:
        return "unknown"
    if len(call.inputs) == 1:
        return "pass"
    return "add" if type(operation).__name__ in _ADDING else "join"


def as_activation(operation: Any, inputs: int) -> Activation | None:
    """Return a layer or operation on so many tensors as an activation; `None` for other ones."""
    if isinstance(operation, keras.layers.Layer):
        return _layer_as_activation(operation)
    return None if inputs != 1 or _passes(operation) else _operation_as_activation(operation)


def _passes(operation: Any) -> bool:
    """Check by its class for a layer or operation with hardly any effect on a signal."""
    of_keras = type(operation).__module__.startswith("keras.")
    return of_keras and _PASSING.fullmatch(type(operation).__name__) is not None


def own_activation(layer: Any) -> Activation | None:
    """Return the activation applied inside a layer; `None` if it is linear."""
    activation = getattr(layer, "activation", None)
    if not callable(activation) or activation is keras.activations.linear:
        return None
    if isinstance(activation, keras.layers.Layer):
        return _layer_as_activation(activation) or Activation(activation.name, activation)
    return Activation(getattr(activation, "__name__", type(activation).__name__), activation)


def _layer_as_activation(layer: Any) -> Activation | None:
    """Return an activation layer as an activation; `None` for other layers, or if linear."""
    functions = keras.activations
    match layer:
        case keras.layers.Activation():
            return own_activation(layer)
        case keras.layers.ReLU():
            usual = {"negative_slope": 0.0, "max_value": None, "threshold": 0.0}
            return _bind_arguments(functions.relu, layer, usual)
        case keras.layers.LeakyReLU():
            return _bind_arguments(functions.leaky_relu, layer, {"negative_slope": None})
        case keras.layers.ELU():
            return _bind_arguments(functions.elu, layer, {"alpha": 1.0})
        case keras.layers.PReLU():
            slope = float(np.mean(keras.ops.convert_to_numpy(layer.alpha)))
            function = functools.partial(functions.leaky_relu, negative_slope=slope)
            return Activation(f"leaky_relu({slope:g})", function)
        case keras.layers.Softmax():
            return Activation("softmax", functions.softmax)
    return None


def _operation_as_activation(operation: Any) -> Activation | None:
    """Return an operation of `keras.ops` as an activation; `None` if it is no elementwise one."""
    try:
        shape = operation.compute_output_spec(keras.KerasTensor((3, 5))).shape
    except Exception:  # an operation on more than one tensor may raise anything
        return None
    if tuple(shape) != (3, 5):
        return None
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(operation).__name__).lower()
    return Activation(name, operation)


def _bind_arguments(function: Callable[..., Any], layer: Any, usual: dict[str, Any]) -> Activation:
    """Bind an activation's arguments to those of its layer, and name the unusual ones."""
    arguments = {name: getattr(layer, name) for name in usual}
    shown = [
        f"{value:g}" if len(usual) == 1 else f"{name}={value:g}"
        for name, value in arguments.items()
        if value is not None and value != usual[name]
    ]
    name = function.__name__ + (f"({', '.join(shown)})" if shown else "")
    return Activation(name, functools.partial(function, **arguments))


def _search(graph: Graph, tensors: Iterable[int], has_rule: HasRule) -> Following:
    """Look for the nearest activation, breadth first."""
    queue = deque((tensor, Following()) for tensor in tensors)
    seen: set[int] = set()
    ends: dict[str, Following] = {}
    while queue:
        tensor, way = queue.popleft()
        if tensor in seen:
            continue
        seen.add(tensor)
        calls = graph.takers.get(tensor, [])
        if tensor in graph.outputs:
            ends.setdefault("output", way._replace(activation=LINEAR))
        elif not calls:
            ends.setdefault("nowhere", way)
        for call in calls:
            after = way
            match classify(call, has_rule):
                case Activation(name, function):
                    is_gate = graph.is_gate(call.outputs)
                    return way._replace(activation=name, function=function, is_gate=is_gate)
                case "kernel":
                    ends.setdefault("kernel", way._replace(activation=LINEAR))
                    continue
                case "unknown":
                    ends.setdefault("unknown", way)
                    continue
                case "add":
                    after = way._replace(adds=True)
                case "join" if way.normalization is None:
                    after = way._replace(joins=True)
                case "normalization" if way.normalization is None:
                    after = way._replace(normalization=call.operation, is_sum_normalized=way.adds)
            queue.extend((output, after) for output in call.outputs)
    order = ("unknown", "kernel", "nowhere", "output")
    return next((ends[end] for end in order if end in ends), Following())


def find_caller(graph: Graph, layers: Sequence[Any]) -> Any | None:
    """Return the outermost of some layers that is called in the graph; it calls the others."""
    return next((layer for layer in layers if id(layer) in graph.made), None)


def _is_inside(layers: Sequence[Any]) -> bool:
    """Check if a layer's sums stay within a recurrent cell or an attention layer."""
    holder = layers[-1]
    if isinstance(holder, _ATTENTIONS) or any(isinstance(x, keras.layers.RNN) for x in layers):
        return True
    in_heads = any(isinstance(layer, _HEADS) for layer in layers[:-1])
    return in_heads and holder.name != "attention_output"


def makes_output_of(holder: Any, operation: Any) -> bool:
    """Check if the output of a layer in the graph is the output of a layer inside it."""
    if isinstance(operation, keras.layers.Wrapper):
        return holder is operation or makes_output_of(holder, operation.layer)
    return holder is operation or isinstance(operation, _HEADS)


def _has_kernel(operation: Any, has_rule: HasRule) -> bool:
    return (
        isinstance(operation, keras.layers.Layer)
        and not isinstance(operation, (*NORMALIZATIONS, keras.layers.PReLU))
        and bool(operation.weights)
        and any(has_rule(layer) for layer in layers_inside(operation))
    )
