"""The losses, metrics and optimizer of a compiled model, by names and numbers.

Keras internals: `Model._compile_config.config`, the arguments of `compile`, for metrics: they have
no public attribute before the first step; `LossFunctionWrapper.fn` and `_fn_kwargs`, the function
of Keras's own losses and its arguments, of which `get_config` leaves some out; and
`Optimizer._learning_rate`, for a schedule. tests/keras_initkit/anatomy/test_compilation.py fails
where these change.
"""

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import keras

from tensorboard_plugin_initkit.record.setup import ANY_SIZE, HeadSetup

# Arguments of losses that change nothing of what a loss expects.
_HIDDEN = ("name", "fn", "dtype")


def read_compile_arguments(model: Any) -> dict[str, Any]:
    """Return the arguments to compile a model again as it is, with the same objects.

    Raises:
        ValueError: If it is not compiled, or by a `compile` of its own.
    """
    config = getattr(getattr(model, "_compile_config", None), "config", None)
    if config is None or type(model).compile is not keras.Model.compile:
        raise ValueError("The model is not compiled by `keras.Model.compile`.")
    # A loss scale around the optimizer is made by `compile`; another one is kept out.
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    return {**config, "optimizer": model.optimizer, "auto_scale_loss": is_scaled}


def read_heads(model: Any, outputs: Sequence[Sequence[str]] | None) -> dict[str, HeadSetup]:
    """Describe the losses and metrics of a model's outputs.

    Args:
        model: A `keras.Model`, compiled or not.
        outputs: Of each output its names, the key in a dict first; `None` if outputs are not
            known: then those with losses in `compile` are described.

    Returns:
        Each output by its own name, "" for an only one, with its loss and metrics alone.
    """
    config = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    loss = getattr(model, "loss", None)
    if outputs is None:
        outputs = [[name] for name in _output_names(loss)]
    count = len(outputs)
    losses, weights = (_spread(given, outputs) for given in (loss, config.get("loss_weights")))
    metrics: list[list[str]] = [[] for _ in outputs]
    for argument in ("metrics", "weighted_metrics"):
        given = config.get(argument)
        shares = [given] if count == 1 else _spread(given, outputs)
        for names, share in zip(metrics, shares, strict=True):
            given_here = [metric for metric in keras.tree.flatten(share) if metric is not None]
            names += map(_name_metric, given_here)
    heads = {}
    for output, own, weight, shown in zip(outputs, losses, weights, metrics, strict=True):
        name, arguments = _describe_loss(own)
        if name and type(model).compute_loss is not keras.Model.compute_loss:
            name, arguments = f"{type(model).__name__}.compute_loss", {}
        if name and weight is not None:
            arguments |= keep_plain({"loss_weight": weight})
        own_name = output[0] if count > 1 else ""
        heads[own_name] = HeadSetup(own_name, loss=name, arguments=arguments, metrics=tuple(shown))
    return heads


def name_own_loss(
    heads: Sequence[HeadSetup], loss: Any, output: int, shape: Sequence[int | None]
) -> tuple[HeadSetup, ...]:
    """Describe the output of a model with the only loss of a step of the user's.

    Args:
        heads: Outputs of the model; none if they are not known.
        loss: A `keras.losses.Loss`; `None` for an unknown one: then no output has a loss.
        output: The place of the output.
        shape: Its shape, the batch first.
    """
    if loss is None:
        return tuple(head._replace(loss="", arguments={}) for head in heads)
    name, arguments = _describe_loss(loss)
    known = heads[output] if output < len(heads) else HeadSetup()
    sizes = known.shape or tuple(ANY_SIZE if size is None else int(size) for size in shape)
    return (known._replace(name="", shape=sizes, loss=name, arguments=arguments),)


def read_optimizer(model: Any) -> tuple[str, dict[str, Any]]:
    """Return the class of a model's optimizer, within a loss scale, and its numbers by name.

    The learning rate of a schedule is that of its first iteration, or where that is 0, as of a
    warm-up, of its second. Of no optimizer: "" and {}.
    """
    optimizer = getattr(model, "optimizer", None)
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if optimizer is None:
        return "", {}
    numbers: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # of a user's class
        # Past a method of the object itself: callbacks take its call for a save.
        numbers = dict(type(optimizer).get_config(optimizer))
        rate = getattr(optimizer, "_learning_rate", None)
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            numbers["learning_rate"] = float(keras.ops.convert_to_numpy(rate(0)))
            if numbers["learning_rate"] == 0:
                numbers["learning_rate"] = float(keras.ops.convert_to_numpy(rate(1)))
        # As it was written, and not as float32 has it.
        numbers["learning_rate"] = float(f"{numbers['learning_rate']:.7g}")
    kept = keep_plain(numbers).items()
    return type(optimizer).__name__, {name: v for name, v in kept if isinstance(v, int | float)}


def keep_plain(items: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the finite numbers, strings and lists of them, as Python's own; tuples become lists."""
    kept = {}
    for name, value in items.items():
        with contextlib.suppress(TypeError):
            kept[name] = _as_plain(value)
    return kept


def _as_plain(value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple):
        return list(map(_as_plain, value))
    raise TypeError


def _output_names(loss: Any) -> list[str]:
    """Name the outputs of a model by its losses alone."""
    if isinstance(loss, Mapping):
        return sorted(map(str, loss))  # as Keras flattens a dict of outputs
    return [str(i) for i in range(len(loss))] if isinstance(loss, list | tuple) else [""]


def _spread(given: Any, outputs: Sequence[Sequence[str]]) -> list[Any]:
    """Return the share of each output in an argument of `compile`; `None` if it is not known."""
    if isinstance(given, Mapping):
        return [next((given[name] for name in names if name in given), None) for names in outputs]
    if isinstance(given, list | tuple):
        return list(given) if len(given) == len(outputs) else [None] * len(outputs)
    return [given] * len(outputs)


def _describe_loss(given: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of a loss."""
    if given is None or isinstance(given, Mapping | list | tuple):
        return "", {}
    loss: Any = given
    arguments: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # not known to Keras, or of a user's class
        if isinstance(given, str | type):
            loss = keras.losses.get(given)
    if isinstance(loss, str):
        return loss, {}
    with contextlib.suppress(Exception):
        if isinstance(loss, keras.losses.Loss):
            arguments = keep_plain(getattr(loss, "_fn_kwargs", {}))
            arguments |= keep_plain(loss.get_config())
    if isinstance(loss, keras.losses.Loss):
        # A function of two arguments in a class, such as all of Keras's: any subclass has this.
        is_function = type(loss).call is keras.losses.MeanSquaredError.call
        loss = getattr(loss, "fn", None) if is_function else type(loss)
    while isinstance(loss, functools.partial):
        loss, arguments = loss.func, keep_plain(loss.keywords) | arguments
    for name in _HIDDEN:
        arguments.pop(name, None)
    return _name_function(loss), arguments


def _name_function(function: Any) -> str:
    """Name a loss; one of the user's by the name of one of Keras's is named with its module."""
    name = getattr(function, "__name__", type(function).__name__)
    module = getattr(function, "__module__", None) or ""
    if hasattr(keras.losses, name) and not module.startswith("keras."):
        return f"{module}.{name}"
    return str(name)


def _name_metric(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "name", None) or getattr(metric, "__name__", None)
    return str(name or type(metric).__name__)
