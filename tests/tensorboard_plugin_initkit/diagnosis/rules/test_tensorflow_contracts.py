"""What the contracts take for granted of Keras, and the rules on real models."""

import warnings

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402
from keras import layers  # noqa: E402

from keras_initkit.anatomy.setup import read_setup  # noqa: E402
from tensorboard_plugin_initkit.diagnosis.rules.contracts import CONTRACT_RULES  # noqa: E402
from tensorboard_plugin_initkit.diagnosis.rules.structure import STRUCTURE_CAUSES  # noqa: E402
from tests.tensorboard_plugin_initkit.diagnosis.made_setups import X, facts_of  # noqa: E402

BITS = np.arange(len(X)) % 2
ONE_HOT = np.eye(2)[BITS]


def compiled(*stack, loss, optimizer="sgd"):
    model = keras.Sequential([layers.Input((8,)), *stack])
    model.compile(optimizer, loss)
    return model


def loss_of(activation, units, loss, y):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((8,)), layers.Dense(units, activation)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras tells of some of these itself
        y = keras.ops.convert_to_tensor(y, "float32")
        return float(keras.losses.get(loss)(y, model(X.astype("float32"))).numpy().mean())


def test_the_loss_of_classes_over_one_unit_is_0():
    for activation in ("softmax", "sigmoid"):
        assert loss_of(activation, 1, "categorical_crossentropy", BITS[:, None]) == 0


def test_keras_takes_logits_that_it_has_kept():
    """On TensorFlow a wrong `from_logits`, or another cross-entropy, is mended by this."""
    cross = keras.losses.CategoricalCrossentropy
    expected = loss_of("softmax", 2, cross(), ONE_HOT)
    assert loss_of("softmax", 2, cross(from_logits=True), ONE_HOT) == expected
    assert loss_of("sigmoid", 2, cross(), ONE_HOT) == expected
    with_sigmoids = loss_of("sigmoid", 2, "binary_crossentropy", ONE_HOT)
    assert loss_of("softmax", 2, "binary_crossentropy", ONE_HOT) == with_sigmoids
    assert loss_of("linear", 2, cross(), ONE_HOT) != pytest.approx(expected, rel=0.1)


def test_a_column_of_targets_is_repeated_for_all_units():
    squared = keras.losses.MeanSquaredError()
    y, y_pred = X[:, :1].astype("float32"), X[:, :3].astype("float32")
    assert float(squared(y, y_pred)) == float(squared(np.repeat(y, 3, axis=1), y_pred))
    per_step = y_pred[..., None]
    assert float(squared(y, per_step)) == float(squared(np.repeat(y, 3, axis=1), y_pred))
    assert float(squared(y[:, 0], y_pred[:, :1])) == float(squared(y, y_pred[:, :1]))


def find(rules, model, y=None):
    facts = facts_of(read_setup(model), y)
    return [finding for rule in rules for finding in rule(facts)]


@pytest.mark.parametrize(
    ("stack", "loss", "y", "kind"),
    [
        ([layers.Dense(1, "softmax")], "binary_crossentropy", BITS, "single_unit_softmax"),
        ([layers.Dense(1), layers.Softmax()], "mse", BITS, "single_unit_softmax"),
        ([layers.Dense(2)], "categorical_crossentropy", ONE_HOT, "logits"),
        ([layers.Dense(1), layers.ReLU()], "bce", BITS, "head_activation"),
        ([layers.Dense(2, "sigmoid")], "categorical_crossentropy", ONE_HOT, "loss_choice"),
        ([layers.Dense(2, "softmax")], "categorical_crossentropy", BITS, "label_form"),
        ([layers.Dense(1, "sigmoid")], keras.losses.Huber(), X[:, :1] * 50, "target_range"),
        ([layers.Dense(3)], "mse", X[:, :1], "target_shape"),
        (
            [layers.Dense(2, "softmax")],
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            BITS,
            "logits",
        ),
    ],
)
def test_contracts_of_real_models(stack, loss, y, kind):
    model = compiled(layers.Dense(16, "relu", name="hidden"), *stack, loss=loss)
    (finding,) = find(CONTRACT_RULES, model, y)
    assert finding.kind == kind
    assert finding.layer.split("/")[-1] == model.layers[-1].name


RESNET = layers.Input((8, 8, 3))
_x = layers.Conv2D(8, 3, padding="same", use_bias=False)(RESNET)
_x = layers.ReLU()(layers.BatchNormalization()(_x))
_y = layers.Conv2D(8, 3, padding="same", activation="relu")(_x)
_x = layers.add([_x, layers.Conv2D(8, 3, padding="same", kernel_initializer="zeros")(_y)])
_gate = layers.Dense(4, "relu")(layers.GlobalAveragePooling2D()(_x))
_x = layers.multiply([_x, layers.Reshape((1, 1, 8))(layers.Dense(8, "sigmoid")(_gate))])
_x = layers.Dense(2, "softmax")(layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(_x)))
SQUEEZED = keras.Model(RESNET, _x)


def test_nothing_is_said_of_real_models_that_are_right():
    sparse = "sparse_categorical_crossentropy"
    SQUEEZED.compile("adam", sparse)
    right = [
        (SQUEEZED, BITS),
        (compiled(layers.Dense(2, "softmax"), loss=sparse), BITS),
        (compiled(layers.Dense(2), loss=keras.losses.CategoricalCrossentropy(True)), ONE_HOT),
        (compiled(layers.Dense(1, "sigmoid"), loss="binary_crossentropy"), BITS),
        (compiled(layers.Dense(1), loss="mse"), X[:, 0] * 50),
        (compiled(layers.Dense(4, "relu"), layers.Dense(8), loss="mae"), X),
    ]
    for model, y in right:
        assert find(CONTRACT_RULES + STRUCTURE_CAUSES, model, y) == []


@pytest.mark.parametrize(
    ("stack", "kind", "place"),
    [
        ([layers.Dense(8), layers.Dense(8), layers.Dense(2, "softmax")], "no_activation", 0),
        ([*[layers.Dense(9, "sigmoid") for _ in "ab"], layers.Dense(2, "softmax")], "deep_sigm", 0),
        ([layers.Dense(2, "relu"), layers.Softmax()], "double_activation", 0),
        ([layers.Dense(2), layers.Dropout(0.5), layers.Softmax()], "output_dropout", 1),
        ([layers.Dense(2), layers.BatchNormalization(), layers.Softmax()], "output_normal", 1),
        (
            [
                layers.Reshape((2, 2, 2)),
                layers.Conv2D(3, 2, padding="same", activation="relu"),
                layers.BatchNormalization(axis=1),
                layers.Flatten(),
                layers.Dense(2, "softmax"),
            ],
            "wrong_axis",
            2,
        ),
        ([*[layers.Dense(8, "relu") for _ in range(20)], layers.Dense(2, "softmax")], "bad_st", 1),
        (
            [
                layers.Dense(8, "tanh", kernel_initializer="ones"),
                layers.Dense(8, "tanh", kernel_initializer="ones"),
                layers.Dense(2, "softmax"),
            ],
            "equal_weights",
            0,
        ),
    ],
)
def test_structure_of_real_models(stack, kind, place):
    model = compiled(*stack, loss="sparse_categorical_crossentropy")
    (finding,) = find(STRUCTURE_CAUSES, model)
    assert finding.kind.startswith(kind)
    assert finding.layer.split("/")[-1] == stack[place].name
