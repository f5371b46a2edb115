"""The largest of normal numbers, and sums with one, against closed forms and draws."""

import math

import numpy as np
import pytest

from keras_initkit.theory.combined import largest, sum_as_function


@pytest.mark.parametrize(("count", "mean"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (9, 1.48501)])
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_mean_of_the_largest(count, mean, correlation):
    found = largest(lambda x: x, np.ones(1), np.array([count]), correlation)
    assert found.map.mean == pytest.approx(mean * math.sqrt(1 - correlation), abs=1e-3)
    assert found.slope == pytest.approx(1.0)


def test_numbers_of_several_scales(rng):
    scales, counts, r = np.array([0.5, 1.0, 1.5]), np.array([2, 1, 1]), 0.4
    drawn = math.sqrt(r) * rng.normal(size=(200_000, 1)) + math.sqrt(1 - r) * rng.normal(
        size=(200_000, 4)
    )
    drawn *= np.repeat(scales, counts)
    relu = np.maximum(drawn.max(axis=1), 0.0)
    found = largest(lambda x: np.maximum(x, 0.0), scales, counts, r, lambda x: np.heaviside(x, 0.0))
    assert found.map.mean == pytest.approx(relu.mean(), rel=0.01)
    assert found.second_moment == pytest.approx((relu**2).mean(), rel=0.01)
    assert found.slope == pytest.approx((relu > 0).mean(), rel=0.01)
    which = np.bincount(np.repeat([0, 1, 2], counts)[drawn.argmax(axis=1)]) / len(drawn)
    assert found.shares == pytest.approx(which, abs=0.01)


def test_a_rectified_number_plus_a_gaussian_one(rng):
    z = np.linspace(-6.0, 6.0, 2001)
    weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    function = sum_as_function(np.maximum(z, 0.0), weights, -0.3, 0.5)
    found = np.sort(function(rng.normal(size=100_000)))
    drawn = np.sort(
        np.maximum(rng.normal(size=100_000), 0.0) - 0.3 + 0.5 * rng.normal(size=100_000)
    )
    assert found[1000:-1000:1000] == pytest.approx(drawn[1000:-1000:1000], abs=0.03)
