"""`Normalization`: exact, and Keras's layer in every other respect."""

import inspect
import warnings

import keras
import numpy as np
import pytest
import scipy.sparse

import keras_initkit
from keras_initkit.layers import Normalization
from tests.keras_initkit.layers.adapted import adapted, numpy, table

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

BACKEND = keras.backend.backend()


def statistics(layer):
    return numpy(layer.adapt_mean), numpy(layer.adapt_variance)


# tests/keras_initkit/adapt reads data of all kinds.
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((500, 4), -1),
        ((500,), None),
        ((60, 5, 4), (2, 1)),
        ((40, 5, 4, 3), (-3, -1)),
        ((40, 5, 4, 3), [1, 2, 3]),
    ],
)
def test_agrees_with_keras(shape, axis, invert):
    x = np.random.default_rng(1).normal(1, 2, shape).astype("float32")
    theirs = keras.layers.Normalization(axis=axis, invert=invert)
    theirs.adapt(x)
    for data in (x, iter(np.array_split(x, 7))):
        ours = adapted(data, axis=axis, invert=invert)
        for got, expected in zip(statistics(ours), statistics(theirs), strict=True):
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=2e-5)
        np.testing.assert_allclose(numpy(ours(x)), numpy(theirs(x)), rtol=1e-4, atol=1e-5)


def test_it_is_a_keras_normalization():
    layer = Normalization(axis=(1, 2), invert=True, name="n")
    assert isinstance(layer, keras.layers.Normalization)
    assert layer.get_config() == keras.layers.Normalization(
        axis=(1, 2), invert=True, name="n"
    ).get_config() | {"dtype": layer.get_config()["dtype"]}
    assert Normalization.from_config(layer.get_config()).get_config() == layer.get_config()


def test_what_keras_has_not_is_given_by_keyword():
    parameters = inspect.signature(Normalization).parameters
    theirs = list(inspect.signature(keras.layers.Normalization).parameters)
    ours = [name for name, p in parameters.items() if p.kind != inspect.Parameter.KEYWORD_ONLY]
    assert ours == theirs
    _, _, *options = inspect.signature(Normalization.adapt).parameters.values()
    assert {option.kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}


def test_it_takes_the_weights_of_a_keras_layer(tmp_path):
    x = table()
    models = [
        keras.Sequential([keras.Input((5,)), layer])
        for layer in (keras.layers.Normalization(name="n"), Normalization(name="n"))
    ]
    models[0].layers[0].adapt(x)
    models[0].save_weights(tmp_path / "x.weights.h5")
    models[1].load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_allclose(numpy(models[1](x)), numpy(models[0](x)), rtol=1e-5, atol=1e-6)


def test_statistics_of_another_layer_can_be_given():
    x = table()
    there = adapted(x)
    back = Normalization(mean=there.mean, variance=there.variance, invert=True)
    np.testing.assert_allclose(numpy(back(there(x))), x, rtol=1e-5, atol=1e-5)


def test_min_max():
    x = table()
    layer = adapted(x, method="min_max", feature_range=(-1, 3))
    outputs = numpy(layer(x))
    np.testing.assert_allclose(outputs.min(axis=0), -1, rtol=1e-5)
    np.testing.assert_allclose(outputs.max(axis=0), 3, rtol=1e-5)
    copy = Normalization.from_config(layer.get_config() | {"invert": True})
    copy.adapt(x)
    np.testing.assert_allclose(numpy(copy(outputs)), x, rtol=1e-5, atol=1e-5)


# Where Keras's layer is silently wrong, or fails.


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64")
def test_a_long_stream_with_a_huge_offset():
    x = np.random.default_rng(10).normal(1e9, 1, (30_000, 2))
    layer = adapted(iter(np.array_split(x, 100)), dtype="float64")
    exact = x - 1e9  # without rounding, which `x.var()` is not
    np.testing.assert_allclose(layer.moments.variance, exact.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer.moments.mean - 1e9, exact.mean(axis=0), atol=1.2e-7)


def test_constant_features_are_named_once_and_come_out_as_zero():
    x = table()
    x[:, 1], x[:, 4] = 0.1, -1e6 / 3
    for data in (x, iter(np.array_split(x, 9))):
        layer = Normalization()
        with pytest.warns(UserWarning, match="2 of 5 .* constant.* as 0: 1, 4. Leave") as seen:
            layer.adapt(data)
        assert [w.filename for w in seen if w.category is UserWarning] == [__file__]
        assert np.all(numpy(layer(x))[:, [1, 4]] == 0)
        # A value that was never seen is shifted, not blown up.
        np.testing.assert_allclose(numpy(layer(x + 1))[:, 1], 1, rtol=1e-6)


def test_small_deviations_are_scaled_as_others():
    x = table() * np.float32(1e-9)
    np.testing.assert_allclose(numpy(adapted(x)(x)).std(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("dtype", "mean", "std"), [("bfloat16", 1e4, 10), ("float16", 5000, 1000)])
def test_halves_are_only_the_type_of_the_result(dtype, given, mean, std):
    x = np.random.default_rng(11).normal(mean, std, (500, 3)).astype("float32")
    statistics_given = {"mean": x.mean(axis=0), "variance": x.var(axis=0)} if given else {}
    layer = Normalization(dtype=f"mixed_{dtype}", **statistics_given)
    if not given:
        layer.adapt(iter(np.array_split(x, 5)))
    outputs = layer(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    exact = (x - x.astype(float).mean(axis=0)) / x.astype(float).std(axis=0)
    # Half a step of bfloat16, where Keras is off by 1.35 standard deviations. A variance of 10⁶
    # overflows float16.
    outputs = numpy(keras.ops.cast(outputs, "float32"))
    np.testing.assert_allclose(outputs, exact, rtol=2**-8, atol=2e-3)


def test_what_rounding_left_of_the_mean_is_subtracted(tmp_path):
    # The values are float32 numbers, the mean lies a third of a step beside one.
    x = (np.arange(30) % 3 == 0)[:, None] * 4.0 + 2.0**25
    x = x.astype("float32")
    with pytest.warns(UserWarning, match="can't resolve"):
        layer = adapted(x)
    exact = (x.astype(float) - x.astype(float).mean()) / x.astype(float).std()
    model = keras.Sequential([keras.Input((1,)), layer])
    np.testing.assert_allclose(model.predict(x, verbose=0), exact, rtol=1e-5)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(numpy(loaded(x)), exact, rtol=1e-5)
    inverse = Normalization(mean=[0.0], variance=[1.0], invert=True)
    np.testing.assert_array_equal(numpy(inverse(x)), x)
    # It belongs to no other mean.
    layer.set_weights([np.array([2.0]), np.array([4.0]), np.array(0)])
    y = np.array([[4.0]], "float32")
    np.testing.assert_array_equal(model.predict(y, verbose=0), [[1.0]])


def test_a_compiled_model_sees_a_later_adapt():
    x = table()
    layer = adapted(x)
    model = keras.Sequential([keras.Input((5,)), layer])
    np.testing.assert_allclose(model.predict(x, verbose=0).mean(axis=0), 0, atol=1e-5)
    layer.adapt(x + 10)
    np.testing.assert_allclose(model.predict(x + 10, verbose=0).mean(axis=0), 0, atol=1e-4)


def test_inside_tf_data_map():
    tf = pytest.importorskip("tensorflow")
    x = table()
    layer = adapted(x)
    mapped = tf.data.Dataset.from_tensor_slices(x).batch(100).map(layer)
    got = np.concatenate(list(mapped.as_numpy_iterator()))
    np.testing.assert_allclose(got, numpy(layer(x)), rtol=1e-5, atol=1e-6)
    # The function holds constants, not the variables: those may lie on another device.
    layer.adapt(x + 10)
    again = np.concatenate(list(mapped.as_numpy_iterator()))
    np.testing.assert_array_equal(again, got)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own")
def test_under_a_distribution_strategy():
    from tests.callbacks.training import two_devices

    x = table()
    strategy = two_devices()
    with strategy.scope():
        layer = Normalization()
        model = keras.Sequential([keras.Input((5,)), layer])
        layer.adapt(x + 1)
    layer.adapt(x)  # and outside
    mean, variance = (np.asarray(keras.ops.add(w, 0)) for w in layer.weights[:2])
    np.testing.assert_allclose(mean, x.astype(float).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(float).var(axis=0), rtol=1e-6)
    np.testing.assert_allclose(model.predict(x, verbose=0).mean(axis=0), 0, atol=1e-5)


def test_images_of_varying_size():
    generator = np.random.default_rng(4)
    images = [generator.random((2, n, n + 1, 3)).astype("float32") for n in (3, 5, 8)]
    rows = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    np.testing.assert_allclose(statistics(adapted(images))[0], rows.mean(axis=0), rtol=1e-6)


# Errors.

ADAPT_ERRORS = [
    ({"a": table()}, TypeError, r"structure 'a'. Use `keras_initkit.with_normalization"),
    (np.zeros((5, 0)), ValueError, r"at least one feature.*Check what dropped"),
    (np.arange(9.0), ValueError, r"must not be the batch axis.*`axis=None`"),
    ([table(), table(4)], ValueError, r"an incompatible shape, \(700, 4\)"),
    ([table(), np.zeros(5)], ValueError, r"an incompatible shape, \(5,\)"),
    ([table(), {"a": table()}], ValueError, r"a batch that is a dict. Give all batches the same"),
    (scipy.sparse.csr_array((3, 2**40)), MemoryError, r"that fit into memory.*drop features"),
    (np.array([[1e30], [-1e30]]), ValueError, r"that float32 can hold.*dtype='float64'"),
]


@pytest.mark.parametrize(("data", "kind", "message"), ADAPT_ERRORS)
def test_errors_of_adapt(data, kind, message):
    layer = Normalization()
    with pytest.raises(kind, match=message):
        layer.adapt(data)
    assert not layer.built


def test_features_of_unknown_number():
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(ValueError, match=r"a known size along axis=\(-1,\)"):
        adapted(tf.ragged.constant([[1.0], []]))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"axis": 3}, r"`axis` must lie in \[-2, 2\).* Received: axis=\(3,\)"),
        ({"mean": 1.0, "variance": 2.0}, r"without given statistics.* Drop these"),
        ({"method": "minmax"}, r'`method` must be one of "standard", "min_max"\.'),
        ({"method": "min_max", "feature_range": (1, 1)}, r"`feature_range` must be a pair \(low"),
    ],
)
def test_errors_of_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        adapted(table(), **kwargs)


@pytest.mark.parametrize("initial", [5, {"a": 1}, keras_initkit.Moments])
def test_what_is_no_moments_is_told_before_anything_is_read(initial):
    with pytest.raises(TypeError, match=r"^`initial` must be .* Received: initial=.*from_state"):
        Normalization().adapt(iter(()), initial=initial)


# Use before `adapt()`.


def model_of(layer):
    model = keras.Sequential([keras.Input((5,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.filterwarnings("ignore:.*HDF5 file")
def test_a_layer_that_is_not_adapted_warns_once_when_it_is_trained_or_saved(tmp_path):
    x, model = table(), model_of(Normalization(name="n"))
    model.predict(x, verbose=0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(x, x[:, 0], verbose=0)
        model.save(tmp_path / "m.keras")
        model.save(tmp_path / "m.keras")
    texts = [text for warning in told if "statistics" in (text := str(warning.message))]
    assert texts == [
        "Layer 'n' is trained without statistics: its outputs are its inputs. Call "
        "`layer.adapt(data)` first."
    ]
    for name in ("m.keras", "m.h5"):
        model = model_of(Normalization(name="n"))
        with pytest.warns(UserWarning, match="Layer 'n' is saved without statistics"):
            model.save(tmp_path / name)
        model.save(tmp_path / name)


@pytest.mark.backends("torch")
@pytest.mark.filterwarnings("ignore:.*HDF5 file")
def test_a_layer_with_statistics_of_any_origin_warns_of_nothing(tmp_path):
    x = table()
    model = model_of(adapted(x))
    model.save(tmp_path / "m.keras")
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    given = model_of(Normalization(mean=np.zeros(5), variance=np.ones(5)))
    standard = model_of(adapted(np.repeat([[-1.0], [1.0]], 5, axis=1)))
    for used in (model, keras.models.load_model(tmp_path / "m.keras"), copy, given, standard):
        used.compile("sgd", "mse")
        used.fit(x, x[:, 0], verbose=0)
        used.save(tmp_path / "again.keras")
        used.save(tmp_path / "again.h5")


@pytest.mark.filterwarnings("ignore:.*HDF5 file", "ignore:.*can't resolve")
def test_a_legacy_file_keeps_the_rest_of_a_large_mean(tmp_path):
    x = table() + 3e6
    layer = adapted(x)
    keras.Sequential([keras.Input((5,)), layer]).save(tmp_path / "m.h5")
    (loaded,) = keras.models.load_model(tmp_path / "m.h5", compile=False).layers
    assert layer._rest is not None
    np.testing.assert_array_equal(loaded(x), layer(x))


@pytest.mark.parametrize(
    "bad", [np.full((2, 5), np.nan), table(4), np.zeros((4, 3, 5)), [table(), table(4)]]
)
def test_former_statistics_survive_an_error(bad):
    layer = adapted(table())
    before = statistics(layer)
    with pytest.raises(ValueError, match="`data` must"):
        layer.adapt(bad)
    np.testing.assert_array_equal(statistics(layer), before)
