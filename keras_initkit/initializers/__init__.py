"""Initializers whose scale follows from the activation, and others: one family a file."""

from keras_initkit.initializers.biases import ChronoBias, PriorBias
from keras_initkit.initializers.dirac import Dirac
from keras_initkit.initializers.he import HeNormal, HeUniform
from keras_initkit.initializers.kaiming import KaimingNormal, KaimingUniform
from keras_initkit.initializers.lecun import LecunNormal, LecunUniform
from keras_initkit.initializers.siren import Siren
from keras_initkit.initializers.variance_scaling import VarianceScaling
from keras_initkit.initializers.xavier import XavierNormal, XavierUniform

__all__ = [
    "ChronoBias",
    "Dirac",
    "HeNormal",
    "HeUniform",
    "KaimingNormal",
    "KaimingUniform",
    "LecunNormal",
    "LecunUniform",
    "PriorBias",
    "Siren",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
]
