"""Repairs by building a model anew, with its weights."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.anatomy.weights import layers_by_path
from keras_initkit.models.normalize.with_normalization import with_normalization
from keras_initkit.models.repair.compilation import Data, compile_like

Changes = Mapping[str, Mapping[str, Any] | None]


def rebuild(model: Any, data: Data, layers: Changes) -> Any:
    """Build a functional or `Sequential` model anew, some layers with other arguments.

    Weights are copied where they have the same shape; others are drawn. It is compiled alike, with
    a new optimizer.

    Args:
        model: The model; it stays as it is.
        data: Not needed.
        layers: For the path of a layer other arguments of its class; an `activation` for one that
            has no such argument; `None` to leave it out. "units" are filters of a convolution.
    """
    known = layers_by_path(model)
    changes = {id(known[path]): layers[path] for path in layers if path in known}
    if len(changes) < len(layers):
        raise ValueError(f"It does not have all of the layers {', '.join(layers)}")

    def make(layer: Any) -> Any:
        config = layer.get_config()
        if id(layer) not in changes:
            return type(layer).from_config(config)
        change = changes.pop(id(layer))
        if change is None:
            return keras.layers.Identity(name=layer.name)
        change = {"filters" if n == "units" and n not in config else n: change[n] for n in change}
        if not change.keys() <= config.keys():
            return keras.layers.Activation(change["activation"], name=layer.name)
        return type(layer).from_config(config | change)

    new = keras.models.clone_model(model, clone_function=make, recursive=True)
    if changes:
        raise ValueError("The layers to change are inside others that are not functional")
    copy_variables(model, new)
    if model.compiled:
        compile_like(new, model)
    return new


def copy_model(model: Any, x: Any) -> Any:
    """Copy a compiled model: layers, weights, states, compilation, and the optimizer's state.

    Args:
        model: The model. It is built if it is not.
        x: Inputs, to build it by two of them.

    Raises:
        ValueError: If Keras cannot make it from its configuration.
    """
    inputs = keras.tree.map_structure(lambda array: keras.ops.convert_to_tensor(array[:2]), x)
    if not model.built:
        model(inputs)
    try:
        new = keras.models.clone_model(model)
        if not new.built:
            new(inputs)
        copy_variables(model, new)
    except Exception as error:  # of a user's class
        raise ValueError(
            f"`model` must be one that Keras can make from its configuration. Received: "
            f"{model.name!r}, of which that fails: {error} Give its classes a `get_config`, and "
            "register them with `keras.saving.register_keras_serializable()`."
        ) from error
    compile_like(new, model)
    if model.optimizer.built:
        new.optimizer.build(new.trainable_variables)
        for variable, other in zip(new.optimizer.variables, model.optimizer.variables, strict=True):
            _assign(variable, other)
    return new


def copy_variables(model: Any, new: Any) -> None:
    """Copy weights and states to the layers of a model built alike, where shapes are the same.

    Layers of the same path belong together. Where a model makes its own, and Keras has numbered
    them otherwise, they do in their order, and get the names of the first.
    """
    paths, others = layers_by_path(model), layers_by_path(new)
    if paths.keys() == others.keys():
        pairs = [(layer, others[path]) for path, layer in paths.items()]
    else:
        pairs = list(zip(layers_inside(model), layers_inside(new), strict=True))
    for layer, other in pairs:
        other.name = layer.name
        if other.trainable != layer.trainable:
            other.trainable = layer.trainable
        for variable, copied in zip(_own_variables(layer), _own_variables(other), strict=False):
            if tuple(variable.shape) == tuple(copied.shape):
                _assign(copied, variable)


def _assign(variable: Any, other: Any) -> None:
    # By way of the host: on JAX a training frees the arrays that it began with.
    variable.assign(keras.ops.convert_to_numpy(other.value))


def _own_variables(layer: Any) -> list[Any]:
    inside = layers_inside(layer, include_self=False)
    others = {id(variable) for inner in inside for variable in inner.variables}
    return [variable for variable in layer.variables if id(variable) not in others]


def normalize(model: Any, data: Data, inputs: bool, targets: bool) -> Any:
    """Put normalizations around a model: of its inputs, and of its targets."""
    x, y = data
    if x is None:
        raise ValueError("Its data are needed: `fix.apply(model, x, y)`")
    return with_normalization(
        model,
        x,
        (True if y is None else y) if targets else None,
        exclude=None if inputs else keras.layers.InputLayer,
        verbose=0,
    )
