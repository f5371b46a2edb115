"""The columns of a record: how variables and layers are called, and what is said of them."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit.initializers import HeNormal
from keras_initkit.models.columns import unit_sources, variables_of

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


class Block(layers.Layer):
    def __init__(self):
        super().__init__(name="block")
        self.dense = layers.Dense(8, name="dense")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return self.scale * self.dense(x)


class Twins(keras.Model):
    """Two layers of one path."""

    def __init__(self):
        super().__init__(name="twins")
        self.blocks = [Block(), Block()]
        self.shift = self.add_weight(shape=(8,), name="shift")

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x + self.shift


def columns_of(model, optimizer="", per="layer"):
    variables = model.trainable_variables
    return variables_of(model, variables, [optimizer] * len(variables), per)


def twins():
    model = Twins()
    model(np.ones((1, 8), "float32"))
    return model


def test_paths_are_numbered_where_several_layers_have_one():
    columns = {column.path: column.layer for column in columns_of(twins())}
    assert columns == {
        "shift": "shift",
        "block/scale": "block",
        "block/dense/kernel": "block/dense",
        "block/dense/bias": "block/dense",
        "block#2/scale": "block#2",
        "block#2/dense/kernel": "block#2/dense",
        "block#2/dense/bias": "block#2/dense",
    }


def test_a_column_has_its_optimizer_its_shape_and_its_own_layer_if_asked_for():
    plain, named = columns_of(twins()), columns_of(twins(), "generator", "variable")
    for a, b in zip(plain, named, strict=True):
        assert b.path == b.layer == f"generator/{a.path}"
        assert (b.optimizer, b.shape) == ("generator", a.shape)
    assert columns_of(twins(), "generator")[1].layer.startswith("generator/")


def test_a_column_says_what_its_layer_is_and_how_it_was_drawn():
    class Odd(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return keras.ops.ones(shape, dtype)

        def get_config(self):
            raise NotImplementedError

    model = keras.Sequential(
        [
            keras.Input((6, 3)),
            keras.Sequential([layers.Dense(4, kernel_initializer=HeNormal(gain=2.0))]),
            layers.LSTM(4, name="rnn"),
            layers.BatchNormalization(name="bn"),
            layers.Dense(2, kernel_initializer=Odd(), name="head"),
        ]
    )
    columns = columns_of(model)
    types = list(dict.fromkeys((c.layer, c.layer_type) for c in columns))
    assert [layer_type for _, layer_type in types] == [
        "Dense",
        "LSTMCell",
        "BatchNormalization",
        "Dense",
    ]
    drawn = {column.path.rpartition("/")[2]: column.initializer for column in columns[:-2]}
    assert columns[0].initializer == "HeNormal(gain=2)"
    assert drawn["recurrent_kernel"] == "Orthogonal"
    assert drawn["gamma"] == "Ones"
    assert [column.initializer for column in columns[-2:]] == ["", "Zeros"]


def twins_of_one_path(inputs):
    for use_bias in (False, True):
        inside = keras.Input((4, 4, 2))
        outputs = layers.Dense(2, use_bias=use_bias, name="fc")(inside)
        inputs = keras.Model(inside, outputs, name=f"model_{use_bias}")(inputs)
    return inputs


@pytest.mark.parametrize(
    ("layer", "sources"),
    [
        (lambda: layers.Dense(4), ["", "bias"]),
        (lambda: layers.Conv2D(4, 2, use_bias=False), ["kernel"]),
        (lambda: layers.BatchNormalization(), ["", "bias"]),
        # The last axis of these kernels is no unit of theirs.
        (lambda: layers.Conv2DTranspose(4, 2, use_bias=False), [""]),
        (lambda: layers.DepthwiseConv2D(2, use_bias=False), [""]),
        (lambda: layers.Embedding(30, 3), [""]),
        # Two layers whose variables have one path in Keras.
        (lambda: twins_of_one_path, ["kernel", "", "bias"]),
    ],
    ids=lambda value: "",
)
def test_dead_units_show_in_biases_or_in_kernels_without_one(layer, sources):
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, layer()(inputs))
    assert unit_sources(model, model.trainable_variables) == sources


def test_the_layers_that_take_a_layers_output_are_named():
    class Own(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(name="scale")

        def call(self, x):
            return x * self.scale

    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    y = layers.LeakyReLU()(layers.BatchNormalization(name="n")(layers.Add()([x, inputs])))
    net = keras.Sequential([keras.Input((4,)), layers.Dense(4, "tanh", name="b")], name="net")
    z = layers.Dense(4, name="c")(layers.Dropout(0.1)(net(y)))
    stopped = layers.Dense(4, "relu", name="d")(keras.ops.stop_gradient(z))
    gated = layers.Multiply()([Own(name="own")(layers.Dense(4, name="e")(y)), z])
    model = keras.Model(inputs, [x, layers.Concatenate()([stopped, gated])])
    found = {column.layer: set(column.receivers) for column in columns_of(model, "sgd")}
    assert found == {
        "sgd/a": {("", "linear"), ("sgd/n", "linear")},
        "sgd/n": {(f"sgd/{name}", "leaky_relu(0.3)") for name in ("net/b", "e")},
        "sgd/net/b": {("sgd/c", "tanh")},
        # Nothing is told of the ways through a stop, a product and a layer of unknown class.
        "sgd/c": set(),
        "sgd/d": {("", "relu")},
        "sgd/e": set(),
        "sgd/own": set(),
    }
