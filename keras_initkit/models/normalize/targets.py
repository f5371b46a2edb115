"""Targets: where those of each output are to be found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.models.normalize.ports import Port, Ports
from keras_initkit.wording import list_few

# `True` for y of the data, the name of a column, or the values.
Source = bool | str | NDArray[Any]

# Activations that do not take all values, as normalized targets do.
_BOUNDED = (
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "hard_tanh",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
)


def find_sources(targets: Any, outputs: Ports) -> dict[Port, Source]:
    """Find where the targets of each output are; those of others are left alone.

    Args:
        targets: What the user gives: see `with_normalization`.
        outputs: The outputs of the model.

    Raises:
        ValueError: If they do not fit the outputs.
    """
    given = _assign(targets, outputs)
    sources = {
        port: _read_source(given[port.name])
        for port in outputs
        if given.get(port.name) is not None and given[port.name] is not False
    }
    for port in sources:
        _check_output(port)
    return sources


def _assign(targets: Any, outputs: Ports) -> dict[str, Any]:
    """Assign targets to outputs, by the outputs' names."""
    if targets is None:
        return {}
    if isinstance(targets, Mapping):
        known = {port.operation.name: port.name for port in outputs}
        known |= {name: name for name in outputs.names}
        unknown = [name for name in targets if name not in known]
        if unknown:
            raise ValueError(
                f"`targets` must name outputs of the model. Received: {list_few(unknown)}. The "
                f"outputs are {list_few(outputs.names)}."
            )
        return {known[name]: source for name, source in targets.items()}
    if targets is True:
        return dict.fromkeys(outputs.names, True)
    if len(outputs) == 1:
        return {outputs.names[0]: targets}
    if isinstance(targets, (tuple, list)) and len(targets) == len(outputs):
        return dict(zip(outputs.names, targets, strict=True))
    raise ValueError(
        f"`targets` must be a dict or list for the {len(outputs)} outputs "
        f"{list_few(outputs.names)}. Received: targets of type {type(targets).__name__}. Pass "
        "`{name: array}`; outputs that are not named are left alone."
    )


def _read_source(source: Any) -> Source:
    if isinstance(source, (bool, str)):
        return source
    is_tensor = isinstance(source, keras.Variable) or keras.ops.is_tensor(source)
    array = np.asarray(keras.ops.convert_to_numpy(source) if is_tensor else source)
    if not array.ndim:
        raise ValueError(
            "`targets` must be arrays with a row for each row of `data`, `True`, or names of "
            f"columns. Received: {source!r}."
        )
    return array


def _check_output(port: Port) -> None:
    """Check that an output can be a normalized value."""
    activation = getattr(port.operation, "activation", None)
    name = getattr(activation, "__name__", None)
    if isinstance(port.operation, (keras.layers.ReLU, keras.layers.Softmax)):
        name = type(port.operation).__name__.lower()
    if name in _BOUNDED or not port.is_float:
        what = f"activation {name}" if name in _BOUNDED else f"dtype {port.tensor.dtype}"
        raise ValueError(
            "`targets` must be those of outputs that take all values, as normalized ones do. "
            f"Received: targets of {port.name!r}, which is of {what}. End it without activation, "
            "or name only outputs of regression: `targets={name: ...}`."
        )
