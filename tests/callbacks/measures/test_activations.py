"""Statistics of activations, against NumPy in float64."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_initkit.callbacks.activation_history import STATISTICS
from keras_initkit.callbacks.measures.activations import activation_statistics

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def expected(outputs, activation=None, axis=-1):
    y = np.asarray(outputs, np.float64)
    others = tuple(i for i in range(y.ndim) if i != axis % y.ndim)
    slopes: dict[str, Any] = {
        "tanh": lambda: 1 - y**2,
        "sigmoid": lambda: 4 * y * (1 - y),
        "softsign": lambda: (1 - abs(y)) ** 2,
        "hard_tanh": lambda: abs(y) < 1,
        "hard_sigmoid": lambda: (y > 0) & (y < 1),
        "relu6": lambda: (y > 0) & (y < 6),
    }
    return {
        "mean": y.mean(),
        "variance": y.var(),
        "zeros": (y == 0).mean(),
        "dead_units": (y == 0).all(axis=others).mean(),
        "saturation": (slopes[activation]() < 0.01).mean() if activation else np.nan,
        "nonfinite": (~np.isfinite(y)).sum(),
    }


def assert_same(got, want, rtol=1e-4):
    for name in STATISTICS:
        np.testing.assert_allclose(got[name], want[name], rtol, atol=1e-6, err_msg=name)


def measure(outputs, *args):
    statistics = activation_statistics(outputs, *args)._asdict()
    values = {name: float(ops.convert_to_numpy(value)) for name, value in statistics.items()}
    return values | {"variance": values["std"] ** 2}


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float32", (40,)), ("float32", (4, 3, 3, 5)), ("float16", (40, 5)), ("bfloat16", (40, 5))],
)
def test_every_statistic_in_every_precision(rng, dtype, shape):
    y = np.maximum(rng.normal(300, 400, shape), 0)  # squares exceed float16
    y[..., :2] = 0
    y = ops.cast(y, dtype)
    want = ops.convert_to_numpy(ops.cast(y, "float32"))
    assert_same(measure(y), expected(want), 1e-5)
    assert_same(measure(y, None, 0), expected(want, axis=0), 1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_neither_vanishing_nor_exploding_outputs_lose_their_deviation(rng, scale):
    y = (rng.normal(1, 1, (50, 4)) * scale).astype("float32")
    got, y = measure(ops.convert_to_tensor(y)), y.astype("float64")
    np.testing.assert_allclose([got["mean"], got["std"]], [y.mean(), y.std()], rtol=1e-5)


def test_a_large_mean_hides_no_deviation(rng):
    y = rng.normal(1000, 0.1, (500, 4)).astype("float32")
    got = measure(ops.convert_to_tensor(y))
    np.testing.assert_allclose(got["std"], y.astype("float64").std(), rtol=1e-3)


def test_nonfinite_outputs_are_counted():
    y = ops.convert_to_tensor(np.array([[np.nan, 0], [1, np.inf]], "float32"))
    got = measure(y, "tanh")
    assert (got["nonfinite"], got["zeros"]) == (2, 0.25)
    assert not np.isfinite(got["mean"])
    assert np.isnan(got["variance"])


@pytest.mark.parametrize(
    "activation", ["tanh", "sigmoid", "softsign", "hard_tanh", "hard_sigmoid", "relu6"]
)
def test_saturation_is_where_the_slope_is_gone(activation):
    x = ops.cast(np.linspace(-20, 20, 4001), "bfloat16")
    y = keras.activations.get(activation)(x)
    want = expected(ops.convert_to_numpy(ops.cast(y, "float32")), activation)["saturation"]
    assert want > 0.4
    np.testing.assert_allclose(measure(y, activation)["saturation"], want, atol=1e-3)


def test_saturation_of_tanh_and_sigmoid_by_their_inputs():
    x = ops.convert_to_tensor(np.linspace(-10, 10, 20001).astype("float32"))
    for activation, edge in (("tanh", 2.993), ("sigmoid", 5.986)):
        got = measure(keras.activations.get(activation)(x), activation)["saturation"]
        np.testing.assert_allclose(got, 1 - edge / 10, atol=2e-4)


def test_outputs_beyond_an_activations_bounds_are_not_its_values():
    y = ops.convert_to_tensor(np.array([[0.5, 1.5]], "float32"))
    for activation in ("tanh", "sigmoid", "relu", "softmax", None):
        assert np.isnan(measure(y, activation)["saturation"])
    assert measure(y, "relu6")["saturation"] == 0


def test_channels_first_and_last_have_the_same_dead_units():
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 5)))
    y = ops.where(ops.reshape(ops.arange(3), (1, 3, 1, 1)) == 1, 0.0, x)
    np.testing.assert_allclose(measure(y, None, 1)["dead_units"], 1 / 3)
    np.testing.assert_allclose(measure(y, None, -1)["dead_units"], 0)
