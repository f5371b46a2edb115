"""The choice of inputs to normalize: by a rule, or by the user."""

from typing import Any

import keras

from keras_initkit.anatomy.graph import Graph
from keras_initkit.anatomy.places import Place
from keras_initkit.anatomy.selectors import Selection
from keras_initkit.checks import list_few
from keras_initkit.models.normalize.ports import Port, Ports

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
