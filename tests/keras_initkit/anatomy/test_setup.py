"""The setup of models, against those written by hand."""

import time

import keras
import numpy as np
import pytest

from keras_initkit.anatomy.setup import read_setup
from tensorboard_plugin_initkit.record.setup import HeadSetup, LayerSetup, Setup

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers, ops = keras.layers, keras.ops
DRAWN = {"kernel_initializer": "GlorotUniform", "bias_initializer": "Zeros"}


def rows(setup):
    """The layers without their arguments."""
    assert Setup.from_json(setup.to_json()) == setup
    return [tuple(layer[:6]) for layer in setup.layers]


def read(outputs, inputs, **compiled):
    model = keras.Model(inputs, outputs)
    if compiled:
        model.compile(**compiled)
    return read_setup(model)


def test_an_mlp_whole():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(0.5), name="first"),
            layers.Dropout(0.25, name="drop"),
            layers.Dense(1, name="head", kernel_constraint="non_neg"),
            layers.Softmax(name="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=2.0),
        keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy", keras.metrics.AUC(name="area")],
    )
    model.layers[0].trainable = False
    setup = read_setup(model, steps=30)
    dense = DRAWN | {"use_bias": True}
    first = dense | {"units": 8, "kernel_regularizer": "L2(l2=0.5)"}
    head = dense | {"units": 1, "kernel_constraint": "NonNeg"}
    assert setup.layers == (
        LayerSetup("first", "Dense", "relu", (-1,), (-1, 8), 2, False, first),
        LayerSetup("drop", "Dropout", "", (0,), (-1, 8), 0, True, {"rate": 0.25}),
        LayerSetup("head", "Dense", "", (1,), (-1, 1), 2, True, head),
        LayerSetup("softmax", "Softmax", "softmax", (2,), (-1, 1), 0, True, {"axis": -1}),
    )
    loss = {"from_logits": True, "label_smoothing": 0.1, "axis": -1}
    (found,) = setup.heads
    assert found.arguments.pop("reduction") == "sum_over_batch_size"
    assert found == HeadSetup(
        "", 3, "softmax", (-1, 1), "binary_crossentropy", loss, ("accuracy", "area")
    )
    assert (setup.optimizer, setup.steps, setup.has_graph) == ("SGD", 30, True)
    numbers = setup.optimizer_arguments
    assert (numbers["learning_rate"], numbers["momentum"], numbers["clipnorm"]) == (0.1, 0.9, 2.0)
    assert "weight_decay" not in numbers
    assert setup.dtype_policy == "float32"


def test_operations_are_layers_as_well():
    inputs = keras.Input((8, 8, 3))
    x = ops.relu(layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(inputs))
    x = x + layers.Conv2D(4, 1, name="branch", activation=layers.LeakyReLU(0.2))(x)
    x = layers.Dense(5, name="head")(layers.Flatten(name="flat")(x))
    model = keras.Model(inputs, layers.Activation("linear", name="end")(ops.softmax(x)))
    setup = read_setup(model)
    names = [operation.name for operation in model.operations]
    relu, add, softmax = (
        next(name for name in names if name.startswith(start)) for start in ("relu", "add", "soft")
    )
    assert rows(setup) == [
        ("conv", "Conv2D", "", (-1,), (-1, 4, 4, 4), 2),
        (relu, "Relu", "relu", (0,), (-1, 4, 4, 4), 0),
        ("branch", "Conv2D", "leaky_relu(0.2)", (1,), (-1, 4, 4, 4), 2),
        (add, "Add", "", (1, 2), (-1, 4, 4, 4), 0),
        ("flat", "Flatten", "", (3,), (-1, 64), 0),
        ("head", "Dense", "", (4,), (-1, 5), 2),
        (softmax, "Softmax", "softmax", (5,), (-1, 5), 0),
        ("end", "Activation", "", (6,), (-1, 5), 0),
    ]
    conv = {"filters": 4, "kernel_size": [3, 3], "strides": [2, 2], "padding": "same"}
    assert conv.items() <= setup.layers[0].arguments.items()
    assert setup.layers[6].arguments == {"axis": -1}
    assert setup.heads == (HeadSetup("", 7, "softmax", (-1, 5)),)


def test_models_inside_and_shared_layers():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, "tanh", name="fc")], name="inner")
    shared = layers.Dense(3, name="shared")
    inputs = keras.Input((3,))
    x = inner(shared(inputs))
    x = keras.Sequential([inner, layers.Dense(3, name="last")], name="outer")(shared(x))
    assert rows(read(x, inputs)) == [
        ("shared", "Dense", "", (-1, 1), (-1, 3), 2),
        ("inner/fc", "Dense", "tanh", (0,), (-1, 3), 2),
        ("outer/last", "Dense", "", (1,), (-1, 3), 2),
    ]


def test_two_outputs_with_dicts():
    inputs = keras.Input((4,))
    wide = layers.Dense(3, "softmax", name="wide")(inputs)
    slim = layers.Dense(1, name="slim")(inputs)
    setup = read(
        {"mark": slim, "kind": wide},
        inputs,
        loss={"kind": "categorical_crossentropy", "mark": keras.losses.Huber(delta=2.0)},
        loss_weights={"kind": 0.5, "mark": 0.0},
        metrics={"kind": ["accuracy"]},
        weighted_metrics={"mark": "mae"},
    )
    kind, mark = setup.heads
    assert kind == HeadSetup(
        "kind",
        0,
        "softmax",
        (-1, 3),
        "categorical_crossentropy",
        {"loss_weight": 0.5},
        ("accuracy",),
    )
    assert (mark.name, mark.layer, mark.activation, mark.loss) == ("mark", 1, "linear", "huber")
    assert {"delta": 2.0, "loss_weight": 0.0}.items() <= mark.arguments.items()
    assert mark.metrics == ("mae",)
    heads = read([wide, slim], inputs, loss=["mse", None], metrics=[["mae"], None]).heads
    assert [(h.name, h.loss, h.metrics) for h in heads] == [
        ("wide", "mean_squared_error", ("mae",)),
        ("slim", "", ()),
    ]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(4, "relu", name="first")
        self.rest = keras.Sequential([layers.Dense(2, name="fc")], name="rest")

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError
        return self.rest(self.first(x))


def test_a_model_without_a_graph():
    model = Subclassed()
    model.compile(loss=["mae", "mse"])
    assert rows(read_setup(model))[0] == ("first", "Dense", "relu", (), (), 0)
    model(keras.ops.zeros((2, 3)))
    setup = read_setup(model)
    assert rows(setup) == [
        ("first", "Dense", "relu", (), (), 2),
        ("rest", "Sequential", "", (), (), 2),
        ("rest/fc", "Dense", "", (), (), 2),
    ]
    assert not setup.has_graph
    assert [(h.name, h.layer, h.loss) for h in setup.heads] == [
        ("0", -1, "mean_absolute_error"),
        ("1", -1, "mean_squared_error"),
    ]


def test_a_sequential_that_is_not_built():
    stack = [layers.Dense(4, "relu", name="first"), keras.Sequential([layers.Dense(1, name="fc")])]
    model = keras.Sequential([*stack, layers.Flatten(name="flat")])
    model.compile(loss="mse")
    setup = read_setup(model)
    assert setup.has_graph
    assert [(layer.type, layer.takes, layer.weights) for layer in setup.layers] == [
        ("Dense", (-1,), 0),
        ("Dense", (0,), 0),
        ("Flatten", (1,), 0),
    ]
    assert setup.heads == (HeadSetup("", 2, "linear", (), "mean_squared_error"),)
    assert not read_setup(keras.Sequential()).layers


def test_a_head_that_is_adapted_or_quantised():
    inputs = keras.Input((4,))
    head = layers.Dense(2, "sigmoid", name="head")
    model = keras.Model(inputs, head(inputs))
    head.enable_lora(2)
    assert rows(read_setup(model)) == [("head", "Dense", "sigmoid", (-1,), (-1, 2), 4)]
    plain = layers.Dense(2, "sigmoid")
    model = keras.Model(inputs, plain(inputs))
    plain.quantize("int8")
    assert read_setup(model).heads == (HeadSetup("", 0, "sigmoid", (-1, 2)),)


class Doubled(keras.layers.Dense):
    def call(self, x):
        return 2 * super().call(x)


class Block(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="block")
        self.activation = keras.activations.relu
        self.inside = layers.Dense(2, "tanh", name="inside")

    def call(self, x):
        return self.inside(x)


class Gaussian(keras.layers.Dense):
    pass


SEQUENCE = (3, 2)


@pytest.mark.parametrize(
    ("shape", "stack", "activation"),
    [
        ((2,), [layers.Dense(2, "relu"), layers.Dense(2)], "linear"),
        (
            (2,),
            [layers.Dense(2, "softplus"), layers.Dropout(0.5), layers.Reshape((2, 1))],
            "softplus",
        ),
        ((2,), [layers.Dense(2), layers.ReLU(), layers.Identity()], "relu"),
        ((2,), [layers.Dense(2, "relu"), layers.BatchNormalization()], "linear"),
        ((2,), [layers.Dense(2, "tanh"), layers.Rescaling(127.5)], ""),
        ((2,), [layers.Dense(2, "tanh"), layers.Lambda(lambda x: x)], ""),
        ((2,), [Doubled(2, "sigmoid")], ""),
        ((2,), [Gaussian(2, "sigmoid")], "sigmoid"),
        ((2,), [Block()], ""),
        ((2,), [layers.Flatten()], ""),
        (SEQUENCE, [layers.TimeDistributed(layers.Dense(2, "sigmoid"))], "sigmoid"),
        (SEQUENCE, [layers.TimeDistributed(layers.Dense(2))], "linear"),
        (SEQUENCE, [layers.LSTM(2)], "tanh"),
        (SEQUENCE, [layers.Bidirectional(layers.GRU(2, activation="relu"))], "relu"),
        (SEQUENCE, [layers.Bidirectional(layers.GRU(2), merge_mode="sum")], ""),
        (SEQUENCE, [layers.RNN(layers.LSTMCell(2))], "tanh"),
        (
            SEQUENCE,
            [layers.Conv1D(2, 1, activation="softmax"), layers.GlobalAvgPool1D()],
            "softmax",
        ),
    ],
    ids=lambda case: "",
)
def test_the_last_activation_of_a_head(shape, stack, activation):
    setup = read_setup(keras.Sequential([keras.Input(shape), *stack]))
    assert setup.heads[0].activation == activation


def test_the_last_activation_of_several():
    inputs = keras.Input((2,))
    first, second = (layers.Dense(2, "sigmoid")(inputs) for _ in range(2))
    plain = layers.Dense(2)(inputs)
    for output, activation in [
        (layers.Concatenate()([first, second]), "sigmoid"),
        (layers.Concatenate()([first, plain]), ""),
        (first + second, ""),
        (layers.Dense(2)(first) + plain, "linear"),
        (first * plain, ""),
        (plain - plain, "linear"),
    ]:
        assert read(output, inputs).heads[0].activation == activation


def test_layers_inside_layers_of_the_user():
    model = keras.Sequential([keras.Input((2,)), Block(), layers.Dense(1, name="head")])
    assert rows(read_setup(model)) == [
        ("block", "Block", "relu", (-1,), (-1, 2), 2),
        ("block/inside", "Dense", "tanh", (), (), 2),
        ("head", "Dense", "", (0,), (-1, 1), 2),
    ]


class Failing(keras.layers.Layer):
    def __getattribute__(self, name):
        if name in ("units", "activation", "axis", "kernel_initializer"):
            raise RuntimeError(name)
        return super().__getattribute__(name)

    def call(self, x):
        return x


def test_the_statistics_of_a_normalization():
    for adapted, mean, std in ((False, [0, 0], [1, 1]), (True, [2, 5], [1, 2])):
        normalization = layers.Normalization()
        if adapted:
            normalization.adapt(np.array([[1.0, 3.0], [3.0, 7.0]], np.float32))
        model = keras.Sequential([keras.Input((2,)), normalization, layers.Dense(1)])
        arguments = read_setup(model).layers[0].arguments
        assert (arguments["mean"], arguments["std"]) == (mean, pytest.approx(std))


def test_embeddings_of_zeros_that_are_not_trained():
    for start, trainable, expected in (
        ("zeros", False, True),
        ("zeros", True, None),
        ("uniform", False, False),
    ):
        words = layers.Embedding(9, 4, start, trainable=trainable)
        setup = read_setup(keras.Sequential([keras.Input((3,)), words]))
        assert setup.layers[0].arguments.get("is_zero") is expected
        assert Setup.from_json(setup.to_json()) == setup


def test_weights_in_float16_and_how_normalizations_begin():
    for policy in ("float16", "mixed_float16", "bfloat16", "float32"):
        first = layers.BatchNormalization(gamma_initializer="zeros", dtype=policy)
        model = keras.Sequential([keras.Input((3,)), first, layers.Dense(1, dtype=policy)])
        normalization, dense = (item.arguments for item in read_setup(model).layers)
        assert dense.get("dtype") == ("float16" if policy == "float16" else None)
        assert normalization["gamma_initializer"] == normalization["beta_initializer"] == "Zeros"


def test_code_of_the_user_that_raises_makes_less_known():
    model = keras.Sequential([keras.Input((2,)), Failing(name="own"), layers.Dense(1, name="fc")])
    assert rows(read_setup(model)) == [
        ("own", "Failing", "", (-1,), (-1, 2), 0),
        ("fc", "Dense", "", (0,), (-1, 1), 2),
    ]


@pytest.mark.backends("tensorflow")
def test_it_takes_little_time():
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    times = []
    for _ in range(5):
        begin = time.process_time()
        setup = read_setup(model)
        times.append(time.process_time() - begin)
    assert min(times) < 0.05
    assert len(setup.layers) == 176
    assert setup.heads == (HeadSetup("", 175, "softmax", (-1, 1000)),)


def test_the_value_that_a_masking_hides_is_known():
    model = keras.Sequential([keras.Input((5, 2)), layers.Masking(-1.0), layers.GRU(3)])
    assert read_setup(model).layers[0].arguments["mask_value"] == -1.0
