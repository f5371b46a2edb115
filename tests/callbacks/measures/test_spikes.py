"""Spikes in norms, against the median of the steps before."""

import numpy as np
import pytest

from keras_initkit.callbacks.measures.spikes import WINDOW, SpikeFinder

pytestmark = pytest.mark.numpy_alone


def find(norms, lost=(), cuts=()):
    finder, is_lost = SpikeFinder(), np.isin(np.arange(len(norms)), lost)
    pieces = zip(np.split(norms, cuts), np.split(is_lost, cuts), strict=True)
    return np.concatenate([finder.add(*piece) for piece in pieces])


@pytest.mark.parametrize("cuts", [(), (16, 96), (64, 128, 192), range(0, 200, 16)])
def test_a_step_far_above_the_median_of_those_before_is_a_spike(rng, cuts):
    norms = np.exp(rng.normal(size=(200, 3)) / 30)
    norms[90, 1], norms[150] = 40, 8
    found = find(norms, cuts=cuts)
    assert np.flatnonzero(~np.isnan(found)).tolist() == [90]
    middle = np.median(norms[80 - WINDOW : 80, 1])  # as it was taken last
    np.testing.assert_allclose(found[90], 40 / middle, rtol=1e-6)


def test_of_steps_that_are_not_finite_the_first_is_one_and_none_moves_the_median():
    norms = np.ones((120, 2))
    lost = [*range(30, 90), 100]
    norms[lost, 0] = np.nan
    norms[119, 0] = 10
    found = find(norms, lost, cuts=(40, 41))
    assert np.flatnonzero(np.isposinf(found)).tolist() == [30, 100]
    assert np.flatnonzero(np.isfinite(found)).tolist() == [119]


def test_dead_layers_and_those_without_gradient_make_no_spike():
    norms = np.ones((64, 3))
    norms[:, 1], norms[:, 2] = 0, np.nan
    norms[40, 1], norms[40, 2] = 5, 5
    assert np.isnan(find(norms)).all()
