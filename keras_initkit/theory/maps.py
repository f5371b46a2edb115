"""Maps of an activation: what it does to Gaussian signals, to pairs of them and to gradients.

With the orthonormal Hermite polynomials H_k, an activation f of u ~ N(m, v) is a series with
the coefficients a_k = E f(m + √v x) H_k(x), x ~ N(0, 1). For a second input w of the same
distribution, of correlation ρ to u, follow

    E f(u) f(w) = Σ a_k² ρ^k        v · E f'(u) f'(w) = Σ k a_k² ρ^(k-1)

The part of E f² beyond the last coefficient is given to the next power of ρ, so that both are
exact at ρ = 1; in between the error is below 1e-4 of E f², for ReLU and its like.

Reference:
    Daniely et al., 2016, Toward Deeper Understanding of Neural Networks, section 4. Cho and
    Saul, 2009, Kernel Methods for Deep Learning: the case of ReLU in closed form.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_initkit.theory.gains import evaluate, panel_rule, sum_hermite

Array = npt.NDArray[np.float64]

_TERMS = 64
# In standard deviations. Panels are an eighth of one wide; kinks of usual activations lie on
# multiples of a half.
_REACH, _PANELS = 10.0, 160
_KINKS = np.arange(-16, 17) / 2.0


class ActivationMap(NamedTuple):
    """Expectations of an activation f over u ~ N(m, v).

    Attributes:
        mean: E f(u).
        second_moment: E f(u)².
        slope: E f'(u)².
        squares: Array of the squares a_k² of the Hermite coefficients.
        variance: v.
    """

    mean: float
    second_moment: float
    slope: float
    squares: Array
    variance: float

    def product(self, correlation: Any) -> Array:
        """Return E f(u) f(w) for correlations of u and w, an array."""
        return _sum_series(self.squares, self.second_moment, np.asarray(correlation, float))

    def slope_product(self, correlation: Any) -> Array:
        """Return E f'(u) f'(w) for correlations of u and w, an array."""
        weights = self.squares[1:] * np.arange(1, len(self.squares)) / self.variance
        return _sum_series(weights, self.slope, np.asarray(correlation, float))


def activation_map(
    activation: Callable[[Any], Any], mean: float = 0.0, variance: float = 1.0
) -> ActivationMap:
    """Return the expectations of an activation over u ~ N(mean, variance).

    Examples:
    >>> relu = activation_map(keras.ops.relu)
    >>> print(f"{relu.second_moment:.6f} {relu.slope:.6f} {float(relu.product(0.0)):.6f}")
    0.500000 0.500000 0.159155

    Args:
        activation: A callable as in `gaussian_moments`.
        mean: Finite number, m.
        variance: Non-negative number, v; 1e-24 at least is used.

    Raises:
        ValueError: If the activation is not elementwise, or not finite.
    """
    return map_of_values(lambda points: evaluate(activation, points), mean, variance)


def map_of_values(
    function: Callable[[Array], Array], mean: float = 0.0, variance: float = 1.0
) -> ActivationMap:
    """Return the same as `activation_map` for a function of NumPy arrays of one axis."""
    stddev = math.sqrt(max(variance, 1e-24))
    edges = mean + stddev * np.linspace(-_REACH, _REACH, _PANELS + 1)
    kinks = _KINKS[(edges[0] < _KINKS) & (edges[-1] > _KINKS)]
    edges = np.unique(np.concatenate([edges, kinks]))
    half_widths = np.diff(edges)[:, np.newaxis] / 2.0
    centres = (edges[1:] + edges[:-1])[:, np.newaxis] / 2.0
    nodes, node_weights, differentiation = panel_rule()
    points = centres + half_widths * nodes
    values = function(points.ravel()).reshape(points.shape)
    slopes = (values - values[:, :1]) @ differentiation.T / half_widths

    scaled = (points - mean) / stddev
    probabilities = np.exp(-0.5 * scaled**2) * (half_widths / stddev) * node_weights
    probabilities = (probabilities / math.sqrt(2.0 * math.pi)).ravel()
    coefficients = sum_hermite(scaled.ravel(), values.ravel() * probabilities, _TERMS)
    return ActivationMap(
        float(coefficients[0]),
        float(probabilities @ values.ravel() ** 2),
        float(probabilities @ slopes.ravel() ** 2),
        coefficients**2,
        stddev**2,
    )


def _sum_series(weights: Array, total: float, correlation: Array) -> Array:
    """Return Σ weights_k ρ^k; what is missing to the total at ρ = 1 is of the next even power."""
    correlation = np.clip(correlation, -1.0, 1.0)
    summed = np.polynomial.polynomial.polyval(correlation, weights)
    return summed + (total - weights.sum()) * correlation ** (2 * (len(weights) // 2 + 1))
