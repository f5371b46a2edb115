"""Weights whose largest singular value is set."""

import math

import keras
import numpy as np
import pytest

from keras_initkit.initializers import Spectral
from keras_initkit.initializers.spectral import largest_singular_values
from tests.keras_initkit.initializers.helpers import array, attention_of, built, draw

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


@pytest.mark.parametrize("shape", [(60, 40), (3, 3, 8, 100), (1, 7), (520, 600)], ids=str)
def test_the_largest_singular_value_is_set(shape):
    values = array(Spectral(gain=2.0, seed=1)(shape)).reshape(-1, shape[-1])
    rows, columns = values.shape
    assert np.linalg.norm(values, 2) == pytest.approx(2 * math.sqrt(columns / rows), rel=1e-5)
    stddev = values.std()
    assert abs(values.mean()) < 5 * stddev / math.sqrt(values.size)
    if values.size > 100:
        kurtosis = (values**4).mean() / stddev**4
        assert kurtosis == pytest.approx(3, rel=25 / math.sqrt(values.size))


def test_the_largest_singular_value_of_each_map_is_set():
    layer = built(layers.LSTM(40), 5, 20)
    _, maps = draw(layer, "/kernel", Spectral(seed=0))
    np.testing.assert_allclose(np.linalg.norm(maps, 2, axis=(1, 2)), math.sqrt(2), rtol=1e-5)
    layer = attention_of(layers.MultiHeadAttention(3, 8), 5, 32)
    _, maps = draw(layer, "key/kernel", Spectral(seed=0))
    np.testing.assert_allclose(np.linalg.norm(maps, 2, axis=(1, 2)), 0.5, rtol=1e-5)


def test_singular_values_of_matrices_of_low_rank():
    left, right = np.linspace(1, 2, 600, dtype="float32"), np.linspace(2, 3, 520, dtype="float32")
    expected = np.linalg.norm(left) * np.linalg.norm(right)
    values = largest_singular_values(np.outer(left, right)[None].astype("float32"))
    np.testing.assert_allclose(values, [expected], rtol=1e-5)


def test_an_embedding_has_vectors_of_the_length_of_the_gain():
    _, maps = draw(built(layers.Embedding(100, 32)), "embeddings", Spectral("relu", seed=0))
    # No input makes a sum of vectors: their lengths count.
    lengths = np.linalg.norm(maps[0], axis=1)
    assert lengths.max() == pytest.approx(math.sqrt(2 * 32), rel=1e-5)
    assert lengths.min() > 0.4 * lengths.max()
