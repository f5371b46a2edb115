"""The columns of a record: a model's trainable variables, each with the layer it belongs to."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from keras_initkit.anatomy.initializers import format_initializer, own_initializer
from keras_initkit.anatomy.layers_inside import layers_inside, path_inside, trainable_weights
from tensorboard_plugin_initkit.record.schema import Variable


def variables_of(
    model: Any, variables: Sequence[Any], optimizers: Sequence[str], per: str
) -> tuple[Variable, ...]:
    """Name variables by their paths, and layers by the paths without the variable's own name.

    Layers of one name in different places of a subclassed model can share a path: the variables
    of the second one are counted to `<path>#2`. Where there are several optimizers, each one's
    name stands before the layers that it trains.

    Args:
        model: The model whose variables they are.
        variables: `keras.Variable`s, in the order of the record.
        optimizers: Name of the optimizer of each; "" for a model's only one.
        per: "layer", or "variable" to count every variable as a layer.
    """
    paths = _variable_paths(model)
    holders = {
        id(variable): layer
        for layer in layers_inside(model)
        for variable in trainable_weights(layer)
    }
    columns = []
    for optimizer, variable in zip(optimizers, variables, strict=True):
        path = paths[id(variable)]
        full = f"{optimizer}/{path}" if optimizer else path
        layer = full if per == "variable" else _layer_of(full)
        holder = holders.get(id(variable))
        layer_type = type(holder).__name__ if holder is not None else ""
        drawn_by = _initializer(holder, variable)
        columns.append(
            Variable(full, layer, tuple(variable.shape), optimizer, layer_type, drawn_by)
        )
    return tuple(columns)


def _initializer(holder: Any, variable: Any) -> str:
    """What a variable was drawn by, in words; "" if its layer does not say."""
    try:
        return format_initializer(own_initializer(holder, variable))
    except Exception:  # that of a user's class: it is only shown
        return ""


def layer_paths(model: Any) -> dict[int, str]:
    """Path of the layer that each variable of a model belongs to, as in `variables_of`, by `id`."""
    return {key: _layer_of(path) for key, path in _variable_paths(model).items()}


def unit_sources(variables: Sequence[Any], kernels: Collection[int]) -> list[str]:
    """What of a variable's gradient tells that a unit is dead.

    A unit that no sample of a batch has activated passes no gradient on, neither to its bias nor
    to its column of the kernel; the bias is the cheaper witness.

    Args:
        variables: `keras.Variable`s.
        kernels: The `id`s of those that are kernels whose last axis is the units.

    Returns:
        For each, "bias": the zeros of this gradient; "kernel": its columns that are zero, for
        such kernels of layers without a bias; "": nothing.
    """
    layers = [_layer_of(variable.path) for variable in variables]
    names = [variable.path.rpartition("/")[2] for variable in variables]
    biases = [name in ("bias", "beta") for name in names]
    have_bias = {layer for layer, is_bias in zip(layers, biases, strict=True) if is_bias}
    sources = []
    for layer, variable, is_bias in zip(layers, variables, biases, strict=True):
        is_kernel = id(variable) in kernels and layer not in have_bias
        sources.append("bias" if is_bias else "kernel" if is_kernel else "")
    return sources


def _variable_paths(model: Any) -> dict[int, str]:
    # Of all, so that a name does not depend on which others are trained or recorded.
    paths = _unique([path_inside(model, variable.path) for variable in model.variables])
    return dict(zip(map(id, model.variables), paths, strict=True))


def _layer_of(path: str) -> str:
    return path.rpartition("/")[0] or path


def _unique(paths: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    unique = []
    for path in paths:
        layer, name = _layer_of(path), path.rpartition("/")[2]
        if repeats := seen[path]:
            layer = f"{layer}#{repeats + 1}"
        seen[path] += 1
        unique.append(f"{layer}/{name}")
    return unique
