"""Sums as functions of one Gaussian number, against draws."""

import numpy as np
import pytest

from keras_initkit.theory.sums import sum_as_function


def test_a_rectified_number_plus_a_gaussian_one(rng):
    z = np.linspace(-6.0, 6.0, 2001)
    weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    function = sum_as_function(np.maximum(z, 0.0), weights, -0.3, 0.5)
    found = np.sort(function(rng.normal(size=100_000)))
    drawn = np.sort(
        np.maximum(rng.normal(size=100_000), 0.0) - 0.3 + 0.5 * rng.normal(size=100_000)
    )
    assert found[1000:-1000:1000] == pytest.approx(drawn[1000:-1000:1000], abs=0.03)
