"""Start Keras networks right, and see what their gradients do.

Importing this package registers everything in it that Keras can save, so that a model which
holds it can be loaded.
"""

from keras_initkit import callbacks, initializers
from keras_initkit.layer_fans import fans, register_fans
from keras_initkit.models import Audit, WeightAudit, audit, defaults, layer_aware, reinitialize
from keras_initkit.moments import Moments
from keras_initkit.normalization import (
    Normalization,
    normalize_inputs,
    with_normalization,
)
from tensorboard_plugin_initkit.record.findings import Finding
from tensorboard_plugin_initkit.record.history import History, read_log

__all__ = [
    "Audit",
    "Finding",
    "History",
    "Moments",
    "Normalization",
    "WeightAudit",
    "audit",
    "callbacks",
    "defaults",
    "fans",
    "initializers",
    "layer_aware",
    "normalize_inputs",
    "read_log",
    "register_fans",
    "reinitialize",
    "with_normalization",
]

__version__ = "0.1.0"
