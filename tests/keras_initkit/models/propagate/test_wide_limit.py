"""Maps behind padding against the limit of wide layers: Gaussian fields of exact covariance.

In that limit all units of a convolution are independent draws of one Gaussian field, of which the
covariance between any two positions follows from that of its inputs.
"""

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.models.propagate.signal import overlap

layers = keras.layers
SIZE, COMMON, UNITS = 8, 0.9, 20_000


def convolve(covariance):
    """Return the covariance of positions behind a 3x3 kernel of variance 2/fan_in, padded."""
    padded = np.zeros((SIZE + 2,) * 4)
    padded[(slice(1, -1),) * 4] = covariance.reshape((SIZE,) * 4)
    steps = [(slice(i, i + SIZE), slice(j, j + SIZE)) for i in range(3) for j in range(3)]
    total = np.sum([padded[(*step, *step)] for step in steps], axis=0)
    return 2.0 / 9.0 * total.reshape([SIZE**2] * 2)


def draw_field(covariance, rng):
    """Draw units of ReLU of a Gaussian field, and return their covariance, not centred, too."""
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(SIZE**2))
    values = np.maximum(rng.normal(size=(UNITS, SIZE**2)) @ root.T, 0.0)
    return values, values.T @ values / UNITS


@pytest.fixture(scope="module")
def field():
    """Return units behind three convolutions with ReLU, shape (units, rows, 2, columns, 2)."""
    rng = np.random.default_rng(0)
    covariance = COMMON + (1.0 - COMMON) * np.eye(SIZE**2)
    for _ in range(3):
        values, covariance = draw_field(convolve(covariance), rng)
    return values.reshape(UNITS, SIZE // 2, 2, SIZE // 2, 2)


def pool(kind):
    sizes = {} if "Global" in kind else {"pool_size": 2}
    return getattr(layers, kind)(**sizes, name="pooled")


@pytest.mark.parametrize("kind", ["MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"])
def test_pooling_of_maps_with_weak_borders(kind, field, rng):
    inputs = keras.Input((SIZE, SIZE, 64))
    x = inputs
    for name in "abc":
        layer = layers.Conv2D(64, 3, padding="same", kernel_initializer="he_normal", name=name)
        x = layers.ReLU(name=f"relu_{name}")(layer(x))
    model = keras.Model(inputs, pool(kind)(x))
    noise = rng.normal(size=(64, SIZE, SIZE, 64))
    shared = rng.normal(size=(64, 1, 1, 64))
    prediction = keras_initkit.propagate(
        model, COMMON**0.5 * shared + (1.0 - COMMON) ** 0.5 * noise
    )
    pooled = {
        "MaxPooling2D": lambda: field.max(axis=(2, 4)),
        "AveragePooling2D": lambda: field.mean(axis=(2, 4)),
        "GlobalAveragePooling2D": lambda: field.mean(axis=(1, 2, 3, 4)),
    }
    expected = (pooled[kind]() ** 2).mean() / (field**2).mean()
    found = prediction["pooled"].second_moment / prediction["relu_c"].second_moment
    # With pairs taken alike everywhere, the maximum would be off by 5 %.
    assert found == pytest.approx(expected, rel=0.04 if kind == "MaxPooling2D" else 0.02)


def test_overlap_is_the_mean_product_of_standard_deviations(rng):
    power = rng.uniform(0.2, 3.0, size=(5, 4))
    roots = np.sqrt(power)
    found = overlap(power, (5, 4, 7))
    assert found.shape == (9, 7)
    for i in range(5):
        for j in range(4):
            product = (roots[: 5 - i, : 4 - j] * roots[i:, j:]).mean() / power.mean()
            assert found[4 + i, 3 + j] == pytest.approx(product)
    assert (overlap(np.full((1, 1), 2.0), (5, 4, 7)) == 1.0).all()
