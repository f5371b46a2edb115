"""The guard between a callback and the training: a failure in the callback stays there."""

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any

import keras

from keras_initkit.anatomy.selectors import SelectionError
from keras_initkit.callbacks.announcer import FindingError, GradientWarning, UserError
from keras_initkit.callbacks.fit_call import FitCall
from keras_initkit.user_warnings import tell_user
from tensorboard_plugin_initkit.record.lock import Lock


class GuardedCallback(keras.callbacks.Callback):
    """A callback that never breaks a training: its first failure is a warning, and its end.

    It takes part in one call of `fit` at a time, and in a list of callbacks once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        self._fit: FitCall | None = None  # the call that it takes part in
        self._offered: dict[int, Any] = {}  # the model of each thread that may call `fit`
        self._last_event: tuple[Any, ...] = ()
        self._busy = 0  # the thread of a method that is not finished

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy or pickle, which takes part in no training."""
        return self.__dict__ | {"_fit": None, "_model": None, "_offered": {}, "_busy": 0}

    def set_model(self, model: Any) -> None:
        """Take a model, for when it is trained (called by Keras)."""
        if any(base.__module__.partition(".")[0] == "tf_keras" for base in type(model).__mro__):
            raise TypeError(
                f"{type(self).__name__} must be given to a model of Keras 3. Received: a model of "
                "tf_keras. Build it with `import keras`, without TF_USE_LEGACY_KERAS."
            )
        self._offered[threading.get_ident()] = model
        if self._fit is None:
            super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Prepare to record (called by Keras)."""
        self._attempt(self._enter)

    def _enter(self) -> None:
        if self._fit is not None:
            if self._fit.is_around():
                return  # the callback is in the list twice
            if self._fit.is_running():
                tell_user(
                    f"A {type(self).__name__} records one training at a time: this one is not "
                    "recorded, as another is still running. Give each training its own callback."
                )
                return
            self._end()
        super().set_model(self._offered.pop(threading.get_ident(), self._model))
        self._last_event = ()
        self._fit = FitCall(self)
        self._fit.begin()
        self._begin()

    def _hear(self, hook: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        event = (hook.__name__, *args[:1])
        if self._fit is not None and self._fit.is_around() and event != self._last_event:
            self._last_event = event
            hook(self, *args, **kwargs)

    def _leave(self) -> None:
        if self._fit is not None:
            self._fit.close()
            self._fit = None

    def look_after(self) -> None:
        """Do what is due in a training that has called no hook for long."""
        if self._fit is not None:
            self._attempt(self._catch_up)

    def end_training(self, call: FitCall) -> None:
        """End a training that ended without `on_train_end`; another thread may do so as well."""
        with self._lock:
            if self._fit is call:
                self._attempt(self._end)

    def is_busy(self) -> bool:
        """Check for a method of the callback that this thread has not finished."""
        return self._busy == threading.get_ident()

    def _attempt(self, action: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Call a function; its failure is a warning, and the end of this training's record."""
        with self._lock:
            former, self._busy = self._busy, threading.get_ident()
            try:
                action(*args, **kwargs)
                self._check()
            except (GradientWarning, FindingError, SelectionError):
                raise  # the user has made these warnings errors, or has a selector to mend first
            except UserError as error:
                raise error.error from None
            except Exception as error:
                for finish in (self._close, self._leave):
                    with contextlib.suppress(Exception):
                        finish()
                name = type(self).__name__
                tell_user(f"{name} stops recording; training goes on. Reason: {error!r}.")
            finally:
                self._busy = former

    def _begin(self) -> None:
        """Begin to record a training."""

    def _catch_up(self) -> None:
        """Write what has waited for long."""

    def _end(self) -> None:
        """End the record of a training."""
        self._leave()

    def _check(self) -> None:
        """Raise an exception kept back during the training step."""

    def _close(self) -> None:
        """Save the record up to now, after a failure."""


def never_breaks_training(hook: Callable[..., None]) -> Callable[..., None]:
    """Guard a hook of a `GuardedCallback`; it is called once an event, of its own training."""

    @functools.wraps(hook)
    def guarded(self: GuardedCallback, *args: Any, **kwargs: Any) -> None:
        if self._fit is not None:
            self._attempt(self._hear, hook, *args, **kwargs)

    return guarded
