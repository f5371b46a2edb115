"""Targets: where those of each output are to be found."""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.checks import list_few
from keras_initkit.models.normalize.ports import Port, Ports

# `True` for y of the data, the name of a column, or the values.
Source = bool | str | NDArray[Any]

# Activations that do not take all values, as normalized targets do.
_BOUNDED = re.compile(
    "celu|elu|exponential|gelu|hard_sigmoid|hard_tanh|log_sigmoid|log_softmax|mish|relu|relu6|selu"
    "|sigmoid|silu|softmax|softplus|softsign|tanh"
)


def find_sources(targets: Any, outputs: Ports) -> dict[Port, Source]:
    """Find where the targets are, for each output that has any; see `with_normalization`.

    Raises:
        ValueError: If they do not fit the outputs.
    """
    given = _assign(targets, outputs)
    given = {port: x for port, x in given.items() if x is not None and x is not False}
    for port in given:
        _check_output(port)
    return {port: _read_source(source) for port, source in given.items()}


def _assign(targets: Any, outputs: Ports) -> dict[Port, Any]:
    if isinstance(targets, Mapping):
        unknown = [name for name in targets if name not in outputs.by_name]
        if unknown:
            raise ValueError(
                f"`targets` must name outputs of the model. Received: {list_few(unknown)}. The "
                f"outputs are {list_few(outputs.names)}."
            )
        return {outputs.by_name[name]: source for name, source in targets.items()}
    if targets is None or targets is True or len(outputs) == 1:
        return dict.fromkeys(outputs, targets)
    if isinstance(targets, (tuple, list)) and len(targets) == len(outputs):
        return dict(zip(outputs, targets, strict=True))
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
    name = getattr(getattr(port.operation, "activation", None), "__name__", "")
    if isinstance(port.operation, (keras.layers.ReLU, keras.layers.Softmax)):
        name = type(port.operation).__name__.lower()
    is_bounded = _BOUNDED.fullmatch(name) is not None
    if is_bounded or not port.is_float:
        what = f"activation {name}" if is_bounded else f"dtype {port.dtype}"
        raise ValueError(
            "`targets` must be those of outputs that take all values, as normalized ones do. "
            f"Received: targets of {port.name!r}, which is of {what}. End it without activation, "
            "or name only outputs of regression: `targets={name: ...}`."
        )
