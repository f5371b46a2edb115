"""Training under a compiler that fuses operations as it likes, with and without the monitor."""

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor
from tests.callbacks.training import BACKEND, compiled, convolutional, fit

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


@pytest.mark.slow
def test_a_hundred_steps_are_bit_identical_random_numbers_included():
    def make():
        return keras.Sequential([keras.Input((8,)), convolutional(), keras.layers.Dropout(0.2)])

    def trained(*callbacks):
        optimizer = keras.optimizers.Adam(1e-2, clipnorm=0.1)
        model = compiled(make, optimizer, jit_compile=BACKEND == "tensorflow" or "auto")
        fit(model, *callbacks, epochs=17)
        return model.get_weights()

    for a, b in zip(trained(), trained(GradientMonitor(every_n_steps=3)), strict=True):
        np.testing.assert_array_equal(a, b)
