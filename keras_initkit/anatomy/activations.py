"""Activations: of a layer's own one, and of layers and operations, the name and the function."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np


class Activation(NamedTuple):
    """An activation.

    Attributes:
        name: Name, with a layer's unusual arguments, such as "leaky_relu(0.1)".
        function: Callable of a tensor.
    """

    name: str
    function: Callable[[Any], Any]


def own_activation(layer: Any) -> Activation | None:
    """Return the activation applied inside a layer; `None` if it is linear."""
    activation = getattr(layer, "activation", None)
    if not callable(activation) or activation is keras.activations.linear:
        return None
    if isinstance(activation, keras.layers.Layer):
        return layer_as_activation(activation) or Activation(activation.name, activation)
    return Activation(getattr(activation, "__name__", type(activation).__name__), activation)


def layer_as_activation(layer: Any) -> Activation | None:
    """Return an activation layer as an activation; `None` for other layers, or if linear."""
    functions = keras.activations
    match layer:
        case keras.layers.Activation():
            return own_activation(layer)
        case keras.layers.ReLU():
            usual = {"negative_slope": 0.0, "max_value": None, "threshold": 0.0}
            return _bind_arguments(functions.relu, layer, usual)
        case keras.layers.LeakyReLU():
            return _bind_arguments(functions.leaky_relu, layer, {"negative_slope": None})
        case keras.layers.ELU():
            return _bind_arguments(functions.elu, layer, {"alpha": 1.0})
        case keras.layers.PReLU():
            slope = float(np.mean(keras.ops.convert_to_numpy(layer.alpha)))
            function = functools.partial(functions.leaky_relu, negative_slope=slope)
            return Activation(f"leaky_relu({slope:g})", function)
        case keras.layers.Softmax():
            return Activation("softmax", functions.softmax)
    return None


def operation_as_activation(operation: Any) -> Activation | None:
    """Return an operation of `keras.ops` as an activation; `None` if it is no elementwise one."""
    try:
        shape = operation.compute_output_spec(keras.KerasTensor((3, 5))).shape
    except Exception:  # an operation on more than one tensor may raise anything
        return None
    if tuple(shape) != (3, 5):
        return None
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(operation).__name__).lower()
    return Activation(name, operation)


def _bind_arguments(function: Callable[..., Any], layer: Any, usual: dict[str, Any]) -> Activation:
    """Bind an activation's arguments to those of its layer, and name the unusual ones."""
    arguments = {name: getattr(layer, name) for name in usual}
    shown = [
        f"{value:g}" if len(usual) == 1 else f"{name}={value:g}"
        for name, value in arguments.items()
        if value is not None and value != usual[name]
    ]
    name = function.__name__ + (f"({', '.join(shown)})" if shown else "")
    return Activation(name, functools.partial(function, **arguments))
