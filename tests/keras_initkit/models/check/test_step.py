"""One step of a model that leaves nothing behind in it."""

import keras
import numpy as np
import pytest

from keras_initkit.models.check.step import run_step
from tests.callbacks.training import QUICK

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers


def state_of(model):
    """All that training changes, by name."""
    optimizer = model.optimizer.variables if model.optimizer else []
    variables = [*model.variables, *model.metrics_variables, *optimizer]
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def assert_same(before, after):
    assert len(before) == len(after)
    for first, second in zip(before, after, strict=True):
        assert first.tobytes() == second.tobytes()


def test_keras_is_as_it_is_kept():
    """If this fails, see the top of models/check/step.py."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile(loss="mse")
    assert model._compile_loss.metrics is model._compile_loss.metrics
    assert not model._compile_loss.built


def with_all_states():
    inputs = keras.Input((6, 3))
    x = layers.Conv1D(4, 2, activity_regularizer=keras.regularizers.L2(0.01))(inputs)
    x = layers.BatchNormalization(momentum=0.5)(x)
    x = layers.Dropout(0.5)(layers.GaussianNoise(0.1)(x))
    x = layers.LSTM(4, dropout=0.2)(x)
    first = layers.Dense(3, "softmax", name="first", kernel_regularizer="l2")(x)
    second = layers.Dense(1, name="second")(x)
    model = keras.Model(inputs, [first, second])
    losses, metrics = ["sparse_categorical_crossentropy", "mse"], [["accuracy"], ["mae"]]
    model.compile("adam", losses, metrics=metrics, **QUICK)
    return model


def test_nothing_remains(rng):
    model = with_all_states()
    x = rng.normal(size=(8, 6, 3)).astype("float32")
    targets = [rng.integers(0, 3, (8, 1)), rng.normal(size=(8, 1)).astype("float32")]
    before, metrics = state_of(model), list(model.metrics)
    outcome = run_step(model, (x, targets, None))
    assert outcome.error is None
    assert_same(before, state_of(model))
    assert model.metrics == metrics
    assert not model._compile_loss.built
    assert len(outcome.gradients) == len(model.trainable_variables)
    assert all(g is not None and np.isfinite(g).all() for g in outcome.gradients)
    assert 0 < outcome.penalty < outcome.loss
    # And a training is the same as without it.
    fits = []
    for checked in (False, True):
        keras.utils.set_random_seed(3)
        model = with_all_states()
        if checked:
            run_step(model, (x, targets, None))
        model.fit(x, targets, batch_size=4, verbose=0)
        fits.append(state_of(model))
    assert_same(*fits)


def test_gradients_are_those_of_the_loss(rng):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, name="fc")])
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    weight = rng.uniform(size=8)
    outcome = run_step(model, tuple(a.astype("float32") for a in (x, y, weight)))
    kernel, bias = (keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables)
    error = weight[:, None] * (x @ kernel + bias - y)
    assert outcome.loss == pytest.approx(np.mean(error * (x @ kernel + bias - y)), rel=1e-5)
    np.testing.assert_allclose(np.array(outcome.gradients[0]), 2 * x.T @ error / 8, rtol=1e-4)
    np.testing.assert_allclose(outcome.y_pred, x @ kernel + bias, rtol=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.table = layers.Embedding(5, 3)
        self.unused = layers.Dense(2)
        self.head = layers.Dense(1)

    def build(self, shape):
        self.unused.build((None, 3))
        super().build(shape)

    def call(self, x):
        return {"out": self.head(self.table(x["words"])[:, 0])}


def test_models_that_are_subclassed_and_not_built(rng):
    model = Subclassed()
    model.compile("sgd", {"out": "mse"})
    batch = {"words": rng.integers(0, 5, (4, 2))}, {"out": np.ones((4, 1), "float32")}, None
    outcome = run_step(model, batch)
    by_name = dict(zip([v.path for v in model.trainable_variables], outcome.gradients, strict=True))
    has_gradient = {name.split("/")[-2]: g is not None and g.any() for name, g in by_name.items()}
    assert [has_gradient[name] for name in ("embedding", "dense")] == [True, False]
    assert list(outcome.y_pred) == ["out"]


def test_losses_that_fail_or_are_missing(rng):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    x = np.ones((4, 3), "float32")
    assert run_step(model, (x, None, None)).y_pred.shape == (4, 2)
    model.compile(loss="categorical_crossentropy")
    outcome = run_step(model, (x, np.ones((4, 5), "float32"), None))
    assert outcome.error is not None
    assert outcome.y_pred.shape == (4, 2)
    assert outcome.gradients == ()
