"""Repairs are remedies: of each kind of fault a model learns with its fix, and not without."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit.anatomy.setup import read_setup
from keras_initkit.callbacks import GradientMonitor
from keras_initkit.models.check.check import look_at_start
from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.fix import Fix, activate, remove
from tensorboard_plugin_initkit.diagnosis.judge import FAULTS, SYMPTOMS
from tensorboard_plugin_initkit.diagnosis.rules.contracts import CONTRACT_RULES
from tensorboard_plugin_initkit.diagnosis.rules.data import DATA_CAUSES
from tensorboard_plugin_initkit.diagnosis.rules.strength import find_nonfinite
from tensorboard_plugin_initkit.diagnosis.rules.structure import STRUCTURE_CAUSES
from tensorboard_plugin_initkit.diagnosis.rules.updates import find_tight_clipping
from tensorboard_plugin_initkit.record.history import GradientHistory

# Where nothing is traced this is quick. Each repair by itself is tested on all backends.
pytestmark = [pytest.mark.backends("torch"), pytest.mark.newest]
ALL = pytest.mark.backends("tensorflow", "jax", "torch")

RULES = (*CONTRACT_RULES, *DATA_CAUSES, *STRUCTURE_CAUSES)

Dense, Dropout, Normalization = layers.Dense, layers.Dropout, layers.BatchNormalization
SPARSE, BINARY = "sparse_categorical_crossentropy", "binary_crossentropy"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(320, 4)).astype("float32")
SIDES = (X[:, 0] + X[:, 1] > 0).astype("float32")
CLASSES = X.argmax(axis=1)
NUMBERS = (X[:, 0] + np.abs(X[:, 1])).astype("float32")
SEVERAL = (X > 0).astype("float32")
PICTURES = np.where(CLASSES[:, None, None, None] % 2 == 0, np.eye(6)[..., None], 0.0)
PICTURES = (PICTURES + 0.3 * RNG.normal(size=(320, 6, 6, 1))).astype("float32")


def stack(*last, depth=1, hidden="relu", width=16, shape=(4,), **arguments):
    inside = [Dense(width, hidden, name=f"hidden_{i}", **arguments) for i in range(depth)]
    return keras.Sequential([keras.Input(shape), *inside, *last])


def pictures(*between):
    convolution = layers.Conv2D(4, 3, activation="relu", name="conv")
    last = [layers.Flatten(), Dense(1, "sigmoid", name="head")]
    return keras.Sequential([keras.Input((6, 6, 1)), convolution, *between, *last])


def head(units, activation=None, **arguments):
    return Dense(units, activation, name="head", **arguments)


def sgd(rate, **arguments):
    return keras.optimizers.SGD(rate, **arguments)


def skill(model, x, y):
    """Return the accuracy, or for numbers the share of the variance that is explained."""
    found = keras.ops.convert_to_numpy(model(x, training=True))
    if found.size != y.size and y.dtype != np.int64:
        return 0.0
    found = found[:, 0] if found.shape[-1] == 1 else found
    if y.dtype == np.int64:
        return np.mean((found.argmax(axis=-1) if found.ndim > 1 else found) == y)
    if set(np.unique(y)) == {0, 1}:
        return np.mean((found > 0.5) == y)
    return 1 - np.mean((found - y) ** 2) / y.var()


def find(model, x, y, kind):
    """Train a faulty model, and find its fault; what shows before training by the rule itself."""
    start, history = look_at_start(model, (x, y, None)), GradientHistory(None)
    history.setup = start.setup
    history.append(start.record)
    found = [f for rule in RULES for f in rule(Facts(history)) if f.kind == kind]
    monitor = GradientMonitor(every_n_steps=1, on_finding=lambda finding: None)
    with contextlib.suppress(Exception):  # where labels or indices are refused
        fit(model, x, y, callbacks=[] if found else [monitor])
    if not found:
        rules = (*RULES, *FAULTS, *SYMPTOMS, find_nonfinite, find_tight_clipping)
        found = [f for rule in rules for f in rule(Facts(monitor.history))]
    return next(finding for finding in found if finding.kind == kind)


def fit(model, x, y, **arguments):
    model.fit(x, y, batch_size=32, epochs=12, verbose=0, shuffle=False, **arguments)


ADAM = keras.optimizers.Adam(0.01)
INDICES = RNG.integers(0, 6, (320, 4))
# The kind, the model, its optimizer and loss, inputs, targets, and the repairs that are made.
CASES = [
    ("single_unit_softmax", lambda: stack(head(1, "softmax")), ADAM, BINARY, X, SIDES,
     "activation"),
    ("head_activation", lambda: stack(head(4, "relu")), sgd(0.03), SPARSE, X, CLASSES,
     "activation"),
    ("logits", lambda: stack(head(4)), sgd(0.1), SPARSE, X, CLASSES, "activation"),
    ("loss_choice", lambda: stack(head(4, "softmax")), ADAM, "categorical_crossentropy", X,
     SEVERAL, "activation loss"),
    ("label_form", lambda: stack(head(4, "softmax")), ADAM, "categorical_crossentropy", X, CLASSES,
     "activation loss"),
    ("label_form", lambda: stack(head(2, "softmax")), ADAM, SPARSE, X, CLASSES,
     "rebuild activation"),
    ("target_range", lambda: stack(head(1, "sigmoid")), ADAM, "mse", X, 9 * NUMBERS,
     "activation normalize"),
    ("target_shape", lambda: stack(head(3)), ADAM, "mse", X, SEVERAL, "rebuild activation loss"),
    ("input_scale", lambda: stack(head(1, "sigmoid")), sgd(0.1), BINARY, 3000 * X + 9000, SIDES,
     "normalize"),
    ("target_scale", lambda: stack(head(1)), ADAM, "mse", X, 900 * NUMBERS + 900,
     "reinitialize normalize"),
    ("embedding_indices", lambda: keras.Sequential([keras.Input((4,)), layers.Embedding(2, 4),
     layers.Flatten(), head(1, "sigmoid")]), ADAM, BINARY, INDICES, (INDICES[:, 0] > 2) * 1.0,
     "rebuild"),
    ("hidden_softmax", lambda: stack(head(1, "sigmoid"), hidden="softmax", depth=2), sgd(0.3),
     BINARY, X, SIDES, "activation"),
    ("double_activation", lambda: stack(head(4, "softmax"), layers.Softmax(name="again")),
     sgd(0.1), SPARSE, X, CLASSES, "activation"),
    ("no_activation", lambda: stack(head(1, "sigmoid"), hidden="linear", depth=2), ADAM, BINARY, X,
     (np.abs(X[:, 0]) > 0.7) * 1.0, "activation"),
    ("deep_sigmoids", lambda: stack(head(1, "sigmoid"), hidden="sigmoid", depth=4), sgd(0.3),
     BINARY, X, SIDES, "activation reinitialize"),
    ("bad_start", lambda: stack(head(1, "sigmoid"), depth=12, kernel_initializer=
     keras.initializers.RandomNormal(stddev=0.01)), ADAM, BINARY, X, SIDES, "reinitialize"),
    ("bad_start", lambda: stack(head(1, "sigmoid"), depth=20, hidden="sigmoid"), ADAM,
     BINARY, X, SIDES, "initialize"),
    ("equal_weights", lambda: stack(head(1, "sigmoid"), depth=2, kernel_initializer="zeros"),
     ADAM, BINARY, X, SIDES, "reinitialize"),
    ("output_dropout", lambda: stack(head(1), Dropout(0.9, name="drop")), ADAM, "mse", X, NUMBERS,
     "rebuild"),
    ("output_normalization", lambda: stack(head(1), Normalization(name="norm")), ADAM, "mse", X,
     2 + 5 * NUMBERS, "rebuild"),
    ("strong_penalty", lambda: stack(head(1, "sigmoid"), kernel_regularizer=
     keras.regularizers.L2(20.0)), ADAM, BINARY, X, SIDES, "regularizers"),
    ("frozen", lambda: stack(head(1, "sigmoid", trainable=False), trainable=False), ADAM, BINARY,
     X, SIDES, "trainable"),
    ("learning_rate", lambda: stack(head(1, "sigmoid")), keras.optimizers.Adam(0.0), BINARY, X,
     SIDES, "learning_rate"),
    ("small_updates", lambda: stack(head(1, "sigmoid")), keras.optimizers.Adam(1e-10), BINARY, X,
     SIDES, "learning_rate"),
    ("tight_clipping", lambda: stack(head(1, "sigmoid")), sgd(0.3, clipnorm=1e-4), BINARY, X,
     SIDES, "clip"),
    ("vanishing", lambda: stack(head(1, "sigmoid"), hidden="tanh", depth=10, kernel_initializer=
     keras.initializers.Orthogonal(0.3)), sgd(0.3), BINARY, X, SIDES, "activation reinitialize"),
    ("dead_units", lambda: stack(head(1, "sigmoid"), bias_initializer=
     keras.initializers.Constant(-9)), ADAM, BINARY, X, SIDES, "activation learning_rate"),
    ("nonfinite", lambda: stack(head(1), depth=3), sgd(100.0), "mse", X, NUMBERS,
     "restart learning_rate clip"),
]  # fmt: skip
# What makes layers anew; `reinitialize` has tests of its own on all backends.
EVERYWHERE = [5, 8]


@pytest.mark.parametrize(
    ("kind", "make", "optimizer", "loss", "x", "y", "repairs"),
    [
        pytest.param(*case, id=f"{case[0]}-{i}", marks=ALL if i in EVERYWHERE else ())
        for i, case in enumerate(CASES)
    ],
)
def test_a_model_learns_with_the_fix_and_not_without(kind, make, optimizer, loss, x, y, repairs):
    model = make()
    model.compile(type(optimizer).from_config(optimizer.get_config()), loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finding = find(model, x, y, kind)
        assert " ".join(finding.fix.repairs) == repairs
        # Where labels or indices are refused, or numbers are lost, nothing is learned.
        without = 0.0 if kind == "embedding_indices" else np.nan_to_num(skill(model, x, y))
        fixed = finding.fix.apply(model, x, y)
        fit(fixed, x, y)
    # Where little was missing, half of it.
    assert skill(fixed, x, y) > max(0.6, without + min(0.1, (1.0 - without) / 2))


@ALL
def test_a_rate_takes_the_place_of_a_schedule():
    model = stack(head(1))
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    fit(model, X, NUMBERS)
    model = Fix("", {"learning_rate": {"value": 0.03}}).apply(model)
    fit(model, X, NUMBERS)
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(0.03)


@ALL
def test_all_but_the_change_stays_as_it_is():
    model = stack(head(1))
    optimizer, accuracy = keras.optimizers.Adam(0.01), keras.metrics.BinaryAccuracy()
    loss = keras.losses.BinaryCrossentropy(label_smoothing=0.1)
    model.compile(optimizer, loss, metrics=[accuracy])
    fit(model, X, SIDES)
    before = [keras.ops.convert_to_numpy(v) for v in [*model.variables, *optimizer.variables]]
    change_loss = Fix("", {"loss": {"head": "", "loss": BINARY, "from_logits": True}})
    for fix in (change_loss, Fix("", activate(["head"], "linear")), Fix("", {"restart": {}})):
        assert fix.apply(model) is model
    after = [keras.ops.convert_to_numpy(v) for v in [*model.variables, *optimizer.variables]]
    for was, now in zip(before, after, strict=True):
        np.testing.assert_array_equal(was, now)
    assert model.optimizer is optimizer
    assert "binary_accuracy" in model.fit(X, SIDES, verbose=0).history
    assert model.loss.get_config() == loss.get_config() | {"from_logits": True}


def test_a_loss_of_several_outputs_is_changed_alone():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, {name: Dense(1, name=name)(inputs) for name in ("a", "b")})
    fix = Fix("", {"loss": {"head": "b", "loss": BINARY, "from_logits": False}})
    for loss in ("mse", ["mse", "mse"], {"a": "mse", "b": "mse"}):
        model.compile("sgd", loss)
        fix.apply(model)
        heads = {setup.name: setup.loss for setup in read_setup(model).heads}
        assert heads == {"a": "mean_squared_error", "b": BINARY}
        model.fit(X, {"a": NUMBERS, "b": SIDES}, verbose=0)


@pytest.mark.parametrize(
    ("fix", "received"),
    [
        (Fix("Shuffle."), "a fix of your data or your code. Do it by hand: Shuffle."),
        (Fix("Use ReLU.", activate(["lost"], "relu")), "It has no layer `lost`. Do it by hand"),
        (Fix("", remove("lost")), "It does not have all of the layers lost. Do it by hand: there"),
        (Fix("", {"learning_rate": {"factor": 0.1}}), "'learning_rate' in the model 'seq"),
        (Fix("", {"normalize": {"inputs": True, "targets": False}}), "`fix.apply(model, x, y)`"),
        (Fix("", {"trainable": {"layers": []}}), "'trainable' in the model 'seq"),
        (Fix("", {"other": {}}), "'other'"),
    ],
    ids=str,
)
def test_what_cannot_be_applied_is_refused_with_what_to_do(fix, received):
    model = stack(head(1))
    with pytest.raises(ValueError, match=r"^The fix must be .* Received: .* by hand: ") as error:
        fix.apply(model)
    assert received in str(error.value)
