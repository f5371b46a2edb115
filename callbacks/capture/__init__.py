"""Capturing gradients where they are applied, inside the training step itself.

`record_next_step` runs one step through an instrumented copy of `model.train_function`; while
it is traced or run, a `Capture` listens to the optimizer and keeps what it hears on the device.
This package is the only place that touches internals of Keras.
"""

from typing import Any

import keras

from keras_initkit.callbacks.capture.listener import Capture, Recording, Watch
from keras_initkit.callbacks.capture.recorded_step import Call, record_next_step

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
        watch: What to measure.
    """
    # Each imports its backend's framework.
    if keras.backend.backend() == "jax":
        from keras_initkit.callbacks.capture.jax import JaxCapture

        return JaxCapture(model, watch)
    if keras.backend.backend() == "torch":
        from keras_initkit.callbacks.capture.torch import TorchCapture

        return TorchCapture(model, watch)
    from keras_initkit.callbacks.capture.tensorflow import TensorFlowCapture

    return TensorFlowCapture(model, watch)
