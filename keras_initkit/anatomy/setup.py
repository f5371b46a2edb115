"""`read_setup`: a model as it is built and compiled, for the rules of a diagnosis."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.compilation import keep_plain, read_heads, read_optimizer
from keras_initkit.anatomy.following import (
    LINEAR,
    Activation,
    as_activation,
    classify,
    own_activation,
)
from keras_initkit.anatomy.graph import Call, find_maker
from keras_initkit.anatomy.initializers import format_initializer
from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.anatomy.own_calls import is_own, name_made_layer
from keras_initkit.anatomy.tracing import graph_of
from keras_initkit.anatomy.weights import places_of
from tensorboard_plugin_initkit.record.setup import (
    ANY_SIZE,
    MODEL_INPUT,
    HeadSetup,
    LayerSetup,
    Setup,
    Shape,
)

# Arguments of layers that rules ask for.
_ARGUMENTS = [
    *("units", "filters", "axis", "rate", "use_bias", "kernel_size", "strides", "padding"),
    *("data_format", "momentum", "epsilon", "input_dim", "output_dim", "mask_zero"),
    *("return_sequences", "scale", "offset", "value_range", "mask_value"),
]
_WEIGHTS = ("kernel", "recurrent", "bias", "depthwise", "pointwise", "embeddings", "gamma", "beta")
_CONFIGURED = [
    *(
        f"{weight}_{kind}"
        for weight in _WEIGHTS
        for kind in ("initializer", "regularizer", "constraint")
    ),
    "activity_regularizer",
]


# For the `id` of a tensor, the calls that it is an output of.
_Makers = dict[int, list[Call]]


def read_setup(model: Any, steps: int = 0) -> Setup:
    """Describe a model as it is built and compiled.

    Nothing is changed, and nothing called but a subclassed model's `call`, on symbolic tensors: if
    it refuses them, its graph is not known. The unknown is left out; code of the user may raise.

    Args:
        model: A `keras.Model`, built or not, compiled or not.
        steps: Number of updates that the training is to make in all; 0 if it is not known.
    """
    layers: list[LayerSetup] = []
    # Of an unknown graph: the outputs for which there are losses.
    heads = [head for head in read_heads(model, None).values() if head.loss]
    has_graph = False
    with contextlib.suppress(Exception):  # here and below: of a user's class
        calls, ends = _read_graph(model)
        makers: _Makers = {}
        for call in calls:
            for output in call.outputs:
                makers.setdefault(output, []).append(call)
        layers, positions = _read_layers(model, calls, makers)
        if ends:
            heads = _read_heads(model, ends, makers, positions)
        has_graph = bool(calls)
    name, numbers = read_optimizer(model)
    return Setup(
        layers=tuple(layers),
        heads=tuple(heads),
        optimizer=name,
        optimizer_arguments=numbers,
        dtype_policy=str(getattr(getattr(model, "dtype_policy", None), "name", "float32")),
        steps=steps,
        has_graph=has_graph,
        backend=keras.backend.backend(),
    )


class _End(NamedTuple):
    """An output of a model.

    Attributes:
        tensor: The `id` of its tensor.
        names: The names by which `compile` may know it: its key in a dict, its maker's name.
        shape: Its shape, as Keras has it.
    """

    tensor: int
    names: tuple[str, ...]
    shape: tuple[int | None, ...]


def _read_graph(model: Any) -> tuple[list[Call], list[_End]]:
    """Return the calls of a model, input first, and its outputs; nothing if they are not known."""
    calls = [] if getattr(model, "outputs", None) else _chain(model)
    if calls:
        return calls, [_End(calls[-1].outputs[0], ("",), ())]
    with graph_of(model) as (graph, structure):
        ends = _list_ends(structure) if graph.outputs else []
        return graph.calls_before(end.tensor for end in ends), ends


def _list_ends(structure: Any) -> list[_End]:
    """List the outputs in a structure of tensors, in Keras's order."""
    keys = sorted(structure) if isinstance(structure, dict) else None
    return [
        _End(id(tensor), (*(keys[place : place + 1] if keys else ()), name), tuple(tensor.shape))
        for place, tensor in enumerate(keras.tree.flatten(structure))
        for name in [find_maker(tensor).name]
    ]


def _chain(model: Any) -> list[Call]:
    """Return the calls of a `Sequential` that is not built: of its layers, one after the other."""
    if not isinstance(model, keras.Sequential):
        return []
    stack: list[Any] = []
    waiting = list(model.layers)
    while waiting:
        layer = waiting.pop(0)
        if isinstance(layer, keras.Sequential):
            waiting = [*layer.layers, *waiting]
        elif isinstance(layer, keras.Model):
            return []
        else:
            stack.append(layer)
    return [Call(layer, (place - 1,), (place,)) for place, layer in enumerate(stack)]


def _read_layers(
    model: Any, calls: Sequence[Call], makers: _Makers
) -> tuple[list[LayerSetup], dict[int, int]]:
    """Describe the layers and operations of a model.

    Returns:
        The layers, and of each the position by its `id`.
    """
    paths = {key: places[0].path for key, places in places_of(model).items()}
    paths = _paths_of_operations(model, paths) | paths
    inputs: dict[int, list[int]] = {}
    found: dict[int, tuple[Any, int, Shape]] = {}
    for call in calls:
        if call.operation is not None:
            key = id(call.operation)
            inputs.setdefault(key, []).extend(call.inputs)
            found.setdefault(key, (call.operation, len(call.inputs), _as_shape(call.shape)))
            for inner in _hidden_layers(call.operation):
                found.setdefault(id(inner), (inner, 1, ()))
    if not calls:
        for layer in layers_inside(model, include_self=False):
            if not isinstance(layer, keras.layers.InputLayer):
                found.setdefault(id(layer), (layer, 1, ()))
    for layer in filter(name_made_layer, layers_inside(model)):  # as the model itself
        found.setdefault(id(layer), (layer, 1, ()))
    positions = {key: place for place, key in enumerate(found)}
    layers = [
        LayerSetup(
            path=paths.get(key, getattr(operation, "name", "")),
            type=type(operation).__name__,
            activation=_name_activation(operation, count),
            takes=tuple(_sources(inputs.get(key, ()), makers, positions)),
            shape=shape,
            weights=len(getattr(operation, "weights", ())),
            trainable=bool(getattr(operation, "trainable", True)),
            arguments=_read_arguments(operation),
        )
        for key, (operation, count, shape) in found.items()
    ]
    return layers, positions


def _hidden_layers(operation: Any) -> list[Any]:
    """List the layers inside a layer of a user's class."""
    if type(operation).__module__.startswith("keras.") or not isinstance(
        operation, keras.layers.Layer
    ):
        return []
    return list(layers_inside(operation, include_self=False))


def _paths_of_operations(model: Any, paths: dict[int, str]) -> dict[int, str]:
    """Return paths of operations between layers, by their `id`s."""
    return {
        id(operation): f"{paths[id(inner)]}/{operation.name}".lstrip("/")
        for inner in layers_inside(model)
        if isinstance(inner, keras.Model)
        for operation in getattr(inner, "operations", ())
    }


def _sources(tensors: Sequence[int], makers: _Makers, positions: dict[int, int]) -> list[int]:
    """List the positions of the layers that make tensors; `MODEL_INPUT` for inputs."""
    sources: dict[int, None] = {}
    seen: set[int] = set()
    waiting = list(tensors)
    while waiting:
        tensor = waiting.pop(0)
        if tensor in seen:
            continue
        seen.add(tensor)
        calls = makers.get(tensor, [])
        if not calls:
            sources[MODEL_INPUT] = None
        for call in calls:
            if call.operation is None:  # the border of a model inside
                waiting = [*call.inputs, *waiting]
            else:
                sources[positions[id(call.operation)]] = None
    return list(sources)


def _read_heads(
    model: Any, ends: Sequence[_End], makers: _Makers, positions: dict[int, int]
) -> list[HeadSetup]:
    """Describe the outputs of a model."""
    compiled = read_heads(model, [end.names for end in ends])
    heads = []
    for end in ends:
        name = end.names[0] if len(ends) > 1 else ""
        source = _sources([end.tensor], makers, positions)
        activation = ""
        with contextlib.suppress(Exception):
            activation = _last_activation(end.tensor, makers)
        heads.append(
            compiled[name]._replace(
                layer=source[0] if len(source) == 1 else MODEL_INPUT,
                activation=activation,
                shape=_as_shape(end.shape),
            )
        )
    return heads


def _last_activation(tensor: int, makers: _Makers) -> str:
    """Name the last activation before a tensor, "linear" if kernels come first, "" if unknown."""
    seen: set[int] = set()
    while len(makers.get(tensor, ())) == 1 and tensor not in seen:
        seen.add(tensor)
        call = makers[tensor][0]
        operation = call.operation
        if operation is not None and not _runs_as_keras(operation):
            return ""
        name = _name_activation(operation, len(call.inputs)) if operation is not None else ""
        if name:
            return name
        effect = classify(call, lambda layer: True)
        if effect in ("add", "join"):
            names = {_last_activation(taken, makers) for taken in call.inputs}
            is_kept = len(names) == 1 and (effect == "join" or names == {LINEAR})
            return names.pop() if is_kept else ""
        if _has_kernel(operation) or effect == "normalization":
            return LINEAR
        if effect != "pass":
            return ""
        tensor = call.inputs[0]
    return ""


def _has_kernel(operation: Any) -> bool:
    """Check for a layer with kernels, built or not."""
    names = ("kernel_initializer", "depthwise_initializer", "embeddings_initializer")
    heads = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    parts = (operation, _wrapped(operation))
    return isinstance(operation, heads) or any(hasattr(p, name) for p in parts for name in names)


def _runs_as_keras(operation: Any) -> bool:
    """Check for a `call` of Keras's own; subclasses of the user may have it, too."""
    parts = (operation, _wrapped(operation) or operation)
    # Sums and products of two directions have another range than each.
    is_combined = getattr(operation, "merge_mode", None) in ("sum", "mul")
    return not is_combined and all(type(p).call.__module__.startswith("keras.") for p in parts)


def _wrapped(operation: Any) -> Any | None:
    """Return the layer inside a wrapper, or the forward one of `Bidirectional`."""
    inner = getattr(operation, "layer", getattr(operation, "forward_layer", None))
    return inner if isinstance(inner, keras.layers.Layer) else None


def _name_activation(operation: Any, inputs: int) -> str:
    """Name the activation that a layer or operation applies or is; "" for none."""
    with contextlib.suppress(Exception):
        found: Activation | None = as_activation(operation, inputs)
        inner = operation
        while found is None and inner is not None:
            found = own_activation(inner)
            inner = _wrapped(inner) or getattr(inner, "cell", None)
        return found.name if found else ""
    return ""


def _read_arguments(operation: Any) -> dict[str, Any]:
    """Return arguments of a layer or operation, those of its wrapped layer last.

    Those of a `Normalization` are the least and greatest mean and standard deviation that it has.
    """
    arguments: dict[str, Any] = {}
    for part in (operation, _wrapped(operation)):
        given = {}
        for name in _ARGUMENTS + _CONFIGURED:
            with contextlib.suppress(Exception):
                value = getattr(part, name, None)
                if value is not None:
                    given[name] = value if name in _ARGUMENTS else _format_configured(value)
        arguments |= keep_plain(given)
    if getattr(operation, "variable_dtype", "") == "float16":
        arguments["dtype"] = "float16"
    if is_own(operation):
        arguments |= {"is_own": True, "makes": name_made_layer(operation)}
    weights = getattr(operation, "weights", ())
    if weights and not operation.trainable and isinstance(operation, keras.layers.Embedding):
        with contextlib.suppress(Exception):
            arguments["is_zero"] = not keras.ops.any(weights[0] != 0)
    if isinstance(operation, keras.layers.Normalization):
        with contextlib.suppress(Exception):
            mean, variance = (
                keras.ops.convert_to_numpy(x) for x in (operation.mean, operation.variance)
            )
            spans = {"mean": mean, "std": variance**0.5}
            arguments |= keep_plain({k: [v.min(), v.max()] for k, v in spans.items()})
    return arguments


def _format_configured(value: Any) -> str:
    """Write an initializer, regularizer or constraint as in Python."""
    if isinstance(value, keras.initializers.Initializer):
        return format_initializer(value)
    name = getattr(value, "__name__", type(value).__name__)
    config = value.get_config() if hasattr(value, "get_config") else {}
    shown = ", ".join(f"{key}={number}" for key, number in keep_plain(config).items())
    return f"{name}({shown})" if shown else str(name)


def _as_shape(shape: Sequence[int | None]) -> Shape:
    return tuple(ANY_SIZE if size is None else int(size) for size in shape)
