"""What outputs depend on, told by models of known structure with their own initial weights."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initkit
from keras_initkit.callbacks import GradientMonitor
from keras_initkit.models.check import dependence
from keras_initkit.models.check.dependence import ask_model
from tensorboard_plugin_initkit.record.setup import InputUse, Setup

pytestmark = pytest.mark.backends("jax", "torch")

RNG = np.random.default_rng(0)
WORDS = RNG.integers(1, 50, (40, 12)) * (np.arange(12) < 7)  # padded
NUMBERS = RNG.normal(size=(40, 12)).astype("float32")
SERIES = NUMBERS[..., None]


def sequential(*inner, shape=(12,)):
    return keras.Sequential([keras.Input(shape), *inner, layers.Dense(1)])


def functional(call, shape=(12,), dtype=None):
    x = keras.Input(shape, dtype=dtype)
    return keras.Model(x, layers.Dense(1)(call(x)))


def deep_plain(activation, depth=40):
    return sequential(*[layers.Dense(16, activation) for _ in range(depth)])


def attend_over_batch(x):
    h = ops.transpose(layers.Embedding(50, 8)(x), (1, 0, 2))
    h = ops.transpose(layers.MultiHeadAttention(2, 4)(h, h), (1, 0, 2))
    return layers.GlobalAveragePooling1D()(h)


def attend(x):
    return layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 4)(x, x))


def pool_words(keep, x):
    weights = ops.cast(keep(x, 0), "float32")[..., None]
    return ops.sum(weights * layers.Embedding(50, 8)(x), axis=1)


class Gated(keras.Model):
    """Zeros by design: a gate and a head."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = layers.Dense(8, "relu"), layers.Dense(1, kernel_initializer="zeros")
        self.gate = self.add_weight(shape=(), initializer="zeros")

    def call(self, x, training=False):
        return self.head(self.gate * layers.Dropout(0.5)(self.inner(x), training=training))


class Scaled(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[1:], initializer="zeros")

    def call(self, x):
        return self.apply_scale(x)

    def apply_scale(self, x):
        return self.scale * x


def called(model):
    model(NUMBERS[:2])
    return model


def causal(place):
    def call(x):
        return layers.Conv1D(4, 2, padding="causal", activation="relu")(x)[:, place]

    return call


# A model, its inputs, and for each input and axis the parts that are used: 1, 0, or - if unknown.
MODELS = {
    "dense": (lambda: sequential(layers.Dense(8, "relu")), NUMBERS, "1 111111111111"),
    "large inputs": (
        lambda: sequential(layers.Dense(8, "tanh")),
        1e6 + 1e6 * NUMBERS,
        "1 " + "1" * 12,
    ),
    "a deep chain of ReLUs": (lambda: deep_plain("relu"), NUMBERS, "1 111111111111"),
    "a deep chain of sigmoids": (lambda: deep_plain("sigmoid", 12), NUMBERS, "1 111111111111"),
    "thirty sigmoids": (lambda: deep_plain("sigmoid", 30), NUMBERS, "1 111111111111"),
    "a layer of one's own": (lambda: sequential(Scaled()), NUMBERS, "1 111111111111"),
    "zeros by design": (lambda: called(Gated()), NUMBERS, "1 111111111111"),
    "a normalization by batches": (
        lambda: sequential(layers.Dense(8), layers.BatchNormalization()),
        NUMBERS,
        "1 111111111111",
    ),
    "attention over steps": (lambda: functional(attend, (12, 1)), SERIES, "1 111111111111"),
    "the last state of an LSTM": (
        lambda: sequential(layers.LSTM(8), shape=(12, 1)),
        SERIES,
        "1 111111111111",
    ),
    "words": (lambda: functional(lambda x: pool_words(ops.not_equal, x)), WORDS, "1 1111111-----"),
    "a mask the wrong way round": (
        lambda: functional(lambda x: pool_words(ops.equal, x)),
        WORDS,
        "0 0000000-----",
    ),
    "one unit of a softmax": (
        lambda: keras.Sequential([keras.Input((12,)), layers.Dense(1, "softmax")]),
        NUMBERS,
        "0 000000000000",
    ),
    "the first step of a causal convolution": (
        lambda: functional(causal(0), (12, 1)),
        SERIES,
        "1 100000000000",
    ),
    "the last step": (lambda: functional(causal(-1), (12, 1)), SERIES, "1 000000000011"),
}


def write(uses):
    return " ".join("".join("01-"[part] for part in use.used) for use in uses)


@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS)
def test_each_part_of_an_input_is_used_or_not(case):
    make, x, expected = case
    setup = ask_model(make(), Setup(), x)
    assert write(setup.uses) == expected
    assert not setup.mixes_samples
    assert Setup.from_json(setup.to_json()) == setup


def test_a_model_of_too_many_weights_is_not_asked(monkeypatch):
    model = sequential(layers.Dense(8))
    assert ask_model(model, Setup(), NUMBERS).uses
    monkeypatch.setattr(dependence, "_MOST_WEIGHTS", 112)
    assert ask_model(model, Setup(), NUMBERS) == Setup()


def test_inputs_are_told_apart_by_name():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Dense(1)(b))
    x = {"a": NUMBERS[:, :3], "b": NUMBERS[:, 3:6]}
    assert ask_model(model, Setup(), x).uses == (
        InputUse("a", 0, (0,)),
        InputUse("a", 1, (0, 0, 0)),
        InputUse("b", 0, (1,)),
        InputUse("b", 1, (1, 1, 1)),
    )


MIXING = {
    "attention": (lambda: functional(attend_over_batch, dtype="int32"), WORDS),
    "a softmax": (lambda: functional(lambda x: layers.Softmax(axis=0)(x)), NUMBERS),
    "a mean": (lambda: functional(lambda x: x - ops.mean(x, axis=0, keepdims=True)), NUMBERS),
}


@pytest.mark.parametrize(("make", "x"), MIXING.values(), ids=MIXING)
def test_samples_that_are_mixed(make, x):
    assert ask_model(make(), Setup(), x) == Setup(mixes_samples=True)


class Own(keras.Model):
    def __init__(self, call):
        super().__init__()
        self.head, self.own = layers.Dense(1), call

    def call(self, x):
        return self.head(self.own(x))


class Counts(layers.Layer):
    def call(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return x


class Helped(keras.Model):
    """Counts and shows in what its `call` calls."""

    def __init__(self):
        super().__init__()
        self.head, self.count = layers.Dense(1), 0

    def call(self, x):
        return self.head(self.encode(x))

    def encode(self, x):
        self.count += 1
        return x


SEEN: list[int] = []


def note(x):
    SEEN.append(1)
    return x


def by_chance(x):
    return x + keras.random.normal(ops.shape(x))


def refuse(x):
    raise RuntimeError


UNKNOWN = {
    "by chance": (lambda: called(Own(by_chance)), NUMBERS),
    "an exception": (lambda: Own(refuse), NUMBERS),
    "not built": (lambda: Own(abs), NUMBERS),
    "what counts its calls": (lambda: sequential(Counts()), NUMBERS),
    "what a method counts": (lambda: called(Helped()), NUMBERS),
    "what a function notes": (lambda: called(Own(lambda x: note(x))), NUMBERS),
    "what a Lambda notes": (lambda: sequential(layers.Lambda(note)), NUMBERS),
    "all pairs": (lambda: called(Own(lambda x: ops.matmul(x, ops.transpose(x)))), NUMBERS),
    "one sample": (lambda: sequential(layers.Dense(8)), NUMBERS[:1]),
    "a stream": (lambda: sequential(layers.Dense(8)), iter([(NUMBERS, NUMBERS)])),
    "other inputs": (lambda: sequential(layers.Dense(8)), NUMBERS[:, :3]),
}


@pytest.mark.parametrize(("make", "x"), UNKNOWN.values(), ids=UNKNOWN)
def test_of_some_models_nothing_is_known(make, x):
    setup = ask_model(make(), Setup(), x)
    assert not setup.mixes_samples
    assert all(set(use.used) == {-1} for use in setup.uses)


@pytest.mark.parametrize(
    "make", [lambda: called(Helped()), lambda: sequential(layers.Lambda(note))]
)
def test_a_model_that_keeps_something_is_not_called(make):
    model = make()
    before = len(SEEN), getattr(model, "count", 0)
    assert ask_model(model, Setup(), NUMBERS) == Setup()
    assert (len(SEEN), getattr(model, "count", 0)) == before


class Kept(layers.Layer):
    """Keeps what it was given, in a way that its code does not show."""

    def call(self, x):
        setattr(self, "last", x)  # noqa: B010
        return x


def test_what_layers_keep_is_as_it_was():
    kept = Kept()
    model = sequential(kept, layers.Dense(4))
    model(NUMBERS[:3])
    last = kept.last
    assert ask_model(model, Setup(), NUMBERS).uses
    assert kept.last is last


def train(model, x, *callbacks):
    keras.utils.set_random_seed(1)
    y = np.arange(40) % 2
    model.compile("adam", "binary_crossentropy")
    history = model.fit(x, y, 8, epochs=30, verbose=0, callbacks=list(callbacks))
    return [array.tolist() for array in model.get_weights()], history.history


@pytest.mark.backends("tensorflow", "jax", "torch")
def test_a_failing_training_is_told_why_and_stays_as_it_is():
    def make():
        keras.utils.set_random_seed(0)
        embedding, head = layers.Embedding(50, 8), layers.Dense(1, "sigmoid")
        x = keras.Input((12,), dtype="int32")
        weights = ops.cast(ops.equal(x, 0), "float32")[..., None]
        pooled = layers.Dropout(0.1)(ops.sum(weights * embedding(x), axis=1))
        return keras.Model(x, head(pooled))

    monitor = GradientMonitor(verbose=False, on_finding=lambda finding: None)
    watched = train(make(), WORDS, monitor)
    assert watched == train(make(), WORDS)
    (finding,) = keras_initkit.diagnose(monitor)
    assert (finding.kind, finding.confidence) == ("unused_input", "likely")
    assert "The output depends on no part of the input" in finding.message
    assert finding.consequences


def test_a_check_says_before_training_that_no_input_is_used():
    model = functional(lambda x: pool_words(ops.equal, x))
    model.compile("adam", "mse")
    before = model.get_weights()
    (finding,) = keras_initkit.check(model, WORDS, NUMBERS[:, 0])
    assert (finding.kind, finding.severity) == ("unused_input", "warning")
    assert "depends on no part of the input" in finding.message
    assert all(map(np.array_equal, before, model.get_weights()))
