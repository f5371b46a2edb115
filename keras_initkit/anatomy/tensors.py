"""Symbolic tensors of a model: who makes them, and who takes their values.

Keras internals: `KerasTensor._keras_history`, the layer or operation that made a tensor, which
nothing public tells; and the class names of operations, of which those behind `keras.ops` have no
public class.
"""

from typing import Any

from keras_initkit.anatomy.graph import Graph

# Operations behind which the values are still those of the input.
_MOVING = ("Cast", "ExpandDims", "Flatten", "GetItem", "Identity", "Reshape", "Squeeze")


def find_maker(tensor: Any) -> Any:
    """Return the layer or operation that makes a tensor; for an input, its `InputLayer`."""
    return tensor._keras_history.operation


def find_takers(graph: Graph, tensor: Any) -> list[Any]:
    """List the layers and operations that take a tensor's values, in inner models too.

    Casts, reshapes and selections are looked through.
    """
    calls = graph.calls_on(graph.reach([id(tensor)], _moves))
    return [call.operation for call in calls if not _moves(call.operation)]


def _moves(operation: Any) -> bool:
    return operation is None or type(operation).__name__ in _MOVING
