"""The graph of any model; of a subclassed one that of its `call` on symbolic tensors.

Keras internals: `Operation._inbound_nodes` and `_outbound_nodes`, in which layers note their
calls; tests/keras_initkit/anatomy/test_tracing.py fails where these change.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_initkit.anatomy.graph import Graph
from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.anatomy.seeds import random_state_kept


@contextlib.contextmanager
def graph_of(model: Any) -> Iterator[tuple[Graph, Any]]:
    """Return the graph of a model, and its outputs in their structure; `None` if unknown.

    A subclassed model is called as by `traced`; if it refuses, each layer is seen by itself.
    """
    graph, structure = Graph(model), getattr(model, "outputs", None)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(Exception):  # a user's `call` may do anything
            if graph.outputs:
                # It fails for a `Sequential` that is called several times.
                structure = model.output if isinstance(model.output, dict) else structure
            elif isinstance(model, keras.Model):
                inputs, structure = stack.enter_context(traced(model))
                ends = keras.tree.flatten(inputs), keras.tree.flatten(structure)
                graph = Graph(model, ends)
        yield graph, structure


@contextlib.contextmanager
def traced(model: Any) -> Iterator[tuple[Any, Any]]:
    """Call a built model on symbolic tensors; weights, states and seeds stay as they are.

    Inside the context its layers know of the calls, and forget them at its end. The code of the
    model's `call` runs, as it does where Keras builds or compiles a model, and may raise.

    Yields:
        Inputs and outputs in the model's structure.

    Raises:
        ValueError: If the model, or a layer inside it, is not built.
    """
    config = model.get_build_config()
    if not (config or {}).get("input_shape"):
        raise ValueError(f"{model.name!r} is not built.")
    inputs = make_inputs(config["input_shape"], model.compute_dtype)
    with traced_call(model, (inputs,), training_argument(model.call)) as outputs:
        yield inputs, outputs


@contextlib.contextmanager
def traced_call(layer: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[Any]:
    """Call a built layer on symbolic tensors, as `traced` does a model.

    Yields:
        Its outputs.

    Raises:
        ValueError: If it, or a layer inside it, is not built.
    """
    layers = list(layers_inside(layer))
    if not all(inner.built for inner in layers):
        raise ValueError(f"{layer.name!r} is not built.")
    called = [*layers, *(x for inner in layers for x in getattr(inner, "operations", ()))]
    notes = [(notes, len(notes)) for x in called for notes in (x._inbound_nodes, x._outbound_nodes)]
    try:
        with keras.StatelessScope(), random_state_kept():
            outputs = layer.call(*args, **kwargs)
        yield outputs
    finally:
        for calls, count in notes:
            del calls[count:]


def training_argument(function: Callable[..., Any]) -> dict[str, bool]:
    """Return the argument `training`, if a function takes it."""
    return {"training": True} if "training" in inspect.signature(function).parameters else {}


def make_inputs(shape: Any, dtype: str) -> Any:
    """Return symbolic tensors in the structure of their shapes."""
    if isinstance(shape, dict):
        return {name: make_inputs(part, dtype) for name, part in shape.items()}
    if any(isinstance(part, dict | list | tuple) for part in shape):
        return [make_inputs(part, dtype) for part in shape]
    return keras.KerasTensor((None, *shape[1:]), dtype)
