"""Symbolic calls: the graph of any model, and the calls inside a call of a layer.

Keras internals: `Operation._inbound_nodes` and `_outbound_nodes`, in which layers note their
calls; `KerasTensor._keras_history`, for the call behind a tensor, and a call's `arguments`;
`Functional._inputs_struct`, the inputs in their structure.
tests/keras_initkit/anatomy/test_tracing.py fails where these change.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.graph import Graph, nodes_between
from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.anatomy.seeds import random_state_kept

# In place of sizes that the model leaves open, as of time or of a map.
OPEN_SIZE = 32


class LayerCall(NamedTuple):
    """A call of a layer or operation on symbolic tensors.

    Attributes:
        operation: The layer or operation.
        args: Its positional arguments, tensors and others.
        kwargs: Its arguments with names.
        inputs: The symbolic tensors among its arguments.
        outputs: Its outputs.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


class Calls(NamedTuple):
    """The calls inside a call of a layer.

    Attributes:
        inputs: The symbolic tensors that it takes, in the order of its arguments.
        calls: Each after those that make its inputs.
        outputs: The symbolic tensors that it returns.
    """

    inputs: list[Any]
    calls: list[LayerCall]
    outputs: list[Any]


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


def calls_inside(layer: Any, args: Any, kwargs: dict[str, Any]) -> Calls:
    """List the calls inside a call of a layer; weights, states and seeds stay as they are.

    The code of the layer's `call` runs on symbolic tensors, and may raise.

    Args:
        layer: A built layer or model.
        args: Its positional arguments: symbolic tensors give shapes and dtypes.
        kwargs: Its arguments with names.
    """
    fresh: dict[int, Any] = {}

    def renew(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        return fresh.setdefault(id(value), keras.KerasTensor(value.shape, value.dtype))

    args, kwargs = keras.tree.map_structure(renew, (tuple(args), dict(kwargs)))
    inputs = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
    with traced_call(layer, args, kwargs) as outputs:
        flat = [x for x in keras.tree.flatten(outputs) if isinstance(x, keras.KerasTensor)]
        calls = [
            LayerCall(
                operation,
                node.arguments.args,
                node.arguments.kwargs,
                tuple(node.input_tensors),
                tuple(node.output_tensors),
            )
            for operation, node in nodes_between(inputs, flat)
        ]
        return Calls(inputs, calls, flat)


def find_inputs(model: Any) -> Any:
    """Return the symbolic inputs of a model in its structure; `None` if it does not know them."""
    struct = getattr(model, "_inputs_struct", None)
    if struct is None:
        struct = getattr(model, "inputs", None)
    if isinstance(struct, list) and len(struct) == 1:
        struct = struct[0]
    if struct is None:
        shape = (model.get_build_config() or {}).get("input_shape")
        struct = make_inputs(shape, model.compute_dtype) if shape else None
    return struct


def model_inputs(model: Any) -> Any:
    """Return symbolic tensors for the inputs of a built model, in its structure.

    Open sizes but that of the batch are `OPEN_SIZE`.

    Raises:
        ValueError: If the model does not know the shape of its inputs.
    """
    struct = find_inputs(model)
    if struct is None:
        raise ValueError(
            "`model` must know the shape of its inputs. Received: "
            f"'{model.name}', which was built without one. Call it on data first."
        )
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor(
            (None, *(OPEN_SIZE if size is None else size for size in x.shape[1:])),
            x.dtype,
            name=_name_input(x),
        ),
        struct,
    )


def _name_input(tensor: Any) -> str:
    """Return the name of the layer that makes an input, or the tensor's own."""
    operation = getattr(tensor, "_keras_history", (None,))[0]
    return str(getattr(operation, "name", tensor.name))
