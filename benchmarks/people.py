"""Train short programs with a fault each, in the style of questions in forums, and read the advice.

    python -m benchmarks.people [--part 0/2] [--only TEXT] [--check]

Each program is trained as it is written, with the monitor's defaults. Printed are the programs of
which nothing is told, or first something of another kind, or advice that does not mend the fault;
and for every kind of fault the shares of those that are right. Programs that Keras refuses are
judged by what the monitor tells when `fit` raises. With `--check`, `keras_initkit.check` is asked
before the training instead.
"""

import argparse
import collections
import functools
import itertools
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from sklearn import datasets

import keras_initkit
from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.diagnosis.finding import Finding

L, ops = keras.layers, keras.ops
D, SGD, Adam = L.Dense, keras.optimizers.SGD, keras.optimizers.Adam
BCE, CCE, SCE = (f"{name}_crossentropy" for name in ("binary", "categorical", "sparse_categorical"))
Array = np.ndarray
Data = tuple[Any, Any]


class Run(NamedTuple):
    """A compiled model, its data, and the arguments of `fit`."""

    model: Any
    x: Any
    y: Any
    fit: dict[str, Any]


class Case(NamedTuple):
    """A program: its fault, the kinds that tell it, and what the advice must contain."""

    fault: str
    kinds: tuple[str, ...]
    advice: str
    make: Callable[[], Run]


def run(data: Data, loss: Any, *stack: Any, opt: Any = "adam", **more: Any) -> Run:
    """Compile a Sequential model of layers, as most people do."""
    x, y = data
    return compiled(keras.Sequential([keras.Input(x.shape[1:]), *stack]), x, y, loss, opt, **more)


def compiled(
    model: Any, x: Any, y: Any, loss: Any, opt: Any = "adam", acc: Any = ("accuracy",), **fit: Any
) -> Run:
    """Compile a model, with an accuracy even where it is none, for eight epochs by default."""
    fit = {"epochs": 8} | fit
    model.compile(optimizer=opt, loss=loss, metrics=list(acc) or None)
    return Run(model, x, y, fit)


def functional(data: Data, make: Callable[[Any], Any], loss: Any, **more: Any) -> Run:
    """Compile a model written with the functional API."""
    inputs = keras.Input(data[0].shape[1:])
    return compiled(keras.Model(inputs, make(inputs)), *data, loss, **more)


class Subclassed(keras.Model):
    """A model of a class of one's own."""

    def __init__(self, *stack: Any) -> None:
        super().__init__()
        self.stack = list(stack)

    def call(self, x: Any) -> Any:
        """Call the layers one after the other."""
        for layer in self.stack:
            x = layer(x)
        return x


def xor(kind: str = "float32") -> Data:
    """Return the truth table of XOR, with answers of shape (4, 1)."""
    return np.array([[0, 0], [0, 1], [1, 0], [1, 1]], kind), np.array([[0], [1], [1], [0]], kind)


def parity(bits: int = 6) -> Data:
    """Return all numbers of some bits, and if they have an odd number of ones."""
    x = np.array(list(itertools.product([0, 1], repeat=bits)))
    return x.astype("float32"), x.sum(axis=1) % 2


def iris(one_hot: bool = False) -> Data:
    """Return flowers of three classes."""
    x, y = datasets.load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], keras.utils.to_categorical(y[order]) if one_hot else y[order]


def scaled(data: Data, targets: bool = False) -> Data:
    """Standardize the features, or the targets as well."""
    x, y = ((a - a.mean(0)) / a.std(0) for a in data)
    return x, y if targets else data[1]


def cancer() -> Data:
    """Return tumours of two classes, with 30 features up to 4000."""
    return datasets.load_breast_cancer(return_X_y=True)


def diabetes() -> Data:
    """Return patients and the progression of their illness, 25 to 346."""
    return datasets.load_diabetes(return_X_y=True)


def digits(scale: float = 1 / 16, one_hot: bool = False) -> Data:
    """Return images of 8 by 8 pixels of ten digits."""
    x, y = datasets.load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8, 1) * scale, keras.utils.to_categorical(y) if one_hot else y


def flat(data: Data) -> Data:
    """Give each sample one axis."""
    return data[0].reshape(len(data[0]), -1), data[1]


def ones(scale: float = 1 / 16) -> Data:
    """Return digits, and if they are even."""
    x, y = digits(scale)
    return x, (y % 2 == 0).astype(int)


def houses(price: float = 1.0) -> Data:
    """Return sizes, rooms, years and distances of houses, and prices of 100,000 to 600,000."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.uniform(30, 200, 500), rng.integers(1, 8, 500), rng.integers(1900, 2020, 500),
                  rng.uniform(0, 30, 500)], axis=1)  # fmt: skip
    return x, price * (2500 * x[:, 0] + 8000 * x[:, 1] - 2000 * x[:, 3] + 30000)


def wave(height: float = 1.0, middle: float = 0.0, length: int = 20) -> Data:
    """Return windows of a sine with noise, and the value after each."""
    time = np.arange(900)
    noise = np.random.default_rng(0).normal(size=900)
    values = middle + height * (np.sin(time / 8) + 0.05 * noise)
    x = np.lib.stride_tricks.sliding_window_view(values[:-1], length)
    return x[..., None].astype("float32"), values[length:, None].astype("float32")


def texts(words: int = 200, length: int = 24) -> Data:
    """Return numbers of words, and if more good ones than bad ones are among them."""
    x = np.random.default_rng(0).integers(0, words, (800, length))
    return x, ((x < words // 4).sum(1) > (x >= 3 * words // 4).sum(1)).astype("float32")


def tags(length: int = 12) -> Data:
    """Return sequences, and for each place if it is above that before."""
    x = np.random.default_rng(0).normal(size=(600, length, 1))
    return x, (np.diff(x, axis=1, prepend=0) > 0).astype("float32")


def noisy(n: int = 600, width: int = 8) -> Data:
    """Return normal features and a smooth function of them."""
    x = np.random.default_rng(0).normal(size=(n, width))
    return x, np.sin(x[:, 0]) + x[:, 1] * x[:, 2]


def rare() -> Data:
    """Return two classes, one of which has a sample in a hundred."""
    return datasets.make_classification(3000, weights=[0.99], flip_y=0, class_sep=0.3)


class AllWithAll(keras.losses.Loss):
    """A squared error of (batch,) and (batch, 1)."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compare each output with all targets."""
        return ops.mean(ops.square(y_true - y_pred))


def both(data: Data, *change: Callable[[Array], Array]) -> Data:
    """Change the targets by one function after the other."""
    return data[0], functools.reduce(lambda y, f: f(y), change, data[1])


def self_coded(data: Data) -> Data:
    """Return inputs as their own targets."""
    return data[0], data[0]


def quantiles(y: Array, count: int = 3) -> Array:
    """Number classes of equal size, from low to high."""
    return np.searchsorted(np.quantile(y, np.arange(1, count) / count), y)


def convolutions(*head: Any) -> list[Any]:
    """Make the stack of all tutorials on images."""
    return [L.Conv2D(16, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), *head]


def two_heads(x: Any) -> list[Any]:
    """Make an output of classes, with a softmax of one unit, and one of numbers."""
    h = D(32, "relu")(x)
    return [D(1, "softmax", name="ill")(h), D(1, name="size")(h)]


ONE, RANGE, FORM = ("single_unit_softmax",), ("target_range",), ("label_form",)
CHOICE, LOGITS = ("loss_choice",), ("logits", "head_activation")
RELU = ("head_activation", "target_range", "logits")
SHORT = ("ended_early", "learning_rate", "small_updates")
SCALE = ("input_scale", "feature_scales")
RATE = ("learning_rate", "large_updates", "rising_loss", "exploding")
SLOW = ("learning_rate", "small_updates")
column, hot = (lambda y: y[:, None]), keras.utils.to_categorical

# fmt: off
CASES = [Case(*row) for row in [
    *[("softmax over one unit", ONE, "sigmoid", make) for make in (
        lambda: run(xor(), BCE, D(8, "relu"), D(1, "softmax"), epochs=300, batch_size=4),
        lambda: run(xor("int64"), "mse", D(2, "sigmoid"), D(1,
            activation=keras.activations.softmax), opt=SGD(0.1), epochs=400, batch_size=1),
        lambda: run(scaled(cancer()), BCE, D(16, "relu"), D(16, "relu"), D(1),
            L.Activation("softmax"), validation_split=0.2),
        lambda: run(texts(), BCE, L.Embedding(200, 16), L.LSTM(16), D(1, "softmax"), opt="rmsprop"),
        lambda: run(ones(), BCE, *convolutions(D(32, "relu"), L.Dropout(0.5), D(1, "softmax"))),
        lambda: run(tags(), BCE, L.LSTM(8, return_sequences=True),
            L.TimeDistributed(D(1, "softmax"))),
        lambda: run(parity(), SCE, D(16, "relu"), D(1, "softmax"), epochs=60),
        lambda: run(noisy_classes(), BCE, D(16, "relu"), D(1), L.Lambda(lambda t: ops.softmax(t))),
        lambda: compiled(Subclassed(D(16, "relu"), D(1, "softmax")), *scaled(cancer()), BCE),
        lambda: run(both(noisy_classes(), lambda y: 2 * y - 1), "hinge", D(8, "relu"), D(1,
            "softmax")),
    )],
    ("softmax over one unit", ONE, r"Dense\(1[,)](?!.*sigmoid)",
     lambda: run(diabetes(), "mse", D(32, "relu"), D(1, "softmax"))),
    ("softmax over one unit", ONE, "sigmoid", lambda: two_outputs()),
    # ReLU on the output.
    ("ReLU on the output", RELU, "sigmoid",
     lambda: run(xor(), BCE, D(4, "relu"), D(1, "relu"), epochs=300, batch_size=4)),
    ("ReLU on the output", RELU, r"Dense\(1[,)]",
     lambda: run(scaled(diabetes(), True), "mse", D(16, "relu"), D(1, "relu"), opt="sgd")),
    ("ReLU on the output", RELU, r"Dense\(1[,)]",
     lambda: run(wave(), "mse", L.LSTM(16), D(1), L.ReLU())),
    ("ReLU on the output", RELU, r"Dense\(64[,)]",
     lambda: run(self_coded(flat(scaled_digits())), "mse", D(16, "relu"), D(64, "relu"))),
    ("ReLU on the output", RELU, "softmax",
     lambda: run(digits(), SCE, *convolutions(D(10), L.Activation("relu")))),
    ("ReLU on the output", RELU, r"Dense\(1[,)]|sigmoid",
     lambda: run(xor(), "mse", D(4, "relu"), D(1, "relu",
     bias_initializer=keras.initializers.Constant(-1.0)), opt=SGD(0.1), epochs=300)),
    ("ReLU on the output", (*RELU, "dead_units"), r"Dense\(1[,)]|sigmoid",
     lambda: run(noisy_classes(), "mse", D(16, "relu"), D(8, "relu"), D(1, "relu"), opt=SGD(1.5))),
    # An output that is bounded, and targets that are not.
    ("bounded output", RANGE, r"Dense\(1[,)]",
     lambda: run(diabetes(), "mse", D(32, "relu"), D(1, "sigmoid"))),
    ("bounded output", RANGE, r"Dense\(1[,)]",
     lambda: run(houses(), "mae", D(16, "relu"), D(1, "tanh"))),
    ("bounded output", RANGE, r"Dense\(1[,)]",
     lambda: run(wave(3.0), "mse", L.SimpleRNN(16), D(1, "tanh"))),
    ("bounded output", RANGE, "255",
     lambda: run(self_coded(digits(255 / 16)), "mse", L.Conv2D(8, 3, padding="same",
     activation="relu"), L.Conv2D(1, 3, padding="same", activation="sigmoid"))),
    ("bounded output", RANGE, r"Dense\(3[,)]",
     lambda: run(both(noisy(), lambda y: np.stack([y, 2 * y, y - 1], 1)), "mse", D(32, "relu"),
     D(3, "softmax"))),
    ("bounded output", RANGE, r"Dense\(1[,)]|linear|LSTM",
     lambda: run(wave(20.0, 150.0), "mse", L.LSTM(8, return_sequences=True), L.LSTM(1))),
    ("bounded output", RANGE, r"Dense\(1[,)]|100",
     lambda: run(both(noisy(), lambda y: 100 * (y - y.min()) / np.ptp(y)), "mae", D(16, "relu"),
     D(1), L.Activation("sigmoid"))),
    ("bounded output", RANGE, r"Dense\(1[,)]",
     lambda: functional(scaled(diabetes(), True), lambda x: ops.sigmoid(D(1)(D(16, "tanh")(x))),
     "mse")),
    # Too few updates.
    ("too few epochs", SHORT, "epochs|rate",
     lambda: run(xor(), BCE, D(8, "relu"), D(1, "sigmoid"), epochs=10)),
    ("too few epochs", SHORT, "epochs|rate",
     lambda: run(digits(), SCE, *convolutions(D(10, "softmax")), opt=SGD(0.01), epochs=1)),
    ("too few epochs", SHORT, "epochs|rate",
     lambda: run(xor(), "mse", D(4, "tanh"), D(1, "sigmoid"), opt=SGD(0.1), epochs=100)),
    ("too few epochs", SHORT, "epochs|rate",
     lambda: run(wave(), "mse", L.LSTM(8), D(1), opt=SGD(0.01), epochs=2)),
    ("too few epochs", SHORT, "epochs|rate",
     lambda: run(scaled(diabetes(), True), "mse", D(8, "relu"), D(1), opt="sgd", batch_size=442)),
    ("too few epochs", SHORT, "epochs|rate",
     lambda: run(iris(), SCE, D(8, "relu"), D(3, "softmax"), epochs=5)),
    # Categorical cross-entropy on sigmoids.
    ("categorical cross-entropy on sigmoids", CHOICE, "softmax",
     lambda: run(iris(True), CCE, D(8, "relu"), D(3, "sigmoid"), epochs=40)),
    ("categorical cross-entropy on sigmoids", CHOICE, "softmax",
     lambda: run(digits(), keras.losses.SparseCategoricalCrossentropy(), *convolutions(D(10),
     L.Activation("sigmoid")))),
    ("categorical cross-entropy on sigmoids", CHOICE, "binary_crossentropy",
     lambda: run(both(noisy(), lambda y: np.stack([y > 0, y > -1, y > 1, y < 2], 1).astype(int)),
     CCE, D(16, "relu"), D(4, "sigmoid"))),
    ("categorical cross-entropy on sigmoids", CHOICE, "softmax",
     lambda: compiled(Subclassed(D(32, "relu"), D(10, "sigmoid")), *flat(digits(1 / 16, True)),
     keras.losses.categorical_crossentropy)),
    # Labels in another form.
    ("label form", FORM, "sparse", lambda: run(iris(), CCE, D(8, "relu"), D(3, "softmax"))),
    ("label form", FORM, 'categorical|argmax',
     lambda: run(digits(1 / 16, True), SCE, *convolutions(D(10, "softmax")))),
    ("label form", (*FORM, "target_shape", "loss_choice"), "sparse",
     lambda: run(both(iris(), column), "mse", D(8, "relu"), D(3, "softmax"), epochs=20)),
    ("label form", FORM, r"softmax|sparse",
     lambda: run(both(iris(), column), BCE, D(8, "relu"), D(3, "sigmoid"))),
    ("label form", (*FORM, "target_range"), r"sparse|Dense\(1, .*sigmoid",
     lambda: run(both(noisy_classes(), column), CCE, D(8, "relu"), D(2, "softmax"))),
    ("label form", (*FORM, "target_shape"), r"return_sequences|Flatten|Pooling",
     lambda: run(wave(), "mse", L.LSTM(8, return_sequences=True), D(1))),
    # Labels out of range.
    ("labels out of range", (*FORM, "target_range"), "softmax",
     lambda: run(flat(digits()), BCE, D(32, "relu"), D(1, "sigmoid"))),
    ("labels out of range", FORM, r"- 1|11",
     lambda: run(both(digits(), lambda y: y + 1), SCE, *convolutions(D(10, "softmax")))),
    ("labels out of range", FORM, r"/ 2|tanh",
     lambda: run(both(noisy_classes(), lambda y: 2 * y - 1), BCE, D(16, "relu"), D(1, "sigmoid"),
     opt="sgd")),
    ("labels out of range", FORM, r"- 1",
     lambda: run(both(noisy_classes(), lambda y: y + 1), BCE, D(16, "relu"), D(1, "sigmoid"))),
    # Inputs far from unit scale.
    ("input scale", SCALE, "[Nn]ormaliz|Rescaling",
     lambda: run(cancer(), BCE, D(16, "relu"), D(1, "sigmoid"), opt=SGD(0.01), epochs=15)),
    ("input scale", SCALE, "[Nn]ormaliz|Rescaling",
     lambda: run(ones(scale=255 / 16), BCE, *convolutions(D(64, "relu"), D(1, "sigmoid")),
     opt=SGD(0.05))),
    ("input scale", SCALE, "[Nn]ormaliz|Rescaling",
     lambda: run((houses()[0], quantiles(houses()[1], 2)), BCE, D(8, "tanh"), D(1, "sigmoid"),
     opt="sgd", epochs=20)),
    ("input scale", (*SCALE, "target_scale"), "[Nn]ormaliz|y - ",
     lambda: run(houses(), "mse", D(16, "relu"), D(1), opt=SGD(0.01))),
    ("input scale", SCALE, "[Nn]ormaliz",
     lambda: run(shifted(), BCE, D(4, "relu"), D(1, "sigmoid"), opt=SGD(0.1), epochs=15)),
    # Linear output under cross-entropy.
    ("linear under cross-entropy", LOGITS, "softmax|from_logits=True",
     lambda: run(iris(True), CCE, D(8, "relu"), D(3), epochs=40)),
    ("linear under cross-entropy", LOGITS, "sigmoid|from_logits=True",
     lambda: run(texts(), BCE, L.Embedding(200, 8), L.GlobalAveragePooling1D(), D(1))),
    ("linear under cross-entropy", LOGITS, "softmax|from_logits=True",
     lambda: functional(digits(), lambda x: D(10)(L.Flatten()(L.Conv2D(8, 3,
     activation="relu")(x))), SCE)),
    # Learning rates.
    ("learning rate too high", RATE, "rate",
     lambda: run(scaled(cancer()), BCE, D(16, "relu"), D(16, "relu"), D(1, "sigmoid"),
     opt=Adam(1.0))),
    ("learning rate too high", (*RATE, "nonfinite", "target_scale"), "rate|y - ",
     lambda: run(scaled(diabetes()), "mse", D(16, "relu"), D(1), opt=SGD(0.1))),
    ("learning rate too low", SLOW, "rate",
     lambda: run(digits(), SCE, *convolutions(D(10, "softmax")), opt=SGD(1e-6))),
    ("learning rate too low", (*SLOW, "ended_early"), "rate",
     lambda: run(scaled(cancer()), BCE, D(8, "relu"), D(1, "sigmoid"), opt=Adam(1e-6), epochs=15)),
    # A loss of another kind.
    ("regression loss for classes", (*CHOICE, "ended_early"), "crossentropy",
     lambda: run(flat(digits()), "mse", D(32, "relu"), D(1), opt="sgd")),
    ("regression loss for classes", (*CHOICE, "target_range"), "sparse_categorical",
     lambda: run(flat(digits()), "mse", D(32, "relu"), D(1, "sigmoid"))),
    ("binary cross-entropy for one of n", CHOICE, "categorical",
     lambda: run(digits(1 / 16, True), BCE, *convolutions(D(10, "softmax")))),
    ("binary cross-entropy for one of n", CHOICE, "categorical",
     lambda: run(flat(digits(1 / 16, True)), BCE, D(32, "sigmoid"), D(10, "sigmoid"),
     opt=SGD(0.01))),
    ("hidden sigmoids", ("deep_sigmoids", "vanishing"), "relu",
     lambda: run(flat(digits()), SCE, *[D(32, "sigmoid") for _ in range(5)], D(10, "softmax"),
     opt=SGD(0.1))),
    ("hidden sigmoids", ("deep_sigmoids", "vanishing", "learning_rate"), "relu",
     lambda: run(parity(), "mse", D(16, "sigmoid"), D(8, "sigmoid"), D(1, "sigmoid"), opt=SGD(0.1),
     epochs=200)),
    ("no activation", ("no_activation",), "relu",
     lambda: run(xor(), BCE, D(8), D(8), D(1, "sigmoid"), epochs=400)),
    ("no activation", ("no_activation",), "relu",
     lambda: run(rings(), BCE, D(32), D(16), D(1, "sigmoid"))),
    # Others.
    ("an embedding of fractions", ("embedding_indices",), "Dense",
     lambda: run(flat(digits()), SCE, L.Embedding(10, 8), L.Flatten(), D(10, "softmax"))),
    ("an embedding too small", ("embedding_indices",), "Embedding",
     lambda: run(texts(), BCE, L.Embedding(100, 8), L.GRU(8), D(1, "sigmoid"))),
    ("a strong penalty", ("strong_penalty",), "regularizers",
     lambda: run(flat(digits()), SCE,
     *[D(32, "relu", kernel_regularizer=keras.regularizers.L2(1.0)) for _ in range(3)], D(10,
     "softmax"))),
    ("softmax for several labels", CHOICE, "sigmoid",
     lambda: run(both(noisy(), lambda y: np.stack([y > 0, y > -1, y > 1, y < 2], 1).astype(int)),
     CCE, D(16, "relu"), D(4, "softmax"))),
    ("binary cross-entropy for numbers", (*CHOICE, "target_range"), "mean_squared",
     lambda: run(diabetes(), BCE, D(16, "relu"), D(1, "sigmoid"))),
    ("two softmaxes", ("double_activation",), "Dense",
     lambda: run(digits(), SCE, *convolutions(D(10, "softmax"), L.Softmax()), opt=SGD(0.01))),
    ("sorted classes", ("one_class",), "[Ss]huffle",
     lambda: compiled(keras.Sequential([D(8, "relu"), D(1, "sigmoid")]),
     *by_class(noisy_classes()), BCE, shuffle=False)),
    ("sorted classes", ("one_class",), "[Ss]huffle",
     lambda: run(by_class(iris()), SCE, D(16, "relu"), D(3, "softmax"), shuffle=False,
     batch_size=10, epochs=20)),
    ("too few epochs", SHORT, "epochs|rate",
     lambda: run((np.array([[-40.0], [-10], [0], [8], [15], [22], [38]]),
     np.array([-40.0, 14, 32, 46, 59, 72, 100])), "mse", D(1), opt=Adam(0.1), epochs=50, acc=())),
    ("too few epochs", SHORT, "epochs|rate",
     lambda: run(scaled(houses(1e-5)), "mse", D(1), opt=Adam(1e-3), epochs=6, acc=())),
    ("nothing trained", ("frozen",), "trainable", lambda: frozen()),
    ("no gradient", ("no_gradient",), "", lambda: run(both(noisy_classes(), column),
     lambda y, p: ops.mean(ops.square(y - ops.round(p))), D(16, "relu"), D(1, "sigmoid"))),
    ("dropout between the last weights and softmax", ("output_dropout",), "Dropout",
     lambda: run(scaled(iris()), SCE, D(16, "relu"), D(3), L.Dropout(0.5), L.Softmax())),
    ("a normalization over rows", ("wrong_axis",), "BatchNormalization",
     lambda: run(digits(), SCE, L.Conv2D(8, 3, activation="relu"), L.BatchNormalization(axis=1),
     L.Flatten(), D(10, "softmax"))),
    ("targets that do not follow", ("not_learning", "ended_early"), "by heart|epochs",
     lambda: run(both(noisy_classes(), np.random.default_rng(9).permutation), BCE, D(8, "relu"),
     D(1, "sigmoid"), opt="sgd", epochs=15)),
    ("NaN in the targets", ("nonfinite",), "isfinite",
     lambda: run(holes(houses(1e-5)[::-1], 0)[::-1], "mse", D(16, "relu"), D(1), acc=())),
    ("a logarithm of zeros", ("nonfinite",), "",
     lambda: run(scaled(iris()), SCE, D(16, "relu"), L.Lambda(lambda t: ops.log(t)), D(3,
     "softmax"))),
    ("classes that swing", RATE, "rate",
     lambda: run(scaled(cancer()), BCE, D(16, "tanh"), D(1, "sigmoid"), opt=SGD(30.0), epochs=8)),
    ("NaN in the inputs", ("nonfinite",), "isfinite",
     lambda: run(holes(scaled(cancer())), BCE, D(16, "relu"), D(1, "sigmoid"))),
    ("a rare class", ("rare_classes",), "class_weight", lambda: run(rare(), BCE, D(16, "relu"),
     D(1, "sigmoid"), opt=SGD(0.01), epochs=4)),
    ("a class of weight 0", ("rare_classes",), "class_weight",
     lambda: run(flat(scaled_digits()), SCE, D(32, "relu"), D(10, "softmax"),
     class_weight={i: float(i != 3) for i in range(10)})),
    ("a loss of all with all", ("target_shape",), "reshape",
     lambda: run(scaled(diabetes(), True), AllWithAll(), D(32, "relu"), D(1), opt=Adam(0.01),
     epochs=20, acc=())),
    ("a loss of the wrong sign", ("negative_loss",), "sign",
     lambda: run(scaled(iris(True)), lambda y, p: ops.mean(y * ops.log(p + 1e-7), axis=-1),
     D(16, "relu"), D(3, "softmax"), opt=Adam(0.01), epochs=20)),
    ("an answer instead of probabilities", ("no_gradient",), "argmax",
     lambda: run(scaled(iris()), "mse", D(16, "relu"), D(3, "softmax"), L.Lambda(lambda p:
     ops.cast(ops.argmax(p, axis=-1, keepdims=True), "float32")))),
    ("batches of one sample", ("single_samples",), "batch_size",
     lambda: run(scaled(iris()), SCE, D(16), L.BatchNormalization(), L.ReLU(), D(3, "softmax"),
     batch_size=1)),
    ("a weight decay of 10", ("strong_penalty",), "weight_decay",
     lambda: run(flat(scaled_digits()), SCE, D(32, "relu"), D(10, "softmax"),
     opt=keras.optimizers.AdamW(0.01, weight_decay=10.0))),
    ("much dropout", ("strong_dropout",), "Dropout",
     lambda: run(scaled(iris()), SCE, D(16, "relu"), L.Dropout(0.95), D(16, "relu"),
     L.Dropout(0.95), D(3, "softmax"), epochs=30)),
    ("pixels rescaled twice", ("input_scale",), "rescaling",
     lambda: run(digits(15), SCE, L.Rescaling(1 / 255), L.Rescaling(1 / 255),
     *convolutions(D(10, "softmax")), opt=SGD(0.01))),
    ("prices as they are", ("input_scale",), "x, y",
     lambda: run(wave(400, 3000), "mse", L.LSTM(16), D(1), acc=())),
]]
# fmt: on


def noisy_classes() -> Data:
    """Return normal features and two classes."""
    x, y = noisy()
    return x, (y > 0).astype("float32")


def scaled_digits() -> Data:
    """Return digits standardized as a whole."""
    x, y = digits()
    return (x - x.mean()) / x.std(), y


def shifted() -> Data:
    """Return two classes by temperatures of 65 to 70."""
    x, y = noisy_classes()
    return 67 + x, y


def rings() -> Data:
    """Return two rings of points, one in the other."""
    return datasets.make_circles(800, noise=0.05, factor=0.5, random_state=0)


def by_class(data: Data) -> Data:
    """Sort by class."""
    order = np.argsort(data[1], kind="stable")
    return data[0][order], data[1][order]


def holes(data: Data, feature: int = 4) -> Data:
    """Put some NaN into the inputs."""
    x = data[0].astype("float32")
    x.reshape(len(x), -1)[3::50, feature] = np.nan
    return x, data[1]


def frozen() -> Run:
    """Make a model of which no layer is trained."""
    program = run(digits(), SCE, *convolutions(D(10, "softmax")))
    program.model.trainable = False
    return compiled(program.model, program.x, program.y, SCE)


def two_outputs() -> Run:
    """Make a model of two outputs, one of them at fault."""
    x, y = scaled(cancer())
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, two_heads(inputs))
    return compiled(model, x, [y, x[:, :1]], [BCE, "mse"], acc=(), epochs=8)


def listen(case: Case, is_check: bool, seed: int = 0) -> tuple[list[Finding], str]:
    """Train a program; return its findings, the worst first, and the error that ended it."""
    keras.utils.set_random_seed(seed)
    keras.backend.clear_session()
    model, x, y, arguments = case.make()
    monitor, error = GradientMonitor(), ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if is_check:
                return list(keras_initkit.check(model, x, y)), ""
            model.fit(x, y, verbose=0, callbacks=[monitor], **arguments)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
            del raised
    if error and is_check:
        return [], error
    return list(keras_initkit.diagnose(monitor)), error


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="part of the name of faults")
    parser.add_argument("--part", default="0/1", help="the i-th of n parts of the programs")
    parser.add_argument("--check", action="store_true", help="ask before the training")
    options = parser.parse_args()
    index, parts = map(int, options.part.split("/"))
    cases = [case for case in CASES[index::parts] if options.only in case.fault]
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for number, case in enumerate(cases):
        found, error = listen(case, options.check)
        found = [f for f in found if f.severity != "note" or f.kind in case.kinds]
        first = found[0] if found else None
        is_kind = first is not None and first.kind in case.kinds
        is_remedy = is_kind and first is not None and bool(re.search(case.advice, str(first.fix)))
        counts[case.fault].update(all=1, found=bool(found), kind=is_kind, remedy=is_remedy)
        if not is_remedy:
            told = f"{first.kind}: {first.text}" if first else "nothing"
            sys.stdout.write(f"{case.fault} {number}: {told} {error[:200]}\n")
            sys.stdout.flush()
    titles = ("fault", "programs", "found", "right kind", "right remedy")
    sys.stdout.write(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|\n")
    total: collections.Counter[str] = collections.Counter()
    for fault, count in [*counts.items(), ("all", total)]:
        numbers = " | ".join(str(int(count[name])) for name in ("all", "found", "kind", "remedy"))
        sys.stdout.write(f"| {fault} | {numbers} |\n")
        total.update(count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
