"""Gaussian moments of activations, and the gains derived from them.

An expectation over z ~ N(0, variance) is a sum over many small panels, each with its own
Gauss-Legendre nodes. A kink or a jump on the edge of a panel costs nothing, and the edges
lie on every multiple of 1/40 up to |z| = 16: on the kinks of all usual activations. The
derivative is that of the polynomial through the nodes of a panel: it needs no more than the
values, is right for piecewise linear functions, and never looks across an edge.

Activations are called eagerly and with float64, whatever precision policy or tracing
surrounds the call. On JAX and PyTorch many functions of `keras.ops` answer in float32: E f²
is then right to 1e-6, and E f'² to 1e-5, or 1e-3 at a variance below 1e-4.
"""

import contextlib
import functools
import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.checks import check_number, is_number

Array = npt.NDArray[np.float64]
Activation = str | Callable[[Any], Any]
Gain = float | Activation

# Of an activation's input, in its own unit: where kinks may lie, and how finely.
_KINK_LIMIT = 16.0
_KINK_SPACING = 40
# In standard deviations: beyond it lies less than 1e-44 of the probability.
_REACH = 14.0
_NODES_PER_PANEL = 6
# An activation is called with so many points, or a multiple.
_CALLED = 2048
# Below these standard deviations, the values within a panel of an activation with f(0) ≠ 0
# differ too little for a derivative: it is extrapolated from there.
_FLOAT64_STEP = 1e-5
_FLOAT32_STEP = 1e-2
_NOT_ELEMENTWISE = frozenset({"glu", "log_softmax", "softmax", "sparsemax"})
_NOT_ACTIVATIONS = frozenset({"deserialize", "get", "serialize", "threshold"})


class GaussianMoments(NamedTuple):
    """Expectations of an activation f over z ~ N(0, variance).

    Attributes:
        mean: E f(z).
        second_moment: E f(z)².
        derivative_second_moment: E f'(z)²; at kinks and jumps, f' counts on both sides
            and not at the point itself.
    """

    mean: float
    second_moment: float
    derivative_second_moment: float


def gaussian_moments(activation: Activation, variance: float = 1.0) -> GaussianMoments:
    """Return the mean of f, f² and f'² over z ~ N(0, variance).

    Relative to the larger of 1 and the second moment, the error is below 1e-8 for smooth
    functions and for those with kinks or jumps at multiples of 1/40 between -16 and 16; for
    E f'² of an exponential at a variance of 9 it is 1e-6. Elsewhere, at variance 1, a kink
    where the slope changes by 1 costs up to 1e-8 in E f² and 2e-3 in E f'², a jump of 1 up
    to 2e-3.

    Examples:
    >>> moments = gaussian_moments("relu")
    >>> print(f"{moments.mean:.6f} {moments.second_moment:.6f}")
    0.398942 0.500000
    >>> print(f"{gaussian_moments(keras.ops.sin, variance=2.0).second_moment:.6f}")
    0.490842

    Args:
        activation: The name of an activation in `keras.activations`, or a callable that takes
            a tensor and returns one of the same shape, element by element. It may be
            written with `keras.ops`, NumPy or the backend's own functions.
        variance: Non-negative number, the variance of z. At 0, the moments are the limit
            for small variances.

    Raises:
        ValueError: If the name is unknown, `variance` is negative or not finite, or the
            activation is not elementwise, not finite, or grows so fast that the
            expectation does not exist within 14 standard deviations.
    """
    function = resolve(activation)
    check_number("variance", variance, least=0)
    stddev = math.sqrt(variance)
    step = _derivative_step(function) if stddev < _FLOAT32_STEP else 0.0
    if stddev >= step and stddev > 0.0:
        return _integrate(function, stddev)
    slope = _slope_near_zero(function, stddev, step)
    if stddev > 0.0:
        return _integrate(function, stddev)._replace(derivative_second_moment=slope)
    origin = float(evaluate(function, np.zeros(1))[0])
    return GaussianMoments(origin, origin**2, slope)


def forward_gain(activation: Activation, variance: float = 1.0) -> float:
    """Return sqrt(q/E f(z)²), z ~ N(0, q): the gain that keeps pre-activations at variance q.

    With weights of variance gain²/fan_in, pre-activations of variance q lead to
    pre-activations of variance q in the next layer.

    Examples:
    >>> print(f"{forward_gain('tanh'):.6f} {forward_gain('tanh', variance=0.01):.6f}")
    1.592537 1.009871

    Args:
        activation: As in `gaussian_moments`.
        variance: Positive number, q.

    Raises:
        ValueError: As `gaussian_moments`; and if the activation is zero everywhere, or
            `variance` is 0, so that no gain helps.
    """
    second_moment = _moments(activation, variance).second_moment
    if variance == 0.0:
        raise ValueError(
            "`variance` must be above 0 for a gain that keeps it. Received: variance=0"
        )
    if second_moment == 0.0:
        raise ValueError(
            "`activation` must not be zero everywhere: no gain brings its output to "
            f"variance {variance:g}. Received: activation={activation!r}"
        )
    return math.sqrt(variance / second_moment)


def backward_gain(activation: Activation, variance: float = 1.0) -> float:
    """Return 1/sqrt(E f'(z)²), z ~ N(0, q): the gain that keeps the norm of gradients.

    With weights of variance gain²/fan_out, gradients keep their norm on the way back through
    a layer whose pre-activations have variance q. For ReLU and its like it is the
    `forward_gain`; where the two differ, no scale of the weights keeps both.

    Examples:
    >>> print(f"{backward_gain('relu'):.6f} {backward_gain('tanh'):.6f}")
    1.414214 1.467414

    Args:
        activation: As in `gaussian_moments`.
        variance: Non-negative number, q.

    Raises:
        ValueError: As `gaussian_moments`; and if the activation has no slope anywhere.
    """
    slope = _moments(activation, variance).derivative_second_moment
    if slope == 0.0:
        raise ValueError(
            "`activation` must have a slope: no gain brings gradients through a piecewise "
            f"constant function. Received: activation={activation!r}"
        )
    return 1.0 / math.sqrt(slope)


def gain(activation: Gain, negative_slope: float | None = None) -> float:
    """Return the gain for an initializer's `gain` and `negative_slope`.

    A number stands for itself and an activation for its `forward_gain`. With a
    `negative_slope` a, the gain of "relu" and of "leaky_relu" is sqrt(2/(1 + a²)).

    Examples:
    >>> gain(0.5)
    0.5
    >>> print(f"{gain('relu'):.6f} {gain('relu', negative_slope=1.0):.6f}")
    1.414214 1.000000

    Args:
        activation: A positive number, or an activation as in `gaussian_moments`.
        negative_slope: A finite number, or `None` for the activation's own slope: 0 for
            "relu", and 0.2 for "leaky_relu", as in `keras.activations`.

    Raises:
        ValueError: If one of the two is not as described.

    Reference:
        He et al., 2015, Delving Deep into Rectifiers, equation 15.
    """
    if negative_slope is not None:
        return _rectifier_gain(activation, negative_slope)
    if is_number(activation):
        return _check_gain(activation)
    if not isinstance(activation, str) and not callable(activation):
        raise ValueError(
            "`gain` must be a positive number, the name of an activation in "
            f"keras.activations, or a callable. Received: gain={activation!r}"
        )
    try:
        return forward_gain(activation)
    except ValueError as error:
        raise ValueError(
            "`gain` must be a positive number, or an activation whose output has a finite "
            f"second moment above 0. Received: gain={activation!r}. {error}"
        ) from None


def _rectifier_gain(activation: object, negative_slope: float) -> float:
    slope = check_number("negative_slope", negative_slope, "or None")
    if not isinstance(activation, str) or activation not in ("relu", "leaky_relu"):
        raise ValueError(
            '`negative_slope` must be None unless gain="relu" or gain="leaky_relu". '
            f"Received: negative_slope={negative_slope!r}, gain={activation!r}"
        )
    return math.sqrt(2.0 / (1.0 + slope**2))


def _check_gain(number: Any) -> float:
    """Return a gain as a float; raise a ValueError unless it is positive and finite."""
    value = float(number)
    if not 0.0 < value < math.inf:
        raise ValueError(
            f"`gain` must be positive and finite. Received: gain={number!r}. For weights "
            "that are all zero, use keras.initializers.Zeros()."
        )
    return value


def _moments(activation: Activation, variance: float) -> GaussianMoments:
    """Return the moments, from a cache for an activation given by name."""
    if isinstance(activation, str):
        return _named_moments(activation, variance)
    return gaussian_moments(activation, variance)


_named_moments = functools.cache(gaussian_moments)


def resolve(activation: Activation) -> Callable[[Any], Any]:
    """Return an activation as a callable; raise a ValueError for an unknown name."""
    if callable(activation):
        return activation
    names = _activation_names()
    if isinstance(activation, str) and (activation in names or activation in _NOT_ELEMENTWISE):
        return keras.activations.get(activation)
    raise ValueError(
        "`activation` must be a callable or the name of an elementwise activation in "
        f"keras.activations: {', '.join(names)}. Received: activation={activation!r}"
    )


def _activation_names() -> list[str]:
    """List the elementwise activations in this version of Keras."""
    names = {name for name in dir(keras.activations) if not name.startswith("_")}
    return sorted(names - _NOT_ELEMENTWISE - _NOT_ACTIVATIONS)


def sum_hermite(points: Array, weighted: Array, count: int) -> Array:
    """Return the sums of weighted values times the first orthonormal Hermite polynomials."""
    before, polynomial = np.zeros_like(points), np.ones_like(points)
    sums = np.empty(count)
    for n in range(count):
        sums[n] = (weighted * polynomial).sum()
        following = (points * polynomial - math.sqrt(n) * before) / math.sqrt(n + 1)
        before, polynomial = polynomial, following
    return sums


def _integrate(activation: Callable[[Any], Any], stddev: float) -> GaussianMoments:
    edges = _panel_edges(stddev)
    half_widths = np.diff(edges)[:, np.newaxis] / 2.0
    centres = (edges[1:] + edges[:-1])[:, np.newaxis] / 2.0
    nodes, node_weights, differentiation = panel_rule()
    points = centres + half_widths * nodes
    values = evaluate(activation, points.ravel()).reshape(points.shape)
    # Relative to one of them, as the derivative of a constant is 0, without any rounding.
    slopes = (values - values[:, :1]) @ differentiation.T / half_widths

    scaled = points / stddev
    probabilities = np.exp(-0.5 * scaled**2) * (half_widths / stddev) * node_weights
    probabilities /= math.sqrt(2.0 * math.pi)
    # The square of a product, as the square of a value may overflow where its weight
    # is tiny.
    roots = np.sqrt(probabilities)
    squares = (values * roots) ** 2
    second_moment = float(squares.sum())
    if squares[[0, -1]].sum() > 1e-9 * second_moment:
        raise ValueError(
            "`activation` must grow slowly enough for E f(z)² to exist within "
            f"{_REACH:g} standard deviations of z. Received: activation={activation!r}, at "
            f"a standard deviation of {stddev:g}"
        )
    return GaussianMoments(
        float((values * probabilities).sum()),
        second_moment,
        float(((slopes * roots) ** 2).sum()),
    )


def _derivative_step(activation: Callable[[Any], Any]) -> float:
    """Return the smallest standard deviation for a derivative."""
    with _eager_float64(), np.errstate(all="ignore"):
        precise = _call(activation, np.zeros(1)).dtype.itemsize >= 8
    return _FLOAT64_STEP if precise else _FLOAT32_STEP


def _slope_near_zero(activation: Callable[[Any], Any], stddev: float, step: float) -> float:
    """Return E f'², linear in the standard deviation; the error is of its square."""
    first = _integrate(activation, step).derivative_second_moment
    second = _integrate(activation, 2.0 * step).derivative_second_moment
    return first + (stddev - step) / step * (second - first)


def _panel_edges(stddev: float) -> Array:
    """Return increasing panel edges, symmetric about 0, out to `_REACH * stddev`.

    Near 0 they are multiples of 1/40 (or of a half, quarter, ... of it, where the Gaussian
    is narrow); far from 0 they grow with the distance, up to a quarter of the standard
    deviation.
    """
    reach = _REACH * stddev
    width = 1.0 / _KINK_SPACING
    refinement = 2.0 ** max(0, math.ceil(math.log2(4.0 * width / stddev)))
    spacing = _KINK_SPACING * refinement
    near = min(reach, _KINK_LIMIT)
    # A quotient, not a sum of widths, so that an edge is the float nearest to a kink.
    edges = [np.arange(math.ceil(near * spacing) + 1) / spacing]
    middle = min(reach, 2.0 * stddev)
    if middle > _KINK_LIMIT:
        count = math.ceil(math.log(middle / _KINK_LIMIT) / math.log(9 / 8))
        edges.append(np.geomspace(_KINK_LIMIT, middle, count + 1)[1:])
    last = float(edges[-1][-1])
    if reach > last:
        count = math.ceil(4.0 * (reach - last) / stddev)
        edges.append(np.linspace(last, reach, count + 1)[1:])
    positive = np.concatenate(edges)
    return np.concatenate([-positive[:0:-1], positive])


@functools.cache
def panel_rule() -> tuple[Array, Array, Array]:
    """Return nodes, weights and differentiation matrix of a panel from -1 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES_PER_PANEL)
    differences = nodes[:, np.newaxis] - nodes
    np.fill_diagonal(differences, 1.0)
    products = differences.prod(axis=1)
    differentiation = products[:, np.newaxis] / (products * differences)
    np.fill_diagonal(differentiation, 0.0)
    # Rows sum to zero: the derivative of a constant.
    np.fill_diagonal(differentiation, -differentiation.sum(axis=1))
    return nodes, weights, differentiation


def evaluate(activation: Callable[[Any], Any], points: Array) -> Array:
    """Return finite values at the points; raise a ValueError for an unsuitable activation."""
    sample = slice(None, None, max(1, len(points) // 16))
    with _eager_float64(), np.errstate(all="ignore"):
        values = _call(activation, points).astype(np.float64)
        # Beside others than these, even where all points are alike.
        alone = _call(activation, points[sample], points[0] + 1.0).astype(np.float64)
    if values.shape != points.shape or not np.allclose(
        values[sample], alone, rtol=1e-4, atol=1e-7, equal_nan=True
    ):
        raise ValueError(
            "`activation` must act on each element alone and return the shape it is given. "
            "One that works along an axis, such as softmax, has no gain of its own: pass a "
            f"number. Received: activation={activation!r}"
        )
    if not np.isfinite(values).all():
        bad = points[~np.isfinite(values)]
        raise ValueError(
            "`activation` must be finite: it is not at "
            f"{bad[np.argmin(np.abs(bad))]:.6g}. Received: activation={activation!r}"
        )
    return values


def _call(
    activation: Callable[[Any], Any], points: Array, beside: float | None = None
) -> npt.NDArray[Any]:
    # Of few shapes: some backends compile a function for each.
    padding = points[len(points) // 2] if beside is None else beside
    padded = np.full(-(-len(points) // _CALLED) * _CALLED, padding)
    padded[: len(points)] = points
    output = activation(keras.ops.convert_to_tensor(padded, dtype="float64"))
    values = np.asarray(keras.ops.convert_to_numpy(output))
    return values[: len(points)] if values.shape == padded.shape else values


@contextlib.contextmanager
def _eager_float64() -> Iterator[None]:
    """Lift the calls inside out of any tracing, to where float64 values can be read.

    Layers are built inside traces too, and create initializers there.
    """
    with contextlib.ExitStack() as stack:
        backend = keras.config.backend()
        if backend == "tensorflow":
            import tensorflow as tf

            stack.enter_context(tf.init_scope())
        elif backend == "jax":
            stack.enter_context(importlib.import_module("jax").ensure_compile_time_eval())
            stack.enter_context(_jax_float64())
        if backend != "tensorflow":
            stack.enter_context(keras.device("cpu"))
        yield


def _jax_float64() -> contextlib.AbstractContextManager[Any]:
    jax = importlib.import_module("jax")
    if not hasattr(jax, "enable_x64"):
        jax = importlib.import_module("jax.experimental")
    return jax.enable_x64(True)
