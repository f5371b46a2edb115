"""The edge of chaos: weights and biases at which signals and gradients pass any depth.

Notation is that of `keras_initkit.theory.propagation`, with a skip connection of factor a, and
dropout that keeps each output of the activation with probability k and divides it by k:

    z_{l+1} = a z_l + W (mask/k · f(z_l)) + b

Variances of z settle at a fixed point q of the variance map V, and the correlation of two inputs
at a fixed point of the correlation map C:

    V(q) = a² q + weight_variance/k · E f(√q z)² + bias_variance
    C(c) = a² c + (weight_variance · E f(√q u) f(√q v) + bias_variance)/q,   E u v = c
    chi  = a² + weight_variance/k · E f'(√q z)²

Small deviations shrink by e over as many layers as the depth scales say.

Reference:
    Schoenholz et al., 2017, Deep Information Propagation, sections 3 to 5; Yang & Schoenholz,
    2017, Mean Field Residual Networks, for skip connections.
"""

import math
from typing import NamedTuple

from keras_initkit.checks import check_number
from keras_initkit.theory.gains import Activation, gaussian_moments, resolve
from keras_initkit.theory.maps import activation_map


class Critical(NamedTuple):
    """Weights and biases at which gradients keep their norm, and the depth that signals reach.

    Attributes:
        weight_variance: σ_w², the variance of a weight times its fan_in.
        bias_variance: σ_b², the variance of a bias.
        variance: q, the variance of pre-activations, at its fixed point.
        chi: χ₁, the factor of a layer on the squared norm of gradients: 1, up to rounding.
        variance_depth: ξ_q = -1/log V'(q), in layers. It is negative if the fixed point repels the
            variance: deviations grow by a factor of e over so many layers. Infinite if they stay.
        correlation: The correlation at which any two inputs end: 1 without dropout.
        correlation_depth: ξ_c = -1/log C'(correlation), in layers: how far two inputs can be told
            apart. Infinite without dropout.
    """

    weight_variance: float
    bias_variance: float
    variance: float
    chi: float
    variance_depth: float
    correlation: float
    correlation_depth: float

    @property
    def weight_stddev(self) -> float:
        """σ_w, the gain for an initializer."""
        return math.sqrt(self.weight_variance)

    @property
    def bias_stddev(self) -> float:
        """σ_b."""
        return math.sqrt(self.bias_variance)


def critical(
    activation: Activation,
    *,
    bias_variance: float | None = None,
    variance: float | None = None,
    residual: float = 0.0,
    dropout: float = 0.0,
) -> Critical:
    """Return the weights and biases at which gradients neither vanish nor explode.

    They solve chi = 1 at a fixed point of the variance, for a given variance of the biases or of
    the pre-activations. The fixed point attracts the variance for tanh and its like; for gelu,
    silu and others that curve upwards it repels it (`variance_depth` is negative): there the
    scale of each layer must be measured, as `keras_initkit.initialize` does.

    Examples:
    >>> print(f"{critical('relu').weight_variance:.6f}")
    2.000000
    >>> point = critical("tanh", bias_variance=0.05)
    >>> print(f"{point.weight_variance:.6f} {point.variance:.4f} {point.variance_depth:.2f}")
    1.760955 0.5700 1.52
    >>> point = critical("gelu", variance=1.0)
    >>> print(f"{point.weight_variance:.4f} {point.bias_variance:.4f}")
    2.1937 0.0672

    Args:
        activation: The name of an activation in `keras.activations` or a callable, as in
            `gaussian_moments`.
        bias_variance: Non-negative number, the variance of a bias; 0 if neither is given.
        variance: Positive number, the variance of the pre-activations, instead.
        residual: Number from 0 to below 1, the factor a of a skip connection past each layer. With
            1 gradients grow, however small the weights.
        dropout: Number from 0 to below 1, the share of the activation's outputs set to 0.

    Raises:
        ValueError: If an argument is out of its range, or both variances are given; if no weight
            variance is critical: for a constant, for ReLU and its like with biases, and for a
            `variance` below that without biases; and as `gaussian_moments`.
    """
    if variance is not None and bias_variance is not None:
        raise ValueError(
            "`variance` must be None beside `bias_variance`: one follows from the other. Received: "
            f"variance={variance!r}, bias_variance={bias_variance!r}"
        )
    check_number("residual", residual, least=0, below=1)
    check_number("dropout", dropout, least=0, below=1)
    # Of the variance, what weights and biases make: the rest passes the skip connection.
    share = 1.0 - residual**2
    if variance is None:
        bias_variance = 0.0 if bias_variance is None else bias_variance
        check_number("bias_variance", bias_variance, least=0)
        variance = _find_variance(activation, bias_variance / share)
    else:
        check_number("variance", variance, above=0)
        bias_variance = share * _excess(activation, variance)
        if bias_variance < -1e-9 * variance:
            raise ValueError(
                f"`variance` must be at least that without biases, for activation={activation!r} "
                f"{variance - bias_variance / share:.6g}. Received: variance={variance!r}."
                " Choose another, or a centred activation."
            )
        bias_variance = max(0.0, bias_variance)
    slope = gaussian_moments(activation, variance).derivative_second_moment
    weight_variance = share * (1.0 - dropout) / slope
    kept = weight_variance / (1.0 - dropout)
    correlation, correlation_slope = _find_correlation(
        activation, variance, weight_variance, bias_variance, residual
    )
    return Critical(
        weight_variance,
        bias_variance,
        variance,
        residual**2 + kept * slope,
        _depth(residual**2 + kept * _variance_slope(activation, variance)),
        correlation,
        _depth(correlation_slope),
    )


def _find_variance(activation: Activation, bias_variance: float) -> float:
    """Return the fixed point of the variance under critical weights, without skip connections."""
    below, above = 0.0, 1.0
    if _excess(activation, below) >= bias_variance:
        # Of functions such as relu, each variance is a fixed point.
        return 1.0 if abs(_excess(activation, 1.0)) <= 1e-9 else below
    # The margin keeps rounding from passing for a solution where the excess is zero.
    while _excess(activation, above) - bias_variance <= 1e-9 * above:
        below, above = above, 2.0 * above
        if above > 1e6:
            raise ValueError(
                "`bias_variance` must leave a fixed point at which gradients keep their "
                f"norm; activation={activation!r} has none. Received: "
                f"bias_variance={bias_variance!r}. For activations such as relu, only "
                "bias_variance=0 has one."
            )
    while above - below > 1e-12 * above:
        middle = 0.5 * (below + above)
        if not below < middle < above:
            break
        if _excess(activation, middle) < bias_variance:
            below = middle
        else:
            above = middle
    return above


def _excess(activation: Activation, q: float) -> float:
    """Return q less the variance after critical weights, without biases."""
    moments = gaussian_moments(activation, q)
    if moments.derivative_second_moment == 0.0:
        raise ValueError(
            "`activation` must have a slope: a piecewise constant function passes no "
            f"gradient back, whatever the weights. Received: activation={activation!r}"
        )
    return q - moments.second_moment / moments.derivative_second_moment


def _variance_slope(activation: Activation, q: float) -> float:
    """Return the derivative of E f(√q z)² by q, which is E (f²)''/2."""
    if q < 1e-6:  # f is linear there
        return gaussian_moments(activation, q).derivative_second_moment
    step = 1e-3
    lower, upper = (
        gaussian_moments(activation, q * factor).second_moment for factor in (1 - step, 1 + step)
    )
    return (upper - lower) / (2 * step * q)


def _find_correlation(
    activation: Activation, q: float, weight_variance: float, bias_variance: float, residual: float
) -> tuple[float, float]:
    """Return the largest fixed point of the correlation map, and the map's slope there."""
    if q == 0.0:
        return 1.0, residual**2 + weight_variance * gaussian_moments(activation, 0.0)[2]
    mapped = activation_map(resolve(activation), 0.0, q)
    if residual**2 + (weight_variance * mapped.second_moment + bias_variance) / q >= 1.0 - 1e-6:
        return 1.0, residual**2 + weight_variance * mapped.slope
    low, high = 0.0, 1.0
    while high - low > 1e-13:  # the map is convex: it crosses the diagonal once
        c = 0.5 * (low + high)
        product = float(mapped.product(c))
        after = residual**2 * c + (weight_variance * product + bias_variance) / q
        low, high = (c, high) if after > c else (low, c)
    return low, residual**2 + weight_variance * float(mapped.slope_product(low))


def _depth(slope: float) -> float:
    """Return the number of layers over which a deviation shrinks by e."""
    if slope <= 0.0:
        return 0.0
    return math.inf if abs(slope - 1.0) < 1e-6 else -1.0 / math.log(slope)
