"""Warnings at the user's own line."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

# Frames of these packages, and of Python's own library, are not the user's.
_INSIDE = sys.stdlib_module_names.union(
    ("keras_initkit", "tensorboard_plugin_initkit", "keras"),
    ("tensorflow", "jax", "jaxlib", "torch", "optree"),
)


class Place(NamedTuple):
    """A line of code, as `warnings.warn_explicit` takes it."""

    filename: str
    lineno: int
    module: str
    registry: dict[Any, Any]


_place: ContextVar[Place | None] = ContextVar("place", default=None)


def find_user() -> Place:
    """Return the innermost line of the stack that is the user's, as a call of `fit`.

    Skipped are the frames of this package, of Keras and its backends, and of Python's library.
    Where none is left, as in a thread that runs `fit` itself, the outermost frame is named.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _INSIDE:
            break
        frame = frame.f_back
    return Place(
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__", "<string>"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


@contextlib.contextmanager
def warning_at(place: Place | None) -> Iterator[None]:
    """Have the warnings inside the context be at a line found before."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the user's line: see `find_user`."""
    warnings.warn_explicit(message, category, *(_place.get() or find_user()))


def tell_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the user's line; where warnings are errors, log the message instead."""
    try:
        warn_user(message, category)
    except Warning:
        logging.getLogger("keras_initkit").warning(message)
