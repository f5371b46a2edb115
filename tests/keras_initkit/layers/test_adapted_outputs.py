"""What an adapted layer makes of values: every method, every dtype, constants, large means."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from keras_initkit.layers import Normalization

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

Array = NDArray[Any]


def table(rows: int = 700, features: int = 5) -> Array:
    return np.random.default_rng(0).normal(3, 2, (rows, features)).astype("float32")


def numpy(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def adapted(data: Any, **kwargs: Any) -> Any:
    layer = Normalization(**kwargs)
    layer.adapt(data)
    return layer


def test_min_max() -> None:
    x = table()
    outputs = numpy(adapted(x, method="min_max")(x))
    assert outputs.min(axis=0).tolist() == [0.0] * 5
    np.testing.assert_allclose(outputs.max(axis=0), 1, rtol=1e-6)
    layer = adapted(x, method="min_max", feature_range=(-1, 3))
    outputs = numpy(layer(x))
    np.testing.assert_allclose(outputs.min(axis=0), -1, rtol=1e-5)
    np.testing.assert_allclose(outputs.max(axis=0), 3, rtol=1e-5)
    copy = Normalization.from_config(layer.get_config())
    copy.adapt(x)
    np.testing.assert_array_equal(numpy(copy(x)), outputs)


@pytest.mark.parametrize("method", ["standard", "min_max"])
def test_every_method_inverts(method: str) -> None:
    x = table()
    there, back = adapted(x, method=method), adapted(x, method=method, invert=True)
    np.testing.assert_allclose(numpy(back(there(x))), x, rtol=1e-5, atol=1e-5)


def test_bad_methods() -> None:
    with pytest.raises(ValueError, match=r'`method` must be one of "standard", "min_max"\.'):
        Normalization(method="minmax")
    with pytest.raises(ValueError, match=r"`feature_range` must be a pair \(low, high\)"):
        Normalization(method="min_max", feature_range=(1, 1))


# Features that can't be scaled.


def test_constant_features_are_named_once_and_come_out_as_zero() -> None:
    x = table()
    x[:, 1], x[:, 4] = 0.1, -1e6 / 3
    with pytest.warns(
        UserWarning, match="2 of 5 features are constant.* as 0: 1, 4. Leave"
    ) as seen:
        layer = adapted(x)
    assert [warning.category for warning in seen].count(UserWarning) == 1
    outputs = numpy(layer(x))
    assert np.all(outputs[:, [1, 4]] == 0)
    # A value that was never seen is shifted, not blown up.
    np.testing.assert_allclose(numpy(layer(x + 1))[:, 1], 1, rtol=1e-6)


def test_features_without_a_scale_are_shifted_only() -> None:
    with pytest.warns(UserWarning, match="no scale by method='standard' in float32"):
        adapted(table()[:, :1].astype(float) * 1e-25)


def test_small_deviations_are_scaled_as_others() -> None:
    x = table() * np.float32(1e-9)
    outputs = numpy(adapted(x)(x))
    np.testing.assert_allclose(outputs.std(axis=0), 1, rtol=1e-4)


def test_a_warning_where_float32_has_no_steps_left() -> None:
    x = np.random.default_rng(8).normal(0, 1, (5000, 2)) + np.array([1e7, 0])
    message = r"float32 can't resolve 1 of 2 features.* deviations: 0. .* up to 1 standard"
    with pytest.warns(UserWarning, match=message):
        adapted(x)
    if keras.backend.backend() != "jax":  # which has no float64
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            adapted(x, dtype="float64")


def test_what_rounding_left_of_the_mean_is_subtracted(tmp_path: Any) -> None:
    # The values are float32 numbers, the mean lies a third of a step beside one.
    x = (np.arange(30) % 3 == 0)[:, None] * 4.0 + 2.0**25
    x = x.astype("float32")
    with pytest.warns(UserWarning, match="can't resolve"):
        layer = adapted(x)
    exact = (x.astype(float) - x.astype(float).mean()) / x.astype(float).std()
    np.testing.assert_allclose(numpy(layer(x)), exact, rtol=1e-5)
    model = keras.Sequential([keras.Input((1,)), layer])
    np.testing.assert_allclose(model.predict(x, verbose=0), exact, rtol=1e-5)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), exact, rtol=1e-5)
    inverse = Normalization(mean=[0.0], variance=[1.0], invert=True)
    np.testing.assert_array_equal(numpy(inverse(x)), x)
    # It belongs to no other mean.
    layer.set_weights([np.array([2.0]), np.array([4.0]), np.array(0)])
    y = np.array([[4.0]], "float32")
    np.testing.assert_array_equal(model.predict(y, verbose=0), [[1.0]])


# Where Keras's layer is silently wrong, or fails.


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64")
def test_a_long_stream_with_a_huge_offset() -> None:
    x = np.random.default_rng(10).normal(1e9, 1, (30_000, 2))
    layer = adapted(iter(np.array_split(x, 100)), dtype="float64")
    exact = x - 1e9  # without rounding, which `x.var()` is not
    np.testing.assert_allclose(layer.moments.variance, exact.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer.moments.mean - 1e9, exact.mean(axis=0), atol=1.2e-7)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("mean", "std"), [(100, 1), (1e4, 10)])
def test_bfloat16_is_only_the_type_of_the_result(given: bool, mean: float, std: float) -> None:
    x = np.random.default_rng(11).normal(mean, std, (500, 3)).astype("float32")
    statistics_given = {"mean": x.mean(axis=0), "variance": x.var(axis=0)} if given else {}
    layer = Normalization(dtype="mixed_bfloat16", **statistics_given)
    if not given:
        layer.adapt(iter(np.array_split(x, 5)))
    outputs = keras.ops.convert_to_numpy(keras.ops.cast(layer(x), "float32"))
    exact = (x - x.astype(float).mean(axis=0)) / x.astype(float).std(axis=0)
    # Half a step of bfloat16: Keras is off by .14 and by 1.35 standard deviations.
    np.testing.assert_allclose(outputs, exact, rtol=2**-8, atol=2e-3)


def test_statistics_of_another_layer_can_be_given() -> None:
    x = table()
    there = adapted(x)
    back = Normalization(mean=there.mean, variance=there.variance, invert=True)
    np.testing.assert_allclose(numpy(back(there(x))), x, rtol=1e-5, atol=1e-5)


def test_a_clone_has_statistics_of_its_own() -> None:
    x = table()
    model = keras.Sequential([keras.Input((5,)), adapted(x)])
    expected = model.predict(x, verbose=0)
    clone = keras.models.clone_model(model)
    np.testing.assert_array_equal(clone.predict(x, verbose=0), x)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(clone.predict(x, verbose=0), expected, rtol=1e-6)
    clone.layers[0].adapt(x + 5)
    np.testing.assert_allclose(clone.predict(x + 5, verbose=0), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-6)
