"""Input normalisation: statistics from data of any source, and the layer that uses them."""

from keras_initkit.normalization.layer import Normalization

__all__ = ["Normalization"]
