"""The weights of a model, each with its place in it."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.layers_inside import own_weights
from keras_initkit.anatomy.places import Place, number, places_of


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
