"""Directions of successive gradients, against a loop over their definitions."""

import numpy as np
import pytest

from keras_initkit.callbacks.measures.directions import WINDOW, DirectionTracker

SIZES = (3, 1, 5)


@pytest.fixture
def samples(rng):
    return [(rng.normal(size=(40, size)) + 1).astype("float32") for size in SIZES]


def by_definition(table):
    cosine, snr = np.full((2, len(table)), np.nan)
    for i in range(len(table)):
        if i > 0:
            norms = np.linalg.norm(table[i - 1]) * np.linalg.norm(table[i])
            cosine[i] = table[i - 1] @ table[i] / norms
        if i + 1 >= WINDOW:
            window = table[i + 1 - WINDOW : i + 1]
            signal = np.sum(np.mean(window, axis=0) ** 2)
            snr[i] = signal / np.sum(np.var(window, axis=0, ddof=1))
    return cosine, snr


@pytest.mark.parametrize("cuts", [[], [1], [15, 16, 17], [5, 30], range(1, 40)])
def test_records_in_pieces_are_compared_as_in_one(samples, cuts):
    tracker = DirectionTracker()
    pieces = zip(*(np.split(table, cuts) for table in samples), strict=True)
    found = [tracker.add(piece) for piece in pieces]
    cosine = np.concatenate([piece.cosine for piece in found])
    snr = np.concatenate([piece.snr for piece in found])
    for column, table in enumerate(samples):
        for got, want in zip((cosine, snr), by_definition(table.astype(float)), strict=True):
            np.testing.assert_allclose(got[:, column], want, rtol=1e-5)


def test_zero_and_not_finite_gradients_have_no_direction(samples):
    samples[0][20], samples[1][20] = 0, np.inf
    found = DirectionTracker().add(samples)
    missing = np.isnan(found.cosine)
    assert missing[:, :2].sum(axis=0).tolist() == [3, 3]  # the first, and two with it
    assert missing[20:22, :2].all()
    assert missing[:, 2].sum() == 1
    assert np.isnan(found.snr[20:36, 1]).all()
    assert np.isfinite(found.snr[WINDOW - 1 :, [0, 2]]).all()
