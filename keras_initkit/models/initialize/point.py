"""The point at which signal and gradient pass an activation: variances of weights and biases."""

import functools
import math
from typing import NamedTuple

from keras_initkit.anatomy.following import Following
from keras_initkit.models.audit.parts import variance_before
from keras_initkit.theory.critical import critical
from keras_initkit.theory.gains import Activation, gaussian_moments

_LEAST_VARIANCE = 1e-5
# Over all layers in a row: how much of a signal activations may turn into what is not linear in
# it, and the logarithm of the factor on deviations of the variance. That of single inputs from
# their mean is large already: a variance twice as large as the mean grows without bounds at 1.
_MOST_NONLINEAR, _MOST_GROWTH = 1.0, 0.2
# From so many layers in a row on, chance in rectifiers' slopes adds up to a large one.
_MIRRORED_DEPTH = 30


class Point(NamedTuple):
    """Variances in front of an activation.

    Attributes:
        weight_variance: Of a weight times its fan_in.
        bias_variance: Of a bias.
        variance: Of the pre-activations.
        is_centred: Whether biases also take away the mean of the inputs.
        variance_depth: As in `Critical`.
        mirrored: Variance of a weight times its fan_in, of kernels with mirrored inputs, taken as
            differences of pairs; `None` where such kernels do not suit.
    """

    weight_variance: float
    bias_variance: float = 0.0
    variance: float = 1.0
    is_centred: bool = False
    variance_depth: float = math.inf
    mirrored: float | None = None


def find_point(following: Following, depth: int) -> Point:
    """Return the critical point in front of what follows a kernel.

    Without an activation, or in front of a gate or at the end, signals keep their variance; in
    front of a normalization any will do.

    Args:
        following: The way of the kernel's output.
        depth: The number of layers in a row with neither normalization nor skip connection.
    """
    function = following.function
    if function is None or following.is_last or following.is_gate:
        return Point(1.0)
    if following.normalization is not None:
        return Point(variance_before(function))
    try:
        return _find_critical(function, depth)
    except (ValueError, TypeError):  # softmax and the like, which have no moments of their own
        return Point(1.0)


@functools.lru_cache(maxsize=64)
def _find_critical(function: Activation, depth: int) -> Point:
    """Return the critical point of the largest variance, up to 1, that suits the depth.

    It is 1 if a smaller one does not help, as in front of ReLU.
    """
    if _suits(function, 1.0, depth):
        return _point_at(function, 1.0)
    if not _suits(function, _LEAST_VARIANCE, depth):
        return _point_at(function, 1.0)._replace(mirrored=_find_mirrored(function, depth))
    low, high = math.log(_LEAST_VARIANCE), 0.0
    while high - low > 0.02:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _suits(function, math.exp(middle), depth) else (low, middle)
    return _point_at(function, math.exp(low))


def _find_mirrored(function: Activation, depth: int) -> float | None:
    """Return the variance of mirrored weights, if differences of pairs are linear enough."""
    moments = gaussian_moments(lambda x: function(x) - function(-x), 1.0)  # type: ignore[operator]
    share = 1.0 - moments.second_moment / max(moments.derivative_second_moment, 1e-300)
    suits = depth >= _MIRRORED_DEPTH and depth * share <= _MOST_NONLINEAR
    return 1.0 / moments.second_moment if suits else None


def _suits(function: Activation, variance: float, depth: int) -> bool:
    """Check if a signal of some variance lasts over a depth, linear enough and not repelled."""
    moments = gaussian_moments(function, variance)
    spread = moments.second_moment - moments.mean**2
    # 0 for linear functions alone, by Poincaré's inequality.
    share = 1.0 - spread / (variance * moments.derivative_second_moment)
    grown = 1.0 / _point_at(function, variance).variance_depth
    return depth * share <= _MOST_NONLINEAR and -depth * grown <= _MOST_GROWTH


def _point_at(function: Activation, variance: float) -> Point:
    """Return the critical point at a variance; with centred inputs where biases alone cannot be."""
    moments = gaussian_moments(function, variance)
    is_centred = moments.second_moment > variance * moments.derivative_second_moment * (1 + 1e-9)
    shift = moments.mean if is_centred else 0.0
    point = critical(lambda x: function(x) - shift, variance=variance)  # type: ignore[operator]
    return Point(
        point.weight_variance, point.bias_variance, variance, is_centred, point.variance_depth
    )
