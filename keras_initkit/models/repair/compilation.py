"""Repairs of how a model is compiled: loss, learning rate, clipping."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_initkit.anatomy.compilation import read_compile_arguments
from keras_initkit.anatomy.setup import read_setup
from tensorboard_plugin_initkit.diagnosis.fix import USUAL_RATE, USUAL_RATES

# Inputs and targets, as `Fix.apply` takes them; most repairs need none.
Data = tuple[Any, Any]


def recompile(model: Any, **changes: Any) -> None:
    """Compile a model again, with the same optimizer, metrics and settings but for changes."""
    model.compile(**read_compile_arguments(model) | changes)


def compile_like(new: Any, model: Any) -> None:
    """Compile a model as another one is, with an optimizer and metrics of its own."""
    arguments = read_compile_arguments(model)
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(_copy_metric, arguments[name])
    new.compile(**arguments | {"optimizer": copy_optimizer(model.optimizer)})


def copy_optimizer(optimizer: Any) -> Any:
    """Return an optimizer like another one, before its first step."""
    return type(optimizer).from_config(optimizer.get_config())


def retrace(model: Any) -> None:
    """Forget the compiled steps of a model: they hold it as it was."""
    model.train_function = model.test_function = model.predict_function = None


def change_rate(model: Any, data: Data, value: float | None = None, factor: float = 1.0) -> Any:
    """Set the learning rate; or multiply it by a factor, and set it to a usual one at most."""
    optimizer = model.optimizer
    if value is None:
        usual = USUAL_RATES.get(type(optimizer).__name__, USUAL_RATE)
        value = min(usual, factor * float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    schedules = keras.optimizers.schedules
    if isinstance(optimizer.get_config()["learning_rate"], dict):  # takes no number any more
        value = schedules.ExponentialDecay(value, decay_steps=1, decay_rate=1.0)
        retrace(model)
    optimizer.learning_rate = value
    return model


def change_clipping(model: Any, data: Data, norm: float | None) -> Any:
    """Clip the gradient of each variable to a norm, or not at all, whatever was set."""
    optimizer = model.optimizer
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    optimizer.clipvalue = optimizer.global_clipnorm = None
    optimizer.clipnorm = norm
    retrace(model)
    return model


def change_loss(model: Any, data: Data, head: str, loss: str, from_logits: bool) -> Any:
    """Give an output another loss; arguments stay where it is of the same class."""
    given = read_compile_arguments(model)["loss"]
    new: Any
    if isinstance(given, Mapping):
        name = head or next(iter(given))
        new = {**given, name: _make_loss(given[name], loss, from_logits)}
    elif isinstance(given, list | tuple):
        names = [setup.name for setup in read_setup(model).heads]
        place = names.index(head) if head else 0
        new = list(given)
        new[place] = _make_loss(given[place], loss, from_logits)
    elif head:
        new = {setup.name: given for setup in read_setup(model).heads}
        new[head] = _make_loss(given, loss, from_logits)
    else:
        new = _make_loss(given, loss, from_logits)
    recompile(model, loss=new)
    return model


def _make_loss(before: Any, loss: str, from_logits: bool) -> Any:
    """Make a loss by its name in `keras.losses`; like another one of the same class."""
    kind = getattr(keras.losses, "".join(word.capitalize() for word in loss.split("_")), None)
    if kind is not None and isinstance(before, kind):
        return kind.from_config(before.get_config() | {"from_logits": from_logits})
    return kind(from_logits=True) if from_logits and kind else keras.losses.get(loss)


def _copy_metric(metric: Any) -> Any:
    is_metric = isinstance(metric, keras.metrics.Metric)
    return type(metric).from_config(metric.get_config()) if is_metric else metric
