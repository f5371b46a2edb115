"""Critical points against published pairs, closed forms, and networks iterated in NumPy."""

import math

import keras
import numpy as np
import pytest

from keras_initkit.theory.critical import critical
from keras_initkit.theory.propagation import propagate

pytestmark = pytest.mark.numpy_alone


@pytest.mark.parametrize(
    ("activation", "bias_variance", "weight_variance"),
    [
        ("relu", 0.0, 2.0),
        ("leaky_relu", 0.0, 2 / 1.04),
        ("linear", 0.0, 1.0),
        ("gelu", 0.0, 4.0),
        ("elu", 0.0, 1.0),
        (keras.ops.erf, 0.0, math.pi / 4),
        (keras.ops.erf, 0.05, 1.375839),
        ("tanh", 0, 1),
        ("tanh", 1e-6, 1.018253),
        ("tanh", 2.01e-5, 1.049996),
        ("tanh", 1e-4, 1.086026),
        ("tanh", 1e-3, 1.189190),
        ("tanh", 0.01, 1.424205),
        ("tanh", 0.05, 1.760955),
        ("tanh", 0.1, 1.986073),
        ("tanh", 0.2, 2.285152),
        ("tanh", 0.3, 2.505127),
    ],
)
def test_activations_have_their_published_pairs(activation, bias_variance, weight_variance):
    point = critical(activation, bias_variance=bias_variance)
    assert point.weight_variance == pytest.approx(weight_variance, abs=1.5e-6)
    assert point.weight_stddev**2 == pytest.approx(point.weight_variance)
    assert point.bias_stddev**2 == pytest.approx(bias_variance)
    assert point.chi == pytest.approx(1.0)
    assert point.correlation_depth == math.inf


@pytest.mark.parametrize("activation", ["tanh", "gelu", "elu", "selu"])
def test_a_variance_leads_to_the_same_pair_as_its_biases(activation):
    point = critical(activation, variance=0.6)
    assert critical(activation, bias_variance=point.bias_variance) == pytest.approx(point, rel=1e-4)


def test_a_critical_network_settles_at_its_fixed_point_and_at_its_pace():
    point = critical("tanh", bias_variance=0.05)
    prediction = propagate("tanh", 40, point.weight_variance, 0.05, input_second_moment=0.5)
    assert prediction.q[-1] == pytest.approx(point.variance, rel=1e-6)
    assert prediction.chi[-1] == pytest.approx(1.0, abs=1e-6)
    deviations = np.abs(prediction.q - point.variance)[4:9]
    pace = -1 / np.log(deviations[1:] / deviations[:-1])
    assert pace[-1] == pytest.approx(point.variance_depth, rel=0.01)


def test_gelu_is_repelled_from_its_fixed_point():
    assert critical("gelu", variance=1.0).variance_depth < 0 < critical("elu").variance_depth


def test_relus_with_dropout_lose_their_inputs_as_the_arc_cosine_kernel_says():
    point = critical("relu", dropout=0.1)
    assert point.weight_variance == pytest.approx(1.8)
    c = 1.0
    for _ in range(300):
        angle = math.acos(c)
        c = 0.9 * (math.sin(angle) + (math.pi - angle) * c) / math.pi
    assert point.correlation == pytest.approx(c, abs=1e-4)
    slope = 0.9 * (math.pi - math.acos(c)) / math.pi
    assert point.correlation_depth == pytest.approx(-1 / math.log(slope), rel=1e-3)


def test_a_skip_connection_leaves_its_share_to_the_weights():
    plain = critical("tanh", bias_variance=0.05)
    point = critical("tanh", bias_variance=0.05 * 0.75, residual=0.5)
    assert point.weight_variance == pytest.approx(0.75 * plain.weight_variance)
    assert (point.variance, point.chi) == pytest.approx((plain.variance, 1.0))
    assert point.variance_depth > plain.variance_depth


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bias_variance": 0.05}, "`bias_variance` must leave a fixed point .*=0.05"),
        ({"activation": lambda x: 0.0 * x + 1.0}, "`activation` must have a slope"),
        ({"activation": "sigmoid", "variance": 1}, "`variance` must be at least that .*=1. Choose"),
        ({"bias_variance": 0.1, "variance": 1.0}, "`variance` must be None beside"),
        ({"bias_variance": -1e-9}, "`bias_variance` must be a finite number of 0 or more"),
        ({"variance": 0}, "`variance` must be a finite number above 0"),
        ({"residual": 1.0}, "`residual` must be a finite number of 0 or more and below 1"),
        ({"dropout": 1.0}, "`dropout` must be a finite number of 0 or more and below 1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        critical(**{"activation": "relu"} | arguments)
