"""Layers, as in `keras.layers`."""

from keras_initkit.layers.normalization import Normalization

__all__ = ["Normalization"]
