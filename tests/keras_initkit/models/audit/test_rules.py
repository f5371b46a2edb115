"""The audit's rules, on arrays and numbers."""

import numpy as np
import pytest

from keras_initkit.models.audit import rules

pytestmark = pytest.mark.backends("tensorflow", "torch")


@pytest.mark.parametrize("size", [64, 300, 5000])
def test_likenesses(size, rng):
    first, other = rng.standard_normal((2, size))
    weights = [first, other, np.append(-2.0 * first, other), np.ones(size)]
    found = rules.likenesses(weights)
    assert [(one.first, one.second) for one in found] == [(0, 2)]
    assert found[0].correlation == pytest.approx(-1.0)
    assert not found[0].is_same
    half = 0.5 * first + other
    pairs = {(one.first, one.second) for one in rules.likenesses([first, half])}
    # With 64 or 300 numbers that much happens by chance, as far as many pairs are looked at.
    assert pairs == ({(0, 1)} if size == 5000 else set())


def test_independent_numbers_are_not_alike(rng):
    weights = [rng.standard_normal(size) for size in (64, 100, 256, 1000, 5000) * 40]
    assert rules.likenesses(weights) == []


def test_variances_that_are_off():
    assert not rules.is_off(1.0, 1.0, 10_000)
    assert rules.is_off(0.5, 1.0, 10_000)
    assert rules.is_off(2.0, 1.0, 10_000)
    assert not rules.is_off(2.0, 1.0, 16)
    assert not rules.is_off(3.0, None, 10_000)
    assert rules.is_off(1.0, 2.536, 10_000)
    assert not rules.is_off(1.0, 2.536, 10_000, of_small_signals=1.0)
    assert rules.is_swallowed(0.008, 1e-3)
    assert not rules.is_swallowed(0.01, 1e-3)
    assert not rules.is_swallowed(0.0, 0.0)
