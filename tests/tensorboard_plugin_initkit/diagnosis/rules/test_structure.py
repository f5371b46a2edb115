"""Faults in how a model is built and compiled, and models that are built like that on purpose."""

import dataclasses

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.rules.structure import (
    STRUCTURE_CAUSES,
    find_frozen_model,
)
from tensorboard_plugin_initkit.diagnosis.start import Link, follow_start, read_variance
from tests.tensorboard_plugin_initkit.diagnosis.made_setups import chain, dense, facts_of, layer

pytestmark = pytest.mark.numpy_alone

SPARSE, SQUARED = "sparse_categorical_crossentropy", "mean_squared_error"
OUT = dense(10, "softmax")
WINDOW = (0, 10, 20)


def find(setup, **fields):
    fields = {"steps": (), "x": None} | fields
    rules = (*STRUCTURE_CAUSES, find_frozen_model)
    return [finding for rule in rules for finding in rule(facts_of(setup, **fields))]


def classes(*layers, **fields):
    return chain(*layers, loss=SPARSE, **fields)


def conv(units, activation="", size=(3, 3), **fields):
    return layer("Conv2D", (8, 8, units), activation, kernel_size=list(size), **fields)


def deep(depth, activation, initializer="GlorotUniform", **fields):
    hidden = [dense(64, activation, kernel_initializer=initializer) for _ in range(depth)]
    return classes(layer("InputLayer", 64), *hidden, dense(10, "softmax"), **fields)


def compiled(setup, optimizer, rate):
    arguments = {"learning_rate": rate}
    return dataclasses.replace(setup, optimizer=optimizer, optimizer_arguments=arguments)


HIDDEN, NORMALIZATION = dense(64, "relu"), layer("BatchNormalization", 10)
DROPOUT, SOFTMAX = layer("Dropout", 10), layer("Activation", 10, "softmax")
ZEROS = dense(64, "relu", kernel_initializer="Zeros")
GOOD = classes(HIDDEN, OUT)

# Setup, kind, layer, parts of message and fix.
FAULTS = {
    "nothing between": (
        classes(dense(64), dense(32), OUT),
        "no_activation",
        "dense_0",
        "`dense_0`, `dense_1`",
        'Dense(64, activation="relu")',
    ),
    "a slope of 1": (
        classes(dense(8), layer("LeakyReLU", 8, "leaky_relu(1)"), dense(9, "leaky_relu(1)"), OUT),
        "no_activation",
        "dense_0",
        "`dense_0`, `dense_2`. (A LeakyReLU with `negative_slope=1` is none.)",
        'Dense(8, activation="relu")',
    ),
    "saturated": (
        classes(HIDDEN, dense(64, "tanh", kernel_initializer="RandomNormal(stddev=2.0)"), OUT),
        "bad_start",
        "dense_1",
        "begin 16 times as large as usual,",
        "Leave `kernel_initializer` out",
    ),
    "zeros that are not trained": (
        chain(layer("Embedding", 8, weights=1, trainable=False, is_zero=True), OUT, loss=SQUARED),
        "equal_weights",
        "embedding_0",
        "All weights of `embedding_0` are 0",
        "leave out its weights",
    ),
    "convolutions": (
        classes(conv(16), conv(32, "relu"), layer("Flatten", 2048), OUT),
        "no_activation",
        "conv2d_0",
        "`conv2d_0`",
        'Conv2D(16, 3, activation="relu")',
    ),
    "sigmoids": (
        classes(dense(64, "sigmoid"), dense(32, "sigmoid"), OUT),
        "deep_sigmoids",
        "dense_0",
        "2 hidden layers",
        'Dense(64, activation="relu")',
    ),
    "sigmoids apart": (
        classes(dense(8), layer("Activation", 8, "sigmoid"), dense(8, "sigmoid"), OUT),
        "deep_sigmoids",
        "activation_1",
        "2 hidden layers",
        "relu",
    ),
    "two activations": (
        classes(HIDDEN, dense(10, "relu"), SOFTMAX),
        "double_activation",
        "dense_1",
        "directly after the `relu`",
        "`Dense(10)` before `softmax`",
    ),
    "two softmaxes": (
        classes(HIDDEN, OUT, layer("Softmax", 10, "softmax")),
        "double_activation",
        "dense_1",
        "directly after the `softmax`",
        "`Dense(10)`",
    ),
    "dropout before softmax": (
        classes(HIDDEN, dense(10), DROPOUT, SOFTMAX),
        "output_dropout",
        "dropout_2",
        "at random",
        "before the last layer with weights",
    ),
    "normalization before softmax": (
        classes(HIDDEN, dense(10), NORMALIZATION, SOFTMAX),
        "output_normalization",
        "batchnormalization_2",
        "normalizes the output",
        "Remove this",
    ),
    "normalization at the end": (
        chain(HIDDEN, dense(10), NORMALIZATION, loss=SQUARED),
        "output_normalization",
        "batchnormalization_2",
        "normalizes the output",
        "Remove this",
    ),
    "wrong axis": (
        classes(conv(16, "relu"), layer("BatchNormalization", (8, 8, 16), axis=1), OUT),
        "wrong_axis",
        "batchnormalization_1",
        "axis 1 of",
        "`BatchNormalization()`",
    ),
    "channels first": (
        classes(
            layer("Conv2D", (16, 8, 8), "relu", data_format="channels_first"),
            layer("BatchNormalization", (16, 8, 8), axis=[3]),
            OUT,
        ),
        "wrong_axis",
        "batchnormalization_1",
        "are axis 1",
        "BatchNormalization(axis=1)",
    ),
    "softmax inside": (
        classes(dense(64, "softmax"), OUT),
        "hidden_softmax",
        "dense_0",
        "has a softmax",
        'Dense(64, activation="relu")',
    ),
    "relu at the end": (
        chain(HIDDEN, dense(1, "relu"), loss=SQUARED),
        "head_activation",
        "dense_1",
        "ends in `relu`",
        "`Dense(1)`",
    ),
    "Glorot before 30 ReLUs": (
        deep(30, "relu"),
        "bad_start",
        "dense_2",
        "at the start: `dense_1` receives 1/23,000 of the gradient of `dense_30`.",
        "kernel_initializer=HeNormal()",
    ),
    "large weights": (
        deep(8, "relu", "RandomNormal(stddev=1.0)"),
        "bad_start",
        "dense_2",
        "multiplies the",
        "HeNormal()",
    ),
    "small weights before tanh": (
        deep(8, "tanh", "RandomNormal(stddev=0.01)"),
        "bad_start",
        "dense_2",
        "before `tanh`",
        "GlorotUniform()",
    ),
    "zeros": (
        classes(ZEROS, ZEROS, OUT),
        "equal_weights",
        "dense_0",
        "same value, by `Zeros`, and so do those of `dense_1`",
        'Dense(64, activation="relu")',
    ),
    "a constant": (
        classes(dense(8, "tanh", kernel_initializer="Constant(value=0.1)"), OUT),
        "equal_weights",
        "dense_0",
        "Constant(value=0.1)",
        "`kernel_initializer`",
    ),
    "Xavier behind a Normalization": (
        classes(
            layer("Normalization", 64),
            *[dense(64, "relu", kernel_initializer="XavierNormal(gain=1.0)")] * 30,
            OUT,
        ),
        "bad_start",
        "dense_2",
        "multiplies the gradient by 0.71 per layer",
        "HeNormal",
    ),
    "nothing trained": (
        classes(dense(8, "relu", trainable=False), dense(10, "softmax", trainable=False)),
        "frozen",
        "",
        "None of the 2 layers",
        "for layer in model.layers: layer.trainable = True",
    ),
    "no weights": (chain(layer("Mine", 8), loss=SQUARED), "frozen", "", "No layer", "add_weight"),
    "frozen base": (
        classes(*[dense(8, "relu", trainable=False)] * 3, OUT),
        "frozen",
        "dense_2",
        "3 of 4 layers",
        'weights="imagenet"',
    ),
    "much dropout": (
        classes(HIDDEN, layer("Dropout", 64, rate=0.9), OUT),
        "strong_dropout",
        "dropout_1",
        "drops 90%",
        "Dropout(0.2)",
    ),
    "much dropout of channels": (
        classes(conv(8, "relu"), layer("SpatialDropout2D", (8, 8, 8), rate=0.9), OUT),
        "strong_dropout",
        "spatialdropout2d_1",
        "drops 90%",
        "Dropout(0.2)",
    ),
    "frozen head": (
        classes(HIDDEN, dense(10, "softmax", trainable=False)),
        "frozen",
        "dense_1",
        "the last layer before the output",
        "layer.trainable = True",
    ),
    "layers made in a call": (
        classes(layer("Mix", 64, makes="Dense", is_own=True), OUT),
        "frozen",
        "mix_0",
        "The `call` of `Mix` makes a new `Dense` whenever it is called.",
        "`self.inner = Dense(...)` in `__init__` of `Mix`",
    ),
    "a tight constraint": (
        classes(dense(16, "relu", kernel_constraint="MaxNorm(max_value=0.001, axis=0)"), OUT),
        "strong_penalty",
        "dense_0",
        "it holds weights to a size of 0.001 a unit.",
        "MaxNorm(3)",
    ),
    "weights in float16": (
        classes(dense(64, "relu", dtype="float16"), OUT),
        "small_updates",
        "dense_0",
        "The weights of 1 layer are float16, from `dense_0` on.",
        '"mixed_bfloat16"',
    ),
    "rate of 0": (compiled(GOOD, "SGD", 0.0), "learning_rate", "", "is 0.", "learning_rate=0.01"),
    "rate of 1": (compiled(GOOD, "Adam", 1.0), "learning_rate", "", "1, with Adam", "Adam(learn"),
}
CERTAIN = (
    "two softmaxes",
    "zeros",
    "zeros that are not trained",
    "nothing trained",
    "no weights",
    "layers made in a call",
    "rate of 0",
)


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_structure_are_told_from_the_setup_alone(name):
    setup, kind, path, message, fix = FAULTS[name]
    findings = [finding for finding in find(setup) if finding.kind == kind]
    assert [(finding.layer, finding.step) for finding in findings] == [(path, None)]
    (finding,) = findings
    assert message in finding.message
    assert fix in str(finding.fix)
    assert (finding.confidence == "certain") == (name in CERTAIN)
    # What else is told are the same layers.
    others = {f.kind for f in find(setup)} - {kind}
    assert others <= {"double_activation", "bad_start", "no_activation"}


def test_a_relu_that_has_cut_off_the_output_is_certain(rng):
    y = rng.integers(0, 2, 32)
    setup, zeros = chain(HIDDEN, dense(1, "relu"), loss=SQUARED), np.zeros((32, 1))
    (finding,) = find(setup, x=None, y=y, y_pred=zeros, steps=WINDOW)
    assert (finding.kind, finding.step, finding.confidence) == ("head_activation", 20, "certain")
    assert "from step 0 to 20 it is 0 for every sample" in finding.message
    assert 'Dense(1, activation="sigmoid")' in str(finding.fix)
    for target, output, steps in (
        (y * 0, zeros, WINDOW),
        (y, y[:, None], WINDOW),
        (y, zeros, (0,)),
    ):
        (finding,) = find(setup, x=None, y=target, y_pred=output, steps=steps)
        assert finding.confidence == "possible"


def with_branch(*layers, takes):
    """Make a model in which some layers take others than the one before them."""
    setup = classes(*layers)
    changed = [item._replace(takes=takes.get(i, item.takes)) for i, item in enumerate(setup.layers)]
    return dataclasses.replace(setup, layers=tuple(changed))


GATE = with_branch(
    HIDDEN,
    dense(8, "relu"),
    dense(64, "sigmoid"),
    layer("Multiply", 64),
    dense(64, "sigmoid"),
    layer("Multiply", 64),
    OUT,
    takes={3: (0, 2), 5: (3, 4)},
)
RESIDUAL = with_branch(
    HIDDEN,
    dense(64, "relu"),
    dense(64, kernel_initializer="Zeros"),
    layer("Add", 64),
    OUT,
    takes={3: (0, 2)},
)
ATTENTION = with_branch(
    HIDDEN, dense((7, 64), "softmax"), layer("Multiply", 64), OUT, takes={2: (0, 1)}
)
# Classes of a first output, given along with the features.
CLASSES_BESIDE = with_branch(HIDDEN, OUT, layer("Concatenate", 74), OUT, takes={2: (0, 1)})
NORMALIZED = (
    dense(64, kernel_initializer="GlorotUniform"),
    layer("BatchNormalization", 64),
    layer("ReLU", 64, "relu"),
)
HEALTHY = {
    "plain": GOOD,
    "bad_start: a tanh of larger weights": classes(
        HIDDEN, dense(64, "tanh", kernel_initializer="RandomNormal(stddev=0.5)"), OUT
    ),
    "wrong_axis: convolutions": classes(
        conv(16, "relu"), layer("BatchNormalization", (8, 8, 16), axis=-1), conv(32, "relu"), OUT
    ),
    "output_normalization: normalization, then activation": classes(
        dense(64), NORMALIZATION, layer("Activation", 64, "relu"), dense(10), SOFTMAX
    ),
    "logits": classes(HIDDEN, dense(10), from_logits=True),
    "output_dropout: dropout inside": classes(HIDDEN, DROPOUT, OUT),
    "no_activation: bottleneck": classes(HIDDEN, dense(4), dense(64, "relu"), OUT),
    "no_activation: projection without a bias": classes(HIDDEN, dense(64, use_bias=False), OUT),
    "no_activation: pointwise": classes(
        conv(16, size=(1, 1)), conv(16, "relu"), layer("Flatten", 1024), OUT
    ),
    "deep_sigmoids: one sigmoid": classes(dense(64, "sigmoid"), OUT),
    "frozen: a layer of one's own that makes none": classes(
        layer("Mix", 64, makes="", is_own=True), OUT
    ),
    "small_updates: a base in float16": classes(
        dense(64, "relu", dtype="float16", trainable=False), OUT
    ),
    "small_updates: an activation in float16": classes(
        HIDDEN, layer("ReLU", 64, "relu", dtype="float16"), OUT
    ),
    "deep_sigmoids: gates": GATE,
    "equal_weights: zero branch": RESIDUAL,
    "hidden_softmax: attention": ATTENTION,
    "hidden_softmax: classes beside features": CLASSES_BESIDE,
    "equal_weights: zero head": classes(HIDDEN, dense(10, "softmax", kernel_initializer="Zeros")),
    "frozen: fine-tuning": classes(dense(64, "relu", trainable=False), OUT),
    "strong_dropout: three of four": classes(HIDDEN, layer("Dropout", 64, rate=0.75), OUT),
    "output_dropout: no loss": chain(HIDDEN, OUT, DROPOUT),
    "strong_penalty: a usual constraint": classes(
        dense(64, "relu", kernel_constraint="MaxNorm(max_value=2, axis=0)"), OUT
    ),
    "strong_penalty: weights above 0": classes(dense(64, "relu", kernel_constraint="NonNeg"), OUT),
    "wrong_axis: moved before": classes(
        conv(16, "relu"),
        layer("Permute", (16, 8, 8)),
        layer("BatchNormalization", (16, 8, 8), axis=1),
        OUT,
    ),
    "double_activation: a slope everywhere": classes(HIDDEN, dense(10, "leaky_relu"), SOFTMAX),
    "strong_dropout: usual dropout": classes(*[HIDDEN, layer("Dropout", 64, rate=0.5)] * 3, OUT),
    "bad_start: 10 ReLUs with Glorot": deep(10, "relu"),
    "bad_start: 30 ReLUs with He": deep(30, "relu", "HeNormal"),
    "bad_start: 30 tanhs with Glorot": deep(30, "tanh"),
    "bad_start: an initializer of one's own": deep(30, "relu", "Mine(3)"),
    "bad_start: normalized 30 times": classes(*[*NORMALIZED] * 30, OUT),
    "learning_rate: a large rate of SGD": compiled(GOOD, "SGD", 1.0),
    "learning_rate: a usual rate": compiled(GOOD, "Adam", 1e-2),
    "head_activation: a positive output": chain(HIDDEN, dense(1, "softplus"), loss=SQUARED),
    "output_normalization: no loss": chain(HIDDEN, dense(10), NORMALIZATION),
    "double_activation: pooling behind a ReLU": classes(
        conv(10, "relu"), layer("GlobalAveragePooling2D", 10), SOFTMAX
    ),
    "nothing known": dataclasses.replace(GOOD, layers=(), heads=()),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_models_that_are_built_well(name):
    assert find(HEALTHY[name]) == []


def test_penalties_that_outweigh_the_loss():
    strong = dense(64, "relu", kernel_regularizer="L2(l2=0.1)")
    (finding,) = find(classes(strong, OUT), steps=WINDOW, loss=4.0, penalty=3.0)
    assert (finding.kind, finding.layer, finding.step) == ("strong_penalty", "dense_0", 20)
    assert finding.message == (
        "Up to step 20 penalties make up 3 of a loss of 4: `L2(l2=0.1)` in `dense_0`."
    )
    assert "L2(1e-4)" in str(finding.fix)
    assert find(classes(strong, OUT), steps=WINDOW, loss=4.0, penalty=1.0) == []
    assert find(classes(strong, OUT), steps=WINDOW, loss=4.0, penalty=[3, 3, 1.0]) == []
    (finding,) = find(GOOD, steps=WINDOW, loss=4.0, penalty=3.0)
    assert "add_loss" in finding.message
    (finding,) = find(GOOD, steps=WINDOW, loss=4.0, penalty=[3.9, 0, 0])  # and all units are dead
    assert (finding.kind, finding.step) == ("strong_penalty", 0)
    collapse = {"loss": [4.0, 1.0, 0.9], "penalty": [2.5, 0.1, 0.0]}  # of what a code tells
    (finding,) = find(GOOD, steps=WINDOW, **collapse)
    assert (finding.kind, finding.step) == ("strong_penalty", 20)
    assert "Up to step 0 penalties make up 2.5 of a loss of 4" in finding.message
    assert "a KL divergence over a code" in str(finding.fix)
    for penalty in ([1.5, 0.1, 0.0], [2.5, 0.1, 0.4]):
        assert find(GOOD, steps=WINDOW, loss=[4.0, 1.0, 0.9], penalty=penalty) == []
    assert find(classes(strong, OUT), steps=WINDOW, **collapse) == []
    active = dense(16, "relu", activity_regularizer="L1(l1=0.1)")
    (finding,) = find(classes(active, OUT), steps=WINDOW, loss=4.0, penalty=[3.0, 0, 0])
    assert (finding.layer, finding.step) == ("dense_0", 0)


def test_a_weight_decay_that_takes_all():
    for decay, expected in ((10.0, ["strong_penalty"]), (0.004, [])):
        setup = dataclasses.replace(GOOD, optimizer_arguments={"weight_decay": decay})
        found = find(setup, steps=WINDOW, learning_rate=0.01)
        assert [finding.kind for finding in found] == expected


def test_averages_that_throw_the_weights_back():
    def told(**arguments):
        setup = dataclasses.replace(GOOD, optimizer_arguments={"use_ema": True} | arguments)
        return [(f.kind, round(f.evidence["kept"], 4)) for f in find(setup)]

    slow = {"ema_momentum": 0.9999, "ema_overwrite_frequency": 10}
    # The average of a ramp of 10 steps, against the ramp's end.
    average = 0.0
    for step in range(1, 11):
        average = 0.9999 * average + 1e-4 * step
    assert told(**slow) == [("small_updates", round(average / 10, 4))]
    assert told(ema_momentum=0.99, ema_overwrite_frequency=100) == []
    assert told(ema_momentum=0.9999, ema_overwrite_frequency=None) == []
    assert told(**slow | {"use_ema": False}) == []


def test_batches_of_one_sample_before_a_normalization_of_features(rng):
    def told(setup, spread):
        facts = facts_of(setup, np.arange(8), rng.normal(size=(8, 4)), steps=WINDOW)
        ports = facts.records._joined().ports
        ports["batch_std"][:], ports["mean"][:, 0] = spread, (1, 2, 3)
        return [(f.kind, f.layer) for rule in STRUCTURE_CAUSES for f in rule(facts)]

    flat = classes(dense(64), layer("BatchNormalization", 64), layer("ReLU", 64), OUT)
    pictures = classes(layer("BatchNormalization", (8, 8, 3)), layer("Flatten", 192), OUT)
    assert told(flat, 0.0) == [("single_samples", "batchnormalization_1")]
    assert told(flat, 1.0) == told(pictures, 0.0) == told(GOOD, 0.0) == []


def test_a_warm_up_begins_with_a_rate_of_0():
    assert find(GOOD, steps=WINDOW, learning_rate=[0, 1e-4, 2e-4]) == []
    assert find(GOOD, steps=(0,), learning_rate=0.0) == []  # of a schedule, perhaps
    for setup, steps in ((GOOD, WINDOW), (compiled(GOOD, "Adam", 0.0), (0,))):
        (finding,) = find(setup, steps=steps, learning_rate=0.0)
        assert finding.message == "The learning rate is 0."
        assert "as `epoch // 10` does" in str(finding.fix)


def test_a_warm_up_that_the_training_never_leaves():
    def told(rates, planned=200, steps=(0, 50, 100), optimizer="Adam"):
        setup = dataclasses.replace(compiled(GOOD, optimizer, 0.0), steps=planned)
        found = find(setup, steps=steps, learning_rate=rates)
        return [(f.step, f.message) for f in found if f.kind == "learning_rate"]

    low = [0, 5e-6, 1e-5]
    seen = "The learning rate still rises at step 100, where it is 1e-05; 200 are planned."
    assert told(low) == [(100, seen)]
    assert told([0, 0.0005, 0.0009], optimizer="SGD")  # a usual one is 0.01
    assert told([0, 1e-3, 2e-3]) == told(low, planned=1000) == told(low, planned=0) == []
    assert told([0, 1e-5, 1e-5]) == told([1e-5, 5e-6, 9e-6]) == []  # it was left


def test_a_training_may_be_stopped_in_its_warm_up():
    for planned, count in ((48_000, 0), (0, 1)):
        setup = dataclasses.replace(compiled(GOOD, "Adam", 0.0), steps=planned)
        facts = facts_of(setup, steps=WINDOW, learning_rate=[0, 5e-6, 1e-5])
        facts.loss.over[-1] = True
        found = [f for rule in STRUCTURE_CAUSES for f in rule(facts)]
        assert sum("still rises" in f.message for f in found) == count


def test_a_normalization_of_one_number_leaves_nothing():
    def told(*layers):
        return [(f.kind, f.layer, f.severity) for f in find(chain(*layers, loss=SQUARED))]

    one, several = (layer("LayerNormalization", units, axis=[-1]) for units in (1, 8))
    assert told(HIDDEN, dense(1), one) == [("wrong_axis", "layernormalization_2", "error")]
    assert told(HIDDEN, dense(8), several, dense(1)) == []
    steps = layer("LayerNormalization", (7, 1), axis=[1, 2])
    assert told(HIDDEN, dense((7, 1)), steps) == []
    assert told(layer("BatchNormalization", 1, axis=-1), HIDDEN, dense(1)) == []


def test_start_of_a_chain_is_that_of_theory():
    item = dense(64)
    first, *_, last = follow_start([Link(item, "relu", 1 / 64, 64, 64)] * 5, 1.0)
    assert (first.forward, first.backward) == pytest.approx((0.5, 0.5), rel=1e-3)
    assert last == pytest.approx(first, rel=1e-3)
    (start,) = follow_start([Link(item, "tanh", 1 / 64, 64, 64)], 1.0)
    assert start.forward == pytest.approx(0.3943, rel=1e-3)  # E tanh(z)²
    assert start.backward == pytest.approx(0.4644, rel=1e-3)  # E (1 - tanh(z)²)²


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("HeNormal(gain=0.9)", 2.0),
        ("XavierUniform(gain=2)", 1.0),
        ("LeCunNormal(gain=1.5)", 1.0),
    ],
)
def test_a_gain_is_the_factor_of_the_standard_deviation(text, usual):
    plain = read_variance(text.partition("(")[0], 400, 200)
    gain = float(text.partition("=")[2][:-1])
    assert read_variance(text, 400, 200) == pytest.approx(gain**2 / usual * plain)
    assert read_variance("XavierUniform(gain='relu')", 400, 200) is None


@pytest.mark.parametrize(
    "text",
    [
        "GlorotUniform",
        "HeNormal",
        "HeUniform",
        "LecunNormal",
        "RandomNormal",
        "RandomNormal(stddev=0.2)",
        "TruncatedNormal(stddev=0.2)",
        "RandomUniform(minval=-0.1, maxval=0.3)",
        "VarianceScaling(scale=2.0, mode='fan_avg', distribution='uniform')",
        "Orthogonal(gain=2.0)",
    ],
)
def test_variances_are_those_of_keras(text):
    keras = pytest.importorskip("keras")
    kind, _, arguments = text.partition("(")
    arguments = eval(f"dict({arguments}" if arguments else "dict()")
    weights = getattr(keras.initializers, kind)(seed=1, **arguments)((400, 200))
    expected = np.mean(np.square(np.asarray(weights)))
    assert read_variance(text, 400, 200) == pytest.approx(expected, rel=0.03)
