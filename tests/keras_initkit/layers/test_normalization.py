"""`Normalization`: exact from every source, Keras's layer in every other respect."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from keras_initkit.layers import Normalization
from tests.callbacks.training import two_devices

tf = pytest.importorskip("tensorflow")

Array = NDArray[Any]


def table(rows: int = 700, features: int = 5) -> Array:
    return np.random.default_rng(0).normal(3, 2, (rows, features)).astype("float32")


def numpy(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def statistics(layer: Any) -> tuple[Array, Array]:
    return layer.adapt_mean.numpy(), layer.adapt_variance.numpy()


def adapted(data: Any, **kwargs: Any) -> Any:
    layer = Normalization(**kwargs)
    layer.adapt(data)
    return layer


y = np.zeros(700)
dataset = tf.data.Dataset.from_tensor_slices
# tests/keras_initkit/adapt reads all others.
SOURCES: dict[str, Callable[[Array], Any]] = {
    "array": lambda x: x,
    "tensor": lambda x: keras.ops.convert_to_tensor(x),
    "tf.data of x, y, w": lambda x: dataset((x, y, y + 1)).batch(64),
    "tf.data repeated twice": lambda x: dataset(x).batch(64).repeat(2),
    "list of x, y": lambda x: [(x[:300], y[:300]), (x[300:], y[300:])],
    "generator": lambda x: (x[i : i + 64] for i in range(0, 700, 64)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_statistics(source: str) -> None:
    x = table()
    mean, variance = statistics(adapted(SOURCES[source](x)))
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(variance, wide.var(axis=0), rtol=1e-7)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((500, 4), -1),
        ((500, 4), None),
        ((500,), None),
        ((60, 5, 4), (1, 2)),
        ((60, 5, 4), (2, 1)),
        ((60, 5, 4), 1),
        ((40, 5, 4, 3), -1),
        ((40, 5, 4, 3), (1, 3)),
        ((40, 5, 4, 3), (-3, -1)),
        ((40, 5, 4, 3), [1, 2, 3]),
    ],
)
def test_agrees_with_keras(shape: tuple[int, ...], axis: Any, invert: bool) -> None:
    x = np.random.default_rng(1).normal(1, 2, shape).astype("float32")
    theirs = keras.layers.Normalization(axis=axis, invert=invert)
    theirs.adapt(x)
    for data in (x, iter(np.array_split(x, 7))):
        ours = adapted(data, axis=axis, invert=invert)
        for got, expected in zip(statistics(ours), statistics(theirs), strict=True):
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=2e-5)
        np.testing.assert_allclose(numpy(ours(x)), numpy(theirs(x)), rtol=1e-4, atol=1e-5)


def test_given_statistics_agree_with_keras() -> None:
    x = table()
    arguments: dict[str, Any] = {"mean": [1.0, 2, 3, 4, 5], "variance": [2.0, 3, 4, 5, 6]}
    expected = keras.layers.Normalization(**arguments)(x)
    layer = Normalization(**arguments)
    np.testing.assert_allclose(numpy(layer(x)), numpy(expected), rtol=1e-6)
    with pytest.raises(ValueError, match=r"without given statistics.* Drop these"):
        layer.adapt(x)


def test_it_is_a_keras_normalization() -> None:
    layer = Normalization(axis=(1, 2), invert=True, name="n")
    assert isinstance(layer, keras.layers.Normalization)
    assert layer.get_config() == keras.layers.Normalization(
        axis=(1, 2), invert=True, name="n"
    ).get_config() | {"dtype": layer.get_config()["dtype"]}
    assert Normalization.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.slow
def test_images_where_a_float32_sum_saturates() -> None:
    # 18.4 million ones a channel: in float32, 2**24 + 1 is 2**24.
    x = np.broadcast_to(np.float32(1), (2000, 96, 96, 2))
    theirs = keras.layers.Normalization()
    theirs.adapt(x)
    assert np.all(statistics(theirs)[0] < 0.95), "Keras has become right: say so in the docs"
    with pytest.warns(UserWarning, match="2 of 2 features are constant"):
        mean, variance = statistics(adapted(x))
    assert mean.tolist() == [1.0, 1.0]
    assert variance.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("data", ["array", "stream"])
def test_large_offsets(data: str) -> None:
    x = np.random.default_rng(2).normal(1e6, 1, (20_000, 3)).astype("float32")
    layer = adapted(x if data == "array" else iter(np.array_split(x, 50)))
    np.testing.assert_allclose(statistics(layer)[1], x.astype(np.float64).var(axis=0), rtol=1e-6)


@pytest.mark.parametrize("value", [0.1, 0.0, 1e6 / 3, -1e-20])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_feature_becomes_zero(value: float, dtype: str) -> None:
    x = np.full((3000, 2), value, dtype)
    x[:, 1] = np.arange(3000)
    for data in (x, iter(np.array_split(x, 9))):
        with pytest.warns(UserWarning, match="1 of 2 features are constant and come out as 0: 0."):
            outputs = numpy(adapted(data)(x))
        assert np.all(outputs[:, 0] == 0)
        assert np.isfinite(outputs).all()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float16"])
def test_integers_and_halves(dtype: str) -> None:
    x = np.random.default_rng(3).integers(0, 2 if dtype == "bool" else 255, (400, 6, 6, 3))
    x = x.astype(dtype)
    mean, variance = statistics(adapted(x))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=(0, 1, 2)), rtol=1e-6)


def test_images_of_varying_size() -> None:
    generator = np.random.default_rng(4)
    images = [generator.random((2, n, n + 1, 3)).astype("float32") for n in (3, 5, 8)]
    rows = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    np.testing.assert_allclose(statistics(adapted(images))[0], rows.mean(axis=0), rtol=1e-6)


def test_a_compiled_model_sees_a_later_adapt() -> None:
    x = table()
    layer = adapted(x)
    model = keras.Sequential([keras.Input((5,)), layer])
    np.testing.assert_allclose(model.predict(x, verbose=0).mean(axis=0), 0, atol=1e-5)
    layer.adapt(x + 10)
    np.testing.assert_allclose(model.predict(x + 10, verbose=0).mean(axis=0), 0, atol=1e-4)
    layer.set_weights([np.zeros(5), np.ones(5), np.array(0)])
    np.testing.assert_allclose(model.predict(x, verbose=0), x, rtol=1e-6)


def test_inside_tf_data_map() -> None:
    x = table()
    layer = adapted(x)
    mapped = dataset(x).batch(100).map(layer)
    got = np.concatenate(list(mapped.as_numpy_iterator()))
    np.testing.assert_allclose(got, numpy(layer(x)), rtol=1e-5, atol=1e-6)
    # The function holds constants, not the variables: those may lie on another device.
    layer.adapt(x + 10)
    again = np.concatenate(list(mapped.as_numpy_iterator()))
    np.testing.assert_array_equal(again, got)


def test_mixed_precision_does_not_overflow_the_variance() -> None:
    x = np.random.default_rng(5).normal(5000, 1000, (2000, 2)).astype("float32")
    layer = adapted(iter(np.array_split(x, 5)), dtype="mixed_float16")
    outputs = keras.Sequential([keras.Input((2,)), layer]).predict(x, verbose=0)
    assert outputs.dtype == np.float16
    np.testing.assert_allclose(outputs.astype("float32").std(axis=0), 1, atol=0.01)


def test_it_takes_the_weights_of_a_keras_layer(tmp_path: Path) -> None:
    x = table()
    models = [
        keras.Sequential([keras.Input((5,)), layer])
        for layer in (keras.layers.Normalization(name="n"), Normalization(name="n"))
    ]
    models[0].layers[0].adapt(x)
    models[0].save_weights(tmp_path / "x.weights.h5")
    models[1].load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_allclose(numpy(models[1](x)), numpy(models[0](x)), rtol=1e-5, atol=1e-6)


def nan_at(*places: tuple[int, int]) -> Array:
    x = table()
    for place in places:
        x[place] = np.nan
    return x


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: {"a": table()}, TypeError, r"structure 'a'. Use `keras_initkit.with_normalization"),
    (
        lambda: dataset({"a": table()}).batch(9),
        TypeError,
        r"structure 'a'. Use .*with_normalization",
    ),
    (lambda: tf.ragged.constant([[1.0], []]), ValueError, r"a known size along axis=\(-1,\)"),
    (lambda: np.zeros((5, 0)), ValueError, r"at least one feature.*Check what dropped"),
    (lambda: np.arange(9.0), ValueError, r"must not be the batch axis.*`axis=None`"),
    (lambda: [table(), table(features=4)], ValueError, r"an incompatible shape, \(700, 4\)"),
    (lambda: [table(), np.zeros(5)], ValueError, r"an incompatible shape, \(5,\)"),
    (
        lambda: nan_at((3, 1), (4, 1), (9, 4)),
        ValueError,
        r"Received: nan at row 3, feature 1, the first of 3 NaN and 0 infinite values in rows 0",
    ),
    (lambda: np.array([[1e30], [-1e30]]), ValueError, r"that float32 can hold.*dtype='float64'"),
]


@pytest.mark.parametrize(("make", "kind", "message"), ERRORS)
def test_errors_say_what_to_write(make: Any, kind: type[Exception], message: str) -> None:
    layer = Normalization()
    with pytest.raises(kind, match=message):
        layer.adapt(make())
    assert not layer.built


@pytest.mark.parametrize(
    "bad",
    [
        lambda: nan_at((699, 0)),
        lambda: table(features=4),
        lambda: np.zeros((4, 3, 5)),
        lambda: iter([table(), table(features=4)]),
    ],
)
def test_former_statistics_survive_an_error(bad: Callable[[], Any]) -> None:
    layer = adapted(table())
    before = statistics(layer)
    with pytest.raises(ValueError, match="`data` must"):
        layer.adapt(bad())
    for got, expected in zip(statistics(layer), before, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_axis_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"`axis` must lie in \[-2, 2\).* Received: axis=\(3,\)"):
        adapted(table(), axis=3)


def test_under_a_distribution_strategy() -> None:
    x = table()
    strategy = two_devices()
    batches = dataset(x).batch(100)
    with strategy.scope():
        layer = Normalization()
        model = keras.Sequential([keras.Input((5,)), layer])
        layer.adapt(batches.map(lambda a: a + 1))
    np.testing.assert_allclose(model.predict(x + 1, verbose=0).mean(axis=0), 0, atol=1e-5)
    layer.adapt(batches)
    mean, variance = (np.asarray(keras.ops.add(w, 0)) for w in layer.weights[:2])
    np.testing.assert_allclose(mean, x.astype(float).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(float).var(axis=0), rtol=1e-6)
    np.testing.assert_allclose(model.predict(x, verbose=0).mean(axis=0), 0, atol=1e-5)


def test_warnings_are_at_the_users_line() -> None:
    with pytest.warns(UserWarning, match="constant") as seen:
        adapted(np.ones((9, 2)))
    assert seen[0].filename == __file__


def test_what_keras_has_not_is_given_by_keyword() -> None:
    parameters = inspect.signature(Normalization).parameters
    theirs = list(inspect.signature(keras.layers.Normalization).parameters)
    ours = [name for name, p in parameters.items() if p.kind != inspect.Parameter.KEYWORD_ONLY]
    assert ours == theirs
    _, _, *options = inspect.signature(Normalization.adapt).parameters.values()
    assert {option.kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}
