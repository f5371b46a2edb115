"""Biases: what they predict, and what they remember."""

import functools
import math
import re

import keras
import numpy as np
import pytest

from keras_initkit.initializers import ChronoBias, ForgetGateBias, PriorBias
from tests.keras_initkit.initializers.helpers import array, built

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


def test_prior_biases_predict_frequencies():
    """So the loss at the start, a focal one as well, is that of knowing the frequencies."""
    x = np.zeros((1, 2), np.float32)
    rare = layers.Dense(2, "sigmoid", bias_initializer=PriorBias([0.01, 0.9]))
    np.testing.assert_allclose(array(rare(x)), [[0.01, 0.9]], rtol=1e-6)
    classes = layers.Dense(3, "softmax", bias_initializer=PriorBias([900, 90, 10], "softmax"))
    np.testing.assert_allclose(array(classes(x)), [[0.9, 0.09, 0.01]], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "shape"),
    [(layers.LSTM, (5, 3)), (functools.partial(layers.ConvLSTM1D, kernel_size=3), (4, 9, 2))],
    ids=["LSTM", "ConvLSTM1D"],
)
def test_a_layer_must_not_set_the_bias_of_its_forget_gate_itself(make, shape):
    # Which Keras does unless it is told not to: it asks for 16 units, as for 4 gates of 4.
    for initializer in (ForgetGateBias(16, 2.0), ChronoBias(16, 100, seed=0)):
        with pytest.raises(ValueError, match="pass `unit_forget_bias=False` to the layer"):
            built(make(16, bias_initializer=initializer), *shape)
        layer = built(make(16, bias_initializer=initializer, unit_forget_bias=False), *shape)
        bias = next(array(weight) for weight in layer.weights if weight.name == "bias")
        assert not bias[32:].any()
        assert np.all(bias[16:32] > 0)


def test_the_forget_gate_begins_open():
    ours = layers.LSTM(3, bias_initializer=ForgetGateBias(3), unit_forget_bias=False)
    own = layers.LSTM(3)
    np.testing.assert_array_equal(array(built(ours, 5, 3).cell.bias), [0] * 3 + [1] * 3 + [0] * 6)
    np.testing.assert_array_equal(array(built(own, 5, 3).cell.bias), array(ours.cell.bias))


def assert_state_decays_by(gru, expected):
    """Check the factor of a GRU's state after a step without inputs."""
    units = gru.units
    gru.cell.recurrent_kernel.assign(np.zeros((units, 3 * units)))
    state = array(gru.cell(np.zeros((1, 3), np.float32), [np.ones((1, units), np.float32)])[0])
    np.testing.assert_allclose(state[0], expected, rtol=1e-5)


@pytest.mark.parametrize("reset_after", [True, False])
def test_the_update_gate_of_a_gru_begins_open(reset_after):
    bias = ForgetGateBias(8, 3.0, "gru")
    gru = built(layers.GRU(8, bias_initializer=bias, reset_after=reset_after), 5, 3)
    assert array(gru.cell.bias).sum() == 24
    assert_state_decays_by(gru, np.full(8, 1 / (1 + math.exp(-3))))


def test_chrono_biases_spread_the_times_of_forgetting():
    lstm = layers.LSTM(400, bias_initializer=ChronoBias(400, 200, seed=0), unit_forget_bias=False)
    i, f, c, o = np.split(array(built(lstm, 5, 3).cell.bias), 4)
    np.testing.assert_array_equal(i, -f)
    assert not c.any()
    assert not o.any()
    times = np.exp(f)
    assert 1 <= times.min() < 10
    assert 190 < times.max() <= 199
    assert times.mean() == pytest.approx(100, abs=5 * 200 / math.sqrt(12 * 400))
    gru = built(layers.GRU(8, bias_initializer=ChronoBias(8, 50, "gru", seed=0)), 5, 3)
    update, *rest = np.split(array(gru.cell.bias)[0], 3)
    assert not np.any(rest)
    assert not array(gru.cell.bias)[1].any()
    assert_state_decays_by(gru, 1 / (1 + np.exp(-update)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PriorBias(1.0), "`prior` must be a probability, more than 0 and less than 1,"),
        (lambda: PriorBias([]), "or a sequence of one for each output. Received: prior=[]"),
        (lambda: PriorBias([1, 0], "softmax"), "For a class that is not in the data write 1."),
        (lambda: PriorBias(0.5, "tanh"), '`activation` must be one of "sigmoid", "softmax".'),
        (lambda: PriorBias([0.1, 0.2])((3,)), "Received: 2 numbers, and a bias of shape (3,)"),
        (lambda: ChronoBias(4, 1), "`longest` must be a finite number of 2 or more, a number of"),
        (lambda: ChronoBias(0, 9), "`units` must be a positive integer, those of the layer. Rec"),
        (lambda: ChronoBias(4, 9, "rnn"), '`cell` must be one of "lstm", "gru".'),
        (lambda: ChronoBias(4, 9)((12,)), "an 'lstm' cell of 4 units, (16,). Received: shape=(12,"),
        (lambda: ForgetGateBias(4, math.inf), "`value` must be a finite number, the bias of the"),
        (lambda: ForgetGateBias(4, cell="gru")((16,)), "(12,) or (2, 12). Received: shape=(16,)."),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
