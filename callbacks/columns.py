"""The columns of a record: a model's trainable variables, each with the layer it belongs to."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tensorboard_plugin_initkit.schema import Variable


def variables_of(
    variables: Sequence[Any], optimizers: Sequence[str], per: str
) -> tuple[Variable, ...]:
    """Name variables by their paths, and layers by the paths without the variable's own name.

    Layers of one name in different places of a subclassed model can share a path: the variables
    of the second one are counted to `<path>#2`. Where there are several optimizers, each one's
    name stands before the layers that it trains.

    Args:
        variables: `keras.Variable`s, in the order of the record.
        optimizers: Name of the optimizer of each; "" for a model's only one.
        per: "layer", or "variable" to count every variable as a layer.
    """
    columns = []
    for path, optimizer, variable in zip(_paths(variables), optimizers, variables, strict=True):
        full = f"{optimizer}/{path}" if optimizer else path
        layer = full if per == "variable" else full.rpartition("/")[0] or full
        columns.append(Variable(full, layer, tuple(variable.shape), optimizer))
    return tuple(columns)


def layer_path(variable: Any) -> str:
    """Path of the layer that a variable belongs to."""
    layer, _, name = variable.path.rpartition("/")
    return layer or name


def unit_sources(variables: Sequence[Any]) -> list[str]:
    """What of a variable's gradient tells that a unit is dead.

    A unit that no sample of a batch has activated passes no gradient on, neither to its bias nor
    to its column of the kernel; the bias is the cheaper witness.

    Args:
        variables: `keras.Variable`s.

    Returns:
        For each, "bias": the zeros of this gradient; "kernel": its columns that are zero, for
        kernels of layers without a bias; "": nothing.
    """
    layers = [layer_path(variable) for variable in variables]
    names = [variable.path.rpartition("/")[2] for variable in variables]
    biases = [name in ("bias", "beta") for name in names]
    have_bias = {layer for layer, is_bias in zip(layers, biases, strict=True) if is_bias}
    sources = []
    for layer, name, is_bias in zip(layers, names, biases, strict=True):
        is_kernel = name.endswith("kernel") and layer not in have_bias
        sources.append("bias" if is_bias else "kernel" if is_kernel else "")
    return sources


def _paths(variables: Sequence[Any]) -> list[str]:
    """Paths of variables, made unique."""
    seen: Counter[str] = Counter()
    paths = []
    for variable in variables:
        layer, name = layer_path(variable), variable.path.rpartition("/")[2]
        if repeats := seen[variable.path]:
            layer = f"{layer}#{repeats + 1}"
        seen[variable.path] += 1
        paths.append(f"{layer}/{name}")
    return paths
