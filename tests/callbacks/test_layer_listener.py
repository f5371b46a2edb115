"""Layers measured while a model is called, against models of the layers."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit.anatomy.selectors import Selection
from keras_initkit.callbacks.activation_history import STATISTICS
from keras_initkit.callbacks.layer_listener import measure_layers
from keras_initkit.models.columns import variables_of
from tests.callbacks.measures.test_activations import assert_same, expected
from tests.callbacks.training import BACKEND, two_devices

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

X = np.random.default_rng(1).normal(size=(32, 8)).astype("float32")
HALVES = X[:, :4], X[:, 4:]


def measured(model, batch=X, selector=None):
    """The statistics of each layer, a dictionary by name."""
    if not model.built:
        model(batch)
    found = measure_layers(model, batch, Selection("layers", selector))
    return {path: dict(zip(STATISTICS, row, strict=True)) for path, row in found.items()}


def mlp():
    # Path of a layer without weights, and of those with them, in a Sequential model.
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", name="first"),
            layers.Dropout(0.5),
            layers.BatchNormalization(name="normalized"),
            layers.Dense(6, "tanh", kernel_initializer=keras.initializers.RandomNormal(2.0)),
            layers.Dense(3, name="last"),
        ],
        name="mlp",
    )


def test_layers_are_selected():
    model, twins = mlp(), Subclassed()
    assert list(measured(model, selector="last")) == ["last"]
    assert all("call" not in vars(layer) for layer in model._flatten_layers())  # left as it was
    assert list(measured(model, selector=re.compile("normal"))) == ["normalized"]
    assert list(measured(model, selector=(layers.Dense, ["last", "first"]))) == ["first", "last"]
    assert list(measured(twins, HALVES, "same")) == ["same", "same#2"]
    assert list(measured(twins, HALVES, "same#2")) == ["same#2"]
    inside, head = measured(twins, HALVES, "head")
    assert (inside.partition("/")[0], head) == ("head", "head")


def functional():
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((4,), name="right")}
    inner = keras.Sequential([layers.Dense(5, name="deep"), layers.ReLU(name="relu")], name="inner")
    outer = layers.Dense(5, "tanh", name="shared")
    left, right = outer(inputs["left"]), outer(inputs["right"])
    summed = layers.Add(name="add")([left, right])
    return keras.Model(inputs, layers.Dense(3, name="head")(inner(summed)), name="two")


def test_functional_model_with_shared_layers_and_a_nested_model():
    model = functional()
    batch = dict(zip(("left", "right"), HALVES, strict=True))
    got = measured(model, batch)
    assert list(got) == ["shared", "shared#2", "add", "inner/deep", "inner/relu", "inner", "head"]
    shared, summed = model.get_layer("shared"), model.get_layer("add").output
    calls = [node.output_tensors[0] for node in shared._inbound_nodes]
    want = keras.Model(model.input, [*calls, summed, model.output])(batch, training=False)
    for name, output, activation in zip(
        ["shared", "shared#2", "add", "head"], want, ["tanh", "tanh", None, None], strict=True
    ):
        assert_same(got[name], expected(ops.convert_to_numpy(output), activation))
    assert got["inner"] == pytest.approx(got["inner/relu"], nan_ok=True)


class Subclassed(keras.Model):
    """Without an argument `training`."""

    def __init__(self):
        super().__init__(name="sub")
        self.blocks = [layers.Dense(8, "relu", name="same") for _ in range(2)]
        self.head = {"out": keras.Sequential([layers.Dense(3)], name="head")}
        self.several = layers.Identity()

    def call(self, inputs):
        a, b = inputs
        x = ops.concatenate([a, b], axis=-1)
        for block in self.blocks:
            x = block(x)
        self.several([x, x])
        return self.head["out"](x)


def test_subclassed_model_on_a_tuple():
    got = measured(Subclassed(), HALVES)
    assert list(got) == ["same", "same#2", "head/dense", "head"]


@pytest.mark.parametrize("make", [mlp, Subclassed])
def test_layers_are_named_as_in_the_record_of_gradients(make):
    model = make()
    found = measured(model, HALVES if make is Subclassed else X)
    variables = model.trainable_variables
    columns = variables_of(model, variables, [""] * len(variables), "layer")
    assert {column.layer for column in columns} <= set(found)


def test_recurrent_and_convolutional_layers():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Reshape((8, 1)),
            layers.Conv1D(4, 3, activation="relu", bias_initializer="ones"),
            layers.TimeDistributed(layers.Dense(3), name="timed"),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both"),
            layers.SimpleRNN(4, return_sequences=True, name="simple"),
            layers.GRU(3, name="gated"),
        ],
        name="rnn",
    )
    got = measured(model)
    for name in ("reshape", "conv1d", "timed", "both", "simple", "gated"):
        assert got[name]["variance"] > 0
    assert got["simple"]["saturation"] == 0
    assert np.isnan(got["gated"]["saturation"])
    calls = [path for path in got if re.search(r"timed/dense(#\d)?$", path)]
    assert len(calls) == 4  # of six time steps


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")
def test_mirrored_variables():
    with two_devices().scope():
        model = mlp()
        got = measured(model)
    want = expected(ops.convert_to_numpy(model(X, training=False)))
    assert_same(got["last"], want)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function")
def test_a_layer_that_compiles_itself_is_left_out_inside():
    import tensorflow as tf

    class Compiled(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(4)

        def build(self, shape):
            self.inner.build(shape)

        @tf.function
        def call(self, x):
            return self.inner(x)

    model = keras.Sequential(
        [keras.Input((8,)), Compiled(), layers.Dense(3, name="last")], name="m"
    )
    assert list(measured(model)) == ["compiled", "last"]
