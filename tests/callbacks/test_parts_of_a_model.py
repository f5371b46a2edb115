"""Several trainings of parts of one model: encoder, decoder, then the whole."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit.callbacks import GradientMonitor
from tests.callbacks.training import BATCH, STEPS, data

pytestmark = pytest.mark.backends("tensorflow", "jax")


@pytest.mark.parametrize("one", [True, False])
def test_each_training_records_what_it_trains(one):
    inputs = keras.Input((8,), name="inputs")
    code = layers.Dense(4, "tanh", name="encoder")(inputs)
    outputs = layers.Dense(8, name="decoder")(code)
    encoder, whole = keras.Model(inputs, code), keras.Model(inputs, outputs)
    decoder = keras.Model(code, outputs)
    x = data()[0]
    monitor, recorded = GradientMonitor(every_n_steps=1), []
    for model, given, target in ((encoder, x, x[:, :4] / 4), (decoder, x[:, :4], x), (whole, x, x)):
        model.compile(keras.optimizers.SGD(0.1), "mse")
        if not one:
            monitor = GradientMonitor(every_n_steps=1)
        model.fit(given, target, BATCH, verbose=0, shuffle=False, callbacks=[monitor])
        recorded.append(monitor.history)
    if one:
        np.testing.assert_array_equal(monitor.history.steps, np.arange(3 * STEPS))
        assert set(monitor.history.layers) == {"encoder", "decoder"}
        trained = np.isfinite(monitor.history["norm"]).reshape(3, STEPS, 2).all(1)
        order = [monitor.history.layers.index(name) for name in ("encoder", "decoder")]
        np.testing.assert_array_equal(trained[:, order], [[1, 0], [0, 1], [1, 1]])
    else:
        assert [history.layers for history in recorded] == [
            ["encoder"],
            ["decoder"],
            ["encoder", "decoder"],
        ]
        assert all(np.isfinite(history["norm"]).all() for history in recorded)
