"""Mean-field theory of signals in deep random networks.

A wide fully connected network draws its weights with variance `weight_variance / fan_in`
and its biases with variance `bias_variance`. Its pre-activations are then Gaussian, and
their variance q, layer by layer, follows from two Gaussian moments of the activation f:

    q_{l+1} = weight_variance · E f(√q_l z)² + bias_variance
    chi_l   = weight_variance · E f'(√q_l z)²

where z ~ N(0, 1). On the way back, the squared norm of the gradient with respect to the
pre-activations is multiplied by chi_l at layer l, if all layers have the same width.

Reference:
    Poole et al., 2016, Exponential expressivity in deep neural networks through transient
    chaos, equations 3 and 5. Schoenholz et al., 2017, Deep Information Propagation,
    sections 2 and 4.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_initkit.checks import check_count, check_number
from keras_initkit.theory.gains import Activation, gaussian_moments

Array = npt.NDArray[np.float64]


class Propagation(NamedTuple):
    """The variances of signals and the factors of gradients in a deep random network.

    Attributes:
        q: Array of shape `(depth,)`, the variance of the pre-activations of each layer.
        chi: Array of shape `(depth,)`, the factor by which each layer multiplies the
            squared norm of the gradient on its way back.
    """

    q: Array
    chi: Array

    @property
    def gradient_norm_ratio(self) -> float:
        """Norm of the gradient at the first layer, relative to the last one.

        Both gradients are with respect to pre-activations: sqrt(Π chi_l), l < depth.
        """
        with np.errstate(divide="ignore", over="ignore"):
            return float(np.exp(0.5 * np.log(self.chi[:-1]).sum()))


def propagate(
    activation: Activation,
    depth: int,
    weight_variance: float,
    bias_variance: float = 0.0,
    input_second_moment: float = 1.0,
) -> Propagation:
    """Predict the variances and the backward factors of a deep, wide random network.

    Examples:
    >>> prediction = propagate("relu", depth=50, weight_variance=2.0)
    >>> print(f"{prediction.q[-1]:.6f} {prediction.gradient_norm_ratio:.6f}")
    2.000000 1.000000
    >>> vanishing = propagate("relu", depth=50, weight_variance=1.0)
    >>> print(f"{vanishing.gradient_norm_ratio:.2g}")
    4.2e-08

    Args:
        activation: The name of an activation in `keras.activations` or a callable, as in
            `gaussian_moments`.
        depth: Positive integer, the number of layers with weights.
        weight_variance: Positive number, the variance of a weight times its fan_in: the
            square of an initializer's gain.
        bias_variance: Non-negative number, the variance of a bias.
        input_second_moment: Non-negative number, the mean square of the network's inputs.

    Raises:
        ValueError: If an argument is out of its range, or the variance becomes infinite
            at some layer; and as `gaussian_moments`.
    """
    check_count("depth", depth)
    check_number("weight_variance", weight_variance, above=0)
    check_number("bias_variance", bias_variance, least=0)
    check_number("input_second_moment", input_second_moment, least=0)

    second_moment = float(input_second_moment)
    q, chi = np.empty(depth), np.empty(depth)
    for layer in range(depth):
        q[layer] = weight_variance * second_moment + bias_variance
        if not math.isfinite(q[layer]):
            raise ValueError(
                "`weight_variance` must keep the variance of the pre-activations finite: it "
                f"overflows at layer {layer + 1} of {depth}. Received: "
                f"weight_variance={weight_variance!r}. Use a smaller depth to see it grow."
            )
        moments = gaussian_moments(activation, q[layer])
        chi[layer] = weight_variance * moments.derivative_second_moment
        second_moment = moments.second_moment
    return Propagation(q, chi)
