"""`apply_fix`: the repairs of a fix, made in a model."""

from collections.abc import Callable
from typing import Any

from keras_initkit.models.repair.compilation import change_clipping, change_loss, change_rate
from keras_initkit.models.repair.layers import (
    change_activations,
    change_regularizers,
    draw_anew,
    restart,
    start_together,
    train_layers,
)
from keras_initkit.models.repair.rebuild import normalize, rebuild
from tensorboard_plugin_initkit.diagnosis.fix import Fix

# Each takes a model, data and arguments of its own, and returns the model to train on.
REPAIRS: dict[str, Callable[..., Any]] = {
    "activation": change_activations,
    "clip": change_clipping,
    "initialize": start_together,
    "learning_rate": change_rate,
    "loss": change_loss,
    "normalize": normalize,
    "rebuild": rebuild,
    "regularizers": change_regularizers,
    "reinitialize": draw_anew,
    "restart": restart,
    "trainable": train_layers,
}


def apply_fix(fix: Fix, model: Any, x: Any, y: Any) -> Any:
    """Make the repairs of a fix, as `Fix.apply` describes."""
    if not fix.repairs:
        _refuse(fix, "a fix of your data or your code")
    for name, arguments in fix.repairs.items():
        try:
            model = REPAIRS[name](model, (x, y), **arguments)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            _refuse(fix, f"{name!r} in the model '{getattr(model, 'name', model)}': {error}", error)
    return model


def _refuse(fix: Fix, received: str, error: Exception | None = None) -> None:
    raise ValueError(
        f"The fix must be one that can be made in the model. Received: {received}. Do it by "
        f"hand: {fix.text or 'there is no advice for this finding.'}"
    ) from error
