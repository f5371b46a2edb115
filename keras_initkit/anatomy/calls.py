"""The calls inside a call of a layer: of its layers and operations, in their order, with arguments.

Keras internals: `KerasTensor._keras_history` and `Operation._inbound_nodes`, for the call behind a
tensor, and a call's `arguments`; `Functional._inputs_struct`, the inputs in their structure.
tests/keras_initkit/anatomy/test_calls.py fails where these change.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.tracing import make_inputs, traced_call

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
        return Calls(inputs, _sort_calls(inputs, flat), flat)


def model_inputs(model: Any) -> Any:
    """Return symbolic tensors for the inputs of a built model, in its structure.

    Open sizes but that of the batch are `OPEN_SIZE`.

    Raises:
        ValueError: If the model does not know the shape of its inputs.
    """
    struct = getattr(model, "_inputs_struct", None)
    if struct is None:
        struct = getattr(model, "inputs", None)
    if isinstance(struct, list) and len(struct) == 1:
        struct = struct[0]
    if struct is None:
        shape = (model.get_build_config() or {}).get("input_shape")
        if not shape:
            raise ValueError(
                "`model` must know the shape of its inputs. Received: "
                f"'{model.name}', which was built without one. Call it on data first."
            )
        struct = make_inputs(shape, model.compute_dtype)
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


def _sort_calls(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[LayerCall]:
    """List the calls behind some tensors, each after those that make its inputs."""
    given = set(map(id, inputs))
    found: dict[int, LayerCall] = {}
    seen: set[int] = set()
    waiting = [(tensor, False) for tensor in reversed(outputs)]
    while waiting:  # depth first, without recursion: a model may have a thousand layers
        tensor, is_done = waiting.pop()
        operation, index, _ = getattr(tensor, "_keras_history", None) or (None, 0, 0)
        if operation is None or id(tensor) in given:
            continue
        node = operation._inbound_nodes[index]
        if is_done:
            arguments = node.arguments
            found.setdefault(
                id(node),
                LayerCall(
                    operation,
                    arguments.args,
                    arguments.kwargs,
                    tuple(node.input_tensors),
                    tuple(node.output_tensors),
                ),
            )
        elif id(node) not in seen:
            seen.add(id(node))
            waiting.append((tensor, True))
            waiting += [(source, False) for source in reversed(node.input_tensors)]
    return list(found.values())
