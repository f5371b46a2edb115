"""What follows the output of a layer, as far as the model is a graph.

Keras internals: `KerasTensor._keras_history` and `Operation._inbound_nodes`, for the call that made
a tensor: `model.layers` and `model.operations` say what a model calls, not in which order, and a
layer's public `input` and `output` know one call only. Of a call, a node, the attributes
`input_tensors` and `output_tensors` are public. tests/test_audit.py has one model for each kind of
way, and fails where these change.
"""

import functools
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.connectivity.layer_fans import has_rule

LINEAR = "linear"

_NORMALIZATIONS = (
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


class Following(NamedTuple):
    """What follows the output of a layer.

    Attributes:
        activation: The name of the activation; "linear" if the signal goes on to the next weights
            or to the output without one; `None` if that is not known.
        function: The activation, a callable; `None` for "linear".
        normalization: The normalization layer that comes before the activation, or `None`.
        adds: Whether the signal is added to others before the activation.
        is_sum_normalized: Whether it is so before the normalization.
        is_gate: Whether another signal is multiplied by the activation's output.
        is_last: Whether no kernels follow.
    """

    activation: str | None = None
    function: Callable[[Any], Any] | None = None
    normalization: Any = None
    adds: bool = False
    is_sum_normalized: bool = False
    is_gate: bool = False
    is_last: bool = False

    @property
    def text(self) -> str:
        """The same in words, such as "BatchNormalization, add, relu"."""
        parts = ["add"] if self.adds else []
        if self.normalization is not None:
            name = type(self.normalization).__name__
            parts = [*parts, name] if self.is_sum_normalized else [name, *parts]
        parts.append(self.activation or "unknown")
        return ", ".join(parts) + (" as a gate" if self.is_gate else "")


class _Call(NamedTuple):
    """A call of a layer or operation; of none, where a nested model begins or ends."""

    operation: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Graph:
    """The calls in a model and in all models inside it, by the tensors that they take.

    A model without a graph, as one that is subclassed, has no calls.

    Args:
        model: A built model or layer.
    """

    def __init__(self, model: Any) -> None:
        self.takers: dict[int, list[_Call]] = {}
        self._made: dict[int, list[int]] = {}
        for inner in layers_inside(model):
            self._add(inner)
        ends = _ends(model)
        self._outputs = {id(tensor) for tensor in ends[1]} if ends else set()

    def following(self, layers: Sequence[Any]) -> Following:
        """Say what follows the kernels of a layer.

        A signal that goes several ways, as in residual networks, is followed to the nearest
        activation on any of them.

        Args:
            layers: The layers that a weight is in, from the model to the one that holds it.
        """
        holder = layers[-1]
        known = [layer for layer in layers if id(layer) in self._made]
        tensors = self._made[id(known[-1])] if known else []
        is_last = bool(known) and self._is_last(tensors)
        if _is_inside(layers):
            return Following(LINEAR)
        own = _activation_of(getattr(holder, "activation", None))
        if own is not None:
            gates = bool(known) and self._is_gate(tensors)
            return Following(*own, is_last=is_last, is_gate=gates)
        if not known or not _is_output_of(holder, known[-1]):
            return Following()
        return self._walk(tensors)._replace(is_last=is_last)

    def _add(self, model: Any) -> None:
        ends = _ends(model)
        if ends is None:
            return
        inputs, tensors = {id(tensor) for tensor in ends[0]}, list(ends[1])
        seen: set[int] = set()
        while tensors:
            tensor = tensors.pop(0)
            operation, index, _ = tensor._keras_history
            if operation is None or id(tensor) in inputs:
                continue
            node = operation._inbound_nodes[index]
            if id(node) in seen:
                continue
            seen.add(id(node))
            tensors += node.input_tensors
            for call in _calls(operation, node):
                for taken in call.inputs:
                    self.takers.setdefault(taken, []).append(call)
                if call.operation is not None:
                    self._made.setdefault(id(operation), []).extend(call.outputs)

    def _walk(self, tensors: Sequence[int]) -> Following:
        """Look for the nearest activation, breadth first."""
        queue = deque((tensor, Following()) for tensor in tensors)
        seen: set[int] = set()
        ends: dict[str, Following] = {}
        while queue:
            tensor, so_far = queue.popleft()
            if tensor in seen:
                continue
            seen.add(tensor)
            takers = self.takers.get(tensor, [])
            if tensor in self._outputs:
                ends.setdefault("output", so_far._replace(activation=LINEAR))
            elif not takers:
                ends.setdefault("unknown", so_far)
            for call in takers:
                operation, state = call.operation, so_far
                activation = _activation_in(operation, call)
                if activation is not None:
                    gates = self._is_gate(call.outputs)
                    name, function = activation
                    return so_far._replace(activation=name, function=function, is_gate=gates)
                if isinstance(operation, _NORMALIZATIONS):
                    if state.normalization is None:
                        state = state._replace(
                            normalization=operation, is_sum_normalized=state.adds
                        )
                elif _has_kernel(operation) or isinstance(operation, _ATTENTIONS):
                    ends.setdefault("kernel", so_far._replace(activation=LINEAR))
                    continue
                elif operation is not None and not _passes(operation):
                    ends.setdefault("unknown", so_far)
                    continue
                elif type(operation).__name__ in _ADDING and len(call.inputs) > 1:
                    state = state._replace(adds=True)
                queue.extend((output, state) for output in call.outputs)
        order = (ends[end] for end in ("kernel", "unknown", "output") if end in ends)
        return next(order, Following())

    def _is_last(self, tensors: Sequence[int]) -> bool:
        """Whether the output is reached, and no kernel."""
        queue, seen, reached = list(tensors), set(tensors), False
        while queue:
            tensor = queue.pop()
            reached |= tensor in self._outputs
            for call in self.takers.get(tensor, []):
                if _has_kernel(call.operation):
                    return False
                queue += [output for output in call.outputs if output not in seen]
                seen |= set(call.outputs)
        return reached

    def _is_gate(self, tensors: Sequence[int]) -> bool:
        """Whether something is multiplied by tensors, and nothing else done with them."""
        calls = [call for tensor in tensors for call in self.takers.get(tensor, [])]
        return bool(calls) and all(
            type(call.operation).__name__ == "Multiply" and len(call.inputs) > 1 for call in calls
        )


def _ends(model: Any) -> tuple[list[Any], list[Any]] | None:
    """The tensors at the ends of a model's graph; `None` if it has no graph."""
    if not isinstance(model, keras.Model):
        return None
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    return (inputs, outputs) if inputs and outputs else None


def _calls(operation: Any, node: Any) -> Iterator[_Call]:
    inputs = tuple(id(tensor) for tensor in node.input_tensors)
    outputs = tuple(id(tensor) for tensor in node.output_tensors)
    inner = operation.layer if isinstance(operation, keras.layers.Wrapper) else operation
    ends = _ends(inner)
    if ends is None:
        yield _Call(operation, inputs, outputs)
        return
    for outside, inside in zip(inputs, ends[0], strict=False):
        yield _Call(None, (outside,), (id(inside),))
    for inside, outside in zip(ends[1], outputs, strict=False):
        yield _Call(None, (id(inside),), (outside,))


def _is_inside(layers: Sequence[Any]) -> bool:
    """Whether the sums that a layer makes stay within a cell or an attention layer."""
    holder = layers[-1]
    if isinstance(holder, _ATTENTIONS) or any(isinstance(x, keras.layers.RNN) for x in layers):
        return True
    in_heads = any(isinstance(layer, _HEADS) for layer in layers[:-1])
    return in_heads and holder.name != "attention_output"


def _is_output_of(holder: Any, operation: Any) -> bool:
    """Whether what a layer puts out is the output of the one that the graph has."""
    if isinstance(operation, keras.layers.Wrapper):
        return holder is operation or _is_output_of(holder, operation.layer)
    return holder is operation or isinstance(operation, _HEADS)


def _has_kernel(operation: Any) -> bool:
    return (
        isinstance(operation, keras.layers.Layer)
        and not isinstance(operation, (*_NORMALIZATIONS, keras.layers.PReLU))
        and bool(operation.weights)
        and any(has_rule(layer) for layer in layers_inside(operation))
    )


def _passes(operation: Any) -> bool:
    is_kerass = type(operation).__module__.startswith("keras.")
    return is_kerass and _PASSING.fullmatch(type(operation).__name__) is not None


def _activation_in(operation: Any, call: _Call) -> tuple[str, Callable[[Any], Any]] | None:
    """The name and the function of an activation that is a layer or operation of its own."""
    if isinstance(operation, keras.layers.Layer):
        return _activation_of_layer(operation)
    if operation is None or _passes(operation) or len(call.inputs) != 1:
        return None
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(operation).__name__).lower()
    return (name, operation) if _is_elementwise(operation) else None


def _activation_of_layer(layer: Any) -> tuple[str, Callable[[Any], Any]] | None:
    functions = keras.activations
    if isinstance(layer, keras.layers.Activation):
        return _activation_of(layer.activation)
    if isinstance(layer, keras.layers.ReLU):
        names = {"negative_slope": 0.0, "max_value": None, "threshold": 0.0}
        return _with_arguments(functions.relu, layer, names)
    if isinstance(layer, keras.layers.LeakyReLU):
        return _with_arguments(functions.leaky_relu, layer, {"negative_slope": None})
    if isinstance(layer, keras.layers.ELU):
        return _with_arguments(functions.elu, layer, {"alpha": 1.0})
    if isinstance(layer, keras.layers.PReLU):
        slope = float(np.mean(keras.ops.convert_to_numpy(layer.alpha)))
        function = functools.partial(functions.leaky_relu, negative_slope=slope)
        return f"leaky_relu({slope:g})", function
    if isinstance(layer, keras.layers.Softmax):
        return "softmax", functions.softmax
    return None


def _with_arguments(
    function: Callable[..., Any], layer: Any, defaults: dict[str, Any]
) -> tuple[str, Callable[[Any], Any]]:
    """An activation with the arguments of its layer, of which the name has the unusual ones."""
    arguments = {name: getattr(layer, name) for name in defaults}
    shown = [
        f"{value:g}" if len(defaults) == 1 else f"{name}={value:g}"
        for name, value in arguments.items()
        if value is not None and value != defaults[name]
    ]
    name = function.__name__ + (f"({', '.join(shown)})" if shown else "")
    return name, functools.partial(function, **arguments)


def _activation_of(activation: Any) -> tuple[str, Callable[[Any], Any]] | None:
    """The name and the function of a layer's activation; `None` if it is linear."""
    if not callable(activation) or activation is keras.activations.linear:
        return None
    if isinstance(activation, keras.layers.Layer):
        return _activation_of_layer(activation) or (activation.name, activation)
    return getattr(activation, "__name__", type(activation).__name__), activation


def _is_elementwise(operation: Any) -> bool:
    """Whether an operation takes a tensor alone, and works on each number or as softmax does."""
    try:
        shape = operation.compute_output_spec(keras.KerasTensor((3, 5))).shape
    except Exception:  # what an operation raises that takes more than a tensor is up to it
        return False
    return tuple(shape) == (3, 5)
