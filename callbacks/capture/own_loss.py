"""Hearing losses of Keras where a step, or a `compute_loss`, of the user's computes them.

Keras internals: `Loss.__call__` of the class, which all its losses have.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras


class LossCall(NamedTuple):
    """A call of an object of `keras.losses.Loss`, and its value."""

    loss: Any
    y_true: Any
    y_pred: Any
    sample_weight: Any
    value: Any


class OwnLoss(NamedTuple):
    """The only loss that a step of the user's computes.

    Attributes:
        loss: The `keras.losses.Loss`.
        output: Place among the model's outputs of what it is computed of; -1 for something else.
        shape: Shape of that, the batch first.
    """

    loss: Any
    output: int
    shape: tuple[int | None, ...]


_Hear = Callable[[LossCall], None]
_lock = threading.Lock()
_hearers: dict[int, _Hear] = {}  # by the threads that train
_plain: list[Callable[..., Any]] = []  # the class's own method, while another stands for it


@contextlib.contextmanager
def hearing_losses(hear: _Hear) -> Iterator[None]:
    """Hear the losses that this thread computes in the context; not those inside of others."""
    thread = threading.get_ident()
    with _lock:
        if not _hearers:
            _plain[:] = [keras.losses.Loss.__call__]
            setattr(keras.losses.Loss, "__call__", _call)  # noqa: B010 (mypy refuses the other)
        former = _hearers.get(thread)
        _hearers[thread] = hear
    try:
        yield
    finally:
        with _lock:
            del _hearers[thread]
            if former is not None:
                _hearers[thread] = former
            if not _hearers:
                setattr(keras.losses.Loss, "__call__", _plain[0])  # noqa: B010


def _call(self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
    thread = threading.get_ident()
    hear, plain = _hearers.get(thread), _plain[0]
    if hear is None:
        return plain(self, y_true, y_pred, sample_weight)
    with hearing_losses(lambda call: None):
        value = plain(self, y_true, y_pred, sample_weight)
    hear(LossCall(self, y_true, y_pred, sample_weight, value))
    return value
