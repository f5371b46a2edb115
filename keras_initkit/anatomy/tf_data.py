"""Traced functions: values of variables in them, and are they part of a `tf.data` pipeline?

TensorFlow internals: the names of the functions of a pipeline, which begin with the transformation,
"Dataset_map_<name>". Nothing public tells such a function from one of `tf.function`.
"""

import contextlib
import sys
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
