"""The graph of a model: its calls of layers and operations, by the tensors they take.

Keras internals: `KerasTensor._keras_history` and `Operation._inbound_nodes`, for the call behind a
tensor: `model.layers` and `model.operations` list the calls in no order, and a layer's public
`input` and `output` know one call only. Of a call, a node, the attributes `input_tensors` and
`output_tensors` are public. The class names of operations, too: those behind `keras.ops` have no
public class. tests/keras_initkit/anatomy/test_graph.py fails where these change.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.layers_inside import layers_inside

# Operations behind which the values are still those of the input.
_MOVING = ("Cast", "ExpandDims", "Flatten", "GetItem", "Identity", "Reshape", "Squeeze")

# Inputs and outputs.
Ends = tuple[Sequence[Any], Sequence[Any]]


class Call(NamedTuple):
    """A call of a layer or operation, or of `None` where a nested model begins or ends.

    Attributes:
        operation: The layer or operation.
        inputs: The `id`s of its inputs.
        outputs: The `id`s of its outputs.
        shape: Shape of its first output, as Keras has it.
    """

    operation: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shape: tuple[int | None, ...] = ()


class Graph:
    """The calls in a model and in all models inside it.

    A model without a graph, as a subclassed one, has no calls unless its ends are given.

    Args:
        model: The model.
        ends: Its inputs and outputs, lists of symbolic tensors, if it has not got them itself.

    Attributes:
        takers: For the `id` of a tensor, the calls on it.
        made: For the `id` of a layer or operation, the `id`s of its output tensors.
        makers: For the `id` of a tensor, the calls with this output: several for an input of a
            model inside, called several times.
        outputs: The `id`s of the model's outputs.
    """

    def __init__(self, model: Any, ends: Ends | None = None) -> None:
        self.takers: dict[int, list[Call]] = {}
        self.made: dict[int, list[int]] = {}
        self.makers: dict[int, list[Call]] = {}
        for inner in layers_inside(model):
            found = ends if inner is model and ends else _ends(inner)
            nodes = nodes_between(*found) if found else []
            for call in (call for pair in reversed(nodes) for call in _calls_of(*pair)):
                for taken in call.inputs:
                    self.takers.setdefault(taken, []).append(call)
                for output in call.outputs:
                    self.makers.setdefault(output, []).append(call)
                if call.operation is not None:
                    self.made.setdefault(id(call.operation), []).extend(call.outputs)
        ends = ends or _ends(model)
        self.outputs = set(map(id, ends[1])) if ends else set()

    def calls_on(self, tensors: Iterable[int]) -> list[Call]:
        """List the calls on any of some tensors."""
        return [call for tensor in tensors for call in self.takers.get(tensor, [])]

    def reach(self, tensors: Iterable[int], passes: Callable[[Call], bool]) -> list[int]:
        """List the `id`s of tensors and of those made from them, breadth first.

        The way leads through the calls for which `passes` is true.
        """
        reached = list(dict.fromkeys(tensors))
        seen = set(reached)
        for tensor in reached:  # which grows
            for call in self.takers.get(tensor, []):
                if passes(call):
                    reached += [output for output in call.outputs if output not in seen]
                    seen.update(call.outputs)
        return reached

    def calls_before(self, tensors: Iterable[int]) -> list[Call]:
        """List the calls behind tensors, each after the makers of its inputs."""
        found: dict[int, Call] = {}
        waiting = [(call, False) for t in tensors for call in self.makers.get(t, ())][::-1]
        seen: set[int] = set()
        while waiting:  # depth first, without recursion: a model may have a thousand layers
            call, is_done = waiting.pop()
            if is_done:
                found[id(call)] = call
            elif id(call) not in seen:
                seen.add(id(call))
                waiting.append((call, True))
                before = [c for t in call.inputs for c in self.makers.get(t, ())]
                waiting += [(c, False) for c in reversed(before) if id(c) not in seen]
        return list(found.values())

    def find_takers(self, tensor: Any) -> list[Any]:
        """List the layers and operations that take a tensor's values, in inner models too.

        Casts, reshapes and selections are looked through.
        """
        calls = self.calls_on(self.reach([id(tensor)], _moves))
        return [call.operation for call in calls if not _moves(call)]

    def is_gate(self, tensors: Iterable[int]) -> bool:
        """Check if tensors are multiplied by others, and nothing else is done with them."""
        calls = self.calls_on(tensors)
        return bool(calls) and all(
            type(call.operation).__name__ == "Multiply" and len(call.inputs) > 1 for call in calls
        )


def find_maker(tensor: Any) -> Any:
    """Return the layer or operation that makes a tensor; for an input, its `InputLayer`."""
    return tensor._keras_history.operation


def _moves(call: Call) -> bool:
    return call.operation is None or type(call.operation).__name__ in _MOVING


def _ends(model: Any) -> Ends | None:
    """Return the inputs and outputs of a model's graph; `None` if it has no graph."""
    if not isinstance(model, keras.Model):
        return None
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    return (inputs, outputs) if inputs and outputs else None


def nodes_between(inputs: Iterable[Any], outputs: Sequence[Any]) -> list[tuple[Any, Any]]:
    """List the calls between symbolic tensors, each after those that make its inputs.

    Returns:
        Pairs of a layer or operation, and the node in which it notes the call.
    """
    given = set(map(id, inputs))
    found: dict[int, tuple[Any, Any]] = {}
    seen: set[int] = set()
    waiting = [(tensor, False) for tensor in reversed(outputs)]
    while waiting:  # depth first, without recursion: a model may have a thousand layers
        tensor, is_done = waiting.pop()
        operation, index, _ = getattr(tensor, "_keras_history", None) or (None, 0, 0)
        if operation is None or id(tensor) in given:
            continue
        node = operation._inbound_nodes[index]
        if is_done:
            found.setdefault(id(node), (operation, node))
        elif id(node) not in seen:
            seen.add(id(node))
            waiting.append((tensor, True))
            waiting += [(source, False) for source in reversed(node.input_tensors)]
    return list(found.values())


def _calls_of(operation: Any, node: Any) -> Iterator[Call]:
    """Yield a call; of a nested model, the ways into it and out of it."""
    inputs = tuple(map(id, node.input_tensors))
    outputs = tuple(map(id, node.output_tensors))
    inner = operation.layer if isinstance(operation, keras.layers.Wrapper) else operation
    ends = _ends(inner)
    if ends is None:
        shape = tuple(node.output_tensors[0].shape) if outputs else ()
        yield Call(operation, inputs, outputs, shape)
        return
    for outside, inside in zip(inputs, ends[0], strict=False):
        yield Call(None, (outside,), (id(inside),))
    for inside, outside in zip(ends[1], outputs, strict=False):
        yield Call(None, (id(inside),), (outside,))
