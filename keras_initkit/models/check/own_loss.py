"""`ask_loss`: whether a loss of the user's is smallest where predictions are right.

It is given predictions made of targets: right ones, the same for all samples, and those of other
samples. No model is called.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.effects import may_write
from keras_initkit.anatomy.seeds import random_state_kept
from keras_initkit.models.check.sample import draw_sample
from tensorboard_plugin_initkit.record.setup import HeadSetup, Setup

_ROWS, _CONSTANTS, _PAIRS = 64, 5, 256
# Of pictures fewer rows, as long as there are some: asking takes well below a second.
_LEAST_ROWS, _ELEMENTS = 8, 2**18
# Of the values that are compared.
_TOLERANCE = 1e-3
# What is as good as certain, as a probability and as a logit.
_SURE, _LOGIT = 0.99, 4.0
# Of the activations of an output, as far as an answer goes.
_LIMITS = {
    ("sigmoid", "hard_sigmoid", "softmax"): (1 - _SURE, _SURE),
    ("tanh", "softsign"): (-_SURE, _SURE),
    ("relu", "softplus"): (0.0, np.inf),
}
# Keras's class around a function.
_FUNCTION: Any = keras.losses.MeanSquaredError.__base__

_Loss = Callable[[Any, Any], Any]


def ask_loss(model: Any, setup: Setup, x: Any, y: Any) -> Setup:
    """Ask the only loss of a model, if it is the user's, for its value of right predictions.

    Args:
        model: A compiled `keras.Model`.
        setup: The model as it is built and compiled.
        x: Inputs of the training, for pairs: two arrays or tensors of one shape.
        y: Targets of the training: an array or tensor.

    Returns:
        The setup; if the loss could be asked, with arguments of it: `of_targets`, its value for
        right predictions, and `of_constant`, for the same for all samples; and `fault`, which is ""
        where right ones are best, or else "sign", "swapped" arguments, "labels" that should be -1
        and 1, "pairs" that are pushed apart where they are alike, or "samples" that are mixed up.
    """
    loss = _find_own_loss(model)
    if loss is None or len(setup.heads) != 1 or not len(getattr(y, "shape", ())):
        return setup
    (head,) = setup.heads
    count = min(_ROWS, _ELEMENTS // max(1, math.prod(y.shape[1:])))
    if count < _LEAST_ROWS:
        return setup
    with contextlib.suppress(Exception), random_state_kept():  # of the user's code
        rows = np.asarray(draw_sample(y, None, None, count).batch[0], np.float32)
        order = np.argsort(rows.reshape(len(rows), -1).mean(axis=1), kind="stable")
        found = _judge(loss, head, rows[order])
        if _pushes_alike_apart(loss, keras.tree.flatten(x), y):
            found = {"fault": "pairs"}
        named = head._replace(arguments=head.arguments | found)
        return dataclasses.replace(setup, heads=(named,))
    return setup


def _find_own_loss(model: Any) -> _Loss | None:
    """Return the loss of a model as Keras calls it, if it is the user's and only computes."""
    given = getattr(model, "loss", None)
    is_object = isinstance(given, keras.losses.Loss)
    own = getattr(given, "fn", type(given)) if is_object else given
    if not callable(own) or type(model).compute_loss is not keras.Model.compute_loss:
        return None
    if (getattr(own, "__module__", None) or "").startswith("keras."):
        return None
    if may_write(getattr(own, "call", own)):
        return None
    return given if is_object else _FUNCTION(given)


def _judge(loss: _Loss, head: HeadSetup, y: np.ndarray) -> dict[str, Any]:
    """Return the arguments of a loss that was asked; none if it could not be."""
    outputs = list(_list_right(head, y))
    if not outputs or not np.isfinite(y).all() or not np.ptp(y, axis=0).any():
        return {}
    found = _ask(loss, y, outputs)
    # A loss may take no targets: then what it takes is in the model.
    others = _ask(loss, y[:1] + 0 * y, outputs)
    if np.isnan(found).any() or np.allclose(found, others):
        return {}
    best = min(found.constant, found.right)
    prefers_wrong = found.wrong < best - _TOLERANCE * abs(best)
    has_two_sides = set(np.unique(y)) == {-1, 1}
    if prefers_wrong and (found.wrong >= 0 or has_two_sides):
        return {}  # a distance, small where two are alike, or a critic: any sign will do
    reason, worst = "samples", max(found.constant, found.wrong)
    if found.is_fit:
        reason = ""
    elif prefers_wrong or found.right > worst + _TOLERANCE * abs(worst):
        reason = "sign"
    elif _ask(
        lambda y_true, y_pred: loss(y_pred, y_true), _shape_as(y, outputs[0]), outputs
    ).is_fit:
        reason = "swapped"
    elif set(np.unique(y)) == {0, 1}:
        signed = _ask(loss, 2 * y - 1, outputs)
        reason = "labels" if signed.is_fit and min(signed) >= 0 else reason
    return {"fault": reason, "of_targets": found.right, "of_constant": found.constant}


def _shape_as(y: np.ndarray, output: np.ndarray) -> np.ndarray:
    return y.reshape(output.shape) if y.size == output.size else y


def _pushes_alike_apart(loss: _Loss, x: list[Any], y: Any) -> bool:
    """Check for a loss of distances in pairs that is small where those alike are far apart.

    Of one label, distances are to be 0; of the other they are to be large, and may be more.
    """
    if len(x) != 2 or tuple(x[0].shape) != tuple(x[1].shape):
        return False
    (first, second), labels, _ = draw_sample(x, y, None, _PAIRS).batch
    labels = np.ravel(labels)
    if set(np.unique(labels)) != {0, 1}:
        return False

    def value(label: int, distance: int) -> float:
        pair = np.full((len(labels), 1), label, np.float32), np.float32(distance)
        found = loss(pair[0], np.full_like(pair[0], pair[1]))
        return float(np.mean(ops.convert_to_numpy(found)))

    near = [label for label in (0, 1) if value(label, 0) < min(value(label, -1), value(label, 1))]
    if len(near) != 1 or not value(1 - near[0], 0) > value(1 - near[0], 1) >= value(1 - near[0], 3):
        return False
    apart = np.square(first.astype(np.float64) - second).reshape(len(labels), -1).mean(axis=1)
    groups = [apart[labels == label] for label in (near[0], 1 - near[0])]
    (wanted, other), errors = map(np.mean, groups), [np.std(g) / np.sqrt(len(g)) for g in groups]
    return bool(wanted - other > 3 * np.hypot(*errors))


class _Answer(NamedTuple):
    """The least values of a loss: of right predictions, constant ones, and of other samples'."""

    right: float
    constant: float
    wrong: float

    @property
    def is_fit(self) -> bool:
        rest = min(self.constant, self.wrong)
        return self.right < rest - _TOLERANCE * max(abs(rest), abs(self.right))


def _ask(loss: _Loss, y: np.ndarray, outputs: list[np.ndarray]) -> _Answer:
    def least(predictions: Iterable[np.ndarray]) -> float:
        values = [
            float(np.mean(ops.convert_to_numpy(loss(y, np.broadcast_to(p, outputs[0].shape)))))
            for p in predictions
        ]
        return float(np.fmin.reduce(values))

    count = len(y)
    places = np.linspace(0, count - 1, _CONSTANTS).astype(np.int64)
    return _Answer(
        least(outputs),
        least(row for right in outputs for row in [right.mean(axis=0), *right[places]]),
        least(np.roll(right, count // 2, axis=0) for right in outputs),
    )


def _list_right(head: HeadSetup, y: np.ndarray) -> Iterator[np.ndarray]:
    """List right predictions, within the range of an output's activation."""
    shape, activation = head.shape[1:], head.activation.partition("(")[0]
    numbers = np.arange(shape[-1] if shape else 0, dtype=np.float32)
    if np.prod(shape) == y[0].size:
        right = y.reshape(len(y), *shape)
    elif y.shape[1:] in (shape[:-1], (*shape[:-1], 1)) and np.isin(y, numbers).all():
        right = (y.reshape(len(y), *shape[:-1], 1) == numbers).astype(np.float32)
    else:
        return
    low, high = float(right.min()), float(right.max())
    ways = [right]
    if np.isin(right, (low, high)).all() and (low, high) in ((0, 1), (-1, 1)):
        share = (right - low) / (high - low)
        ways += [share, 2 * share - 1, _LOGIT * (2 * share - 1)]
    least, most = next(
        (r for names, r in _LIMITS.items() if activation in names), (-np.inf, np.inf)
    )
    for way in ways:
        inside = np.clip(way, least, most)
        if np.allclose(way, inside, atol=2 * (1 - _SURE)):
            yield inside
