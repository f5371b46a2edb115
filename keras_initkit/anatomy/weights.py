"""The weights of a model, each with its place in it."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.layers_inside import children, own_weights, path_inside


class Weight(NamedTuple):
    """A weight and its place in a model.

    Attributes:
        variable: The `keras.Variable`.
        layers: The layers around it, from the model to its holder.
        owner: The outermost of them with a rule for its kernels, or the holder.
        path: Path in the model, as Keras writes it, without the model's own name. Where layers
            share a path, the second is called `<path>#2`; so are weights of one name in a layer.
        stream: Name for random numbers, the same each time the model is built: it leaves out the
            numbers in Keras's names of layers, a count of all layers of a process.
    """

    variable: Any
    layers: tuple[Any, ...]
    owner: Any
    path: str
    stream: str

    @property
    def holder(self) -> Any:
        """The layer that holds it itself."""
        return self.layers[-1]

    @property
    def layer(self) -> str:
        """The path of the holder."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """Its name in the holder."""
        return self.path.rpartition("/")[2]

    @property
    def is_float(self) -> bool:
        """Whether it holds floating numbers, unlike seeds and quantised kernels."""
        return "float" in str(self.variable.dtype)


def check_built(model: Any) -> None:
    """Raise a ValueError unless an argument `model` is a model or layer with weights."""
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


def weights_of(model: Any, has_rule: Callable[[Any], bool] = lambda layer: False) -> list[Weight]:
    """List the weights of a model or layer, in Keras's order; a shared one once."""
    weights: dict[int, Weight] = {}
    holders: dict[str, dict[int, int]] = {}
    paths: Counter[str] = Counter()
    for variable, layers, stream in _walk(model, (model,), ""):
        if id(variable) in weights:
            continue
        layer, separator, name = path_inside(model, variable.path).rpartition("/")
        numbers = holders.setdefault(layer, {})
        number = numbers.setdefault(id(layers[-1]), len(numbers) + 1)
        if number > 1:
            layer = f"{layer}#{number}"
        path = _number(f"{layer}{separator}{name}", paths)
        owner = next(filter(has_rule, layers), layers[-1])
        weights[id(variable)] = Weight(variable, layers, owner, path, stream)
    return list(weights.values())


def _walk(
    layer: Any, layers: tuple[Any, ...], prefix: str
) -> Iterator[tuple[Any, tuple[Any, ...], str]]:
    counts: Counter[str] = Counter()
    for variable in own_weights(layer):
        yield variable, layers, prefix + _number(variable.name, counts)
    names: Counter[str] = Counter()
    for child in children(layer):
        if child is layer:
            continue
        # Layers without weights count too: the names of others do not change when they are built.
        name = _number(_strip_number(child), names)
        yield from _walk(child, (*layers, child), f"{prefix}{name}/")


def _strip_number(layer: Any) -> str:
    """Return the name of a layer, without its number if Keras named it."""
    # As Keras does: Conv2DTranspose, of which a regular rule would make conv2_d_transpose.
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words)
    given = re.fullmatch(rf"((?:\w+_)?{re.escape(words.lower())})_\d+", layer.name)
    # Bidirectional names its layers after the one that it was given.
    made = re.fullmatch(r"((?:forward|backward)_\w+?)_\d+", layer.name)
    match = given or made
    return match.group(1) if match else str(layer.name)


def _number(name: str, counts: Counter[str]) -> str:
    counts[name] += 1
    return name if counts[name] == 1 else f"{name}#{counts[name]}"
