"""Start Keras networks right, and see what their gradients do."""

from keras_initkit import callbacks
from tensorboard_plugin_initkit.history import History, read_log

__all__ = ["History", "callbacks", "read_log"]

__version__ = "0.1.0"
