"""Theory of random networks: gains of activations, signals over depth, the edge of chaos."""

from keras_initkit.theory import gains, propagation
from keras_initkit.theory.critical import Critical, critical
from keras_initkit.theory.gains import backward_gain, forward_gain, gain, gaussian_moments
from keras_initkit.theory.propagation import propagate

__all__ = [
    "Critical",
    "backward_gain",
    "critical",
    "forward_gain",
    "gain",
    "gains",
    "gaussian_moments",
    "propagate",
    "propagation",
]
