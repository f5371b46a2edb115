"""Capturing gradients where they are applied, inside the training step itself.

`record_next_step` runs one step through an instrumented copy of `model.train_function`; while
it is traced or run, a `Capture` listens to the optimizer and keeps what it hears on the device.
This package is the only place that touches internals of Keras.
"""

from keras_initkit.callbacks.capture.recorded_step import Capture, record_next_step

__all__ = ["Capture", "open_capture", "record_next_step"]


def open_capture(model, variables, capacity: int) -> Capture:  # type: ignore[no-untyped-def]
    """Make the capture for a model on the current backend.

    Args:
        model: A compiled `keras.Model`.
        variables: The trainable variables to record, in the order of the record's columns.
        capacity: Number of steps that can be recorded between two reads.
    """
    from keras_initkit.callbacks.capture.tensorflow import TensorFlowCapture

    return TensorFlowCapture(model, variables, capacity)
