"""Weights of sine networks."""

import math

import keras
import numpy as np
import pytest

from keras_initkit.initializers import Siren
from tests.keras_initkit.initializers.helpers import array, assert_variance

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [(Siren(20, seed=1), 2 / 20**2 / 400), (Siren(first=True, seed=1), 1 / 3 / 400**2)],
)
def test_moments(initializer, variance):
    values = array(initializer((400, 600)))
    assert_variance(values, variance)
    assert np.abs(values).max() == pytest.approx(math.sqrt(3 * variance), rel=1e-3)
    assert initializer.stddev((400, 600)) == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_sines_keep_their_spread_over_layers():
    def sine(z):
        return keras.ops.sin(30.0 * z)

    x = np.random.default_rng(0).uniform(-1, 1, (512, 2)).astype("float32")
    signal = layers.Dense(256, sine, kernel_initializer=Siren(first=True, seed=0))(x)
    # After the first layer a sine of all phases; then of normal ones: E sin²z = (1 - e^(-2v))/2.
    variance = 1.0
    for seed in range(1, 6):
        before = layers.Dense(256, kernel_initializer=Siren(seed=seed))(signal)
        assert np.var(30 * array(before)) == pytest.approx(variance, rel=0.15)
        signal, variance = sine(before), 1 - math.exp(-2 * variance)


def test_a_frequency_is_positive():
    with pytest.raises(ValueError, match=r"above 0, the ω of the activation sin\(ω z\)\. Received"):
        Siren(omega=0)
