"""The weights of a model, each with its place in it."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.layers_inside import children, own_weights, path_inside


class Weight(NamedTuple):
    """A weight and its place in a model.

    Attributes:
        variable: The `keras.Variable`.
        layers: The layers that it is in, from the model to the one that holds it.
        path: Its path in the model, as Keras writes it.
        stream: Names it among the model's weights, the same each time the model is built: layers
            that Keras has named, in which it counts all layers of a process, are counted anew.
    """

    variable: Any
    layers: tuple[Any, ...]
    path: str
    stream: str

    @property
    def holder(self) -> Any:
        """The layer that holds it itself."""
        return self.layers[-1]


def check_built(model: Any) -> None:
    """Raise a ValueError unless an argument `model` is a model or layer that has weights."""
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            f"`model` must be a keras.Model or a layer. Received: model={model!r}. "
            "Load a saved model first: `keras.models.load_model(path)`."
        )
    if not model.built:
        raise ValueError(
            f"`model` must be built, so that it has weights. Received: '{model.name}', which is "
            "not. Call it on data, or `model.build(input_shape)`."
        )
    if not model.weights:
        raise ValueError(
            f"`model` must have weights. Received: '{model.name}', which has none. A model that "
            "makes them when it is called must be called on data first."
        )


def weights_of(model: Any) -> list[Weight]:
    """All weights of a model or layer, in Keras's order; one that is shared, once."""
    seen: set[int] = set()
    weights = []
    for variable, layers, stream in _walk(model, (model,), ""):
        if id(variable) not in seen:
            seen.add(id(variable))
            path = path_inside(model, variable.path)
            weights.append(Weight(variable, layers, path, stream))
    return weights


def _walk(
    layer: Any, layers: tuple[Any, ...], prefix: str
) -> Iterator[tuple[Any, tuple[Any, ...], str]]:
    counts: Counter[str] = Counter()
    for variable in own_weights(layer):
        yield variable, layers, prefix + _counted(variable.name, counts)
    names: Counter[str] = Counter()
    for child in children(layer):
        if child is layer:
            continue
        # Counted whether it has weights or not: names of others are not to change when it is built.
        name = _counted(_name(child), names)
        yield from _walk(child, (*layers, child), f"{prefix}{name}/")


def _name(layer: Any) -> str:
    """Name of a layer, without the number if it is one that Keras gave it."""
    # As Keras does: Conv2DTranspose, of which a regular rule would make conv2_d_transpose.
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words)
    given = re.fullmatch(rf"((?:\w+_)?{re.escape(words.lower())})_\d+", layer.name)
    # Bidirectional names its layers after the one that it was given.
    made = re.fullmatch(r"((?:forward|backward)_\w+?)_\d+", layer.name)
    match = given or made
    return match.group(1) if match else str(layer.name)


def _counted(name: str, counts: Counter[str]) -> str:
    counts[name] += 1
    return name if counts[name] == 1 else f"{name}#{counts[name]}"
