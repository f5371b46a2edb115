"""Initializers besides the family of one formula: what they are for, and Keras's contract."""

import math
import re

import keras
import numpy as np
import pytest

from keras_initkit.initializers import (
    ChronoBias,
    Dirac,
    ForgetGateBias,
    KaimingNormal,
    KaimingUniform,
    PriorBias,
    Siren,
)

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers


def array(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")).astype(np.float64)


# Each with a shape that it can be called with.
EACH = [
    (KaimingNormal(a=0.1, seed=3), (6, 4)),
    (KaimingUniform(mode="fan_out", nonlinearity="tanh", seed=3), (3, 6, 4)),
    (Siren(omega=10, seed=3), (6, 4)),
    (Siren(first=True, seed=3), (6, 4)),
    (Dirac(gain=0.5, groups=2), (3, 2, 4)),
    (PriorBias(0.01), (4,)),
    (PriorBias([1, 2, 1], "softmax"), (3,)),
    (ChronoBias(100, seed=3), (8,)),
    (ChronoBias(100, "gru", seed=3), (2, 6)),
]
each = pytest.mark.parametrize(
    ("initializer", "shape"), EACH, ids=[f"{i}-{type(x[0]).__name__}" for i, x in enumerate(EACH)]
)


@each
def test_a_config_makes_the_same_initializer(initializer, shape):
    config = keras.saving.serialize_keras_object(initializer)
    assert config["registered_name"] == f"keras_initkit>{type(initializer).__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == initializer.get_config()
    np.testing.assert_array_equal(array(again(shape)), array(initializer(shape)))


@each
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_have_the_shape_and_type_that_is_asked_for(initializer, shape, dtype):
    values = initializer(shape, dtype=dtype, layout=None)
    assert tuple(values.shape) == shape
    assert keras.backend.standardize_dtype(values.dtype) == dtype
    np.testing.assert_allclose(array(values), array(initializer(shape)), rtol=2**-7)


@each
def test_what_is_no_float_is_refused(initializer, shape):
    with pytest.raises(ValueError, match=r"`dtype` must be a floating type\. Received: .*int32"):
        initializer(shape, dtype="int32")
    with pytest.raises(TypeError, match=r"called with `shape`, `dtype` and `layout` only\. Rec"):
        initializer(shape, partition=None)


@pytest.mark.parametrize("cls", [KaimingNormal, KaimingUniform, Siren, ChronoBias])
def test_seeds_keep_to_keras_contract(cls):
    arguments = (100,) if cls is ChronoBias else ()
    fixed = cls(*arguments, seed=1)
    np.testing.assert_array_equal(array(fixed((8, 4))), array(fixed((8, 4))))
    moving = cls(*arguments, seed=keras.random.SeedGenerator(1))
    assert not np.array_equal(array(moving((8, 4))), array(moving((8, 4))))


@pytest.mark.parametrize(
    ("initializer", "variance", "fourth"),
    [
        # PyTorch's Linear: uniform in ±1/sqrt(fan_in), of kurtosis 9/5.
        (KaimingUniform(a=math.sqrt(5), seed=1), 1 / 3 / 400, 9 / 5),
        (KaimingNormal(nonlinearity="selu", seed=1), 0.75**2 / 400, 3),
        (KaimingNormal(mode="fan_out", nonlinearity="tanh", seed=1), 25 / 9 / 600, 3),
        (Siren(omega=20, seed=1), 2 / 20**2 / 400, 9 / 5),
        (Siren(first=True, seed=1), 1 / 3 / 400**2, 9 / 5),
    ],
)
def test_moments(initializer, variance, fourth):
    values = array(initializer((400, 600)))
    assert abs(values.mean()) < 5 * math.sqrt(variance / values.size)
    assert values.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / values.size))
    assert (values**4).mean() / variance**2 == pytest.approx(fourth, rel=0.05)
    assert initializer.stddev((400, 600)) == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_sines_keep_their_spread_over_layers():
    def sine(z):
        return keras.ops.sin(30.0 * z)

    x = np.random.default_rng(0).uniform(-1, 1, (512, 2)).astype("float32")
    signal = layers.Dense(256, sine, kernel_initializer=Siren(first=True, seed=0))(x)
    # After the first layer a sine of all phases; then of normal ones: E sin²z = (1 - e^(-2v))/2.
    variance = 1.0
    for seed in range(1, 6):
        layer = layers.Dense(256, kernel_initializer=Siren(seed=seed))
        before = layer(signal)
        assert np.var(30 * array(before)) == pytest.approx(variance, rel=0.15)
        signal, variance = sine(before), 1 - math.exp(-2 * variance)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("taps", [1, 3, 4])
def test_a_dirac_convolution_is_the_identity(padding, taps):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype("float32")
    layer = layers.Conv2D(4, taps, padding=padding, kernel_initializer=Dirac())
    first = 0 if padding == "same" else (taps - 1) // 2
    y = array(layer(x))
    np.testing.assert_array_equal(y, x[:, first:, first:][:, : y.shape[1], : y.shape[2]])


def test_dirac_with_groups_and_with_other_numbers_of_channels():
    x = np.random.default_rng(0).normal(size=(2, 9, 4)).astype("float32")
    wide = layers.Conv1D(6, 3, padding="same", groups=2, kernel_initializer=Dirac(2.0, groups=2))
    nothing = np.zeros((2, 9, 1))
    parts = [2 * x[:, :, :2], nothing, 2 * x[:, :, 2:], nothing]
    np.testing.assert_array_equal(array(wide(x)), np.concatenate(parts, axis=2))
    narrow = layers.Dense(3, kernel_initializer=Dirac())
    np.testing.assert_array_equal(array(narrow(x)), x[:, :, :3])


def test_prior_biases_predict_frequencies():
    x = np.zeros((1, 2), np.float32)
    rare = layers.Dense(2, "sigmoid", bias_initializer=PriorBias([0.01, 0.9]))
    np.testing.assert_allclose(array(rare(x)), [[0.01, 0.9]], rtol=1e-6)
    classes = layers.Dense(3, "softmax", bias_initializer=PriorBias([900, 90, 10], "softmax"))
    np.testing.assert_allclose(array(classes(x)), [[0.9, 0.09, 0.01]], rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_prior_biases_suit_focal_losses(gamma):
    """One in a hundred is of the rare class: the loss at the start is that of knowing as much."""
    prior, labels = 0.01, np.arange(1000) % 100 == 0
    x = np.zeros((1000, 2), np.float32)

    def focal(p):
        return -((1 - p) ** gamma) * math.log(p)

    binary = layers.Dense(1, "sigmoid", bias_initializer=PriorBias(prior))
    loss = keras.losses.BinaryFocalCrossentropy(gamma=gamma)
    known = prior * focal(prior) + (1 - prior) * focal(1 - prior)
    start = float(array(loss(labels[:, None].astype("float32"), binary(x))))
    assert start == pytest.approx(known, rel=1e-4)
    assert start < 0.3 * focal(0.5)
    several = layers.Dense(2, "softmax", bias_initializer=PriorBias([99, 1], "softmax"))
    loss = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=gamma)
    start = float(array(loss(np.eye(2, dtype="float32")[labels.astype(int)], several(x))))
    assert start == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize("initializer", [ForgetGateBias(2.0), ChronoBias(100, seed=0)])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (layers.LSTM, (None, 5, 3)),
        (lambda *units, **arguments: layers.ConvLSTM1D(*units, 3, **arguments), (None, 4, 9, 2)),
        (lambda *u, **a: layers.Bidirectional(layers.LSTM(*u, **a)), (None, 5, 3)),
    ],
    ids=["LSTM", "ConvLSTM1D", "Bidirectional"],
)
def test_a_layer_must_not_set_the_bias_of_its_forget_gate_itself(initializer, make, shape):
    # Which Keras does unless it is told not to: 16 units could be taken for 4 gates of 4.
    with pytest.raises(ValueError, match="`unit_forget_bias` of the layer must be False for an"):
        make(16, bias_initializer=initializer).build(shape)
    layer = make(16, bias_initializer=initializer, unit_forget_bias=False)
    layer.build(shape)
    bias = next(array(weight) for weight in layer.weights if weight.name == "bias")
    assert not bias[32:].any()
    assert np.all(bias[16:32] > 0)


def test_chrono_biases_spread_the_times_of_forgetting():
    lstm = layers.LSTM(400, bias_initializer=ChronoBias(200, seed=0), unit_forget_bias=False)
    lstm.build((None, 5, 3))
    i, f, c, o = np.split(array(lstm.cell.bias), 4)
    np.testing.assert_array_equal(i, -f)
    assert not c.any()
    assert not o.any()
    times = np.exp(f)
    assert 1 <= times.min() < 10
    assert 190 < times.max() <= 199
    assert times.mean() == pytest.approx(100, abs=5 * 200 / math.sqrt(12 * 400))
    # With no inputs and an empty output gate's weights, a GRU's state decays by the update gate.
    gru = layers.GRU(8, bias_initializer=ChronoBias(50, "gru", seed=0), reset_after=True)
    gru.build((None, 5, 3))
    update, *rest = np.split(array(gru.cell.bias)[0], 3)
    assert not np.any(rest)
    assert not array(gru.cell.bias)[1].any()
    gru.cell.recurrent_kernel.assign(np.zeros((8, 24)))
    state = array(gru.cell(np.zeros((1, 3), np.float32), [np.ones((1, 8), np.float32)])[0])
    np.testing.assert_allclose(state[0], 1 / (1 + np.exp(-update)), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KaimingNormal(nonlinearity="gelu"), '`nonlinearity` must be one of "linear", '),
        (lambda: Siren(omega=0), "`omega` must be a positive number, the ω of the activation"),
        (lambda: Dirac(groups=0), "`groups` must be a positive integer, that of the convolution."),
        (lambda: Dirac(groups=2)((3, 2, 3)), "with outputs a multiple of groups=2. Received: sha"),
        (lambda: Dirac()((3,)), "`shape` must be (*taps, inputs of a group, outputs), with outpu"),
        (lambda: KaimingNormal(a=math.inf), "`a` must be a finite number, the slope of "),
        (lambda: Siren(omega=math.inf), "`omega` must be a positive number, the ω of the activ"),
        (lambda: PriorBias("x"), "Received: prior='x'"),  # type: ignore[arg-type]
        (lambda: PriorBias(1.0), "`prior` must be a probability, more than 0 and less than 1,"),
        (lambda: PriorBias([]), "or a sequence of one for each output. Received: prior=[]"),
        (lambda: PriorBias([1, 0], "softmax"), "For a class that is not in the data count 1."),
        (lambda: PriorBias(0.5, "tanh"), '`activation` must be one of "sigmoid", "softmax".'),
        (lambda: PriorBias([0.1, 0.2])((3,)), "Received: 2 numbers, and a bias of shape (3,)"),
        (lambda: ChronoBias(1), "`longest` must be a number of steps, at least 2. Received: long"),
        (lambda: ChronoBias(9, "rnn"), '`cell` must be one of "lstm", "gru".'),
        (lambda: ChronoBias(9)((7,)), 'that of the bias of an "lstm" cell, whose last axis is a'),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
