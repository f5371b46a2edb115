"""Models of raw inputs and targets: the same as normalizing by hand."""

import keras
import numpy as np
import pytest

from keras_initkit.layers import Normalization
from keras_initkit.models.normalize.normalized_model import NormalizedModel
from keras_initkit.models.normalize.with_normalization import with_normalization
from tests.keras_initkit.models.normalize.houses import (
    Subclassed,
    by_hand,
    call,
    column_model,
    columns,
    layers,
    list_model,
    prices,
    regression,
    scaled,
    stack,
)

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

BACKEND = keras.backend.backend()
EXACT = 1e-4 if BACKEND == "jax" else 1e-9  # JAX has no float64 by default


@pytest.fixture
def _float64():
    if BACKEND == "jax":
        yield
        return
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")


def normalized_names(model):
    return [x.name for x in model.layers if isinstance(x, Normalization) and not x.invert]


@pytest.mark.usefixtures("_float64")
def test_inputs_and_predictions_are_normalized_as_by_hand():
    data, y, model = columns(), prices(), regression()
    normalized = call(model, by_hand(data))
    wrapped = with_normalization(model, data)
    np.testing.assert_allclose(call(wrapped, data), normalized, atol=EXACT)
    assert not isinstance(wrapped, NormalizedModel)
    assert normalized_names(wrapped) == ["age_normalization", "blood_normalization"]
    assert wrapped.name == "normalized_houses"
    assert list(wrapped.input) == ["age", "blood", "job"]
    assert wrapped.output_names == ["price"]
    assert wrapped.get_layer("houses") is model
    wrapped = with_normalization(model, data, y, name="mine")
    np.testing.assert_allclose(call(wrapped, data), normalized * y.std() + y.mean(), rtol=EXACT)
    assert isinstance(wrapped, NormalizedModel)
    assert wrapped.name == "mine"


@pytest.mark.backends("tensorflow", "torch")
@pytest.mark.usefixtures("_float64")
def test_training_is_that_on_the_normalized_scale():
    data, y = columns(100), prices(100)
    inner, plain = regression(), regression()
    plain.set_weights(inner.get_weights())
    wrapped = with_normalization(inner, data, y)
    histories = []
    weight = np.linspace(0, 1, 100)
    for model, x, targets in ((wrapped, data, y), (plain, by_hand(data), scaled(y))):
        model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"], run_eagerly=True)
        options = {"epochs": 2, "verbose": 0, "shuffle": False, "sample_weight": weight}
        histories.append(model.fit(x, targets, batch_size=50, **options).history)
    raw, normalized = histories
    np.testing.assert_allclose(raw["loss"], normalized["loss"], rtol=EXACT)
    # The metric is in raw units, and float32.
    np.testing.assert_allclose(
        raw["mae"], np.multiply(normalized["mae"], y.std()), rtol=max(EXACT, 1e-6)
    )
    for ours, theirs in zip(inner.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("shape", [(5,), (), (None, 3), (None,)])
def test_one_array_for_one_input(shape):
    inputs = keras.Input(shape, name="x")
    model = keras.Model(inputs, layers.Identity()(inputs))
    x = np.random.default_rng(0).normal(7, 3, (400, *(size or 9 for size in shape)))
    axes = None if shape == (None,) else tuple(range(max(1, x.ndim - 1)))
    expected = (x - x.mean(axis=axes)) / x.std(axis=axes)
    np.testing.assert_allclose(call(with_normalization(model, x), x), expected, atol=1e-5)


def test_lists_of_inputs_and_of_one_output():
    a, b = columns()["age"], columns()["blood"][:, :2]
    model = list_model()
    expected = call(model, [scaled(a), scaled(b)])
    for each in (model, keras.Model(model.inputs, [model.output])):
        wrapped = with_normalization(each, [a, b])
        np.testing.assert_allclose(call(wrapped, [a, b]), expected, atol=1e-5)


def test_an_input_that_is_normalized_is_not_normalized_again():
    data, model = columns(), regression()
    twice = with_normalization(with_normalization(model, data, exclude="age"), data, exclude="job")
    assert normalized_names(twice) == ["age_normalization"]


def test_a_layer_of_the_model_can_have_any_name():
    x = columns()["blood"]
    inner = [keras.Input((3,), name="y"), layers.Dense(1, name="same")]
    wrapped = with_normalization(keras.Sequential(inner, name="same"), x, prices())
    assert wrapped.output_names == ["same_1"]
    assert call(wrapped, x).shape == (700, 1)


def test_the_fix_for_a_subclassed_model_works():
    data, y, own = columns()["blood"], prices(), Subclassed()
    x = keras.Input((3,))
    model = with_normalization(keras.Model(x, own(x)), data, y)
    expected = call(own, scaled(data).astype("float32")) * y.std() + y.mean()
    np.testing.assert_allclose(call(model, data), expected, atol=1e-5 * y.std())


def test_raw_values_are_predicted_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    data, y = columns(), prices()
    wrapped = with_normalization(regression(), data, y)
    predicted = call(wrapped, data)
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()  # float16 ends at 65504
    wrapped.compile("sgd", "mse", run_eagerly=True)
    before, after = (float(wrapped.train_on_batch(data, y)) for _ in range(2))
    assert after < before < 10


# Compiled, saved, exported.


@pytest.mark.backends("tensorflow", "torch")
def test_a_compiled_model_stays_compiled():
    data, y, model = columns(100), prices(100), regression()
    assert not with_normalization(model, data, y).compiled
    adam = keras.optimizers.Adam(0.02)
    model.compile(adam, {"price": "mse"}, metrics={"price": ["mae"]}, run_eagerly=True)
    wrapped = with_normalization(model, data, y)
    assert wrapped.compiled
    assert wrapped.optimizer is not model.optimizer
    assert float(wrapped.optimizer.learning_rate) == pytest.approx(0.02)
    before = model.get_weights()
    history = wrapped.fit(data, y, epochs=2, verbose=0).history
    assert list(history) == ["loss", "mae"]
    assert history["loss"][-1] < 2 < history["mae"][-1]
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_a_model_that_cannot_be_compiled_alike_is_told_at_the_users_line():
    def own_loss(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    model = stack(3)
    model.compile("adam", own_loss)
    message = "The new model is not compiled as `model` is"
    with pytest.warns(UserWarning, match=message) as seen:
        wrapped = with_normalization(model, columns()["blood"])
    assert __file__ in [w.filename for w in seen if str(w.message).startswith(message)]
    assert not wrapped.compiled


def test_constant_inputs_are_named_at_the_users_line():
    frame = {name: np.arange(5.0) for name in ("age", "blood_0", "blood_1", "blood_2")}
    frame["age"] = np.full(5, 0.1)
    with pytest.warns(UserWarning, match="'age_normalization': .* constant .*: 'age'") as seen:
        model = with_normalization(column_model(), frame)
    # PyTorch's own tensors warn of NumPy, too.
    assert {w.filename for w in seen if "constant" in str(w.message)} == {__file__}
    assert np.isfinite(call(model, frame)).all()


@pytest.mark.backends("tensorflow", "torch")
def test_a_loaded_model_predicts_the_same_and_goes_on_training(tmp_path):
    # examples/tabular.py loads one in a fresh process.
    data, y = columns(100), prices(100)
    model = with_normalization(regression(), data, y)
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(data, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(call(loaded, data), call(model, data), rtol=1e-6)
    for each in (model, loaded):
        each.train_on_batch(data, y)
    np.testing.assert_allclose(call(loaded, data), call(model, data), rtol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own")
def test_an_exported_model_takes_and_gives_raw_values(tmp_path):
    tf = pytest.importorskip("tensorflow")
    x = columns()["blood"].astype("float32")
    model = with_normalization(stack(3), x, prices())
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.serve(x), call(model, x), rtol=1e-5, atol=1)
