"""Symbolic tensors of a model: who makes them, and who takes their values.

Keras internals: `KerasTensor._keras_history`, the layer or operation that made a tensor, which
nothing public tells; and the class names of operations, of which those behind `keras.ops` have no
public class.
"""

from collections.abc import Iterator
from typing import Any

from keras_initkit.anatomy.graph import Graph

# Operations behind which the values are still those of the input.
_MOVING = ("Cast", "ExpandDims", "Flatten", "GetItem", "Identity", "Reshape", "Squeeze")


def find_maker(tensor: Any) -> Any:
    """Return the layer or operation that makes a tensor; for an input, its `InputLayer`."""
    return tensor._keras_history.operation


def find_takers(graph: Graph, tensor: Any) -> Iterator[Any]:
    """Yield the layers and operations that take a tensor's values, in inner models too.

    Casts, reshapes and selections are looked through.
    """
    queue, seen = [id(tensor)], {id(tensor)}
    while queue:
        for call in graph.takers.get(queue.pop(), []):
            if call.operation is None or type(call.operation).__name__ in _MOVING:
                queue += [output for output in call.outputs if output not in seen]
                seen |= set(call.outputs)
            else:
                yield call.operation
