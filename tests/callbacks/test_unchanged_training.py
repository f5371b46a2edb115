"""Training under a compiler that fuses operations as it likes, with and without the monitor."""

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor
from tests.callbacks.training import BACKEND, compiled, convolutional, fit, mlp

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

COMPILED = {"jit_compile": True} if BACKEND == "tensorflow" else {}
EPOCHS = 17  # a hundred steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "optimizer", "every_n_steps"),
    [
        (mlp, lambda: keras.optimizers.SGD(0.05, momentum=0.9), 1),
        (convolutional, lambda: keras.optimizers.Adam(1e-2, clipnorm=0.1), 3),
    ],
    ids=["mlp", "convolutional"],
)
def test_a_hundred_steps_are_bit_identical(make, optimizer, every_n_steps):
    def trained(*callbacks):
        model = compiled(make, optimizer(), **COMPILED)
        fit(model, *callbacks, make=make, epochs=EPOCHS)
        return model.get_weights()

    for a, b in zip(trained(), trained(GradientMonitor(every_n_steps=every_n_steps)), strict=True):
        np.testing.assert_array_equal(a, b)
