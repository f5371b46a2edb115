"""Layers inside layers, and the weights held by each itself.

Keras internals: `Layer._flatten_layers()`, for the layers inside a layer, listed by no public
attribute; `Layer._trainable_variables`, for the variables of a frozen layer; and `Variable._value`
and `Variable._initializer`, for the value of a variable made while a model is traced: it has none
before the trace ends.
"""

from collections.abc import Callable, Iterator
from typing import Any


def layers_inside(layer: Any, include_self: bool = True) -> Iterator[Any]:
    """Yield a layer and all those inside it, in Keras's order."""
    yield from layer._flatten_layers(include_self=include_self)


def children(layer: Any) -> list[Any]:
    """List the layers held by a layer itself, in the order of their assignment."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def trainable_weights(layer: Any) -> list[Any]:
    """List the weights held by a layer itself, and trained unless it is frozen."""
    return list(layer._trainable_variables)


def own_weights(layer: Any) -> list[Any]:
    """List the weights held by a layer itself, not by a layer inside it."""
    inside = layers_inside(layer, include_self=False)
    others = {id(weight) for inner in inside for weight in inner.weights}
    return [weight for weight in layer.weights if id(weight) not in others]


def set_value(variable: Any, make: Callable[[], Any]) -> None:
    """Give a variable the value that `make` returns, now or when it gets its first one."""
    if variable._value is None:
        variable._initializer = lambda shape, dtype=None: make()
    else:
        variable.assign(make())
