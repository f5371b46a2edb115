"""Several trainings of parts of one model: encoder, decoder, then the whole."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit.callbacks import GradientMonitor
from tests.callbacks.training import BATCH, STEPS, data

pytestmark = [pytest.mark.backends("tensorflow", "jax"), pytest.mark.newest]


def test_each_training_records_what_it_trains():
    inputs = keras.Input((8,), name="inputs")
    code = layers.Dense(4, "tanh", name="encoder")(inputs)
    outputs = layers.Dense(8, name="decoder")(code)
    encoder, whole = keras.Model(inputs, code), keras.Model(inputs, outputs)
    decoder = keras.Model(code, outputs)
    x = data()[0]
    one, own = GradientMonitor(every_n_steps=1), []
    for model, given, target in ((encoder, x, x[:, :4] / 4), (decoder, x[:, :4], x), (whole, x, x)):
        model.compile(keras.optimizers.SGD(0.1), "mse")
        own.append(GradientMonitor(every_n_steps=1))
        model.fit(given, target, BATCH, verbose=0, shuffle=False, callbacks=[one, own[-1]])
    np.testing.assert_array_equal(one.history.steps, np.arange(3 * STEPS))
    assert set(one.history.layers) == {"encoder", "decoder"}
    trained = np.isfinite(one.history["norm"]).reshape(3, STEPS, 2).all(1)
    order = [one.history.layers.index(name) for name in ("encoder", "decoder")]
    np.testing.assert_array_equal(trained[:, order], [[1, 0], [0, 1], [1, 1]])
    parts = [["encoder"], ["decoder"], ["encoder", "decoder"]]
    assert [monitor.history.layers for monitor in own] == parts
    assert all(np.isfinite(monitor.history["norm"]).all() for monitor in own)
