"""The initializers of layers, and how they are written."""

import keras
import numpy as np
import pytest

from keras_initkit.anatomy.initializers import format_initializer, own_initializer
from keras_initkit.anatomy.weights import weights_of
from keras_initkit.initializers import HeNormal, Orthogonal
from tests.keras_initkit import keras_layers
from tests.keras_initkit.initializers.helpers import array

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers


@pytest.mark.backends("tensorflow", "torch")
@pytest.mark.parametrize("kind", keras_layers.KINDS, ids=lambda kind: kind.__name__)
def test_own_initializers_are_what_the_layer_was_built_with(kind):
    layer = keras_layers.built(kind)
    for weight in weights_of(layer):
        if not weight.is_float:
            continue
        variable = weight.variable
        initializer = own_initializer(weight.holder, variable)
        drawn = initializer(variable.shape, dtype=variable.dtype)  # type: ignore[misc]
        if kind is layers.AdditiveAttention:  # makes its initializer anew each time
            assert np.abs(array(drawn)).max() <= np.sqrt(6 / (2 * 8))
        else:
            np.testing.assert_array_equal(array(drawn), array(variable.value))


def test_axes_reach_keras_initializers_where_the_layer_gives_them():
    layer = layers.EinsumDense(
        "ab,bcd->acd", (3, 4), kernel_initializer=keras.initializers.HeNormal(seed=1)
    )
    layer.build((None, 5))
    drawn = own_initializer(layer, layer.kernel)(layer.kernel.shape)  # type: ignore[misc]
    np.testing.assert_array_equal(array(drawn), array(layer.kernel))


def test_a_layer_that_does_not_say_has_no_own_initializer():
    normalization = layers.Normalization()
    normalization.build((None, 2))
    assert own_initializer(normalization, normalization.weights[0]) is None
    dense = layers.Dense(2)
    dense.build((None, 2))
    dense.kernel_initializer = None
    assert own_initializer(dense, dense.kernel) is None


@pytest.mark.parametrize(
    ("initializer", "text"),
    [
        (HeNormal(seed=3), "HeNormal"),
        (HeNormal(gain="tanh"), "HeNormal(gain='tanh')"),
        (keras.initializers.VarianceScaling(2.0), "VarianceScaling(scale=2)"),
        (keras.initializers.Ones(), "Ones"),
        (Orthogonal(gain=1.23456), "Orthogonal(gain=1.235)"),
        (np.zeros, "zeros"),
        (None, ""),
    ],
)
def test_an_initializer_is_written_with_what_is_not_its_default(initializer, text):
    assert format_initializer(initializer) == text


def test_an_initializer_modified_by_its_layer_is_written_as_it_was_given():
    layer = layers.LSTM(2, bias_initializer="he_normal")
    layer.build((None, 3, 2))
    own = own_initializer(layer.cell, layer.cell.bias)
    assert format_initializer(own) == "HeNormal"
