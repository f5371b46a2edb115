"""Capturing gradients where they are applied, inside the training step itself.

`record_next_step` runs one step through an instrumented copy of `model.train_function`; while
it is traced or run, a `Capture` listens to the optimizers and keeps what it hears on the device.
This package is the only place that touches Keras's internals of training.
"""

import importlib
from typing import Any

import keras

from keras_initkit.callbacks.capture.capture import Capture
from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.recorded_step import Call, record_next_step
from keras_initkit.callbacks.capture.watch import Watch

__all__ = ["BACKENDS", "Call", "Capture", "Watch", "open_capture", "record_next_step"]

BACKENDS = {"tensorflow": "TensorFlowStorage", "jax": "JaxStorage", "torch": "TorchStorage"}


def open_capture(model: Any, watch: Watch) -> Capture:
    """Make the capture for a compiled model on the current backend."""
    target = Target.of_model(model)
    name = keras.backend.backend()
    backend = importlib.import_module(f"{__name__}.{name}")  # it imports its framework
    return Capture(target, watch, getattr(backend, BACKENDS[name])(target))
