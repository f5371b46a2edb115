"""The way from a layer to the next activation, in models that are only built."""

import keras
import numpy as np
import pytest

from keras_initkit.anatomy.following import Following, classify, follow
from keras_initkit.anatomy.graph import Call, Graph
from keras_initkit.anatomy.weights import weights_of
from keras_initkit.connectivity.layer_fans import has_rule

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


def followed(model, layer="first"):
    """The way of the first kernel of a layer."""
    chain = next(w.layers for w in weights_of(model) if f"/{layer}/" in f"/{w.layer}/")
    return follow(Graph(model), chain, has_rule)


def stacked(*stack, head=True, shape=(4,), **kwargs):
    first = layers.Dense(4, name="first", **kwargs)
    last = [layers.Dense(2)] if head else []
    return keras.Sequential([keras.Input(shape), first, *stack, *last])


@pytest.mark.parametrize(
    ("stack", "text"),
    [
        ([], "linear"),
        ([layers.Activation("linear"), layers.Activation("tanh")], "tanh"),
        ([layers.ReLU()], "relu"),
        ([layers.ReLU(negative_slope=0.5)], "relu(negative_slope=0.5)"),
        ([layers.LeakyReLU(negative_slope=0.3)], "leaky_relu(0.3)"),
        ([layers.PReLU(alpha_initializer=keras.initializers.Constant(0.5))], "leaky_relu(0.5)"),
        ([layers.ELU(alpha=0.5)], "elu(0.5)"),
        ([layers.Softmax()], "softmax"),
        ([layers.Dropout(0.5), layers.Reshape((2, 2)), layers.Flatten(), layers.ReLU()], "relu"),
        ([layers.BatchNormalization(), layers.ReLU()], "BatchNormalization, relu"),
        (
            [layers.LayerNormalization(), layers.BatchNormalization(), layers.ReLU()],
            "LayerNormalization, relu",
        ),
        ([layers.LayerNormalization()], "LayerNormalization, linear"),
        ([layers.Lambda(lambda x: x)], "unknown"),
        ([keras.Sequential([layers.Dropout(0.1), layers.Activation("selu")])], "selu"),
    ],
    ids=lambda case: "",
)
def test_a_stack(stack, text):
    following = followed(stacked(*stack))
    assert following.text == text
    assert not following.is_last


@pytest.mark.parametrize(
    ("layer", "below", "above"),
    [
        (layers.ReLU(negative_slope=0.5, max_value=3.0), -0.5, 3.0),
        (layers.PReLU(alpha_initializer=keras.initializers.Constant(0.5)), -0.5, 4.0),
        (layers.ELU(alpha=2.0), -2 * (1 - np.exp(-1)), 4.0),
        (layers.Activation(lambda x: 3.0 * x), -3.0, 12.0),
    ],
    ids=lambda case: "",
)
def test_the_function_of_an_activation_has_the_arguments_of_its_layer(layer, below, above):
    function = followed(stacked(layer)).function
    values = function(keras.ops.convert_to_tensor([-1.0, 4.0]))
    assert keras.ops.convert_to_numpy(values) == pytest.approx([below, above], rel=1e-6)


def test_a_layers_own_activation_comes_first():
    assert followed(stacked(layers.Activation("tanh"), activation="relu")).text == "relu"
    assert followed(stacked(activation=lambda x: 2.0 * x)).text == "<lambda>"
    assert followed(stacked(activation=layers.LeakyReLU(0.1))).text == "leaky_relu(0.1)"


def test_the_last_kernels():
    assert followed(stacked(head=False)) == Following("linear", is_last=True)
    assert followed(stacked(layers.Softmax(), head=False)).is_last
    assert followed(stacked(activation="relu", head=False)).is_last


def test_functions_of_keras_ops():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    x = keras.ops.relu(keras.ops.reshape(x, (-1, 4)) + inputs)
    x = keras.ops.gelu(layers.Dense(4, name="b")(x), approximate=False)
    x = keras.ops.relu(layers.Dense(4, name="c")(x) * 2.0)
    model = keras.Model(inputs, layers.Dense(4)(x))
    assert [followed(model, name).text for name in "abc"] == ["add, relu", "gelu", "unknown"]


def test_sums_and_the_nearest_activation_of_several_ways():
    inputs = keras.Input((4,))
    x = layers.BatchNormalization()(layers.Dense(4, name="a")(inputs))
    x = layers.ReLU()(layers.Add()([inputs, x]))
    y = layers.LayerNormalization()(layers.Add()([x, layers.Dense(4, name="b")(x)]))
    y = layers.Dense(4, name="c")(y)
    far = layers.Activation("tanh")(layers.Dropout(0.1)(layers.Reshape((4,))(y)))
    model = keras.Model(inputs, layers.Concatenate()([far, layers.ReLU()(layers.Flatten()(y))]))
    assert followed(model, "a").text == "BatchNormalization, add, relu"
    assert followed(model, "b").text == "add, LayerNormalization, linear"
    assert [followed(model, name).is_sum_normalized for name in "ab"] == [False, True]
    assert followed(model, "c").text == "relu"


def test_gates():
    inputs = keras.Input((4,))
    x = layers.Multiply()([inputs, layers.Dense(4, "sigmoid", name="own")(inputs)])
    gate = layers.Activation("sigmoid")(layers.Dense(4, name="apart")(x))
    model = keras.Model(inputs, layers.Dense(4)(layers.Multiply()([x, gate])))
    for name in ("own", "apart"):
        assert followed(model, name).text == "sigmoid as a gate"


def test_nested_and_shared_models():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="first")], name="block")
    inputs = keras.Input((4,))
    x = layers.ReLU()(inner(inputs))
    x = layers.TimeDistributed(inner)(layers.Reshape((1, 4))(x))
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))
    assert followed(model).text == "relu"


def test_sums_inside_a_cell_or_attention_stay_there():
    inputs = keras.Input((3, 4))
    x = layers.MultiHeadAttention(2, 2, name="attention")(inputs, inputs)
    x = layers.LSTM(4, name="memory")(layers.ReLU()(x))
    model = keras.Model(inputs, layers.ReLU()(x))
    assert followed(model, "memory").text == "linear"
    assert followed(model, "query").text == "linear"
    assert followed(model, "attention_output").text == "relu"


def test_a_layer_inside_a_wrapper():
    timed = layers.TimeDistributed(layers.Dense(4))
    model = keras.Sequential([keras.Input((3, 4)), timed, layers.ReLU(), layers.Dense(2)])
    assert followed(model, timed.name).text == "relu"


def test_of_a_subclassed_model_only_a_layers_own_activation_is_known():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = layers.Dense(4, "relu", name="one"), layers.Dense(4, name="two")
            self.one.build((None, 4))
            self.two.build((None, 4))

    model = Subclassed()
    assert (followed(model, "one").text, followed(model, "two").text) == ("relu", "unknown")


def test_calls_are_classified():
    known, other = layers.Dense(2), layers.Dense(2)
    known.build((None, 3))
    other.build((None, 3))
    for operation, inputs, effect in (
        (known, 1, "kernel"),
        (other, 1, "unknown"),  # it has no rule
        (layers.Attention(), 2, "kernel"),
        (layers.BatchNormalization(), 1, "normalization"),
        (layers.Add(), 2, "add"),
        *((passing, 1, "pass") for passing in (None, layers.Dropout(0.1), layers.Add())),
        (type("Dropout", (layers.Layer,), {})(), 1, "unknown"),  # not Keras's
    ):
        call = Call(operation, tuple(range(inputs)), (9,))
        assert classify(call, lambda layer: layer is known) == effect
