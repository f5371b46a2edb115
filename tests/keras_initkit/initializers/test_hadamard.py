"""Weights of identities and Hadamard matrices."""

import math
from typing import Any

import keras
import numpy as np
import pytest

from keras_initkit.initializers import ZerO
from tests.keras_initkit.initializers.helpers import array, assert_orthonormal, built, draw

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


def test_zero_is_made_of_identities_and_hadamard_matrices():
    zero = ZerO(gain=2.0)
    np.testing.assert_array_equal(array(zero((3, 3))), 2 * np.eye(3))
    np.testing.assert_array_equal(array(zero((5, 3))), 2 * np.eye(5, 3))
    hadamard: Any = np.ones((1, 1))
    for _ in range(3):
        hadamard = np.kron([[1, 1], [1, -1]], hadamard)
    for inputs, outputs in ((4, 8), (3, 5), (1, 7)):
        matrix = array(zero((inputs, outputs)))
        np.testing.assert_allclose(matrix, 2 / math.sqrt(8) * hadamard[:inputs, :outputs])
        np.testing.assert_allclose((matrix**2).sum(axis=1), 4 * outputs / 8)
    assert_orthonormal(array(zero((100, 512))), 2.0)
    kernel = array(zero((3, 4, 2, 8)))
    np.testing.assert_allclose(kernel[1, 1], 2 / math.sqrt(8) * hadamard[:2])
    assert np.count_nonzero(kernel) == 16
    layer = built(layers.Conv2D(16, 3, groups=2), 8, 8, 8)
    _, maps = draw(layer, "kernel", ZerO())
    for centre in maps[:, 1, 1]:
        np.testing.assert_allclose(centre, hadamard[:4] / math.sqrt(8))
