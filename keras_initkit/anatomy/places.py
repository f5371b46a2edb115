"""The places of layers in a model: the layers around them, and their paths."""

import re
from collections import Counter
from typing import Any, NamedTuple

from keras_initkit.anatomy.layers_inside import children

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
        stream = f"{place.stream}/{number(_strip_number(child), streams)}".lstrip("/")
        _visit(Place((*place.layers, child), path, stream), places)


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
