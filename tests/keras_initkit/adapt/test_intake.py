"""Batches become tables of features, and small ones are joined."""

import math

import numpy as np
import pytest

from keras_initkit.adapt.intake import Intake, feature_tables
from keras_initkit.statistics.moments import Moments

pytestmark = pytest.mark.numpy_alone


def test_small_batches_are_joined_in_order(monkeypatch):
    seen: list[np.ndarray] = []

    class Noted(Moments):
        def update(self, batch, *_):
            seen.append(batch.copy())

    monkeypatch.setattr("keras_initkit.adapt.intake.Moments", Noted)
    generator = np.random.default_rng(6)
    sizes = [1, 3, 0, 70_000, 2, 30_000, 30_000, 5]
    batches = [generator.random((size, 7)).astype("float32") for size in sizes]
    batches.append(np.ones((2, 7)))
    intake = Intake((None, 7), (-1,))
    for batch in batches:
        intake.push(batch)
    intake.flush()
    np.testing.assert_array_equal(np.concatenate(seen), np.concatenate(batches))
    assert [batch.dtype for batch in seen] == [np.float32] * (len(seen) - 1) + [np.float64]
    assert len(seen) < len(batches)


@pytest.mark.parametrize("keep", [(1,), (2,), (1, 3), (3,), (1, 2, 3), ()])
def test_tables_of_features(keep):
    x = np.random.default_rng(9).random((7, 3, 4, 5))
    rest = tuple(axis for axis in range(4) if axis not in keep)
    got, none = zip(*feature_tables(x, keep, None), strict=True)
    assert set(none) == {None}
    expected = x.transpose(*rest, *keep).reshape(-1, math.prod(x.shape[a] for a in keep))
    np.testing.assert_array_equal(np.concatenate(got), expected)
