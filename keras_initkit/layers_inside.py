"""Layers inside layers, and the weights that each holds itself.

Keras internals: `Layer._flatten_layers()`, for the layers inside a layer, which no public attribute
lists; and `Layer._trainable_variables`, for those that a frozen layer would train.
"""

from collections.abc import Iterator
from typing import Any


def layers_inside(layer: Any, include_self: bool = True) -> Iterator[Any]:
    """A layer and all those inside it, in Keras's order."""
    yield from layer._flatten_layers(include_self=include_self)


def trainable_weights(layer: Any) -> list[Any]:
    """The weights that a layer holds itself and trains unless it is frozen."""
    return list(layer._trainable_variables)


def own_weights(layer: Any) -> list[Any]:
    """The weights that a layer holds itself, not in a layer inside it."""
    inside = layers_inside(layer, include_self=False)
    others = {id(weight) for inner in inside for weight in inner.weights}
    return [weight for weight in layer.weights if id(weight) not in others]
