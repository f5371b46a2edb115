"""The audit of a model: its variances against forward passes, and what it finds."""

import re

import keras
import numpy as np
import pytest

from keras_initkit import audit, initialize, initializers, propagate, reinitialize
from keras_initkit.anatomy.following import Following
from keras_initkit.initializers import HeNormal, LecunNormal
from keras_initkit.models.audit.parts import intended_variance
from tests.keras_initkit.initializers.helpers import array, assert_same

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers
Constant = keras.initializers.Constant


def sequential(*stack, shape=(64,)):
    return keras.Sequential([keras.Input(shape), *stack])


def rows_of(model):
    return {row.path: row for row in audit(model)}


def dense(name, activation=None, kernel_initializer="he_normal"):
    return layers.Dense(64, activation, kernel_initializer=kernel_initializer, name=name)


def linear(name):
    return dense(name, None, LecunNormal())


def mean_square_of_output(layer, shape, rng):
    """Mean square of a layer's outputs for inputs of mean square 1."""
    inputs = rng.standard_normal((16, *shape), dtype=np.float32)
    return np.mean(np.square(array(layer(inputs)), dtype=np.float64))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.EinsumDense("bhi,hio->bho", (8, 40)), (8, 30)),
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
    assert row.variance == pytest.approx(mean_square_of_output(layer, shape, rng), rel=0.1)


def test_the_variances_of_a_separable_convolution_multiply(rng):
    layer = layers.SeparableConv2D(48, 3)
    layer.build((None, 16, 16, 64))
    depthwise, pointwise = [row for row in audit(layer) if row.role == "kernel"]
    product = float(depthwise.variance or 0) * float(pointwise.variance or 0)
    assert product == pytest.approx(mean_square_of_output(layer, (16, 16, 64), rng), rel=0.1)
    # Of 64 channels the shape makes 64 times as many inputs.
    assert (depthwise.keras_fans, depthwise.true_fans) == ((576, 9), (9, 9))


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


def test_a_model_that_starts_right_has_no_problems_and_stays_as_it_is():
    model = sequential(
        layers.Conv2D(16, 3, activation="relu", kernel_initializer=HeNormal()),
        layers.Conv2D(32, 3, kernel_initializer=HeNormal(negative_slope=0.3)),
        layers.LeakyReLU(negative_slope=0.3),
        # A mean over the window is no symmetry.
        layers.DepthwiseConv2D(3, depthwise_initializer=Constant(1 / 3)),
        layers.Flatten(),
        # Patterns are not random numbers.
        *(dense(name, None, "identity") for name in "ab"),
        dense("c", "gelu", LecunNormal(gain="gelu")),
        dense("d", "softmax", LecunNormal()),
        shape=(12, 12, 3),
    )
    before = [array(weight) for weight in model.weights]
    rows = audit(model).rows
    assert {(row.severity, row.fix) for row in rows} == {("ok", "")}
    assert audit(model).rows == rows
    assert_same(map(array, model.weights), before)


class LowRank(keras.layers.Layer):
    def build(self, shape):
        self.a = self.add_weight(shape=(shape[-1], 2), name="a")
        self.bias = self.add_weight(shape=(2,), name="bias")

    def call(self, inputs):
        return inputs @ self.a + self.bias


def like_units(shape, dtype=None):
    return keras.ops.tile(keras.ops.linspace(-1.0, 1.0, shape[0])[:, None], (1, shape[1]))


def unknown():
    return layers.Lambda(lambda x: x)


def zero_scale():
    return layers.BatchNormalization(gamma_initializer="zeros", name="n")


STATES = {
    "zero": "is all zeros: no signal passes",
    "constant": "is constant: all units start the same",
    "alike": "has equal units: all units start the same",
    "unknown": "cannot be judged: LowRank has no rule for its fans",
}
NO_SIGNAL = "no signal passes: kernel_initializer=HeNormal(), or "
AS_ONE = "all units start the same: kernel_initializer=HeNormal(), or "
NO_RULE = "write a rule: @keras_initkit.register_fans(LowRank)"
NO_SCALE = "gamma_initializer='ones': zeros are only right at the end of a residual branch"


@pytest.mark.parametrize(
    ("stack", "path", "kinds", "severity", "fix"),
    [
        ([dense("a"), unknown()], "a/kernel", (), "ok", ""),
        ([dense("a", "relu", "zeros")], "a/kernel", ("zero",), "error", NO_SIGNAL),
        ([dense("a", "relu", Constant(0.02))], "a/kernel", ("constant",), "error", AS_ONE),
        ([dense("a", "relu", like_units)], "a/kernel", ("alike",), "error", AS_ONE),
        # The last kernels may start at zero, as in logistic regression.
        ([], "head/kernel", ("zero",), "note", ""),
        ([zero_scale()], "n/gamma", ("zero",), "warning", NO_SCALE),
        ([LowRank(name="low")], "low/a", ("unknown",), "note", NO_RULE),
        ([LowRank(name="low")], "low/bias", (), "ok", ""),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_findings(stack, path, kinds, severity, fix):
    row = rows_of(sequential(*stack, dense("head", "softmax", "zeros")))[path]
    assert (row.kinds, row.severity) == (kinds, severity)
    assert all(f"`{path}` {STATES[found.kind]}" in found.message for found in row.findings)
    assert row.fix.startswith(fix)
    assert bool(row.fix) == bool(fix)


def test_a_finding_is_a_sentence_with_its_numbers_and_a_fix():
    row = rows_of(sequential(dense("a", "relu", "glorot_uniform"), dense("head")))["a/kernel"]
    (finding,) = row.findings
    assert (finding.kind, finding.layer, finding.step) == ("scale", "a", None)
    assert finding.evidence == {"variance": row.variance, "intended": row.intended}
    assert finding.message == (
        f"For inputs of mean square 1 `a/kernel` gives variance {row.variance:.3g}, not 2 "
        "(followed by relu)."
    )
    assert row.initializer == "GlorotUniform"
    assert row.fix == finding.fix.text
    assert finding.fix.text == (
        "kernel_initializer=HeNormal(), or "
        "keras_initkit.reinitialize(model, {'a/kernel': HeNormal()})"
    )
    small = keras.initializers.RandomNormal(0.0, 0.01)
    row = rows_of(sequential(dense("a", None, small), unknown()))["a/kernel"]
    assert row.findings[0].evidence == {"variance": row.variance}
    assert "suited to no usual activation (followed by unknown)" in row.findings[0].message


def test_a_branch_may_start_at_zero():
    inputs = keras.Input((64,))
    x = layers.ReLU()(layers.Add()([inputs, zero_scale()(dense("a")(inputs))]))
    x = layers.Add()([x, dense("b", None, "zeros")(x)])
    x = dense("head")(layers.LayerNormalization()(x))
    rows = rows_of(keras.Model(inputs, x))
    for path in ("n/gamma", "b/kernel"):
        assert (rows[path].kinds, rows[path].severity, rows[path].fix) == (("zero",), "note", "")


class Custom(keras.layers.Layer):
    """Keeps layers or variables of others, and does something with them."""

    def __init__(self, *held):
        super().__init__()
        self.held = held

    def call(self, *inputs):
        return inputs[0]


class ZeroCentredNorm(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="zeros", name="scale")

    def call(self, x):
        return keras.layers.UnitNormalization()(x) * (1 + self.scale)


class ZeroCentredOfKeras(keras.layers.LayerNormalization):
    def call(self, x):
        return super().call(x) * (1 + self.gamma)


class Equalized(keras.layers.Dense):
    """StyleGAN's: the weights of variance 1 are scaled when they are used."""

    def call(self, x):
        return x @ (self.kernel / keras.ops.sqrt(64.0))


def recommender():
    inputs = [keras.Input((), dtype="int32") for _ in range(2)]
    users, items = (layers.Embedding(99, 64, "he_normal")(x) for x in inputs)
    return keras.Model(inputs, layers.Dot(1)([users, items]))


def also_a_head():
    embedding, inputs = layers.Embedding(99, 64, name="e"), keras.Input((3,), dtype="int32")
    x = layers.Dense(64, "relu", kernel_initializer=HeNormal())(embedding(inputs))
    return keras.Model(inputs, Custom(embedding)(x))


def reversible():
    embedding, inputs = layers.ReversibleEmbedding(99, 64), keras.Input((3,))
    x = layers.Dense(64, "relu", kernel_initializer=HeNormal())(embedding(inputs))
    return keras.Model(inputs, embedding(linear("d")(x), reverse=True))


def with_lora():
    model = sequential(dense("a", "relu"), linear("head"))
    model.layers[0].enable_lora(4)
    return model


def quantized(mode):
    model = sequential(dense("a", "relu"), linear("head"))
    for layer in model.layers:
        layer.quantize(mode)
    return model


def product(kernel_initializer):
    inputs = keras.Input((64,))
    return keras.Model(inputs, inputs * dense("a", None, kernel_initializer)(inputs))


def subclassed(kernel_initializer):
    model = Custom(dense("a", None, kernel_initializer))
    model.held[0].build((None, 64))
    model.built = True
    return model


SMALL = keras.initializers.RandomNormal(stddev=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sequential(ZeroCentredNorm(), dense("a", "relu"), linear("head")),
        lambda: sequential(ZeroCentredOfKeras(gamma_initializer="zeros"), linear("a")),
        lambda: sequential(Equalized(64, kernel_initializer=keras.initializers.RandomNormal(0, 1))),
        recommender,
        also_a_head,
        reversible,
        with_lora,
        *(lambda mode=mode: quantized(mode) for mode in ("int8", "int4", "float8")),
        *(lambda start=start: product(start) for start in (SMALL, "zeros")),
        *(lambda start=start: subclassed(start) for start in (SMALL, "zeros")),
    ],
    ids=lambda case: "",
)
@pytest.mark.backends("torch")
def test_there_is_no_advice_where_the_use_of_a_weight_is_not_understood(make):
    rows = audit(make())
    assert {(row.path, row.fix) for row in rows if row.fix} == set()
    assert rows.problems == ()


def test_the_fixes_are_fixes():
    model = sequential(
        layers.SeparableConv2D(64, 3, activation="relu", use_bias=False, name="separable"),
        layers.DepthwiseConv2D(3, name="d"),
        layers.LeakyReLU(0.1),
        layers.Reshape((64, 64)),
        layers.LSTM(64, name="lstm", return_sequences=True),
        layers.GRU(32, name="gru", kernel_initializer=LecunNormal()),
        dense("head", None, LecunNormal()),
        shape=(12, 12, 64),
    )
    rows = rows_of(model)
    assert rows["d/kernel"].kinds == ("scale", "fans")
    assert rows["d/kernel"].findings[1].message == (
        "Keras reads the fans 576/9 from the shape of `d/kernel`; the true ones are 9/9."
    )
    assert rows["d/kernel"].fix == (
        "depthwise_initializer=HeNormal(negative_slope=0.1) with keras_initkit.layer_aware(layer), "
        "or keras_initkit.reinitialize(model, {'d/kernel': HeNormal(negative_slope=0.1)})"
    )
    # Keras makes the four gates one matrix, whose rows have length 1.
    path = "lstm/lstm_cell/recurrent_kernel"
    assert rows[path].variance == pytest.approx(0.25)
    assert rows[path].fix == (
        "recurrent_initializer=Orthogonal() with keras_initkit.layer_aware(layer), or "
        f"keras_initkit.reinitialize(model, {{{path!r}: Orthogonal()}})"
    )
    off = [row for row in rows.values() if row.fix]
    assert [row.severity for row in off] == 6 * ["note"]
    assert "What to do" not in str(audit(model))
    for row in off:
        _, _, rule = row.fix.removesuffix(")").partition("keras_initkit.reinitialize(model, ")
        rules = eval(rule, vars(initializers))
        reinitialize(model, rules, only=row.path, seed=0)
    assert {row.severity for row in audit(model)} == {"ok"}


@pytest.mark.parametrize(
    ("depth", "activation", "initializer", "told", "fix"),
    [
        (5, "relu", "glorot_uniform", "", ""),
        (12, "tanh", "glorot_uniform", "", ""),
        (30, "relu", "he_normal", "", ""),
        (30, "relu", "glorot_uniform", "the gradient by 0.7", "HeNormal()` in all 30 layers, or"),
        (5, "sigmoid", "glorot_uniform", "the gradient by 0.2", "initialize(model, x)"),
        (4, "relu", keras.initializers.RandomNormal(0, 2.0), "the signal by", "HeNormal()` in all"),
    ],
)
def test_a_warning_is_of_the_whole_depth(depth, activation, initializer, told, fix):
    make = getattr(initializer, "clone", lambda: initializer)
    stack = [dense(f"layer_{i}", activation, make()) for i in range(depth)]
    rows = rows_of(sequential(*stack, layers.MaxPooling1D(), linear("head"), shape=(8, 64)))
    warned = [row for row in rows.values() if row.severity == "warning"]
    assert len(warned) == (depth if told else 0)
    starts = [found for row in warned for found in row.findings if found.kind == "bad_start"]
    assert [found.layer for found in starts] == ["layer_1"] * bool(told)
    assert all(told in found.message and fix in str(found.fix) for found in starts)
    if depth == 5:  # each by itself is off
        assert {row.kinds[-1] for row in rows.values() if row.kinds} == {"scale"}


def test_the_cure_tells_what_initialize_makes_of_it():
    sizes = (128, 128, 64, 64, 128, 128, 64, 64, 64)
    stack = [layers.Dense(size, "tanh", name=f"layer_{i}") for i, size in enumerate(sizes)]
    for layer in stack:
        layer.kernel_initializer = keras.initializers.RandomNormal(0, 0.02, seed=0)
    model = sequential(*stack, linear("head"), shape=(64,))
    told = [found for row in rows_of(model).values() for found in row.findings]
    found = next(found for found in told if found.kind == "bad_start")
    pattern = "`layer_0` would receive (.*) times the gradient of `layer_8`, not 1/([0-9,]+)"
    ((after, before),) = re.findall(pattern, str(found.fix))

    def receive():
        prediction = propagate(model)
        signals = [prediction[layer.name].signal or 0.0 for layer in stack]
        return signals[0] / signals[-1]

    assert 1 / float(before.replace(",", "")) == pytest.approx(receive(), rel=0.5)
    initialize(model, seed=0)
    assert float(after) == pytest.approx(receive(), rel=0.3)


def test_a_normalization_that_does_not_normalize(rng):
    stack = [
        layers.SeparableConv2D(512, 3, use_bias=False, name="s"),
        layers.BatchNormalization(name="n"),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        dense("head"),
    ]
    model = sequential(*stack, shape=(8, 8, 512))
    rows = rows_of(model)
    assert rows["s/depthwise_kernel"].kinds == ("swallowed", "fans")
    assert rows["s/pointwise_kernel"].kinds == ()
    assert re.fullmatch(
        "After `s/depthwise_kernel` the variance is 0.00.*, hardly more than epsilon 0.001 of "
        "`n`, which then does not normalize.",
        rows["s/depthwise_kernel"].findings[0].message,
    )
    inputs = rng.standard_normal((8, 8, 8, 512), dtype=np.float32)
    assert array(stack[1](stack[0](inputs), training=True)).var() < 0.9
    reinitialize(model, {"s": HeNormal()}, seed=0)
    assert not audit(model).problems


@pytest.mark.parametrize(
    ("normalization", "found"),
    [(layers.LayerNormalization, False), (layers.BatchNormalization, True)],
)
def test_what_is_normalized_beside_others_is_not_swallowed(normalization, found):
    inputs, others = keras.Input((64,)), keras.Input((16,))
    small = dense("a", None, keras.initializers.RandomNormal(0.0, 1e-3))(inputs)
    x = normalization()(layers.Concatenate()([small, others]))
    rows = rows_of(keras.Model([inputs, others], linear("head")(x)))
    assert rows["a/kernel"].kinds == ("swallowed",) * found


SHARED = HeNormal()


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (SHARED, SHARED, " (one initializer for both)"),
        (HeNormal(seed=5), LecunNormal(gain=1.3, seed=5), " (seed 5 in both)"),
    ],
)
def test_the_same_random_numbers(first, second, why):
    model = sequential(dense("a", "relu", first), dense("b", "relu", second), dense("head"))
    a, b = audit(model).problems
    assert a.kinds == b.kinds == ("same",)
    assert b.fix == (
        f"same values as a/kernel{why}: give each layer an initializer of its own "
        "without a seed, or keras_initkit.reinitialize(model, seed=0)"
    )
    assert b.findings[0].message == (
        f"The random numbers of `b/kernel` and `a/kernel` have correlation 1{why}."
    )
    reinitialize(model, seed=0)
    assert not audit(model).problems


def test_half_precision_and_states():
    keras.config.set_dtype_policy("bfloat16")
    model = sequential(
        layers.Dense(64, "relu", kernel_initializer="he_normal", name="a"),
        layers.BatchNormalization(),
        layers.Dense(4),
    )
    rows = rows_of(model)
    assert rows["a/kernel"].severity == "ok"
    assert {row.role for row in rows.values()} == {"kernel", "scale", "bias", "state"}


class WithoutCall(keras.Model):
    """A GAN, say."""

    def __init__(self):
        super().__init__()
        self.net = sequential(dense("a", "relu", "zeros"))


def test_a_model_without_call_has_the_weights_of_its_parts():
    model = WithoutCall()
    assert [row.kinds for row in audit(model)] == [("zero",), ()]
    drawn = reinitialize(model, {layers.Dense: HeNormal()}, seed=0)
    assert list(drawn) == [f"{model.net.name}/a/{name}" for name in ("kernel", "bias")]
    assert audit(model).problems == ()


def test_a_model_must_be_built():
    with pytest.raises(ValueError, match="`model` must be built, so that it has weights"):
        audit(keras.Sequential([dense("a")]))
