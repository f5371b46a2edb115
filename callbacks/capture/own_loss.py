"""Hearing losses of Keras where a step, or a `compute_loss`, of the user's computes them.

Losses are objects, with the method `Loss.__call__` of their class, or functions of `keras.losses`.
"""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras


class LossCall(NamedTuple):
    """A call of a loss: a `keras.losses.Loss`, or a function with its arguments; and its value."""

    loss: Any
    y_true: Any
    y_pred: Any
    sample_weight: Any
    value: Any


class OwnLoss(NamedTuple):
    """The only loss that a step of the user's computes.

    Attributes:
        loss: The `keras.losses.Loss`, or a function with its arguments.
        output: Place among the model's outputs of what it is computed of; -1 for something else.
        shape: Shape of that, the batch first.
    """

    loss: Any
    output: int
    shape: tuple[int | None, ...]


_Hear = Callable[[LossCall], None]
_lock = threading.Lock()
_hearers: dict[int, _Hear] = {}  # by the threads that train
_replaced: list[tuple[Any, str, Any]] = []  # what is replaced while there are any


@contextlib.contextmanager
def hearing_losses(hear: _Hear) -> Iterator[None]:
    """Hear the losses that this thread computes in the context; not those inside of others."""
    thread = threading.get_ident()
    with _lock:
        if not _hearers:
            _replace()
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
                for place, name, plain in _replaced:
                    setattr(place, name, plain)


def _replace() -> None:
    """Replace the losses of Keras by those that are heard."""
    losses = keras.losses
    _replaced[:] = [(losses.Loss, "__call__", losses.Loss.__call__)]
    for name, function in vars(losses).items():
        if inspect.isfunction(function) and "y_true" in inspect.signature(function).parameters:
            _replaced.append((losses, name, function))
    for place, name, plain in _replaced:
        setattr(place, name, _hear_call(plain, is_method=place is losses.Loss))


def _hear_call(plain: Callable[..., Any], is_method: bool) -> Callable[..., Any]:
    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        hear = _hearers.get(threading.get_ident())
        if hear is None:
            return plain(*args, **kwargs)
        with hearing_losses(lambda call: None):
            value = plain(*args, **kwargs)
        given = inspect.signature(plain).bind(*args, **kwargs).arguments
        weight = given.pop("sample_weight", None)
        y_true, y_pred = given.pop("y_true"), given.pop("y_pred")
        loss = args[0] if is_method else functools.partial(plain, **given)
        hear(LossCall(loss, y_true, y_pred, weight, value))
        return value

    return call
