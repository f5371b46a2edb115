"""Orthogonal weights, by shape and in layers whose maps are known."""

import math

import keras
import numpy as np
import pytest

from keras_initkit.initializers import Orthogonal
from tests.keras_initkit.initializers.helpers import (
    array,
    assert_orthonormal,
    attention_of,
    built,
    draw,
)

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (3, 3, 8, 20), (5,)])
def test_by_shape_orthogonal_flattens_as_keras_does(shape):
    values = array(Orthogonal(gain=2.0, seed=1)(shape))
    matrix = values.reshape(-1, shape[-1] if len(shape) > 1 else 1)
    assert_orthonormal(matrix, 2.0)
    scaled = array(Orthogonal(2.0, 1, scaled=True)(shape))
    factor = math.sqrt(max(1, matrix.shape[1] / matrix.shape[0]))
    np.testing.assert_allclose(scaled, factor * values, rtol=1e-6)
    assert (scaled**2).mean() == pytest.approx(4 / matrix.shape[0], rel=1e-5)


def test_a_gain_may_be_that_of_an_activation():
    assert_orthonormal(array(Orthogonal("tanh", seed=0)((8, 8))), 1.592537)
    assert Orthogonal(keras.ops.tanh).get_config()["gain"] == pytest.approx(1.592537)


def test_each_gate_is_orthogonal():
    layer, gates = built(layers.GRU(64), 5, 80), 3
    _, maps = draw(layer, "recurrent_kernel", Orthogonal(seed=0))
    blocks = np.split(array(layer.cell.recurrent_kernel), gates, axis=1)
    np.testing.assert_array_equal(maps, blocks)
    assert_orthonormal(maps)
    assert len({round(block[0, 0], 6) for block in blocks}) == gates
    _, maps = draw(layer, "/kernel", Orthogonal(seed=0))
    assert maps.shape == (gates, 80, 64)
    assert_orthonormal(maps)


def test_each_gate_of_a_recurrent_convolution_is_orthogonal():
    layer = built(layers.ConvLSTM2D(8, 3), 4, 9, 9, 2)
    for name, weights in (("/kernel", 18), ("recurrent_kernel", 72)):
        view, maps = draw(layer, name, Orthogonal(seed=0))
        assert view.matrix_shape == (4, weights, 8)
        assert_orthonormal(maps.reshape(4, weights, 8))


def test_each_head_is_orthogonal():
    layer = attention_of(layers.MultiHeadAttention(4, 6), 5, 32)
    for name in ("query/kernel", "key/kernel", "value/kernel"):
        view, maps = draw(layer, name, Orthogonal(seed=0))
        assert maps.shape == (4, 32, 6)
        assert_orthonormal(maps)
        assert (maps**2).mean() == pytest.approx(1 / view.fans.fan_in, rel=1e-5)
    np.testing.assert_array_equal(array(layer._value_dense.kernel)[:, 2], maps[2])
    view, maps = draw(layer, "attention_output/kernel", Orthogonal(seed=0))
    assert maps.shape == (1, 24, 32)
    assert_orthonormal(maps)
    per_head = built(layers.EinsumDense("bhi,hio->bho", (4, 5)), 4, 7)
    _, maps = draw(per_head, "kernel", Orthogonal(seed=0))
    np.testing.assert_array_equal(array(per_head.kernel), maps)
    assert_orthonormal(maps)


# Layers, the shape of their inputs, and whether they have more units than inputs.
LAYERS = {
    "Dense": (lambda: layers.Dense(32), (64,), False),
    "Conv2D-groups": (lambda: layers.Conv2D(16, 3, groups=4), (18, 18, 16), False),
    "Conv2D-stride": (lambda: layers.Conv2D(16, 4, strides=2), (40, 40, 8), False),
    "Depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (18, 18, 16), False),
    "Separable": (lambda: layers.SeparableConv2D(8, 3), (18, 18, 16), False),
    "Transpose": (lambda: layers.Conv2DTranspose(3, 4, strides=2), (14, 14, 64), False),
    "Transpose-3": (lambda: layers.Conv2DTranspose(8, 3, strides=2), (14, 14, 32), False),
    "Einsum": (lambda: layers.EinsumDense("bhi,hio->bho", (4, 8)), (4, 16), False),
    "Dense-wide": (lambda: layers.Dense(200), (20,), True),
    "Conv2D-wide": (lambda: layers.Conv2D(64, 1, groups=4), (18, 18, 16), True),
    "Depthwise-wide": (lambda: layers.DepthwiseConv2D(1, depth_multiplier=3), (18, 18, 16), True),
    "Transpose-wide": (lambda: layers.Conv2DTranspose(80, 4, strides=2), (14, 14, 4), True),
}


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize(("make", "shape", "wide"), LAYERS.values(), ids=LAYERS)
def test_layers_keep_the_variance_of_their_inputs(rng, make, shape, wide):
    layer = built(make(), *shape)
    for variable in layer.weights:
        if variable.name.endswith("kernel"):
            view, maps = draw(layer, variable.path, Orthogonal(seed=1, scaled=wide))
            assert (maps**2).mean() == pytest.approx(1 / view.fans.fan_in, rel=1e-5)
    x = rng.standard_normal((3000 if len(shape) < 3 else 24, *shape)).astype("float32")
    y = array(layer(x))
    if len(shape) == 3:
        y = y[:, 3:-3, 3:-3]  # what padding and borders leave alone
    assert (y**2).mean() == pytest.approx(1, rel=0.05)


def test_embeddings_have_the_variance_of_the_gain():
    layer = built(layers.Embedding(100, 32))
    _, maps = draw(layer, "embeddings", Orthogonal(seed=0))
    assert (maps**2).mean() == pytest.approx(1, rel=1e-5)
    assert_orthonormal(maps, 10.0)
