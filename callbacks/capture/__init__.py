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
from keras_initkit.callbacks.capture.spikes import Spikes
from keras_initkit.callbacks.capture.watch import Watch
from keras_initkit.callbacks.measures.gradients import OF_SPIKES

__all__ = ["BACKENDS", "Call", "Capture", "Watch", "open_capture", "record_next_step"]

BACKENDS = {"tensorflow": "TensorFlowStorage", "jax": "JaxStorage", "torch": "TorchStorage"}


def open_capture(model: Any, watch: Watch, spikes: bool = False) -> Capture:
    """Make the capture for a compiled model on the current backend.

    With `spikes`, also spikes are kept of steps that are not due: of these, norms are measured.
    """
    if not spikes:
        return _open(model, watch)
    capture = _open(model, watch._replace(is_due=lambda step: True))
    light = Watch(watch.select, OF_SPIKES, per=watch.per, hears_batch=False)
    capture.spikes = Spikes(_open(model, light), watch.is_due)
    return capture


def _open(model: Any, watch: Watch) -> Capture:
    target = Target.of_model(model)
    name = keras.backend.backend()
    backend = importlib.import_module(f"{__name__}.{name}")  # it imports its framework
    storage = getattr(backend, BACKENDS[name])(target)
    if not watch.hears_batch:
        storage.hears_batches = storage.has_loss = False
    return Capture(target, watch, storage)
