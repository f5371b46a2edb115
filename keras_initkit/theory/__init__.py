"""Theory of random networks: gains of activations, and signals and gradients over depth."""

from keras_initkit.theory import gains, propagation
from keras_initkit.theory.gains import backward_gain, forward_gain, gain, gaussian_moments
from keras_initkit.theory.propagation import critical_weight_variance, propagate

__all__ = [
    "backward_gain",
    "critical_weight_variance",
    "forward_gain",
    "gain",
    "gains",
    "gaussian_moments",
    "propagate",
    "propagation",
]
