"""Initializers whose scale follows from the activation, and others: one family a file."""

from keras_initkit.initializers.biases import ChronoBias, ForgetGateBias, PriorBias
from keras_initkit.initializers.blockwise import Blockwise, PerGate, PerHead
from keras_initkit.initializers.convolution_aware import ConvolutionAware
from keras_initkit.initializers.delta_orthogonal import DeltaOrthogonal
from keras_initkit.initializers.hadamard import ZerO
from keras_initkit.initializers.he import HeNormal, HeUniform
from keras_initkit.initializers.icnr import ICNR
from keras_initkit.initializers.identity import Dirac, Identity
from keras_initkit.initializers.kaiming import KaimingNormal, KaimingUniform
from keras_initkit.initializers.lecun import LecunNormal, LecunUniform
from keras_initkit.initializers.orthogonal import Orthogonal, ScaledOrthogonal
from keras_initkit.initializers.siren import Siren
from keras_initkit.initializers.sparse import Sparse
from keras_initkit.initializers.spectral import Spectral
from keras_initkit.initializers.variance_scaling import VarianceScaling
from keras_initkit.initializers.xavier import XavierNormal, XavierUniform

__all__ = [
    "ICNR",
    "Blockwise",
    "ChronoBias",
    "ConvolutionAware",
    "DeltaOrthogonal",
    "Dirac",
    "ForgetGateBias",
    "HeNormal",
    "HeUniform",
    "Identity",
    "KaimingNormal",
    "KaimingUniform",
    "LecunNormal",
    "LecunUniform",
    "Orthogonal",
    "PerGate",
    "PerHead",
    "PriorBias",
    "ScaledOrthogonal",
    "Siren",
    "Sparse",
    "Spectral",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
    "ZerO",
]
