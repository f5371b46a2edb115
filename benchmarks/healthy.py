"""Train healthy networks of all sorts, and count the false alarms of the diagnosis.

    python -m benchmarks.healthy [--every N] [--only PART ...] [--part 0/2] [--list]

Counted are findings of more than a note, in the end and while training goes on; those of
`keras_initkit.check` before it; and warnings of `keras_initkit.audit`. A program counts if it is
better than guessing in the end: its loss is below 0.97 times that of the best constant, or, where
that is not known, 0.9 times that of its first epoch.
"""

import argparse
import collections
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops
from sklearn import datasets

import keras_initkit
from keras_initkit.callbacks import GradientMonitor
from tests.pipelines.test_pipelines import PATTERNS

L = keras.layers
optimizers = keras.optimizers
Adam, SGD, Lasso = optimizers.Adam, optimizers.SGD, keras.regularizers.L1
BINARY, CLASSES = "binary_crossentropy", "sparse_categorical_crossentropy"
ONE_HOT = "categorical_crossentropy"
BINARY_LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
rng = np.random.default_rng
of = functools.partial
Data = tuple[Any, ...]


class Program(NamedTuple):
    """A compiled model, its data for `fit`, and how to train it."""

    model: Any
    data: Data
    epochs: int = 8
    batch: int | None = 16
    options: dict[str, Any] = {}  # noqa: RUF012 (never written)


# Data.


def table(name: str, is_raw: bool = False) -> Data:
    """Load a table of scikit-learn: "iris", "wine", "breast_cancer" or "diabetes"."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = rng(0).permutation(len(x))
    x = x if is_raw else (x - x.mean(axis=0)) / x.std(axis=0)
    return x[order].astype("f4"), y[order].astype("f4")


def digits(scale: float = 16.0) -> Data:
    """Load digits of 8 by 8 pixels in 0..16, divided by a scale, and their classes."""
    x, y = datasets.load_digits(return_X_y=True)
    return (x / scale).astype("f4"), y


def pictures(scale: float = 16.0) -> Data:
    """Load digits as pictures."""
    x, y = digits(scale)
    return x.reshape(-1, 8, 8, 1), y


def unlabelled(make: Callable[[], Data] = digits, noise: float = 0.0) -> Data:
    """Take inputs, with noise, and themselves as targets."""
    x, _ = make()
    return x + noise * rng(0).normal(size=x.shape).astype("f4"), x


def circles() -> Data:
    """Make points of two rings."""
    x, y = datasets.make_circles(1000, noise=0.1, factor=0.4, random_state=1)
    return x.astype("f4"), y.astype("f4")


def houses(noise: float = 0.3, change: Callable[[Any], Any] = lambda y: 22 + 9 * y) -> Data:
    """Make 13 features and a price: of mean 22 and standard deviation 9, or another one."""
    x = rng(3).normal(size=(600, 13)).astype("f4")
    y = np.sin(x[:, 0]) + x[:, 1] + x[:, 2] * x[:, 3] / 2 + noise * rng(4).normal(size=600)
    return x, change((y - y.mean()) / y.std()).astype("f4")


def squash(y: Any) -> Any:
    """Scale numbers to 0..1."""
    return (y - y.min()) / (y.max() - y.min())


def curve() -> Data:
    """Make a sine with noise."""
    x = rng(5).uniform(-3, 3, (1000, 1)).astype("f4")
    return x, (np.sin(2 * x) + 0.1 * rng(6).normal(size=x.shape)).astype("f4")


def rare(share: float = 0.05) -> Data:
    """Make two classes, of which the second one is rare."""
    x = rng(7).normal(size=(2000, 10)).astype("f4")
    score = x[:, 0] + x[:, 1] * x[:, 2]
    return x, (score > np.quantile(score, 1 - share)).astype("f4")


def signs() -> Data:
    """Make features and several labels at once."""
    x = rng(8).normal(size=(1200, 12)).astype("f4")
    return x, (x @ rng(9).normal(size=(12, 5)) > 0).astype("f4")


def counts() -> Data:
    """Make features and Poisson counts."""
    x = rng(10).normal(size=(1000, 6)).astype("f4")
    return x, rng(11).poisson(np.exp(0.5 + 0.6 * x[:, 0] - 0.4 * x[:, 1])).astype("f4")


def waves() -> Data:
    """Make windows of 20 places of a noisy wave, and what follows each."""
    t = np.arange(820)
    wave = np.sin(t / 5) + 0.5 * np.sin(t / 13) + 0.1 * rng(12).normal(size=len(t))
    windows = np.lib.stride_tricks.sliding_window_view(wave.astype("f4"), 21)
    return windows[:, :-1, None], windows[:, -1:]


def passengers() -> Data:
    """Make windows of 3 months of a growing yearly wave, scaled to 0..1."""
    t = np.arange(144)
    y = squash((100 + 2.5 * t) * (1 + 0.25 * np.sin(t * np.pi / 6))).astype("f4")
    windows = np.lib.stride_tricks.sliding_window_view(y, 4)
    return windows[:, :-1, None], windows[:, -1]


def words(classes: int = 2) -> Data:
    """Make sentences of 200 words, padded with 0, and a class for those that are frequent."""
    y, size = rng(14).integers(0, classes, 1200), 200 // classes
    group = rng(15).integers(0, size, (1200, 16)) + size * y[:, None]
    x = np.where(rng(16).random(group.shape) < 0.4, group, rng(17).integers(1, 200, group.shape))
    return np.where(np.arange(16) < rng(18).integers(8, 17, (1200, 1)), x, 0), y


def hot(data: Data, low: float = 0.0) -> Data:
    """Write classes as rows with one 1 and zeros, or softer ones."""
    y = keras.utils.to_categorical(data[1])
    return data[0], y * (1 - low * y.shape[1]) + low


def repeated(x: Any, y: Any, times: int = 30) -> Data:
    """Repeat tiny data instead of epochs, each of which costs more than their steps."""
    return np.tile(np.array(x, "f4"), (times, 1)), np.tile(np.array(y, "f4"), (times, 1))


def wrong(share: float) -> Data:
    """Give digits of which a share has any label."""
    x, y = digits()
    return x, np.where(rng(1).random(len(y)) < share, rng(2).integers(0, 10, len(y)), y)


def thousand() -> Data:
    """Make a thousand classes of four samples each."""
    y = rng(1).permutation(np.repeat(np.arange(1000), 4))
    return rng(0).normal(size=(1000, 16)).astype("f4")[y], y


def walk(is_policy: bool = False) -> Data:
    """Walk between eight places: values of steps, or steps with advantages as their weights."""
    place, step = rng(22).integers(0, 8, 1000), rng(23).integers(0, 2, 1000)
    values = 0.9 ** (7 - np.clip(place[:, None] + [-1, 1], 0, 7)).astype("f4")
    x = np.eye(8, dtype="f4")[place]
    return (x, step, np.where(step, 1.0, -0.5).astype("f4")) if is_policy else (x, values)


def stream() -> Data:
    """Make a `tf.data.Dataset` of digits."""
    import tensorflow as tf

    return (tf.data.Dataset.from_tensor_slices(digits()).shuffle(2000, seed=0).batch(32),)


XOR = [[0, 0], [0, 1], [1, 0], [1, 1]], [[0], [1], [1], [0]]
LINE = [[-1], [0], [1], [2], [3], [4]], [[-3], [-1], [1], [3], [5], [7]]
DEGREES = [[-40], [-10], [0], [8], [15], [22], [38]], [[-40], [14], [32], [46], [59], [72], [100]]
EIGHT = rng(0).normal(size=(8, 5)), np.arange(8)[:, None] % 2

# Models.


def parse(spec: str, **arguments: Any) -> list[Any]:
    """Make dense layers of a text: "32*2 10:softmax" is two with ReLU and one with a softmax."""
    made = []
    for item in spec.split():
        item, _, count = item.partition("*")
        size, _, activation = item.partition(":")
        for _ in range(int(count or 1)):
            made.append(L.Dense(int(size), activation or "relu", **arguments))
    return made


def stack(shape: Any, *inside: Any) -> keras.Model:
    """Make a Sequential of layers; texts are dense ones, and numbers convolutions with ReLU."""
    made: list[Any] = [keras.Input(shape)]
    for item in inside:
        if isinstance(item, int):
            item = L.Conv2D(item, 3, padding="same", activation="relu")
        made += parse(item) if isinstance(item, str) else [item]
    return keras.Sequential(made)


def residual(branch: Callable[[Any], Any], depth: int = 8) -> keras.Model:
    """Make residual blocks of width 32 on digits."""
    inputs = keras.Input((64,))
    x = L.Dense(32)(inputs)
    for _ in range(depth):
        x = x + branch(x)
    return keras.Model(inputs, L.Dense(10, "softmax")(x))


def zero_branch(x: Any) -> Any:
    """Normalize, and end in zeros."""
    return L.Dense(32, kernel_initializer="zeros")(L.Dense(32, "relu")(L.LayerNormalization()(x)))


class Scale(keras.layers.Layer):
    """A learned factor: ReZero with a single zero, LayerScale with small ones for each channel."""

    def __init__(self, start: float, is_single: bool = False) -> None:
        super().__init__()
        self.start, self.is_single = keras.initializers.Constant(start), is_single

    def build(self, shape: Any) -> None:
        """Make the factor."""
        self.factor = self.add_weight(() if self.is_single else (shape[-1],), self.start)

    def call(self, x: Any) -> Any:
        """Multiply by it."""
        return self.factor * x


def encoder(depth: int, is_pre: bool = True) -> keras.Model:
    """Make a transformer's encoder on the rows of digits."""
    inputs = keras.Input((64,))
    x = L.Dense(16)(L.Reshape((8, 8))(inputs))
    for i in range(2 * depth):
        norm = L.LayerNormalization(epsilon=1e-6)
        h = norm(x) if is_pre else x
        h = L.Dense(16)(L.Dense(32, "gelu")(h)) if i % 2 else L.MultiHeadAttention(2, 8)(h, h)
        x = x + h if is_pre else norm(x + h)
    return keras.Model(inputs, L.Dense(10, "softmax")(L.GlobalAveragePooling1D()(x)))


def two_heads() -> keras.Model:
    """Find a digit, and if it is even."""
    inputs = keras.Input((64,))
    x = L.Dense(32, "relu")(inputs)
    outputs = [L.Dense(10, "softmax", name="digit")(x), L.Dense(1, "sigmoid", name="even")(x)]
    return keras.Model(inputs, outputs)


def two_targets() -> Data:
    """Load digits, their classes, and if they are even."""
    x, y = digits()
    return x, [y, (y % 2 == 0).astype("f4")]


def application(name: str, **arguments: Any) -> keras.Model:
    """Build one of `keras.applications` for digits of 32 by 32 pixels."""
    make = getattr(keras.applications, name)
    inputs = keras.Input((8, 8, 1))
    x = L.Concatenate()([L.UpSampling2D(4)(L.Rescaling(2.0, -1.0)(inputs))] * 3)
    model = make(weights=None, input_tensor=x, classes=10, **arguments)
    return keras.Model(inputs, model.outputs[0])


class OwnStep(keras.Sequential):
    """A network trained by a `train_step` that calls `compute_loss`."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train by one batch."""
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


# Losses without a best constant that is known.


def pinball(y: Any, p: Any) -> Any:
    """Find the quantile 0.9."""
    return ops.mean(ops.maximum(0.9 * (y - p), -0.1 * (y - p)), axis=-1)


def gaussian(y: Any, p: Any) -> Any:
    """Find mean and logarithm of the variance."""
    return ops.mean(p[:, 1:] + (y - p[:, :1]) ** 2 * ops.exp(-p[:, 1:]), axis=-1)


PROGRAMS: dict[str, Callable[[], Any]] = {f"pattern {make.__name__}": make for make in PATTERNS}


def row(
    name: str,
    data: Callable[[], Data],
    model: str | Callable[[], Any],
    loss: Any = CLASSES,
    optimizer: Any = "adam",
    epochs: int = 8,
    batch: int | None = 32,
    policy: str = "float32",
    compiling: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Add a program; XLA is off, as compiling takes longer than training."""

    def make() -> Program:
        keras.config.set_dtype_policy(policy)
        arrays = data()
        net = stack(arrays[0].shape[1:], model) if isinstance(model, str) else model()
        keras.config.set_dtype_policy("float32")
        own = optimizer() if callable(optimizer) else optimizer
        net.compile(own, loss, jit_compile=False, **(compiling or {}))
        return Program(net, arrays, epochs, batch, options)

    PROGRAMS[name] = make


def deep(spec: str, **arguments: Any) -> Callable[[], Any]:
    """Make dense layers of 64 features, with arguments, and a softmax of ten."""
    return lambda: stack((64,), *parse(spec, **arguments), "10:softmax")


# Tables, as in tutorials.
row("iris", of(table, "iris"), "10 10 3:softmax", epochs=30)
row("iris, raw", lambda: hot(table("iris", True)), "8 3:softmax", ONE_HOT, epochs=30, batch=5)
row("wine", of(table, "wine"), "16 3:softmax", epochs=30)
row("wine, raw", of(table, "wine", True), "64*2 3:softmax", epochs=30)
row("cancer", of(table, "breast_cancer"), "16*2 1:sigmoid", BINARY, epochs=10)
row("cancer, raw", of(table, "breast_cancer", True), "12 8 1:sigmoid", BINARY, epochs=20, batch=10)
row("diabetes, raw targets", of(table, "diabetes"), "64*2 1:linear", "mse", epochs=30)
row("diabetes, raw", of(table, "diabetes", True), "64 1:linear", "mae", of(Adam, 0.01), 20)
row("houses", houses, "64*2 1:linear", "mse", "rmsprop", 12, 16)
row("houses, normalized", lambda: (3 * houses()[0] + 10, houses()[1]), lambda: (
    keras_initkit.with_normalization(stack((13,), "32 1:linear"), 3 * houses()[0] + 10)
), "mae", of(Adam, 0.01), 20)  # fmt: skip
DEAR = of(houses, change=lambda y: 220 + 90 * y)
row("dear houses", DEAR, "64 1:linear", "mse", of(Adam, 0.05), 20)
row("circles", circles, "16*2 1:sigmoid", BINARY, epochs=15)
# Tiny problems.
row("xor", of(repeated, *XOR), "8:tanh 1:sigmoid", BINARY, of(Adam, 0.05), 10, 4)
row("xor, sigmoids", of(repeated, *XOR, 40), "8:sigmoid 1:sigmoid", "mse", of(Adam, 0.1), 10, 4)
row("xor, single samples", of(repeated, *XOR, 12), "16 1:sigmoid", BINARY, of(Adam, 0.02), 10, 1)
row("line", of(repeated, *LINE, 50), "1:linear", "mse", "sgd", 6, 6, shuffle=False)
row("degrees", of(repeated, *DEGREES, 50), "1:linear", "mse", of(Adam, 0.1), 10, 7, shuffle=False)
row("degrees, deep", of(repeated, *DEGREES), "4:linear*2 1:linear", "mse", of(Adam, 0.1), 10, 7)
row("eight samples", of(repeated, *EIGHT, 20), "12 1:sigmoid", BINARY, "adam", 10, 8)
# Optimizers, schedules, batches, precision.
TEN = "32 10:softmax"
row("SGD", digits, "32*2 10:softmax", optimizer="sgd", epochs=12)
row("momentum", digits, "32*2 10:softmax", optimizer=of(SGD, 0.01, 0.9, nesterov=True))
row("RMSprop", digits, TEN, optimizer="rmsprop")
row("AdamW", digits, TEN, optimizer=of(optimizers.AdamW, 3e-3, 0.05))
row("Lion", digits, TEN, optimizer=of(optimizers.Lion, 3e-4))
row("Adagrad", digits, TEN, optimizer=of(optimizers.Adagrad, 0.05))
row("Adam 1e-4", digits, "64*2 10:softmax", optimizer=of(Adam, 1e-4), epochs=12)
row("Adam 0.02", digits, "32*2 10:softmax", optimizer=of(Adam, 0.02))
DECAY = optimizers.schedules.CosineDecay
WARM = DECAY(1e-6, 300, warmup_target=3e-3, warmup_steps=100)
row("warm-up", digits, "32*2 10:softmax", optimizer=of(Adam, WARM))
row("cosine", digits, "32*2 10:softmax", optimizer=of(SGD, DECAY(0.1, 400), 0.9))
row("clipping", digits, "32*2 10:softmax", optimizer=of(SGD, 0.1, clipnorm=0.5))
row("moving average", digits, TEN, optimizer=of(Adam, use_ema=True))
row("accumulation", digits, TEN, optimizer=of(Adam, 5e-3, gradient_accumulation_steps=4))
row("single samples", lambda: tuple(part[:400] for part in digits()), TEN, epochs=2, batch=1)
row("full batch", digits, TEN, optimizer=of(Adam, 0.01), epochs=60, batch=1797)
row("float16", digits, "32*2 10:softmax", policy="mixed_float16")
row("bfloat16", digits, "32*2 10:softmax", policy="mixed_bfloat16")
row("tf.data", stream, of(stack, (64,), TEN), batch=None)
row("own step", digits, lambda: OwnStep(stack((64,), TEN).layers))
# Classes.
row("logits", digits, "32 10:linear", LOGITS)
row("raw pixels", of(digits, 1 / 16), "64 10:softmax")
row("raw pictures", of(pictures, 1 / 16), lambda: stack((8, 8, 1), 16, L.Flatten(), "10:softmax"))
SMOOTH = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
row("smoothed labels", lambda: hot(digits()), TEN, SMOOTH)
row("soft labels", lambda: hot(digits(), 0.02), TEN, ONE_HOT)
row("divergence", lambda: hot(digits(), 0.02), TEN, "kl_divergence")
row("squared errors of a softmax", lambda: hot(digits()), TEN, "mse")
row("squared errors of a sigmoid", circles, "16 1:sigmoid", "mse", of(Adam, 0.01))
row("hinge", lambda: (circles()[0], 2 * circles()[1] - 1), "16 1:tanh", "hinge", of(Adam, 0.01))
row("hinge of 0 and 1", circles, "16 1:linear", "hinge", of(Adam, 0.01))
row("squared hinge", circles, "16 1:linear", "squared_hinge", of(Adam, 0.01))
row("categorical hinge", lambda: hot(digits()), "32 10:linear", "categorical_hinge")
row("several labels", signs, "32 5:sigmoid", BINARY)
row("noisy labels", of(wrong, 0.2), TEN)
row("noisier labels", of(wrong, 0.6), TEN)
row("rare class", rare, "32 1:sigmoid", BINARY)
row("very rare class", of(rare, 0.01), "32 1:sigmoid", BINARY, epochs=12)
row("class weights", rare, "32 1:sigmoid", BINARY, class_weight={0: 0.5, 1: 10.0})
row("focal loss", rare, "32 1:sigmoid", "binary_focal_crossentropy")
row("sample weights", lambda: (*digits(), rng(0).uniform(0, 2, 1797).astype("f4")), TEN)
row("ignored samples", lambda: (*digits(), rng(0).integers(0, 2, 1797).astype("f4")), TEN)
row("thousand classes", thousand, "256 1000:softmax", optimizer=of(Adam, 3e-3))
row("one sigmoid", digits, "32:sigmoid 10:softmax", optimizer=of(SGD, 0.3))
row("two sigmoids", digits, "64:sigmoid*2 10:softmax", optimizer=of(Adam, 0.01))
row("three tanh", digits, "32:tanh*3 10:softmax")
row("linear", digits, "10:softmax")
# Depth, width, residuals, gates, penalties.
row("ten ReLUs", digits, "32*10 10:softmax", epochs=12)
row("twenty ReLUs", digits, deep("32*20", kernel_initializer="he_normal"))
row("SELU", digits, deep("32:selu*12", kernel_initializer="lecun_normal"))
row("GELU", digits, "32:gelu*6 10:softmax")
row("twelve tanh", digits, "32:tanh*12 10:softmax")
row("normalized", digits, lambda: stack((64,), *(
    layer for _ in range(6) for layer in ("32:linear", L.BatchNormalization(), L.ReLU())
), "10:softmax"))  # fmt: skip
row("wide", digits, "4096 10:softmax", epochs=2)
row("narrow", digits, "4 10:softmax", optimizer=of(Adam, 0.01))
row("residual", digits, of(residual, zero_branch))
row("ReZero", digits, of(residual, lambda x: Scale(0.0, True)(L.Dense(32, "relu")(x))))
row("LayerScale", digits, of(residual, lambda x: Scale(1e-4)(L.Dense(32, "relu")(x))))
row("zero head", digits, lambda: stack((64,), "32*2", *parse(
    "10:linear", kernel_initializer="zeros"
)), LOGITS)  # fmt: skip
row("all zeros", digits, lambda: stack((64,), *parse("10:softmax", kernel_initializer="zeros")))
row("dropout", digits, lambda: stack((64,), "128", L.Dropout(0.7), "128", L.Dropout(0.7), TEN))
row("penalties", digits, deep("32*2", kernel_regularizer=keras.regularizers.L2(1e-3)))
row("sparse", digits, deep("64", kernel_regularizer=Lasso(1e-3), activity_regularizer=Lasso(1e-4)))
# Numbers.
UNIT = of(houses, change=lambda y: y[:, None])
row("curve", curve, "64*2 1:linear", "mse", epochs=12)
row("tanh of a curve", curve, "32:tanh 1:tanh", "mse", of(Adam, 0.01))
row("absolute errors", UNIT, "32*2 1:linear", "mae", epochs=15)
row("Huber", UNIT, "32*2 1:linear", "huber", epochs=15)
row("log-cosh", UNIT, "32*2 1:linear", "log_cosh", epochs=15)
row("quantile", UNIT, "32*2 1:linear", pinball, epochs=15)
row("mean and variance", UNIT, "32*2 2:linear", gaussian, epochs=15)
FRACTIONS = of(houses, change=squash)
row("fractions, cross-entropy", FRACTIONS, "32*2 1:sigmoid", BINARY, of(Adam, 0.01), 20)
row("fractions of a sigmoid", FRACTIONS, "32*2 1:sigmoid", "mse", of(Adam, 0.01), 15)
row("softplus", of(houses, change=np.exp), "32*2 1:softplus", "mse", epochs=15)
row("ReLU output", of(houses, change=lambda y: np.abs(y) + 1), "32*2 1:relu", "mae", epochs=15)
LOGARITHMIC = "mean_squared_logarithmic_error"
row("logarithmic errors", of(houses, change=np.exp), "32*2 1:softplus", LOGARITHMIC, epochs=15)
row("counts", counts, "16 1:exponential", "poisson", epochs=12)
row("noisy targets", of(houses, 3.0, lambda y: y), "32 1:linear", "mse", epochs=15)
# Several outputs, transfer.
row("two outputs", two_targets, two_heads, [CLASSES, BINARY], compiling={"loss_weights": [1, 0.5]})
row("an output of weight 0", two_targets, two_heads, [CLASSES, BINARY], compiling={
    "loss_weights": [1, 0]
})  # fmt: skip
# Pictures.
row("LeNet", pictures, lambda: stack(
    (8, 8, 1), L.Conv2D(6, 3, activation="tanh"), L.AveragePooling2D(2), L.Flatten(),
    "32:tanh 10:softmax",
))  # fmt: skip
row("CNN", pictures, lambda: stack(
    (8, 8, 1), 16, L.MaxPooling2D(), 32, L.Flatten(), L.Dropout(0.3), "10:softmax"
))  # fmt: skip
SOME = lambda: tuple(part[:320] for part in pictures())  # noqa: E731
row("MobileNet", SOME, of(application, "MobileNet", alpha=0.25, dropout=0.0), epochs=5)
row("MobileNetV3", SOME, of(
    application, "MobileNetV3Small", alpha=0.35, minimalistic=True, include_preprocessing=False
), optimizer=of(Adam, 3e-3), epochs=5)  # fmt: skip
# Sequences.
row("LSTM", digits, lambda: stack((64,), L.Reshape((8, 8)), L.LSTM(24), "10:softmax"), epochs=6)
row("two GRUs", digits, lambda: stack(
    (64,), L.Reshape((8, 8)), L.GRU(16, return_sequences=True), L.GRU(16), "10:softmax"
), epochs=6)  # fmt: skip
row("SimpleRNN", waves, lambda: stack((20, 1), L.SimpleRNN(16), "1:linear"), "mse")
row("forecast", waves, lambda: stack((20, 1), L.LSTM(16), "1:linear"), "mse", of(Adam, 0.01))
row("causal forecast", waves, lambda: stack((20, 1), *(
    L.Conv1D(8, 2, dilation_rate=2**i, padding="causal", activation="relu") for i in range(4)
), L.Flatten(), "1:linear"), "mae")  # fmt: skip
row("passengers", passengers, lambda: stack((3, 1), L.LSTM(4), "1:linear"), "mse", "adam", 12, 1)
row("tags", lambda: (waves()[0], (waves()[0] > 0).astype("f4")), lambda: stack(
    (20, 1), L.GRU(8, return_sequences=True), "1:sigmoid"
), BINARY, of(Adam, 0.01))  # fmt: skip
row("bag of words", words, lambda: stack(
    (16,), L.Embedding(200, 16), L.GlobalAveragePooling1D(), "16 1:sigmoid"
), BINARY, of(Adam, 3e-3), 12)  # fmt: skip
row("masked words", of(words, 3), lambda: stack(
    (16,), L.Embedding(200, 16, mask_zero=True), L.LSTM(16), "3:softmax"
), optimizer=of(Adam, 3e-3))  # fmt: skip
row("spotted words", of(words, 4), lambda: stack(
    (16,), L.Embedding(200, 16), L.Conv1D(32, 3, activation="relu"), L.GlobalMaxPooling1D(),
    "4:softmax",
), optimizer="rmsprop", epochs=12)  # fmt: skip
row("transformer", digits, of(encoder, 3), optimizer=of(Adam, 3e-3))
row("transformer, normalized behind", digits, of(encoder, 2, False), optimizer=of(Adam, 3e-3))
# Without labels, pairs, rewards.
row("autoencoder", unlabelled, "32 8 32 64:sigmoid", BINARY)
row("sparse autoencoder", unlabelled, lambda: stack(
    (64,), "32", *parse("16", activity_regularizer=Lasso(1e-5)), "32 64:sigmoid"
), BINARY)  # fmt: skip
row("denoising", of(unlabelled, noise=0.3), "32 8 32 64:sigmoid", "mse")
row("Q-learning", walk, "24*2 2:linear", "mse", epochs=10)
row("policy gradient", of(walk, True), "24 2:softmax")


def classify(
    make: Callable[[], Any], data: Callable[[], Data], cast: Callable[..., Any]
) -> Program:
    """Train a backbone of keras_hub, from its start, to tell classes by the mean of its outputs."""
    x, y = data()
    backbone = make()
    inputs = {item.name: item for item in backbone.inputs}
    out = backbone.output
    if isinstance(out, dict):
        out = out.get("sequence_output", out.get("decoder_sequence_output"))
    shape = out.shape[1:-1]
    means: list[Any] = [L.GlobalAveragePooling1D(), L.GlobalAveragePooling2D()]
    head = L.Dense(int(y.max()) + 1, "softmax")(means[len(shape) - 1](out))
    model = keras.Model(inputs, head)
    model.compile(Adam(1e-3), CLASSES, jit_compile=False)
    return Program(model, ({name: cast(x, name) for name in inputs}, y), 10, 32)


def as_tokens(x: Any, name: str) -> Any:
    """Turn words, padded with 0, into one of the inputs of a language model."""
    given = {"mask": (x > 0).astype("int32"), "segment": np.zeros_like(x)}
    return next((array for part, array in given.items() if part in name), x)


def as_pictures(x: Any, name: str) -> Any:
    """Turn pictures of 8 by 8 grey pixels into ones of 32 by 32 in three channels."""
    return np.repeat(x.repeat(4, axis=1).repeat(4, axis=2), 3, axis=3)


def add_backbones() -> None:
    """Add small ones of keras_hub, where it is installed: `pip install keras-hub`."""
    try:
        from keras_hub import models
    except ModuleNotFoundError:
        return
    size = {"vocabulary_size": 200, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 64}
    grouped = size | {"num_query_heads": 2, "num_key_value_heads": 1}
    image = {"image_shape": (32, 32, 3)}
    plain = ("Bert", "GPT2", "DistilBert", "Roberta", "OPT", "T5", "DebertaV3", "GPTNeoX", "Bloom")
    texts = dict.fromkeys(plain, size | {"num_heads": 2})
    texts |= {"Albert": size | {"num_heads": 2, "embedding_dim": 16}, "FNet": size}
    texts |= {"Llama": grouped, "Mistral": grouped, "Gemma": grouped | {"head_dim": 16}}
    stages = {"stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1]}
    pictured: dict[str, dict[str, Any]] = {
        "ViT": {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64},
        "DenseNet": {"stackwise_num_repeats": [2, 2], "growth_rate": 8},
        "VGG": {"stackwise_num_repeats": [1, 1], "stackwise_num_filters": [8, 16]},
        "ResNet": stages
        | {"input_conv_filters": [64], "input_conv_kernel_sizes": [3], "block_type": "basic_block"}
        | {"stackwise_num_strides": [1, 2]},
    }
    for kinds, data, cast, more in (
        (texts, words, as_tokens, {}),
        (pictured, pictures, as_pictures, image),
    ):
        for name, options in kinds.items():
            make = of(getattr(models, f"{name}Backbone"), **options, **more)
            PROGRAMS[f"backbone {name}"] = of(classify, make, data, cast)


add_backbones()


def guess(loss: Any, y: Any) -> float:
    """Return the loss of the best of some constants; NaN where it is not known."""
    if not isinstance(loss, str | keras.losses.Loss) or not isinstance(y, np.ndarray):
        return np.nan
    loss = keras.losses.get(loss)
    name = getattr(loss, "name", getattr(loss, "__name__", ""))
    y = y.reshape(-1, y.shape[-1] if y.ndim > 1 else 1).astype("f4")
    constants = [y.mean(axis=0), np.median(y, axis=0)]
    if "sparse" in name:
        y = y.reshape(-1, 1)  # of sequences, too
        constants = [np.bincount(y.astype(int).ravel()) / y.size]
    if "hinge" in name:
        constants = [sign * np.eye(y.shape[1])[i] for i in range(y.shape[1]) for sign in (-1, 0, 1)]
    if name == "ctc":
        return np.nan
    if getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits")):
        odds = constants[0] if "categorical" in name else constants[0] / (1 - constants[0])
        constants = [np.log(np.maximum(odds, 1e-7))]
    tables = (np.tile(constant, (len(y), 1)).astype("f4") for constant in constants)
    return min(float(ops.mean(loss(y, table))) for table in tables)


def run(name: str, monitor: GradientMonitor) -> tuple[list[float], float, dict[str, list[Any]]]:
    """Check, audit and train a program; return its losses, the best constant's, and findings."""
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    made = PROGRAMS[name]()
    program = made if isinstance(made, Program) else Program(made.model, made.data)
    model, data, options = program.model, program.data, dict(program.options)
    checked = list(keras_initkit.check(model, *data)) if data else []
    audit = keras_initkit.audit(model) if model.built else ()
    x, y, weight = (*data, None, None, None)[:3]
    if weight is not None:
        options["sample_weight"] = weight
    if loop := getattr(made, "loop", None):
        losses = loop(model, keras.callbacks.CallbackList([monitor], model=model))
    else:
        settings = {"batch_size": program.batch, "epochs": program.epochs, "verbose": 0}
        logs = model.fit(x, y, callbacks=[monitor], **settings, **options).history
        losses = logs.get("total_loss", logs.get("loss"))
    is_plain = not {"sample_weight", "class_weight"} & options.keys()
    best = guess(getattr(model, "loss", None), y) if is_plain else np.nan
    told = {f.key: f for f in (*keras_initkit.diagnose(monitor), *monitor.findings)}
    found = {
        "accused": list(told.values()),
        "error of check": [f for f in checked if f.severity == "error"],
        "warning of check": [f for f in checked if f.severity == "warning"],
        "audit": [f for row in audit for f in row.findings],
    }
    return losses, best, {k: [f for f in v if f.severity != "note"] for k, v in found.items()}


def learned(losses: list[float], best: float) -> bool:
    """Check that a training is better than guessing in the end."""
    return losses[-1] < (0.97 * best if best > 0 else losses[0] - 0.1 * abs(losses[0]))


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, help="record every n-th step; by default as usual")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--part", default="0/1", help="the i-th of n parts of the programs")
    parser.add_argument("--list", action="store_true", help="only list what there is")
    options = parser.parse_args()
    index, parts = map(int, options.part.split("/"))
    chosen = [n for n in PROGRAMS if not options.only or any(part in n for part in options.only)]
    counts: collections.Counter[str] = collections.Counter()
    for name in chosen[index::parts]:
        if options.list:
            print(name)
            continue
        begin = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                losses, best, found = run(name, GradientMonitor(None, options.every))
            except ModuleNotFoundError as error:  # some are of TensorFlow alone
                print(f"{name:32} needs {error.name}")
                continue
        seconds = time.monotonic() - begin
        print(f"{name:32}{seconds:5.1f} s  loss {losses[-1]:9.3g}, guessing {best:9.3g}", end="  ")
        if not learned(losses, best):
            counts["did not learn"] += 1
            print("did not learn")
            continue
        counts["programs"] += 1
        for word, findings in found.items():
            counts[word] += bool(findings)
            counts.update({f"{word}: {finding.kind}" for finding in findings})
        print("".join(f"\n    {w}: {f.text}" for w in found for f in found[w]), flush=True)
    for word, count in sorted(counts.items()):
        print(f"{count:5} {word}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
