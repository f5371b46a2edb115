"""What concerns whole models: their weights are drawn anew."""

from keras_initkit.models.construction import defaults, layer_aware
from keras_initkit.models.reinitialization import reinitialize

__all__ = ["defaults", "layer_aware", "reinitialize"]
