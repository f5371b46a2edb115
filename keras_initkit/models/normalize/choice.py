"""What to normalize: inputs by a rule, or by the user; and where targets of outputs are."""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.anatomy.graph import Graph
from keras_initkit.anatomy.selectors import Selection
from keras_initkit.anatomy.weights import Place
from keras_initkit.checks import list_few
from keras_initkit.models.normalize.ports import Port, Ports

# `True` for y of the data, the name of a column, or the values.
Source = bool | str | NDArray[Any]

# Activations that do not take all values, as normalized targets do.
_BOUNDED = re.compile(
    "celu|elu|exponential|gelu|hard_sigmoid|hard_tanh|log_sigmoid|log_softmax|mish|relu|relu6|selu"
    "|sigmoid|silu|softmax|softplus|softsign|tanh"
)

# Layers for categories, or for inputs scaled already.
_NOT_TO_NORMALIZE = (
    keras.layers.CategoryEncoding,
    keras.layers.Discretization,
    keras.layers.Embedding,
    keras.layers.HashedCrossing,
    keras.layers.Hashing,
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
    keras.layers.Normalization,
    keras.layers.Rescaling,
)


def choose_inputs(
    model: Any, inputs: Ports, only: Any, exclude: Any
) -> tuple[list[Port], dict[str, str]]:
    """Return the inputs to normalize, and by names why the rule leaves others alone.

    Raises:
        ValueError: If a selector selects nothing, or an input that can't be normalized.
    """
    graph = Graph(model)
    reasons = {port.name: reason for port in inputs if (reason := _find_reason(port, graph))}
    if only is None:
        chosen = [port for port in inputs if port.name not in reasons]
    else:
        chosen = _select("only", only, inputs)
    excluded = [] if exclude is None else _select("exclude", exclude, inputs)
    chosen = [port for port in chosen if port not in excluded]
    for port in chosen:
        _check_input(port, graph)
    return chosen, reasons


def _select(argument: str, selector: Any, inputs: Ports) -> list[Port]:
    """Select inputs. Each selector of a list must select one."""
    selects = Selection(argument, selector)
    places = {port: [Place((port.operation,), port.name)] for port in inputs}
    if idle := selects.find_idle(places.values()):
        raise ValueError(
            f"`{argument}` must select inputs of the model. Received: {idle[0]!r}, which selects "
            f"none. The inputs are {list_few(inputs.names)}."
        )
    return [port for port in inputs if selects(places[port])]


def _find_reason(port: Port, graph: Graph) -> str | None:
    """Say why the rule leaves an input alone; `None` if it does not."""
    for taker in graph.find_takers(port.tensor):
        inner = taker.layer if isinstance(taker, keras.layers.Wrapper) else taker
        if isinstance(inner, _NOT_TO_NORMALIZE):
            return f"feeds the {type(inner).__name__} layer {inner.name!r}"
    return _find_unfit(port)


def _find_unfit(port: Port) -> str | None:
    """Say why an input can't hold normalized values; `None` if it can."""
    if not port.is_float:
        return f"is of dtype {port.dtype}"
    return "is sparse" if port.tensor.sparse else None


def _check_input(port: Port, graph: Graph) -> None:
    unfit = _find_unfit(port)
    if unfit is not None:
        raise ValueError(
            "`only` must select inputs of a floating point dtype, which can hold normalized "
            f"values. Received: {port.name!r}, which {unfit}. Declare it with "
            "`keras.Input(..., dtype='float32')`."
        )
    for taker in graph.find_takers(port.tensor):
        if isinstance(taker, keras.layers.Masking):
            raise ValueError(
                f"`model` must not look for masked steps in normalized values. Received: input "
                f"{port.name!r}, which feeds the Masking layer {taker.name!r}. Put a "
                "`Normalization` after that layer, adapt it with `mask_value="
                f"{taker.mask_value}`, and pass `exclude={port.name!r}`."
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
            "`targets` must belong to outputs that can take any value, as normalized targets do. "
            f"Received: targets of {port.name!r}, which is of {what}. End it without activation, "
            "or name only outputs of regression: `targets={name: ...}`."
        )
