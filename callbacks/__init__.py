"""Callbacks for `model.fit`."""

if __name__ != "keras_initkit.callbacks":
    raise ImportError(
        "The callbacks must be imported as `keras_initkit.callbacks`. Received: an import of "
        f"`{__name__}`, which would be a second copy of them. Write "
        "`from keras_initkit.callbacks import GradientMonitor`."
    )

from keras_initkit.callbacks import trackers
from keras_initkit.callbacks.activation_history import ActivationHistory
from keras_initkit.callbacks.activation_probe import ActivationProbe
from keras_initkit.callbacks.announcer import FindingError, GradientWarning
from keras_initkit.callbacks.gradient_monitor import GradientMonitor
from keras_initkit.callbacks.reporter import Record

__all__ = [
    "ActivationHistory",
    "ActivationProbe",
    "FindingError",
    "GradientMonitor",
    "GradientWarning",
    "Record",
    "trackers",
]
