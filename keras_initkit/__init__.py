"""Start Keras networks right, and see what their gradients do.

Importing this package registers everything in it that Keras can save, so that a model which
holds it can be loaded.
"""

from keras_initkit import callbacks, initializers, layers, theory
from keras_initkit.connectivity.layer_fans import fans, register_fans
from keras_initkit.mending.autofix import autofix
from keras_initkit.models.audit.audit import audit
from keras_initkit.models.check.check import check
from keras_initkit.models.initialize.initialize import initialize
from keras_initkit.models.normalize.with_normalization import with_normalization
from keras_initkit.models.propagate.propagate import propagate
from keras_initkit.models.reinitialize.layer_aware import layer_aware
from keras_initkit.models.reinitialize.reinitialize import reinitialize
from keras_initkit.statistics.moments import Moments
from tensorboard_plugin_initkit.diagnosing import diagnose
from tensorboard_plugin_initkit.diagnosis.diagnosis import Diagnosis
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.plotting import plot
from tensorboard_plugin_initkit.record.history import GradientHistory

__all__ = [
    "Diagnosis",
    "Finding",
    "Fix",
    "GradientHistory",
    "Moments",
    "audit",
    "autofix",
    "callbacks",
    "check",
    "diagnose",
    "fans",
    "initialize",
    "initializers",
    "layer_aware",
    "layers",
    "plot",
    "propagate",
    "read_log",
    "register_fans",
    "reinitialize",
    "theory",
    "with_normalization",
]

__version__ = "0.1.0"


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])
