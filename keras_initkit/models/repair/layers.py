"""Repairs of layers, in place: activations, weights, regularizers, freezing."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit import initializers
from keras_initkit.anatomy.layers_inside import layers_inside, own_weights
from keras_initkit.anatomy.weights import layers_by_path
from keras_initkit.models.initialize.initialize import initialize
from keras_initkit.models.reinitialize.reinitialize import reinitialize
from keras_initkit.models.repair.compilation import Data, copy_optimizer, recompile, retrace
from keras_initkit.models.repair.rebuild import rebuild

# The weights of a layer are drawn by the same numbers on each call.
_SEED = 0


def find_layers(model: Any, paths: Sequence[str]) -> list[Any]:
    """Return the layers of a model by their paths; raise ValueError if there is none of a path."""
    layers = layers_by_path(model)
    if missing := [path for path in paths if path not in layers]:
        raise ValueError(f"It has no layer `{missing[0]}`")
    return [layers[path] for path in paths]


def change_activations(model: Any, data: Data, layers: Mapping[str, str]) -> Any:
    """Give layers other activations; an activation layer, as `ReLU`, is replaced."""
    others = {}
    for (path, name), layer in zip(layers.items(), find_layers(model, list(layers)), strict=True):
        inner = getattr(layer, "layer", layer)  # of a wrapper
        if hasattr(inner, "activation"):
            inner.activation = keras.activations.get(name)
        else:
            others[path] = {"activation": name}
    retrace(model)
    return rebuild(model, data, others) if others else model


def draw_anew(model: Any, data: Data, layers: Sequence[str], initializer: str) -> Any:
    """Draw the weights of layers anew, kernels by an initializer, and restart the optimizer."""
    chosen = find_layers(model, layers)
    for layer in chosen:
        if hasattr(layer, "kernel_initializer"):
            layer.kernel_initializer = getattr(initializers, initializer)()
    _draw(model, chosen)
    return model


def start_together(model: Any, data: Data, layers: Sequence[str]) -> Any:
    """Start layers where signal and gradient pass all of them, and restart the optimizer."""
    chosen = find_layers(model, layers)
    initialize(
        model,
        data[0],
        seed=_SEED,
        only=lambda layer: any(layer is other for other in chosen),
    )
    if getattr(model, "optimizer", None) is not None:
        recompile(model, optimizer=copy_optimizer(model.optimizer))
    return model


def restart(model: Any, data: Data) -> Any:
    """Draw the layers with NaN or infinite weights anew, and restart the optimizer."""
    broken = [layer for layer in layers_inside(model) if any(map(_is_broken, own_weights(layer)))]
    if broken:
        _draw(model, broken)
    return model


def _draw(model: Any, layers: Sequence[Any]) -> None:
    # An activation has no weights; those of a model that is not built are drawn when it is.
    if not model.built or not any(layer.weights for layer in layers):
        return
    optimizer = getattr(model, "optimizer", None)
    reinitialize(
        model,
        seed=_SEED,
        only=lambda layer: any(layer is other for other in layers),
        reset_optimizer=optimizer is not None and optimizer.built,
    )


def _is_broken(variable: Any) -> bool:
    is_float = "float" in str(variable.dtype)
    return is_float and not np.isfinite(keras.ops.convert_to_numpy(variable.value)).all()


def change_regularizers(model: Any, data: Data, layers: Sequence[str], l2: float) -> Any:
    """Put an L2 penalty in place of the regularizers of layers."""
    weaker = keras.regularizers.L2(l2)
    for layer in find_layers(model, layers):
        for inner in layers_inside(layer):
            for name in [name for name in dir(inner) if name.endswith("_regularizer")]:
                if getattr(inner, name) is not None:
                    setattr(inner, name, weaker)
            for variable in own_weights(inner):
                if getattr(variable, "regularizer", None) is not None:
                    variable.regularizer = weaker
    retrace(model)
    return model


def train_layers(model: Any, data: Data, layers: Sequence[str]) -> Any:
    """Train frozen layers, all for none named, with the optimizer begun anew."""
    # Each by itself: of a model that has it already, setting it changes nothing inside.
    for layer in find_layers(model, layers) or layers_inside(model):
        layer.trainable = True
    recompile(model, optimizer=copy_optimizer(model.optimizer))
    return model
