"""The columns of a record: a model's trainable variables, each with the layer it belongs to."""

from collections.abc import Collection, Sequence
from typing import Any

from keras_initkit.anatomy.initializers import format_initializer, own_initializer
from keras_initkit.anatomy.weights import Weight, weights_of
from tensorboard_plugin_initkit.record.layout import Variable
from tensorboard_plugin_initkit.record.signal import is_bias


def variables_of(
    model: Any, variables: Sequence[Any], optimizers: Sequence[str], per: str
) -> tuple[Variable, ...]:
    """Describe variables, by their paths in the model and their layers' paths.

    Where there are several optimizers, each one's name stands before the layers it trains; the
    name of a model's only one is "".
    """
    weights = {id(weight.variable): weight for weight in weights_of(model)}
    columns = []
    for optimizer, variable in zip(optimizers, variables, strict=True):
        weight = weights[id(variable)]
        layer = weight.path if per == "variable" else layer_path(weight)
        prefix = f"{optimizer}/" if optimizer else ""
        columns.append(
            Variable(
                prefix + weight.path,
                prefix + layer,
                tuple(variable.shape),
                optimizer,
                type(weight.holder).__name__,
                _describe_initializer(weight),
            )
        )
    return tuple(columns)


def layer_path(weight: Weight) -> str:
    """Return the path of a weight's layer; of the model's own weights, the weight's path."""
    return weight.layer or weight.path


def _describe_initializer(weight: Weight) -> str:
    """Return the initializer of a weight in words, "" if its layer does not say."""
    try:
        return format_initializer(own_initializer(weight.holder, weight.variable))
    except Exception:  # that of a user's class: it is only shown
        return ""


def unit_sources(variables: Sequence[Any], kernels: Collection[int]) -> list[str]:
    """Return where dead units show: in the bias's gradient, in the kernel's columns, or nowhere.

    A unit activated by no sample of a batch passes no gradient on, neither to its bias nor to its
    column of the kernel; the bias is the cheaper witness. "kernel" is returned in layers without
    a bias, for variables in `kernels`: the `id`s of those whose last axis is the units.
    """
    layers = [variable.path.rpartition("/")[0] for variable in variables]
    biases = [is_bias(variable.path) for variable in variables]
    have_bias = {layer for layer, bias in zip(layers, biases, strict=True) if bias}
    return [
        "bias" if bias else "kernel" if id(variable) in kernels and layer not in have_bias else ""
        for variable, layer, bias in zip(variables, layers, biases, strict=True)
    ]
