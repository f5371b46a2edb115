"""Initializers whose scale follows from the activation: one family a file."""

from keras_initkit.initializers.he import HeNormal, HeUniform
from keras_initkit.initializers.lecun import LecunNormal, LecunUniform
from keras_initkit.initializers.variance_scaling import VarianceScaling
from keras_initkit.initializers.xavier import XavierNormal, XavierUniform

__all__ = [
    "HeNormal",
    "HeUniform",
    "LecunNormal",
    "LecunUniform",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
]
