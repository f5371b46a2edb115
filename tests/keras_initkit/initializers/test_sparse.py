"""Sparse weights."""

import math
import re

import keras
import numpy as np
import pytest

from keras_initkit.initializers import Sparse
from tests.keras_initkit.initializers.helpers import array, built, draw

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


@pytest.mark.parametrize(
    ("sparsity", "inputs", "zeros"),
    [(0.9, 400, 360), (0.55, 100, 55), (0.5, 7, 4), (0.99, 5, 4), (0, 9, 0), (0.3, 1, 0)],
)
def test_each_unit_has_as_many_zeros(sparsity, inputs, zeros):
    values = array(Sparse(sparsity, gain=2.0, seed=1)((inputs, 300)))
    np.testing.assert_array_equal((values == 0).sum(axis=0), zeros)
    others = values[values != 0]
    variance = 4 / (inputs - zeros)
    assert others.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / others.size))
    assert (others**4).mean() / variance**2 == pytest.approx(3, rel=25 / math.sqrt(others.size))
    # Each place as often as others.
    share = (values == 0).mean(axis=1)
    expected = zeros / inputs
    assert np.abs(share - expected).max() <= 5 * math.sqrt(expected * (1 - expected) / 300)


def test_each_gate_and_channel_is_sparse():
    layer = built(layers.GRU(12), 5, 40)
    _, maps = draw(layer, "/kernel", Sparse(seed=0))
    np.testing.assert_array_equal((maps == 0).sum(axis=1), np.full((3, 12), 36))
    layer = built(layers.DepthwiseConv2D(3), 9, 9, 500)
    _, maps = draw(layer, "kernel", Sparse(0.5, seed=0))
    np.testing.assert_array_equal((maps == 0).sum(axis=(1, 2)), 5)
    assert (maps**2).mean() == pytest.approx(1 / 9, rel=5 * math.sqrt(3 / 2000))


def test_units_keep_the_variance_of_their_fans():
    for layer, shape in (
        (layers.Conv2D(16, 3, groups=4), (18, 18, 16)),
        (layers.Conv2DTranspose(8, 3, strides=2), (14, 14, 32)),
        (layers.EinsumDense("bhi,hio->bho", (4, 8)), (4, 16)),
    ):
        view, maps = draw(built(layer, *shape), "kernel", Sparse(0.7, seed=1))
        tolerance = 5 * math.sqrt(2 / np.count_nonzero(maps))
        assert (maps**2).mean() == pytest.approx(1 / view.fans.fan_in, rel=tolerance)


def test_a_sparsity_is_a_share():
    message = "`sparsity` must be a finite number of 0 or more and below 1, the share of zeros. Rec"
    with pytest.raises(ValueError, match=re.escape(message)):
        Sparse(1.0)
