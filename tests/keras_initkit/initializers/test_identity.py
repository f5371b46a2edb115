"""Weights that hand inputs through."""

import math
import re

import keras
import numpy as np
import pytest

from keras_initkit.initializers import Dirac, Identity, ZerO
from tests.keras_initkit.initializers.helpers import array, built, draw

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


def test_identities_know_groups_gates_and_channels(rng):
    x = rng.standard_normal((2, 6, 6, 4)).astype("float32")
    for layer in (
        layers.Conv2D(4, 3, padding="same", groups=2),
        layers.DepthwiseConv2D(3, padding="same"),
        layers.Conv2D(4, (4, 2), padding="same"),
    ):
        layer.build(x.shape)
        # The layer counts its groups, whatever the initializer was told.
        draw(layer, "kernel", Dirac(groups=3))
        np.testing.assert_array_equal(array(layer(x)), x)
    lstm = built(layers.LSTM(5), 3, 5)
    _, maps = draw(lstm, "recurrent_kernel", Identity(0.5))
    np.testing.assert_array_equal(maps, np.broadcast_to(0.5 * np.eye(5), (4, 5, 5)))
    np.testing.assert_array_equal(
        array(Identity(0.5, gates=4)((5, 20))), array(lstm.cell.recurrent_kernel)
    )
    np.testing.assert_array_equal(array(Identity()((2, 3))), np.eye(2, 3))


def test_a_recurrent_layer_of_relus_keeps_its_state():
    rnn = layers.SimpleRNN(4, "relu", recurrent_initializer=Identity(), return_sequences=True)
    x = np.zeros((1, 9, 3), np.float32)
    x[0, 0] = 1
    y = array(rnn(x))[0]
    np.testing.assert_allclose(y, np.broadcast_to(y[0], y.shape))


@pytest.mark.parametrize(("padding", "taps"), [("same", 1), ("same", 4), ("valid", 3)])
def test_a_dirac_convolution_is_the_identity(rng, padding, taps):
    x = rng.standard_normal((2, 9, 8, 4)).astype("float32")
    layer = layers.Conv2D(4, taps, padding=padding, kernel_initializer=Dirac())
    first = 0 if padding == "same" else (taps - 1) // 2
    y = array(layer(x))
    np.testing.assert_array_equal(y, x[:, first:, first:][:, : y.shape[1], : y.shape[2]])


def test_dirac_with_groups_and_with_other_numbers_of_channels(rng):
    x = rng.standard_normal((2, 9, 4)).astype("float32")
    wide = layers.Conv1D(6, 3, padding="same", groups=2, kernel_initializer=Dirac(2.0, groups=2))
    nothing = np.zeros((2, 9, 1))
    parts = [2 * x[:, :, :2], nothing, 2 * x[:, :, 2:], nothing]
    np.testing.assert_array_equal(array(wide(x)), np.concatenate(parts, axis=2))
    narrow = layers.Dense(3, kernel_initializer=Dirac())
    np.testing.assert_array_equal(array(narrow(x)), x[:, :, :3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dirac(groups=0), "`groups` must be a positive integer, that of the convolution."),
        (lambda: Dirac(groups=2)((3, 2, 3)), "with outputs a multiple of groups=2. Received: sha"),
        (lambda: Dirac()((3,)), "`shape` must be (*taps, inputs of a group, outputs), with outpu"),
        (lambda: Identity(gates=True), "`gates` must be a positive integer, 1 for a matrix, 3 for"),
        (lambda: Identity(gates=2)((3, 5)), "with outputs a multiple of gates=2. Received: shape="),
        (lambda: Identity()((3, 3, 3)), "Received: shape=(3, 3, 3). For convolutions use Dirac."),
        (lambda: ZerO(math.nan), "`gain` must be a finite number, the factor of all weights."),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
