"""Capturing gradients where they are applied, inside the training step itself.

`record_next_step` runs one step through an instrumented copy of `model.train_function`; while
it is traced or run, a `Capture` listens to the optimizers and keeps what it hears on the device.
This package is the only place that touches Keras's internals of training.
"""

import importlib
from typing import Any

import keras

from keras_initkit.callbacks.capture.capture import Capture, Recording
from keras_initkit.callbacks.capture.model_parts import Target, leaf_optimizers
from keras_initkit.callbacks.capture.recorded_step import Call, record_next_step
from keras_initkit.callbacks.capture.watch import Watch

__all__ = [
    "BACKENDS",
    "Call",
    "Capture",
    "Recording",
    "Watch",
    "open_capture",
    "record_next_step",
]

BACKENDS = ("tensorflow", "jax", "torch")


def open_capture(model: Any, watch: Watch) -> Capture:
    """Make the capture for a model on the current backend.

    Args:
        model: A compiled `keras.Model`.
        watch: The request.

    Raises:
        ValueError: If the model's optimizers cannot be known yet.
    """
    target = Target(model, leaf_optimizers(model))
    name = keras.backend.backend()
    # Each imports its backend's framework.
    backend = importlib.import_module(f"{__name__}.{name if name in BACKENDS else BACKENDS[0]}")
    arrays, storage = backend.open_backend(target)
    return Capture(target, watch, arrays, storage)
