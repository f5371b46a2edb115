"""The columns of a record: a model's trainable variables, each with the layer it belongs to."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.anatomy.following import find_receivers
from keras_initkit.anatomy.graph import Graph
from keras_initkit.anatomy.initializers import format_initializer, own_initializer
from keras_initkit.anatomy.selectors import Selection
from keras_initkit.anatomy.weights import Place, Weight, places_of, weights_of
from keras_initkit.connectivity.layer_fans import has_rule
from tensorboard_plugin_initkit.record.layout import Variable
from tensorboard_plugin_initkit.record.signal import is_bias

# Layers whose kernels have the units along the last axis.
_UNITS_LAST = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
# In densely connected models, all later layers of a block take the output of each.
_MOST_RECEIVERS = 4


def variables_of(
    model: Any, variables: Sequence[Any], optimizers: Sequence[str], per: str
) -> tuple[Variable, ...]:
    """Describe variables, by their paths in the model and their layers' paths.

    Where there are several optimizers, each one's name stands before the layers it trains; the
    name of a model's only one is "".
    """
    weights = {id(weight.variable): weight for weight in weights_of(model)}
    prefixes = [f"{optimizer}/" if optimizer else "" for optimizer in optimizers]
    found = [weights.get(id(v)) or outside_weight(model, v) for v in variables]
    receivers = _find_receivers(model, found, prefixes)
    columns = []
    for weight, optimizer, prefix in zip(found, optimizers, prefixes, strict=True):
        layer = weight.path if per == "variable" else layer_path(weight)
        columns.append(
            Variable(
                prefix + weight.path,
                prefix + layer,
                tuple(weight.variable.shape),
                optimizer,
                type(weight.holder).__name__,
                _describe_initializer(weight),
                receivers.get(id(weight.holder), ()),
            )
        )
    return tuple(columns)


def _find_receivers(
    model: Any, weights: Sequence[Weight], prefixes: Sequence[str]
) -> dict[int, tuple[tuple[str, str], ...]]:
    """Return, by the `id` of a holder of weights, the layers that take its output.

    Of each layer only the nearest ones are named, those with weights among the given ones.
    """
    paths: dict[int, str] = {}
    for weight, prefix in zip(weights, prefixes, strict=True):
        for depth, layer in enumerate(weight.layers[1:], 1):
            paths[id(layer)] = prefix + "/".join(weight.layer.split("/")[:depth])
    receivers = {}
    with contextlib.suppress(Exception):  # of a user's class: what is not known is not told
        graph = Graph(model)
        for holder, layers in {id(weight.holder): weight.layers for weight in weights}.items():
            found = [
                ("" if layer is None else paths[id(layer)], activation)
                for layer, activation in find_receivers(graph, layers, has_rule)
                if layer is None or id(layer) in paths
            ]
            receivers[holder] = tuple(found[:_MOST_RECEIVERS])
    return receivers


def check_selection(model: Any, layers: Selection, error_of_nothing: type[ValueError]) -> None:
    """Raise an error if no layer is selected, or a ValueError if none that is trained."""
    places = list(places_of(model).values())
    weights = [weight for weight in weights_of(model) if weight.variable.trainable]
    # Layers may still be built in the first step.
    chances: list[Sequence[Place]] = [own for own in places if not own[0].layers[-1].built]
    chances += [weight.places for weight in weights]
    idle = layers.find_idle(places)
    if idle or not any(map(layers, chances)):
        names = dict.fromkeys(map(layer_path, weights))
        raise (error_of_nothing if idle else ValueError)(
            "`layers` must select a layer that is trained; in a list, each selector must. "
            f"Received: layers={(idle or [layers.selector])[0]!r}. The model's layers "
            f"are {', '.join(names)}."
        )


def outside_weight(model: Any, variable: Any) -> Weight:
    """Describe a variable that a training step trains though no layer of the model holds it."""
    path = getattr(variable, "path", variable.name).removesuffix(":0")
    place = Place((model,), path.rpartition("/")[0])
    return Weight(variable, place.layers, model, path, path, (place,))


def layer_path(weight: Weight) -> str:
    """Return the path of a weight's layer; of the model's own weights, the weight's path."""
    return weight.layer or weight.path


def _describe_initializer(weight: Weight) -> str:
    """Return the initializer of a weight in words, "" if its layer does not say."""
    try:
        return format_initializer(own_initializer(weight.holder, weight.variable))
    except Exception:  # that of a user's class: it is only shown
        return ""


def unit_sources(model: Any, variables: Sequence[Any]) -> list[str]:
    """Return where dead units show: in the bias's gradient, in the kernel's columns, or nowhere.

    A unit activated by no sample of a batch passes no gradient on, neither to its bias nor to its
    column of the kernel; the bias is the cheaper witness. "kernel" is returned in layers without
    a bias, for kernels with the layer's units along the last axis.
    """
    holders = {id(weight.variable): weight.holder for weight in weights_of(model)}
    with_bias = {id(holders.get(id(variable))) for variable in variables if is_bias(variable.path)}
    sources = []
    for variable in variables:
        holder = holders.get(id(variable))
        shows = variable.name == "kernel" and isinstance(holder, _UNITS_LAST)
        kernel = "kernel" if shows and id(holder) not in with_bias else ""
        sources.append("bias" if is_bias(variable.path) else kernel)
    return sources
