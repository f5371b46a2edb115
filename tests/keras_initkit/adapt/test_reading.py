"""What `adapt()` can be told: missing values, masks, weights, limits, methods, parts."""

from __future__ import annotations

import math
import signal
import threading
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from keras_initkit import Moments
from keras_initkit.adapt import progress
from keras_initkit.adapt.intake import Intake, feature_tables
from keras_initkit.layers import Normalization

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

Array = NDArray[Any]


def table(rows: int = 700, features: int = 5) -> Array:
    return np.random.default_rng(0).normal(3, 2, (rows, features)).astype("float32")


def numpy(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def statistics(layer: Any) -> tuple[Array, Array]:
    return numpy(layer.adapt_mean), numpy(layer.adapt_variance)


def adapted(data: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    layer = Normalization(**kwargs)
    layer.adapt(data, **(options or {}))
    return layer


def check(layer: Any, mean: Any, variance: Any) -> None:
    for got, expected in zip(statistics(layer), (mean, variance), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.fixture
def holes() -> Array:
    x = table().astype(np.float64)
    x[np.random.default_rng(1).random(x.shape) < 0.05] = np.nan
    return x


# Missing values.


@pytest.mark.parametrize("cuts", [1, 9])
def test_nan_can_be_left_out(holes: Array, cuts: int) -> None:
    layer = adapted(np.array_split(holes, cuts), {"nan": "ignore"})
    check(layer, np.nanmean(holes, axis=0), np.nanvar(holes, axis=0))
    assert layer.moments.count.tolist() == (~np.isnan(holes)).sum(axis=0).tolist()


def test_nan_can_propagate(holes: Array) -> None:
    holes[:, [0, 2]] = table()[:, [0, 2]]
    layer = adapted(holes, {"nan": "propagate"})
    whole = np.array([True, False, True, False, False])
    mean, variance = statistics(layer)
    assert np.isnan(mean).tolist() == (~whole).tolist()
    np.testing.assert_allclose(variance[whole], holes.var(axis=0)[whole], rtol=1e-6)


@pytest.mark.parametrize("nan", ["error", "ignore", "propagate"])
@pytest.mark.parametrize("cuts", [1, 7])
def test_an_infinite_value_is_an_error_that_says_where(nan: str, cuts: int) -> None:
    x = table()
    x[432, 3] = -np.inf
    message = r"must be finite. Received: -inf at row 432, feature 3, the first of 0 NaN and 1 inf"
    with pytest.raises(ValueError, match=message):
        adapted(np.array_split(x, cuts), {"nan": nan})


def test_nan_is_an_error_that_says_what_to_write() -> None:
    x = table()
    x[[9, 20], 1] = np.nan
    message = (
        r"Received: nan at row 9, feature 1, the first of 2 NaN .* rows 0 to 699.*nan='ignore'"
    )
    with pytest.raises(ValueError, match=message):
        adapted(x)


def test_the_place_of_a_bad_value_in_an_image() -> None:
    x = np.zeros((40, 5, 4, 3), "float32")
    x[17, 2, 3, 1] = np.inf
    with pytest.raises(ValueError, match="inf at row 17, feature 1,"):
        adapted(x)
    with pytest.raises(ValueError, match=r"inf at row 17, feature \(2, 1\),"):
        adapted(x, axis=(1, 3))


# What counts, and how much.


def test_masked_steps_do_not_count() -> None:
    x = np.random.default_rng(2).normal(2, 3, (50, 12, 4)).astype("float32")
    mask = np.arange(12) < np.random.default_rng(3).integers(1, 13, (50, 1))
    padded = np.where(mask[..., None], x, 0)
    expected = x[mask].astype(np.float64)
    for layer in (
        adapted(padded, {"mask": mask}),
        adapted(padded, {"mask_value": 0.0}),
        adapted(np.array_split(padded, 4), {"mask_value": 0.0}),
        adapted(np.ma.masked_array(padded, np.broadcast_to(~mask[..., None], x.shape))),
    ):
        check(layer, expected.mean(axis=0), expected.var(axis=0))
    masked = keras.layers.Masking()(padded)
    assert np.array_equal(numpy(layer(masked)._keras_mask), mask)


def test_weights_count() -> None:
    x, weights = table(), np.random.default_rng(4).integers(0, 3, 700)
    repeated = np.repeat(x, weights, axis=0).astype(np.float64)
    y = np.zeros(700)
    batches = [(x[:300], y[:300], weights[:300]), (x[300:], y[300:], weights[300:])]
    for layer in (adapted(x, {"sample_weight": weights}), adapted(batches)):
        check(layer, repeated.mean(axis=0), repeated.var(axis=0))


@pytest.mark.parametrize("axis", [-1, 1])
def test_large_batches_are_cut_where_their_weights_are(axis: int) -> None:
    x = np.random.default_rng(8).normal(2, 3, (300_000, 2, 3)).astype("float32")
    weights = np.random.default_rng(9).integers(0, 3, len(x))
    repeated = np.repeat(x, weights, axis=0).astype(np.float64)
    rest = (0, 1) if axis == -1 else (0, 2)
    for data, options in [([(x, None, weights)], {}), (x, {"sample_weight": weights})]:
        layer = adapted(data, options, axis=axis)
        check(layer, repeated.mean(axis=rest), repeated.var(axis=rest))
        assert layer.moments.rows == (900_000 if axis == 1 else 600_000)


def test_features_without_a_value(holes: Array) -> None:
    holes[:, 2] = np.nan
    message = r"a value that counts for each feature. Received: none in 700 rows for 1 of 5.*: 2."
    with pytest.raises(ValueError, match=message):
        adapted(holes, {"nan": "ignore"})
    with pytest.raises(ValueError, match=r"for 5 of 5 features: 0, 1, 2, 3, 4. Check the mask"):
        adapted(table(), {"sample_weight": np.zeros(700)})


def test_weights_of_steps() -> None:
    x = np.random.default_rng(5).normal(2, 3, (50, 6, 4)).astype("float32")
    weights = np.random.default_rng(6).integers(0, 3, (50, 6))
    repeated = np.repeat(x.reshape(-1, 4), weights.ravel(), axis=0).astype(np.float64)
    for axis in (-1, 2):
        layer = adapted(x, {"sample_weight": weights}, axis=axis)
        check(layer, repeated.mean(axis=0), repeated.var(axis=0))


# Limits, progress, Ctrl-C.


def endless(x: Array, size: int) -> Iterator[Array]:
    while True:
        yield from (x[start : start + size] for start in range(0, len(x), size))


def test_steps_and_rows_limit_the_pass() -> None:
    x = table().astype(np.float64)
    check(adapted(endless(x, 70), {"steps": 3}), x[:210].mean(axis=0), x[:210].var(axis=0))
    for data in (endless(x, 70), x):
        layer = adapted(data, {"max_rows": 333})
        check(layer, x[:333].mean(axis=0), x[:333].var(axis=0))
        assert layer.moments.rows == 333


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nan": "drop"}, r"`nan` must be one of 'error', 'ignore', 'propagate'. Received: nan='d"),
        ({"steps": 0}, r"`steps` must be a positive integer, or None.* Received: steps=0"),
        ({"max_rows": 1.5}, r"`max_rows` must be a positive integer.* Received: max_rows=1.5"),
        ({"engine": "spark"}, r"`engine` must be 'dask', 'beam' or a function"),
        ({"mask": np.ones(3, bool)}, r"`mask` must"),
        (
            {"sample_weight": np.ones(3)},
            r"must have the same number of rows in all arrays.* 700, 3 rows",
        ),
        ({"sample_weight": -np.ones(700)}, r"`sample_weight` must be finite and not negative"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    layer = Normalization()
    with pytest.raises(ValueError, match=message):
        layer.adapt(table(), **options)
    assert not layer.built


def test_progress_is_shown_on_request_and_when_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = np.array_split(table(), 7)
    adapted(batches)
    adapted(batches, {"verbose": 0})
    assert capsys.readouterr().out == ""
    adapted(batches, {"verbose": 1})
    assert "700/" in capsys.readouterr().out
    monkeypatch.setattr(progress, "_SECONDS_WITHOUT_PROGRESS", 0.0)
    adapted(table())
    assert "700/700" in capsys.readouterr().out


@pytest.fixture
def _as_in_a_terminal() -> Iterator[None]:
    """Ctrl-C as Python has it; jobs in the background may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_ctrl_c_keeps_what_was_read() -> None:
    x = table()

    def interrupted() -> Iterator[Array]:
        yield x[:100]
        signal.raise_signal(signal.SIGINT)
        yield x[100:300]
        yield x[300:]

    with pytest.warns(UserWarning, match="Interrupted: the statistics are those of the 300 rows"):
        layer = adapted(interrupted())
    check(layer, x[:300].astype(float).mean(axis=0), x[:300].astype(float).var(axis=0))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_a_second_ctrl_c_interrupts() -> None:
    def stuck() -> Iterator[Array]:
        yield table()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        time.sleep(60)

    layer = Normalization()
    with pytest.raises(KeyboardInterrupt):
        layer.adapt(stuck())
    assert not layer.built
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_another_thread() -> None:
    layers: list[Any] = []
    thread = threading.Thread(target=lambda: layers.append(adapted(table())))
    thread.start()
    thread.join()
    check(layers[0], table().astype(float).mean(axis=0), table().astype(float).var(axis=0))


# Passes that are added, and parts.


def test_a_pass_can_go_on() -> None:
    x = table()
    first = adapted(x[:300])
    state = first.moments.get_state()
    second = Normalization()
    second.adapt(x[300:], initial=Moments.from_state(state))
    check(second, x.astype(float).mean(axis=0), x.astype(float).var(axis=0))
    np.testing.assert_array_equal(first.moments.get_state()["m2"], state["m2"])


def test_a_pass_by_extremes_goes_on_from_such_only() -> None:
    first = adapted(table())
    layer = Normalization(method="min_max")
    with pytest.raises(ValueError, match=r"^`initial` must hold minima and maxima for method='min"):
        layer.adapt(table(), initial=first.moments)
    layer.adapt(table()[300:], initial=Moments((table().shape[1],)).update(table()[:300]))
    whole = Normalization(method="min_max")
    whole.adapt(table())
    np.testing.assert_array_equal(layer(table()), whole(table()))


def test_an_engine_gives_the_same() -> None:
    x = table()

    def engine(shards: Any, reduce: Any) -> Any:
        states = [reduce(shard) for shard in shards]
        while len(states) > 1:
            states.append(states.pop(0).merge(states.pop(0)))
        return states[0]

    parts = [x[:5], lambda: x[5:400], [x[400:500], x[500:]]]
    layer = adapted(parts, {"engine": engine})
    check(layer, x.astype(float).mean(axis=0), x.astype(float).var(axis=0))
    with pytest.raises(ValueError, match="All parts of `data` must have the same features"):
        adapted([x, x[:, 0, None, None]], {"engine": engine})


# Methods.


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
    with pytest.raises(ValueError, match=r"`method` must be one of 'standard', 'min_max'\."):
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


def test_a_pass_takes_little_memory() -> None:
    images = np.zeros((3000, 32, 32, 3), "uint8")
    images[::2] = 255
    adapted(images[:10])
    tracemalloc.start()
    layer = adapted(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    check(layer, 127.5, 127.5**2)
    assert peak < 5e6 < images.nbytes  # 9.2 MB, 74 as float64


# Intake.


def test_small_batches_are_joined_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Array] = []
    monkeypatch.setattr(Moments, "update", lambda self, batch, *_: seen.append(batch.copy()))
    generator = np.random.default_rng(6)
    sizes = [1, 3, 0, 70_000, 2, 30_000, 30_000, 5]
    batches = [generator.random((size, 7)).astype("float32") for size in sizes]
    batches.append(np.ones((2, 7)))
    intake = Intake((None, 7), (-1,))
    for batch in batches:
        intake.push(batch)
    intake.flush()
    np.testing.assert_array_equal(np.concatenate(seen), np.concatenate(batches))
    assert [batch.dtype for batch in seen] == [np.float32] * (len(seen) - 1) + [np.float64]
    assert len(seen) < len(batches)


@pytest.mark.parametrize("keep", [(1,), (2,), (1, 3), (3,), (1, 2, 3), ()])
def test_tables_of_features(keep: tuple[int, ...]) -> None:
    x = np.random.default_rng(9).random((7, 3, 4, 5))
    rest = tuple(axis for axis in range(4) if axis not in keep)
    got, none = zip(*feature_tables(x, keep, None), strict=True)
    assert set(none) == {None}
    expected = x.transpose(*rest, *keep).reshape(-1, math.prod(x.shape[a] for a in keep))
    np.testing.assert_array_equal(np.concatenate(got), expected)
