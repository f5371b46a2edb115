"""The output layer from the targets: what to predict before anything is learned."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_initkit.initializers.biases import PriorBias
from keras_initkit.models.initialize.aim import Aim

# The outputs' own variance at the start, relative to that of the targets; 1 of logits.
_SHARE = 0.01


class Head(NamedTuple):
    """The start of an output layer.

    Attributes:
        bias: Its bias, float32.
        variance: The variance of its outputs without it.
    """

    bias: np.ndarray
    variance: float


def heads_of(model: Any, aims: Sequence[Aim], targets: Any) -> dict[int, Head]:
    """Return the start of each output layer with targets, by the `id` of its kernel's variable.

    Raises:
        ValueError: If there is no such layer, or targets are not of its units.
    """
    last = [aim for aim in aims if aim.kernel.part.following.is_last and aim.bias is not None]
    names = {aim.holder.name: aim for aim in last}
    if not isinstance(targets, dict):
        targets = dict.fromkeys(names, targets) if len(last) == 1 else {}
    found = {
        id(aim.variable): _make_head(aim, np.asarray(targets[name]), _loss_of(model, name))
        for name, aim in names.items()
        if name in targets
    }
    if not found:
        raise ValueError(
            "`targets` must be those of an output layer with a bias to set: an array if there is "
            f"one, otherwise a dict by their names. The output layers with such a bias are: "
            f"{', '.join(names) or 'none'}. Received: targets of {', '.join(targets) or 'no'} "
            "layers."
        )
    return found


def _make_head(aim: Aim, targets: np.ndarray, loss: str) -> Head:
    assert aim.bias is not None
    units = int(np.prod(aim.bias.shape))
    activation = aim.kernel.part.following.activation
    is_labels = units > 1 and targets.shape[-1:] != (units,)
    if is_labels:
        flat = targets.astype(np.int64).ravel()
        if (flat != targets.ravel()).any() or flat.min() < 0 or flat.max() >= units:
            raise _wrong_targets(aim, targets, units)
        sums, count = np.bincount(flat, minlength=units).astype(np.float64), flat.size
    else:
        if targets.size % units:
            raise _wrong_targets(aim, targets, units)
        rows = targets.reshape(-1, units).astype(np.float64)
        sums, count = rows.sum(0), len(rows)
        is_labels = units > 1 and bool(
            ((rows == 0) | (rows == 1)).all() and (rows.sum(1) == 1).all()
        )
    if activation == "softmax" or (is_labels and activation in ("linear", None)):
        bias, variance = PriorBias((sums + 0.5).tolist(), "softmax")((units,)), _SHARE
    elif activation == "sigmoid" or "binary" in loss:
        bias, variance = PriorBias(((sums + 0.5) / (count + 1.0)).tolist())((units,)), _SHARE
    else:
        bias, variance = sums / count, _SHARE * float(rows.var(0).mean())
    return Head(np.asarray(bias, np.float32).reshape(aim.bias.shape), variance or _SHARE)


def _loss_of(model: Any, name: str) -> str:
    """Return the name of the loss that an output layer's model was compiled with, or ""."""
    loss = getattr(model, "loss", None)
    loss = loss.get(name) if isinstance(loss, dict) else loss
    return str(getattr(loss, "name", getattr(loss, "__name__", loss or "")))


def _wrong_targets(aim: Aim, targets: np.ndarray, units: int) -> ValueError:
    return ValueError(
        f"`targets` must have {units} numbers a row for {aim.holder.name!r}, or labels below "
        f"{units}. Received: targets of shape {targets.shape}, from {targets.min():g} to "
        f"{targets.max():g}."
    )
