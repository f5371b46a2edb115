"""`NormalizedModel`: losses on the scale of normalized targets, in every form of targets."""

import keras
import numpy as np
import pytest

from keras_initkit.models.normalize.with_normalization import with_normalization
from tests.keras_initkit.models.normalize.houses import (
    call,
    columns,
    layers,
    prices,
    scaled,
    stack,
    two_outputs,
)

pytestmark = pytest.mark.backends("tensorflow", "torch")


def loss(model, y, predicted):
    return float(model.compute_loss(y=y, y_pred=predicted))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 2)])
def test_targets_of_every_shape(shape):
    inputs = keras.Input((2,), name="x")
    outputs = layers.Reshape(shape)(layers.Dense(int(np.prod(shape)))(inputs))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 3, (200, 2)), rng.normal(100, 20, (200, *shape))
    axes = tuple(range(max(1, y.ndim - 1)))
    mean, std = y.mean(axis=axes), y.std(axis=axes)
    wrapped = with_normalization(model, x, y)
    wrapped.compile(None, "mse")
    normalized, predicted = call(model, scaled(x)), call(wrapped, x)
    np.testing.assert_allclose(predicted, normalized * std + mean, atol=1e-3)
    expected = np.mean((normalized - (y - mean) / std) ** 2)
    np.testing.assert_allclose(loss(wrapped, y, predicted), expected, rtol=1e-4)
    if shape in [(1,), ()]:  # Keras takes either for the other
        other = y[:, 0] if shape else y[:, None]
        np.testing.assert_allclose(loss(wrapped, other, predicted), expected, rtol=1e-4)


FORMS = {
    "list": ("list", lambda price, kind: [price, kind]),
    "dict for a list": ("list", lambda price, kind: {"kind": kind, "price": price}),
    "dict": ("dict", lambda price, kind: {"kind": kind, "price": price}),
}


@pytest.mark.parametrize("form", FORMS)
def test_several_outputs(form, tmp_path):
    structure, give = FORMS[form]
    data, y, kind = columns(), prices(), np.random.default_rng(3).integers(0, 4, (700, 1))
    model = two_outputs(structure)
    wrapped = with_normalization(model, data, {"price": y})
    assert wrapped.output_names == model.output_names
    losses = {"price": "mse", "kind": "sparse_categorical_crossentropy"}
    metrics = {"price": ["mae"], "kind": ["accuracy"]}
    wrapped.compile("sgd", losses, metrics=metrics, run_eagerly=True)
    predicted = call(wrapped, data)
    assert isinstance(predicted, dict if structure == "dict" else list)
    named = dict(zip(wrapped.output_names, keras.tree.flatten(predicted), strict=True))
    price = named["price"]
    entropy = -np.log(named["kind"][np.arange(700), kind[:, 0]]).mean()
    expected = np.mean((price - y) ** 2) / y.var() + entropy
    np.testing.assert_allclose(loss(wrapped, give(y, kind), predicted), expected, rtol=1e-4)
    if "dict" in form:
        wrapped.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert type(loaded) is type(wrapped)
        np.testing.assert_allclose(loss(loaded, give(y, kind), predicted), expected, rtol=1e-4)
    if form == "list":  # the metrics are in raw units, and have Keras's names
        result = wrapped.evaluate(data, give(y, kind), verbose=0, return_dict=True)
        assert {"price_mae", "kind_accuracy"} <= set(result)
        np.testing.assert_allclose(result["price_mae"], np.abs(price - y).mean(), rtol=1e-4)
        np.testing.assert_allclose(result["loss"], expected, rtol=1e-4)


def test_targets_of_outputs_without_loss_can_be_left_out():
    data, y = columns(), prices()
    wrapped = with_normalization(two_outputs(), data, [y, None])
    wrapped.compile(None, ["mse", None])
    predicted = call(wrapped, data)
    expected = np.mean((predicted[0] - y) ** 2) / y.var()
    np.testing.assert_allclose(loss(wrapped, [y], predicted), expected, rtol=1e-4)


def test_a_clone_has_the_same_losses():
    x, y = columns()["blood"], prices()
    model = with_normalization(stack(3), x, y)
    model.compile("sgd", "mse")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert type(clone) is type(model)
    assert clone.layers[2] is not model.layers[2]
    predicted = call(model, x)
    np.testing.assert_allclose(call(clone, x), predicted, rtol=1e-6)
    np.testing.assert_allclose(loss(clone, y, predicted), loss(model, y, predicted), rtol=1e-6)
