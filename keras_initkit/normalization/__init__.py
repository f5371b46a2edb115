"""Input normalisation: statistics from data of any source, and the layers that use them."""

from keras_initkit.normalization.layer import Normalization
from keras_initkit.normalization.models import normalize_inputs, with_normalization

__all__ = [
    "Normalization",
    "normalize_inputs",
    "with_normalization",
]
