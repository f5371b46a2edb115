"""The guard between a callback and the training: a failure in the callback stays there."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_initkit.anatomy.selectors import SelectionError
from keras_initkit.user_warnings import warn_user


class GradientWarning(UserWarning):
    """A fault in the gradients of a training, found by a `GradientMonitor`."""


class GuardedCallback(keras.callbacks.Callback):
    """A callback that never breaks a training: its first failure is a warning, and its end.

    Every training begins anew with `_stopped = False`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stopped = False

    def _check(self) -> None:
        """Raise an exception kept back during the training step."""

    def _close(self) -> None:
        """Save the record up to now, after a failure."""


def never_breaks_training(hook: Callable[..., None]) -> Callable[..., None]:
    """Guard a method of a `GuardedCallback`: it does nothing once one has failed."""

    @functools.wraps(hook)
    def guarded(self: GuardedCallback, *args: Any, **kwargs: Any) -> None:
        if self._stopped:
            return
        try:
            hook(self, *args, **kwargs)
            self._check()
        except (GradientWarning, SelectionError):
            raise  # the user has made these warnings errors, or has a selector to mend first
        except Exception as error:
            self._stopped = True
            with contextlib.suppress(Exception):
                self._close()
            name = type(self).__name__
            warn_user(f"{name} stops recording, training goes on. Reason: {error!r}.")

    return guarded
