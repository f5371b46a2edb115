"""The layers and weights of a model, each with its places in it."""

import functools
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.layers_inside import children, own_weights

# Of a layer shared by many, so many places are known: layers that share layers multiply them.
_MOST_PLACES = 16


class Place(NamedTuple):
    """A place of a layer in a model.

    Attributes:
        layers: The layers around it, from the model to the layer itself.
        path: Their names, without the model's. Layers of one name within one layer are numbered:
            the second "fc" is "fc#2".
        stream: The same without the numbers in Keras's names, a count of all layers of a process:
            it is the same each time the model is built.
    """

    layers: tuple[Any, ...]
    path: str = ""
    stream: str = ""


def places_of(model: Any) -> dict[int, list[Place]]:
    """List the places of a model and of each layer inside it, in Keras's order.

    Returns:
        For the `id` of a layer its places, the one in the fewest layers first.
    """
    places: dict[int, list[Place]] = {}
    _visit(Place((model,)), places)
    return {key: sorted(own, key=lambda place: len(place.layers)) for key, own in places.items()}


def layers_by_path(model: Any) -> dict[str, Any]:
    """Return a model and the layers inside it by their paths, each layer once."""
    return {own[0].path: own[0].layers[-1] for own in places_of(model).values()}


def number(name: str, counts: Counter[str]) -> str:
    """Count a name; return it, from the second time on with its number."""
    counts[name] += 1
    return name if counts[name] == 1 else f"{name}#{counts[name]}"


class Weight(NamedTuple):
    """A weight and its place in a model.

    Attributes:
        variable: The `keras.Variable`.
        layers: The layers around it, from the model to its holder.
        owner: The outermost of them with a rule for its kernels, or the holder.
        path: Path of the holder, and its name in it; weights of one name are numbered.
        stream: The same as a name for random numbers, from the stream of the holder's place.
        places: All places of its holder; of a weight of several layers, of all holders. The
            attributes above are of the place in the fewest layers.
    """

    variable: Any
    layers: tuple[Any, ...]
    owner: Any
    path: str
    stream: str
    places: tuple[Place, ...] = ()

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


def is_complete(model: Any) -> bool:
    """Check if a model is as built as it ever will be: one without a `call`, a GAN, never is."""
    return bool(model.built) or type(model).call is keras.Model.call


def check_built(model: Any) -> None:
    """Raise a ValueError unless an argument `model` is a model or layer with weights."""
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            f"`model` must be a keras.Model or a layer. Received: model={model!r}. "
            "Load a saved model first: `keras.models.load_model(path)`."
        )
    if not is_complete(model) or not (model.built or model.weights):
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
    found: dict[int, list[tuple[Place, str]]] = {}
    variables = []
    for places in places_of(model).values():
        counts: Counter[str] = Counter()
        for variable in own_weights(places[0].layers[-1]):
            name = number(variable.name, counts)
            if id(variable) not in found:
                variables.append(variable)
            found.setdefault(id(variable), []).extend((place, name) for place in places)
    weights = []
    for variable in variables:
        places, names = zip(*found[id(variable)], strict=True)
        first = min(range(len(places)), key=lambda i: len(places[i].layers))
        layers, *paths = places[first]
        path, stream = (f"{path}/{names[first]}".lstrip("/") for path in paths)
        owner = next(filter(has_rule, layers), layers[-1])
        weights.append(Weight(variable, layers, owner, path, stream, places))
    return weights


def _visit(place: Place, places: dict[int, list[Place]]) -> None:
    known = places.setdefault(id(place.layers[-1]), [])
    if len(known) == _MOST_PLACES:
        return
    known.append(place)
    # Layers without weights count too: the names of others do not change when they are built.
    names: Counter[str] = Counter()
    streams: Counter[str] = Counter()
    for child in children(place.layers[-1]):
        if any(child is layer for layer in place.layers):
            continue
        path = f"{place.path}/{number(child.name, names)}".lstrip("/")
        name = _strip_number(child.name, type(child).__name__)
        stream = f"{place.stream}/{number(name, streams)}".lstrip("/")
        _visit(Place((*place.layers, child), path, stream), places)


@functools.lru_cache(4096)
def _strip_number(name: str, class_name: str) -> str:
    """Return the name of a layer, without its number if Keras named it."""
    # As Keras does: Conv2DTranspose, of which a regular rule would make conv2_d_transpose.
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", class_name)
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words)
    given = re.fullmatch(rf"((?:\w+_)?{re.escape(words.lower())})_\d+", name)
    # Bidirectional names its layers after the one that it was given.
    made = re.fullmatch(r"((?:forward|backward)_\w+?)_\d+", name)
    match = given or made
    return match.group(1) if match else name
