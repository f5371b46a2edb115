"""What helps is found on copies: the model itself, its optimizer and random numbers stay."""

import random

import keras
import numpy as np
import pytest
from keras import layers

import keras_initkit
from keras_initkit.models.repair.rebuild import copy_model

# Many trainings, each traced elsewhere.
pytestmark = [pytest.mark.backends("torch"), pytest.mark.newest]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 4)).astype("float32")
SIDES = (X[:, 0] + X[:, 1] > 0).astype("float32")
CLASSES = X.argmax(axis=1)


def make(*last, loss="binary_crossentropy", **arguments):
    hidden = [layers.Dense(8, "relu", name=f"hidden_{i}", **arguments) for i in range(2)]
    model = keras.Sequential([keras.Input((4,)), *hidden, layers.Dropout(0.1), *last])
    model.compile(keras.optimizers.Adam(0.03), loss, metrics=["accuracy"])
    return model


def state_of(model):
    """Return all that a trial could change: weights, states, compilation, random numbers."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    seeds = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    objects = model.optimizer, model.loss, model.train_function, model.layers
    drawn = keras.ops.convert_to_numpy(keras.random.normal((3,)))
    random.setstate(seeds[0])
    return [np.asarray(keras.ops.convert_to_numpy(v)) for v in variables], seeds, objects, drawn


def test_two_faults_are_mended_and_the_model_is_left_alone():
    model = make(layers.Dense(1, name="head"), kernel_initializer="zeros")
    model.fit(X, SIDES, verbose=0)
    keras.random.normal((3,))
    keras.utils.set_random_seed(1)
    before = state_of(model)
    keras.utils.set_random_seed(1)
    mending = keras_initkit.autofix(model, X, SIDES, steps=40)
    after = state_of(model)
    for was, now in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(was, now)
    assert (before[1], before[2]) == (after[1], after[2])
    np.testing.assert_array_equal(before[3], after[3])
    assert [set(fix.repairs) for fix in mending.fixes] == [{"activation"}, {"reinitialize"}]
    assert mending.verdict.startswith("Fixing `logits` and `equal_weights` helped: after 40")
    unchanged, *_, last = mending.trials
    assert not unchanged.learns
    assert last.learns
    assert last.guess == pytest.approx(np.log(2), abs=0.01)
    assert len(last.loss) == 40
    assert "logits + equal_weights" in str(mending)
    assert "  Made: activation(layers={'head': 'sigmoid'})\n" in str(mending)
    assert mending.apply(model, X, SIDES) is model
    assert float(model.fit(X, SIDES, epochs=5, verbose=0).history["accuracy"][-1]) > 0.85
    assert mending.model.evaluate(X, SIDES, verbose=0, return_dict=True)["accuracy"] > 0.85


@pytest.mark.backends("tensorflow", "jax", "torch")
def test_a_healthy_model_learns_as_it_is_from_a_stream_of_batches():
    model = make(layers.Dense(1, "sigmoid", name="head"))
    batches = ((X[i : i + 64], SIDES[i : i + 64]) for i in range(0, 256, 64))
    mending = keras_initkit.autofix(model, batches, steps=40)
    assert mending.verdict.startswith("The model learns as it is: after 40 steps the loss is 0.")
    assert (mending.fixes, len(mending.trials)) == ((), 1)


def test_a_head_that_keras_refuses_gets_its_units_and_labels_are_left_to_people():
    model = make(layers.Dense(1, "sigmoid", name="head"), loss="sparse_categorical_crossentropy")
    mending = keras_initkit.autofix(model, X, CLASSES, steps=40)
    assert [list(fix.repairs) for fix in mending.fixes] == [["rebuild", "activation"]]
    assert mending.model.output_shape == (None, 4)
    model = make(layers.Dense(1, "sigmoid", name="head"))
    mending = keras_initkit.autofix(model, X, SIDES * 2 - 1, steps=40)
    assert mending.verdict.startswith("No fix helped")
    assert "To do by hand:\n- label_form: " in str(mending)
    with pytest.raises(ValueError, match=r"^The fix must be one .* Received: .* Do it by hand"):
        mending.by_hand[0].fix.apply(model, X, SIDES)


class Net(keras.Model):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.hidden, self.last = layers.Dense(8, "relu"), layers.Dense(2)

    def call(self, x):
        return {"a": self.last(self.hidden(x["x"]))[:, :1], "b": self.last(x["z"])}


@pytest.mark.backends("jax", "torch")
def test_a_model_of_a_class_is_copied_with_its_weights_and_names():
    data = {"x": X, "z": np.repeat(X, 2, axis=1)}
    model = Net()
    rate = keras.optimizers.schedules.ExponentialDecay(0.03, 100, 0.9)
    model.compile(keras.optimizers.Adam(rate), {"a": "binary_crossentropy", "b": "mse"})
    model.fit(data, {"a": SIDES, "b": X[:, :2]}, verbose=0)
    copy = copy_model(model, data)
    for name, predicted in model(data).items():
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (predicted, copy(data)[name])))
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    for mine, other in zip(model.optimizer.variables, copy.optimizer.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (mine, other)))


class Closed(keras.Model):
    def __init__(self, layer, function):
        super().__init__()
        self.layer, self.function = layer, function

    def call(self, x):
        return self.layer(x)


def test_models_that_cannot_be_tried_are_refused():
    with pytest.raises(TypeError, match=r"`model` must be a keras.Model. Received: model=3"):
        keras_initkit.autofix(3, X, SIDES)
    with pytest.raises(ValueError, match=r"`steps` must be .* Received: steps=0"):
        keras_initkit.autofix(make(layers.Dense(1)), X, SIDES, steps=0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    with pytest.raises(ValueError, match=r"must be compiled .* Received: 'sequen.* Call `model\.c"):
        keras_initkit.autofix(model, X, SIDES)
    model = Closed(layers.Dense(1), lambda x: x)
    model.compile("sgd", "mse")
    with pytest.raises(
        ValueError, match=r"(?s)Keras can make from .* Received: 'closed.* Give its"
    ):
        keras_initkit.autofix(model, X, SIDES)
