"""Spikes in norms, against the median of the steps before."""

import numpy as np
import pytest

from keras_initkit.callbacks.measures.spikes import WINDOW, SpikeFinder

pytestmark = pytest.mark.numpy_alone


def find(norms, lost=(), cuts=()):
    finder, is_lost = SpikeFinder(), np.isin(np.arange(len(norms)), lost)
    pieces = zip(np.split(norms, cuts), np.split(is_lost, cuts), strict=True)
    return np.concatenate([finder.add(*piece) for piece in pieces])


CUTS = [(), (16, 96), (64, 128, 192), range(0, 200, 16)]


@pytest.mark.parametrize("cuts", CUTS)
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


STEPS = np.arange(200)[:, None]
LOOK_ALIKES = {
    "eight times what it was": np.where(STEPS == 150, 8, [1, 1]),
    "a hundred times more in the end": 100 ** (STEPS / 200),
    "ten times more within the first steps": np.where(STEPS == 10, 10, [1, 1]),
    "a dead layer": np.where(STEPS == 150, 5, [1, 0]),
    "a layer that had no gradient": np.where(STEPS == 150, 5, [1, np.nan]),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_what_looks_like_a_spike_is_none(name):
    assert np.isnan(find(LOOK_ALIKES[name])).all()
