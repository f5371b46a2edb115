"""Who calls a layer: a function that is traced, a `tf.data` pipeline, the writing of a file.

TensorFlow internals: the names of the functions of a pipeline, which begin with the transformation,
"Dataset_map_<name>". Nothing public tells such a function from one of `tf.function`. Keras
internals: the function that writes the weights of a legacy file, `.h5`; no method of a layer is
called only to save it to one.
"""

import contextlib
import sys
from types import FrameType
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def read_value(variable: Any) -> NDArray[Any] | None:
    """Return the value of a variable of Keras, also while a function is traced.

    `None` where it cannot be read: on another machine, and while Keras trains on JAX.
    """
    tf = sys.modules.get("tensorflow")
    eagerly = contextlib.nullcontext() if tf is None else tf.init_scope()
    with contextlib.suppress(Exception), eagerly:
        if variable._value is not None:
            return np.asarray(keras.ops.convert_to_numpy(variable._value))
    return None


def is_in_tf_data() -> bool:
    """Check if TensorFlow is tracing a function for a `tf.data` pipeline.

    Such a function runs on the CPU, and must not capture a variable, which may lie elsewhere.
    """
    tf = sys.modules.get("tensorflow")
    if tf is None or tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        if getattr(graph, "name", "").startswith("Dataset_"):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def is_saved_to_legacy_file() -> bool:
    """Check for a call from inside Keras's writing of a legacy file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "save_weights_to_hdf5_group":
        frame = frame.f_back
    return frame is not None
