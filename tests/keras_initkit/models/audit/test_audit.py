"""The audit of a model: its variances against forward passes, and what it finds."""

import re

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit import audit
from keras_initkit.anatomy.following import Following
from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.initializers import HeNormal, LecunNormal, Orthogonal
from keras_initkit.models.audit.parts import intended_variance

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def sequential(*stack, shape=(64,)):
    return keras.Sequential([keras.Input(shape), *stack], name="net")


def rows_of(model):
    return {row.path: row for row in audit(model)}


def kernel_of(model, layer):
    rows = [row for row in audit(model) if row.path.startswith(f"{layer}/")]
    return next(row for row in rows if row.role == "kernel")


def dense(units=64, *args, **kwargs):
    return layers.Dense(units, *args, **{"kernel_initializer": "he_normal", **kwargs})


def followed_by(*stack, **kwargs):
    """The row of a kernel before some layers."""
    return kernel_of(sequential(dense(64, name="first", **kwargs), *stack, dense(8)), "first")


# The variance at the output.


def variance_of_output(layer, shape, rng):
    """Mean square of a layer's outputs for inputs of mean square 1."""
    inputs = rng.standard_normal((16, *shape), dtype=np.float32)
    return np.mean(np.square(to_numpy(layer(inputs)), dtype=np.float64))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Dense(100), (200,)),
        (lambda: layers.EinsumDense("abc,cd->abd", (None, 80)), (9, 60)),
        (lambda: layers.EinsumDense("bhi,hio->bho", (8, 40)), (8, 30)),
        (lambda: layers.Conv1D(32, 4, strides=2), (40, 16)),
        (lambda: layers.Conv2D(32, 3, strides=2), (20, 20, 16)),
        (lambda: layers.Conv2D(32, 3, groups=4), (12, 12, 16)),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (12, 12, 64)),
        (lambda: layers.TimeDistributed(layers.Dense(100)), (3, 200)),
    ],
    ids=lambda case: "",
)
def test_the_variance_is_that_of_a_forward_pass(layer, shape, rng):
    layer = layer()
    layer.build((None, *shape))
    row = next(row for row in audit(layer) if row.role == "kernel")
    assert row.variance == pytest.approx(variance_of_output(layer, shape, rng), rel=0.1)


@pytest.mark.parametrize(("window", "strides"), [(3, 1), (4, 2)])
def test_the_variance_of_a_transposed_convolution(window, strides, rng):
    layer = layers.Conv2DTranspose(16, window, strides=strides)
    layer.build((None, 10, 10, 32))
    outputs = to_numpy(layer(rng.standard_normal((8, 10, 10, 32), dtype=np.float32)))
    # Fewer inputs reach the border.
    interior = outputs[:, window:-window, window:-window]
    (row,) = [row for row in audit(layer) if row.role == "kernel"]
    assert row.variance == pytest.approx(np.mean(np.square(interior)), rel=0.1)


def test_the_variances_of_a_separable_convolution_multiply(rng):
    layer = layers.SeparableConv2D(48, 3)
    layer.build((None, 16, 16, 64))
    depthwise, pointwise = [row for row in audit(layer) if row.role == "kernel"]
    product = float(depthwise.variance or 0) * float(pointwise.variance or 0)
    assert product == pytest.approx(variance_of_output(layer, (16, 16, 64), rng), rel=0.1)
    # Of 64 channels the shape makes 64 times as many inputs.
    assert depthwise.keras_fans == (576, 9)
    assert depthwise.true_fans == (9, 9)


def test_the_variances_of_attention(rng):
    layer = layers.MultiHeadAttention(4, 16)
    layer.build((None, 5, 64), (None, 5, 64))
    by_name = {inner.name: inner for inner in layers_inside(layer)}
    rows = {row.path.split("/")[-2]: row for row in audit(layer) if row.role == "kernel"}
    assert sorted(rows) == ["attention_output", "key", "query", "value"]
    for name, row in rows.items():
        shape = (5, 4, 16) if name == "attention_output" else (5, 64)
        expected = variance_of_output(by_name[name], shape, rng)
        assert row.variance == pytest.approx(expected, rel=0.15)


def test_the_variances_of_gates(rng):
    layer = layers.LSTM(64)
    layer.build((None, 5, 48))
    for variable in layer.weights[:2]:
        (row,) = [row for row in audit(layer) if row.path.endswith("/" + variable.name)]
        inputs = rng.standard_normal((64, variable.shape[0]))
        gates = np.square(inputs @ to_numpy(variable)).mean(axis=0)
        assert row.variance == pytest.approx(gates.mean(), rel=0.1)
        assert (row.intended, row.follows) == (1.0, "linear")


def test_an_embedding_chooses_one_of_its_vectors():
    layer = layers.Embedding(100, 50)
    layer.build()
    (row,) = audit(layer)
    outputs = to_numpy(layer(np.arange(100)))
    assert row.variance == pytest.approx(np.mean(np.square(outputs)), rel=1e-5)


@pytest.mark.parametrize(
    ("following", "intended"),
    [
        (Following("relu", keras.activations.relu), 2.0),
        (Following("relu", keras.activations.relu, adds=True), 2.0),
        (Following("relu", keras.activations.relu, is_last=True), 1.0),
        (Following("sigmoid", keras.activations.sigmoid, is_gate=True), 1.0),
        (Following("relu", keras.activations.relu, layers.BatchNormalization()), None),
        (Following("linear"), 1.0),
        (Following(), None),
    ],
    ids=lambda case: "",
)
def test_the_intended_variance(following, intended):
    assert intended_variance(following) == pytest.approx(intended)


# Findings.


def test_a_model_that_starts_right_has_no_problems():
    model = sequential(
        layers.Conv2D(16, 3, activation="relu", kernel_initializer=HeNormal()),
        layers.Conv2D(32, 3, kernel_initializer=HeNormal(negative_slope=0.3)),
        layers.LeakyReLU(negative_slope=0.3),
        layers.Flatten(),
        dense(64, "gelu", kernel_initializer=LecunNormal(gain="gelu")),
        dense(64, "tanh", kernel_initializer=LecunNormal(gain="tanh")),
        dense(10, "softmax", kernel_initializer=LecunNormal()),
        shape=(12, 12, 3),
    )
    assert audit(model).problems == ()
    assert {row.severity for row in audit(model)} == {"ok"}
    assert {row.fix for row in audit(model)} == {""}


def test_keras_default_before_relu():
    row = followed_by(activation="relu", kernel_initializer="glorot_uniform")
    assert row.initializer == "GlorotUniform"
    assert (row.kinds, row.severity) == (("scale",), "warning")
    assert row.fix == (
        "kernel_initializer=HeNormal(), or "
        "keras_initkit.reinitialize(model, {'first/kernel': HeNormal()})"
    )


def test_before_an_unknown_layer_a_variance_is_off_if_it_suits_no_activation():
    unknown = layers.Lambda(lambda x: x)
    assert not followed_by(unknown).findings
    row = followed_by(unknown, kernel_initializer=keras.initializers.RandomNormal(0.0, 0.01))
    assert (row.kinds, row.intended) == (("scale",), None)
    assert "suited to no usual activation (followed by unknown)" in row.findings[0].message


def residual_net(gamma="zeros"):
    inputs = x = keras.Input((8, 8, 16))
    y = layers.Conv2D(16, 3, padding="same", name="one")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(16, 3, padding="same", name="two")(y)
    y = layers.BatchNormalization(gamma_initializer=gamma, name="last")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, dense(4, name="head")(layers.GlobalAveragePooling2D()(x)))


def test_a_branch_may_start_at_zero():
    row = rows_of(residual_net())["last/gamma"]
    assert (row.kinds, row.severity, row.fix) == (("zero",), "note", "")
    inputs = keras.Input((64,))
    x = layers.Add()([inputs, dense(64, name="a", kernel_initializer="zeros")(inputs)])
    y = dense(64)(layers.LayerNormalization()(x))
    row = kernel_of(keras.Model(inputs, dense(4)(y)), "a")
    assert (row.kinds, row.severity, row.fix) == (("zero",), "note", "")


def test_a_finding_is_a_sentence_with_its_numbers():
    row = followed_by(activation="relu", kernel_initializer=keras.initializers.RandomNormal(0, 1))
    (finding,) = row.findings
    assert (finding.kind, finding.layer, finding.step) == ("scale", "first", None)
    assert (finding.severity, finding.fix) == ("warning", row.fix)
    assert finding.evidence == {"variance": row.variance, "intended": row.intended}
    assert finding.message == (
        f"Inputs of mean square 1 leave `first/kernel` with variance {row.variance:.3g}, not 2 "
        "(followed by relu)."
    )


def test_the_fix_is_one():
    model = sequential(
        layers.SeparableConv2D(64, 3, activation="relu", use_bias=False, name="separable"),
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.LeakyReLU(0.1),
        layers.Reshape((64, 64)),
        layers.LSTM(32, name="lstm"),
        dense(4, kernel_initializer=LecunNormal()),
        shape=(12, 12, 64),
    )
    before = audit(model)
    assert len(before.problems) == 4
    for row in before.problems:
        _, _, rule = row.fix.removesuffix(")").partition("keras_initkit.reinitialize(model, ")
        keras_initkit.reinitialize(model, eval(rule), only=row.path, seed=0)
    assert audit(model).problems == ()


def test_orthogonal_gates_stay_orthogonal():
    row = rows_of(sequential(layers.LSTM(32, name="lstm"), shape=(5, 32)))[
        "lstm/lstm_cell/recurrent_kernel"
    ]
    # Keras makes the four gates one matrix, whose rows have length 1.
    assert row.variance == pytest.approx(0.25)
    assert row.fix == (
        "recurrent_initializer=Orthogonal() with keras_initkit.layer_aware(layer), or "
        "keras_initkit.reinitialize(model, {'lstm/lstm_cell/recurrent_kernel': Orthogonal()})"
    )


def test_other_fans_than_the_shape_has():
    rows = rows_of(sequential(layers.DepthwiseConv2D(3, name="d"), dense(4), shape=(9, 9, 32)))
    row = rows["d/kernel"]
    assert row.kinds == ("scale", "fans")
    assert row.findings[1].message == (
        "Keras reads fans 288/9 from the shape of `d/kernel`; the layer has 9/9."
    )
    assert row.fix == (
        "depthwise_initializer=LecunNormal() with keras_initkit.layer_aware(layer), or "
        "keras_initkit.reinitialize(model, {'d/kernel': LecunNormal()})"
    )


def test_a_normalization_that_does_not_normalize(rng):
    stack = [
        layers.SeparableConv2D(512, 3, use_bias=False, name="s"),
        layers.BatchNormalization(name="n"),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        dense(4),
    ]
    model = sequential(*stack, shape=(8, 8, 512))
    row = rows_of(model)["s/depthwise_kernel"]
    assert row.follows == "BatchNormalization, relu"
    assert row.kinds == ("swallowed", "fans")
    assert re.fullmatch(
        "Behind `s/depthwise_kernel` the variance is 0.00.*, not large against epsilon 0.001 of "
        "`n`: it does not normalize.",
        row.findings[0].message,
    )
    inputs = rng.standard_normal((8, 8, 8, 512), dtype=np.float32)
    normalized = to_numpy(stack[1](stack[0](inputs), training=True))
    assert normalized.var() < 0.9
    assert rows_of(model)["s/pointwise_kernel"].kinds == ()
    keras_initkit.reinitialize(model, {"s": HeNormal()}, seed=0)
    assert not audit(model).problems


@pytest.mark.parametrize(
    ("initializer", "kind", "state", "reason"),
    [
        ("zeros", "zero", "is all zeros", "no signal passes"),
        (keras.initializers.Constant(0.02), "constant", "is constant", "all units start as one"),
    ],
)
def test_units_that_start_as_one(initializer, kind, state, reason):
    row = followed_by(activation="relu", kernel_initializer=initializer)
    assert (row.kinds, row.severity) == ((kind,), "error")
    assert row.findings[0].message == f"`first/kernel` {state}: {reason}."
    assert row.fix.startswith(f"{reason}: kernel_initializer=HeNormal(), or ")


def test_units_that_are_alike_with_different_inputs():
    model = sequential(dense(64, "relu", name="a"), dense(4))
    model.layers[0].kernel.assign(np.repeat(np.linspace(-1, 1, 64)[:, None], 64, axis=1))
    row = kernel_of(model, "a")
    assert (row.kinds, row.severity) == (("alike",), "error")


def test_logistic_regression_may_start_at_zero():
    (row, _) = audit(sequential(dense(10, "softmax", kernel_initializer="zeros")))
    assert (row.kinds, row.severity, row.fix) == (("zero",), "note", "")


def test_a_depthwise_mean_is_no_symmetry():
    model = sequential(
        layers.DepthwiseConv2D(3, depthwise_initializer=keras.initializers.Constant(1 / 3)),
        dense(4),
        shape=(9, 9, 16),
    )
    assert not audit(model).problems


def test_a_scale_of_zero_that_ends_no_branch():
    model = sequential(dense(), layers.BatchNormalization(gamma_initializer="zeros"), dense())
    (row,) = audit(model).problems
    assert (row.role, row.kinds, row.severity) == ("scale", ("zero",), "warning")
    assert row.fix == "gamma_initializer='ones': zeros are for the end of a residual branch"


SHARED = HeNormal()


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (SHARED, SHARED, " (one initializer for both)"),
        (HeNormal(seed=5), HeNormal(seed=5), " (seed 5 in both)"),
        (HeNormal(seed=5), LecunNormal(gain=1.3, seed=5), " (seed 5 in both)"),
    ],
)
def test_the_same_random_numbers(first, second, why):
    model = sequential(
        dense(64, "relu", name="a", kernel_initializer=first),
        dense(64, "relu", name="b", kernel_initializer=second),
        dense(4),
    )
    a, b = audit(model).problems
    assert a.kinds == b.kinds == ("same",)
    assert b.fix == (
        f"same values as a/kernel{why}: give each layer an initializer of its own "
        "without a seed, or keras_initkit.reinitialize(model, seed=0)"
    )
    assert b.findings[0].message == (
        f"The random numbers of `b/kernel` and `a/kernel` have correlation 1{why}."
    )
    keras_initkit.reinitialize(model, seed=0)
    assert not audit(model).problems


def test_attention_with_a_seed():
    layer = layers.MultiHeadAttention(2, 8, kernel_initializer=LecunNormal(seed=1))
    layer.build((None, 5, 16), (None, 5, 16))
    same = [row.path.split("/")[-2] for row in audit(layer) if "same" in row.kinds]
    assert {"query", "key", "value"} <= set(same)


def test_patterns_and_biases_are_not_random_numbers():
    model = sequential(
        dense(64, kernel_initializer="identity"), dense(64, kernel_initializer="identity"), dense(4)
    )
    assert not audit(model).problems


class LowRank(keras.layers.Layer):
    def build(self, shape):
        self.a = self.add_weight(shape=(shape[-1], 2), name="a")
        self.bias = self.add_weight(shape=(2,), name="bias")

    def call(self, inputs):
        return inputs @ self.a + self.bias


def test_a_layer_of_ones_own():
    a, bias, *_ = audit(sequential(LowRank(name="low"), dense(4)))
    assert (a.role, a.true_fans, a.variance) == ("kernel", None, None)
    assert (a.kinds, a.severity) == (("unknown",), "note")
    assert a.fix == "write a rule: @keras_initkit.register_fans(LowRank)"
    assert (bias.role, bias.kinds) == ("bias", ())


def test_recurrent_layers_with_orthogonal_gates():
    layer = layers.GRU(32, kernel_initializer=LecunNormal(), recurrent_initializer=Orthogonal())
    model = sequential(layer, dense(4), shape=(5, 32))
    keras_initkit.reinitialize(model, seed=0)
    assert not audit(model).problems


def test_nothing_changes_in_the_model():
    model = residual_net()
    model.compile("sgd", "mse")
    before = [np.array(to_numpy(weight.value)) for weight in model.weights]
    first, second = audit(model), audit(model)
    assert first.rows == second.rows
    for weight, values in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight.value), values)


def test_half_precision_and_states():
    keras.config.set_dtype_policy("bfloat16")
    model = sequential(dense(64, "relu", name="a"), layers.BatchNormalization(), dense(4))
    rows = rows_of(model)
    assert rows["a/kernel"].severity == "ok"
    assert {row.role for row in rows.values()} == {"kernel", "scale", "bias", "state"}


def test_a_model_must_be_built():
    message = (
        "`model` must be built, so that it has weights. Received: 'net', which is not. Call it on "
        "data, or `model.build(input_shape)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        audit(keras.Sequential([dense()], name="net"))
