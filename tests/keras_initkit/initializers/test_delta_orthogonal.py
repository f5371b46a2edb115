"""Convolutions whose singular values are all one."""

import math

import keras
import numpy as np
import pytest

from keras_initkit.initializers import DeltaOrthogonal
from tests.keras_initkit.initializers.helpers import array, assert_orthonormal, built, draw

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


def singular_values(layer, shape):
    """Return the singular values of a layer, as a matrix from all its inputs to all its outputs."""
    size = math.prod(shape)
    y = array(layer(np.eye(size, dtype=np.float32).reshape(size, *shape)))
    return np.linalg.svd(y.reshape(size, -1), compute_uv=False)


@pytest.mark.parametrize(
    ("channels", "filters", "taps", "groups"),
    [(3, 5, 3, 1), (4, 4, 4, 1), (5, 3, 3, 1), (4, 6, (3, 2), 2)],
)
def test_all_singular_values_of_a_delta_orthogonal_convolution_are_one(
    channels, filters, taps, groups
):
    layer = built(layers.Conv2D(filters, taps, padding="same", groups=groups), 5, 5, channels)
    draw(layer, "kernel", DeltaOrthogonal(seed=0))
    values = singular_values(layer, (5, 5, channels))
    count = 25 * min(channels, filters)
    np.testing.assert_allclose(values[:count], 1, atol=1e-5)
    np.testing.assert_allclose(values[count:], 0, atol=1e-5)


def test_delta_orthogonal_takes_a_gain_and_matrices():
    values = array(DeltaOrthogonal(gain="relu", seed=0)((3, 3, 4, 6)))
    assert_orthonormal(values[1, 1], math.sqrt(2))
    assert np.count_nonzero(values) == 24
    assert_orthonormal(array(DeltaOrthogonal(seed=0)((4, 6))))
