"""Gaussian moments against quadrature by other means, closed forms and known figures."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from keras_initkit.theory.gains import (
    backward_gain,
    forward_gain,
    gain,
    gaussian_moments,
)


class Formula(NamedTuple):
    """An activation and its derivative as scalar functions, and where they have kinks."""

    value: Callable[[float], float]
    slope: Callable[[float], float]
    kinks: tuple[float, ...] = ()


def _piecewise(edges, *pieces):
    def pick(x):
        return sum(x > edge for edge in edges)

    return Formula(lambda x: pieces[pick(x)][0](x), lambda x: pieces[pick(x)][1](x), edges)


def _line(slope, offset=0.0):
    return (lambda x: slope * x + offset, lambda x: slope)


def _sigmoid(x):
    return float(special.expit(x))


def _mish_slope(x):
    tanh = math.tanh(np.logaddexp(0.0, x))
    return tanh + x * (1 - tanh**2) * _sigmoid(x)


FORMULAS = {
    "linear": Formula(lambda x: x, lambda x: 1.0),
    "relu": _piecewise((0.0,), _line(0.0), _line(1.0)),
    "relu6": _piecewise((0.0, 6.0), _line(0.0), _line(1.0), _line(0.0, 6.0)),
    "leaky_relu": _piecewise((0.0,), _line(0.2), _line(1.0)),
    "elu": _piecewise((0.0,), (math.expm1, math.exp), _line(1.0)),
    "gelu": Formula(
        lambda x: x * float(special.ndtr(x)),
        lambda x: float(special.ndtr(x)) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    ),
    "silu": Formula(lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x)))),
    "mish": Formula(lambda x: x * math.tanh(np.logaddexp(0.0, x)), _mish_slope),
    "softplus": Formula(lambda x: float(np.logaddexp(0.0, x)), _sigmoid),
    "softsign": Formula(lambda x: x / (1 + abs(x)), lambda x: (1 + abs(x)) ** -2, (0.0,)),
    "tanh": Formula(math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "sigmoid": Formula(_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
    "exponential": Formula(math.exp, math.exp),
    "soft_shrink": _piecewise((-0.5, 0.5), _line(1.0, 0.5), _line(0.0), _line(1.0, -0.5)),
    "hard_shrink": _piecewise((-0.5, 0.5), _line(1.0), _line(0.0), _line(1.0)),
}


def _expectation(function, variance, kinks):
    stddev = math.sqrt(variance)
    norm = stddev * math.sqrt(2 * math.pi)
    reach = 14 * stddev
    edges = sorted({-reach, -4 * stddev, 0.0, 4 * stddev, reach} | set(kinks))
    parts = [
        integrate.quad(
            lambda x: function(x) * math.exp(-0.5 * (x / stddev) ** 2) / norm,
            low,
            high,
            epsabs=1e-12,
            epsrel=1e-11,
            limit=200,
        )[0]
        for low, high in itertools.pairwise(edge for edge in edges if abs(edge) <= reach)
    ]
    return math.fsum(parts)


@pytest.mark.parametrize("name", FORMULAS)
def test_moments_agree_with_adaptive_quadrature_and_gains_keep_them(name):
    value, slope, kinks = FORMULAS[name]
    for variance in (1.0, 0.01, 3.0):
        moments = gaussian_moments(name, variance)
        assert {type(moment) for moment in moments} == {float}
        mean = _expectation(value, variance, kinks)
        second_moment = _expectation(lambda x: value(x) ** 2, variance, kinks)
        passed = _expectation(lambda x: slope(x) ** 2, variance, kinks)
        error = 1e-8 * max(1.0, second_moment)
        assert moments == pytest.approx((mean, second_moment, passed), abs=error, rel=0)
        kept = forward_gain(name, variance) ** 2 * second_moment / variance
        assert kept == pytest.approx(1, abs=1e-6)
        if passed:
            assert backward_gain(name, variance) ** 2 * passed == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("variance", [1e-20, 1.0, 9.0])
def test_exponential_has_the_moments_of_a_lognormal(variance):
    moments = gaussian_moments("exponential", variance)
    expected = (math.exp(variance / 2), math.exp(2 * variance), math.exp(2 * variance))
    assert moments == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("frequency", [0.5, 30.0])
def test_sine_has_its_closed_form(frequency):
    moments = gaussian_moments(lambda x: np.sin(frequency * np.asarray(x)))
    damping = math.exp(-2 * frequency**2)
    assert moments.second_moment == pytest.approx((1 - damping) / 2, abs=1e-9)
    expected = frequency**2 * (1 + damping) / 2
    assert moments.derivative_second_moment == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.floats(-280, 290), st.floats(-3, 3))
def test_a_leaky_relu_scales_over_all_magnitudes(exponent, slope):
    variance = 10.0**exponent
    moments = gaussian_moments(
        lambda x: np.where(np.asarray(x) > 0, x, slope * np.asarray(x)), variance
    )
    share = (1 + slope**2) / 2
    assert moments.second_moment / variance == pytest.approx(share, rel=1e-9)
    assert moments.derivative_second_moment == pytest.approx(share, rel=1e-9)
    mean = (1 - slope) * math.sqrt(variance / (2 * math.pi))
    assert moments.mean == pytest.approx(mean, abs=1e-9 * math.sqrt(variance))


@settings(deadline=None, max_examples=30)
@given(st.integers(-80, 80), st.floats(0.1, 30))
def test_kinks_and_jumps_on_the_grid_cost_nothing(steps, variance):
    kink, stddev = steps / 40, math.sqrt(variance)
    above = stats.norm.sf(kink, scale=stddev).item()
    ramp = gaussian_moments(lambda x: np.maximum(np.asarray(x) - kink, 0), variance)
    assert ramp.derivative_second_moment == pytest.approx(above, abs=1e-9)
    step = gaussian_moments(lambda x: (np.asarray(x) > kink).astype("float64"), variance)
    assert step == pytest.approx((above, above, 0.0), abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 3))
def test_kinks_and_jumps_off_the_grid_cost_what_is_documented(kink):
    above = stats.norm.sf(kink).item()
    density = stats.norm.pdf(kink).item()
    ramp = gaussian_moments(lambda x: np.maximum(np.asarray(x) - kink, 0))
    second_moment = (1 + kink**2) * above - kink * density
    assert ramp.second_moment == pytest.approx(second_moment, abs=1e-8)
    assert ramp.derivative_second_moment == pytest.approx(above, abs=2e-3)
    step = gaussian_moments(lambda x: (np.asarray(x) > kink).astype("float64"))
    assert step.second_moment == pytest.approx(above, abs=2e-3)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softsign"])
def test_moments_at_variance_zero_are_the_limit(name):
    value, slope, _ = FORMULAS[name]
    expected = (value(0.0), value(0.0) ** 2, slope(0.0) ** 2)
    assert gaussian_moments(name, 0.0) == pytest.approx(expected, abs=1e-8)
    assert gaussian_moments(name, 1e-24) == pytest.approx(expected, abs=1e-8)
    # A kink at zero counts half on each side.
    assert gaussian_moments("leaky_relu", 0.0) == pytest.approx((0.0, 0.0, 0.52), abs=1e-6)


def test_a_saturated_activation_is_right_at_large_variances():
    moments = gaussian_moments("tanh", 1e8)
    # E tanh² = 1 - E sech² and E sech⁴ = 4/3 · density at 0: a spike of width 1.
    density = 1e-4 / math.sqrt(2 * math.pi)
    assert 1 - moments.second_moment == pytest.approx(2 * density, rel=1e-6)
    assert moments.derivative_second_moment == pytest.approx(4 / 3 * density, rel=1e-5)


@pytest.mark.backends("tensorflow", "jax", "torch")
def test_an_activation_may_be_written_in_any_way():
    def with_ops(x):
        return x * 0.5 * (1 + keras.ops.erf(x / math.sqrt(2)))

    def with_numpy(x):
        return np.asarray(x) * special.ndtr(np.asarray(x))

    layer = keras.layers.Activation("gelu")
    keras.config.set_dtype_policy("mixed_bfloat16")  # changes no gain
    for function in (with_ops, with_numpy, keras.activations.gelu, "gelu", layer):
        assert forward_gain(function) == pytest.approx(1.533530, abs=1e-6)


def test_an_activation_may_be_written_in_tensorflow():
    tf = pytest.importorskip("tensorflow")
    moments = gaussian_moments(tf.function(tf.nn.relu6))
    assert moments == pytest.approx(gaussian_moments("relu6"), abs=1e-12)


def test_a_negative_slope_has_its_closed_form():
    for slope in (0.0, 0.01, 0.2, 1.0, math.sqrt(5.0), -1.0):
        expected = math.sqrt(2 / (1 + slope**2))
        assert gain("relu", slope) == gain("leaky_relu", slope)
        assert gain("relu", slope) == pytest.approx(expected, rel=1e-15)
    assert gain("leaky_relu") == pytest.approx(gain("relu", 0.2), abs=1e-7)


@pytest.mark.parametrize("number", [1, 0.25, np.float32(1.5), np.int64(3)])
def test_a_number_stands_for_itself(number):
    got = gain(number)
    assert type(got) is float
    assert got == number


@pytest.mark.parametrize(
    ("things", "message"),
    [
        ([0, -1.0, math.nan, math.inf], r"be positive and finite\. Received"),
        ([None, True, [1.0]], r"be a positive number, the name of .* Received: gain="),
        (["rleu", "get", "threshold"], r"be .*Received: gain='\w+'.*celu, elu, .*tanh_shrink"),
        (["softmax", "glu", keras.ops.sum], r"must act on each element alone .* softmax"),
        ([lambda x: x - keras.ops.mean(x)], "must act on each element alone"),
        (
            [lambda x: x * keras.random.uniform(keras.ops.shape(x), dtype="float64")],
            "must act on each element alone",
        ),
        ([keras.ops.log, lambda x: x * math.nan], r"must be finite: it is not at -?\d"),
        ([lambda x: np.exp(np.asarray(x) ** 2 / 4)], r"must grow slowly enough for E f\(z\)² to"),
        ([lambda x: 0.0 * x], "must not be zero everywhere"),
    ],
    ids=["number", "type", "name", "axis", "mean", "random", "finite", "growth", "zero"],
)
def test_a_gain_is_a_positive_number_or_an_elementwise_activation(things, message):
    for thing in things:
        with pytest.raises(ValueError, match=f"`gain` must .*{message}"):
            gain(thing)


def test_activations_variances_and_slopes_are_checked():
    with pytest.raises(ValueError, match=r"`activation` must be a callable or the name of"):
        gaussian_moments("rleu")
    with pytest.raises(ValueError, match=r"`activation` must be finite: it is not at -?\d"):
        gaussian_moments(keras.ops.log)
    with pytest.raises(ValueError, match="`activation` must have a slope"):
        backward_gain(keras.ops.sign)
    with pytest.raises(ValueError, match=r"`variance` must be a finite number of 0 or more"):
        gaussian_moments("relu", -1.0)
    with pytest.raises(ValueError, match="`variance` must be above 0"):
        forward_gain("sigmoid", 0.0)
    with pytest.raises(ValueError, match=r"`negative_slope` must be a finite number, or None"):
        gain("relu", math.inf)
    for other in (1.0, "tanh", keras.activations.relu):
        with pytest.raises(ValueError, match=r'`negative_slope` must be None unless gain="relu"'):
            gain(other, 0.1)
