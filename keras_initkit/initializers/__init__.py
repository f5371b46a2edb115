"""Initializers: Keras's, with a gain for any activation, and others. One family a file."""

from keras_initkit.initializers.biases import ChronoBias, ForgetGateBias, PriorBias
from keras_initkit.initializers.delta_orthogonal import DeltaOrthogonal
from keras_initkit.initializers.hadamard import ZerO
from keras_initkit.initializers.he import HeNormal, HeUniform
from keras_initkit.initializers.identity import Dirac, Identity
from keras_initkit.initializers.kaiming import KaimingNormal, KaimingUniform
from keras_initkit.initializers.lecun import LecunNormal, LecunUniform
from keras_initkit.initializers.orthogonal import Orthogonal
from keras_initkit.initializers.siren import Siren
from keras_initkit.initializers.sparse import Sparse
from keras_initkit.initializers.spectral import Spectral
from keras_initkit.initializers.variance_scaling import VarianceScaling
from keras_initkit.initializers.xavier import (
    GlorotNormal,
    GlorotUniform,
    XavierNormal,
    XavierUniform,
)

__all__ = [
    "ChronoBias",
    "DeltaOrthogonal",
    "Dirac",
    "ForgetGateBias",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "KaimingNormal",
    "KaimingUniform",
    "LecunNormal",
    "LecunUniform",
    "Orthogonal",
    "PriorBias",
    "Siren",
    "Sparse",
    "Spectral",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
    "ZerO",
]
