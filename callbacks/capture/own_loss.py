"""Hearing losses of Keras where a step, or a `compute_loss`, of the user's computes them.

Keras internals: `Loss.__call__`, which all its loss objects share.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras


class LossCall(NamedTuple):
    """A call of a `keras.losses.Loss`, and its value."""

    loss: Any
    y_true: Any
    y_pred: Any
    sample_weight: Any
    value: Any


class OwnLoss(NamedTuple):
    """The only loss that a step of the user's computes, in place of a compiled one.

    Attributes:
        loss: The `keras.losses.Loss`; `None` for an unknown one.
        output: Place of its predictions among the model's outputs.
        shape: Their shape, the batch first.
    """

    loss: Any
    output: int
    shape: tuple[int | None, ...]


_Hear = Callable[[LossCall], None]
UNKNOWN = OwnLoss(None, 0, ())
_PLAIN = keras.losses.Loss.__call__
_lock = threading.Lock()
_hearers: dict[int, _Hear] = {}  # by the threads that train


@contextlib.contextmanager
def hearing_losses(hear: _Hear) -> Iterator[None]:
    """Hear the losses that this thread computes in the context; not those inside of others."""
    thread = threading.get_ident()
    with _lock:
        former = _hearers.get(thread)
        _hearers[thread] = hear if former is None else functools.partial(_tell_both, former, hear)
        _replace(_call)
    try:
        yield
    finally:
        with _lock:
            del _hearers[thread]
            if former is not None:
                _hearers[thread] = former
            if not _hearers:
                _replace(_PLAIN)


def _tell_both(first: _Hear, second: _Hear, call: LossCall) -> None:
    first(call)
    second(call)


def _replace(method: Callable[..., Any]) -> None:
    keras.losses.Loss.__call__ = method


@functools.wraps(_PLAIN)
def _call(self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and torch.compiler.is_compiling():  # what compiles a loss is the user's
        return _PLAIN(self, y_true, y_pred, sample_weight)
    thread = threading.get_ident()
    hear = _hearers.get(thread)
    if hear is None:
        return _PLAIN(self, y_true, y_pred, sample_weight)
    _hearers[thread] = lambda call: None
    try:
        value = _PLAIN(self, y_true, y_pred, sample_weight)
    finally:
        _hearers[thread] = hear
    hear(LossCall(self, y_true, y_pred, sample_weight, value))
    return value
