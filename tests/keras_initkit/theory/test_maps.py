"""Maps of activations against closed forms."""

import math

import keras
import numpy as np
import pytest

from keras_initkit.theory.gains import gaussian_moments
from keras_initkit.theory.maps import activation_map

CORRELATIONS = np.array([-0.9, -0.3, 0.0, 0.5, 0.9, 1.0])


def relu_product(rho):
    """Cho and Saul, 2009: the arc-cosine kernel of order 1."""
    angle = np.arccos(rho)
    return (np.sin(angle) + (math.pi - angle) * rho) / (2.0 * math.pi)


CLOSED = {
    "relu": (keras.ops.relu, relu_product, lambda rho: 0.5 - np.arccos(rho) / (2 * math.pi)),
    "linear": (lambda x: 3.0 * x, lambda rho: 9.0 * rho, lambda rho: 9.0 + 0.0 * rho),
    "square": (keras.ops.square, lambda rho: 1.0 + 2.0 * rho**2, lambda rho: 4.0 * rho),
    "erf": (
        keras.ops.erf,
        lambda rho: 2.0 / math.pi * np.arcsin(2.0 * rho / 3.0),
        lambda rho: 4.0 / math.pi / np.sqrt(9.0 - 4.0 * rho**2),
    ),
    "sin": (
        keras.ops.sin,
        lambda rho: math.exp(-1.0) * np.sinh(rho),
        lambda rho: math.exp(-1.0) * np.cosh(rho),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_products_of_pairs_have_their_closed_forms(name):
    function, product, slope_product = CLOSED[name]
    found = activation_map(function)
    assert found.product(CORRELATIONS) == pytest.approx(product(CORRELATIONS), abs=1e-5)
    slopes = found.slope_product(CORRELATIONS)
    assert slopes == pytest.approx(slope_product(CORRELATIONS), abs=2e-3)
    assert found.second_moment == pytest.approx(float(product(1.0)), rel=1e-9)
    assert found.slope == pytest.approx(float(slope_product(1.0)), rel=1e-6)


@pytest.mark.parametrize("name", ["gelu", "tanh", "selu", "relu6", "hard_sigmoid"])
@pytest.mark.parametrize("variance", [1e-6, 0.3, 25.0])
def test_moments_are_those_of_the_gains(name, variance):
    expected = gaussian_moments(name, variance)
    found = activation_map(keras.activations.get(name), 0.0, variance)
    moments = (found.mean, found.second_moment, found.slope)
    assert moments == pytest.approx(tuple(expected), rel=2e-3, abs=1e-9)


def test_a_mean_shifts_the_activation():
    shifted = activation_map(lambda x: keras.ops.tanh(x + 0.7), 0.0, 2.0)
    found = activation_map(keras.ops.tanh, 0.7, 2.0)
    assert found[:3] == pytest.approx(shifted[:3], rel=1e-6)
    assert found.squares == pytest.approx(shifted.squares, abs=1e-6)


def test_an_activation_along_an_axis_is_refused():
    with pytest.raises(ValueError, match="must act on each element alone"):
        activation_map(keras.ops.softmax)
