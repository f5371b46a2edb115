"""Diagnose small trainings: healthy ones, and some with one fault each.

    python benchmarks/healthy.py                    # five minutes on two cores
    python benchmarks/healthy.py --every 10 --seeds 0 1 2 --only "sigmoid"

Each row is a program: how it ended, and the findings in order. In the end: faults found, with their
kind first, and healthy programs accused. Notes accuse nobody.
"""

import argparse
import collections
import os
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

from keras_initkit.anatomy.setup import read_setup
from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.judge import judge

L = keras.layers
SPARSE, BINARY = "sparse_categorical_crossentropy", "binary_crossentropy"


class Program(NamedTuple):
    """A training: a compiled model, its data, and the kinds that tell its fault, if any."""

    model: keras.Model
    x: Any
    y: Any
    kinds: tuple[str, ...] = ()
    epochs: int = 8
    batch: int = 64


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return handwritten digits, standardised as a whole, (1797, 64), and their classes."""
    x, y = load_digits(return_X_y=True)
    return ((x - x.mean()) / x.std()).astype("float32"), y.astype("int32")


def table(noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Return a table of normal features, (2000, 12), and a smooth function of them with noise."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 12)).astype("float32")
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] / 2 + noise * rng.normal(size=len(x))
    return x, (y / y.std()).astype("float32")


def binary(flips: float = 0.0, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return a table and classes 0 and 1: a share is 1, some are flipped."""
    x, y = table(0.0)
    labels = y > np.quantile(y, 1 - share)
    flipped = np.random.default_rng(2).random(len(y)) < flips
    return x, (labels ^ flipped).astype("float32")


def stack(
    units: int,
    activation: str | None,
    hidden: str = "relu",
    depth: int = 2,
    shape: tuple[int, ...] = (64,),
    width: int = 32,
    **arguments: Any,
) -> keras.Model:
    """Build dense layers in a row."""
    between = [L.Dense(width, hidden, **arguments) for _ in range(depth)]
    return keras.Sequential([keras.Input(shape), *between, L.Dense(units, activation)])


def compiled(model: keras.Model, loss: Any, optimizer: Any = "adam", **options: Any) -> keras.Model:
    """Compile without XLA: compiling takes longer than training."""
    model.compile(optimizer, loss, jit_compile=False, **options)
    return model


def on_digits(model: keras.Model, *kinds: str, optimizer: Any = "adam", **more: Any) -> Program:
    """Train on digits with integer classes."""
    return Program(compiled(model, more.pop("loss", SPARSE), optimizer), *digits(), kinds, **more)


def on_binary(model: keras.Model, *kinds: str, loss: Any = BINARY, **more: Any) -> Program:
    """Train on two classes."""
    optimizer = more.pop("optimizer", "adam")
    return Program(compiled(model, loss, optimizer), *binary(), kinds, **more)


# Healthy.


def plain() -> Program:
    """MLP on digits."""
    return on_digits(stack(10, "softmax"))


def logits() -> Program:
    """Outputs without an activation, as the loss expects."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return on_digits(stack(10, None), loss=loss)


def slow() -> Program:
    """Plain gradient descent with a small learning rate."""
    return on_digits(stack(10, "softmax"), optimizer=keras.optimizers.SGD(0.01), epochs=15)


def two_sigmoids() -> Program:
    """Two hidden sigmoids, trained by Adam."""
    return on_digits(stack(10, "softmax", "sigmoid"), optimizer=keras.optimizers.Adam(0.01))


def convolutions() -> Program:
    """CNN on digits."""
    parts = [L.Conv2D(16, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dropout(0.3)]
    return on_digits(
        keras.Sequential([keras.Input((64,)), L.Reshape((8, 8, 1)), *parts, L.Dense(10, "softmax")])
    )


def recurrent() -> Program:
    """LSTM on the rows of digits."""
    return on_digits(
        keras.Sequential(
            [keras.Input((64,)), L.Reshape((8, 8)), L.LSTM(32), L.Dense(10, "softmax")]
        )
    )


def autoencoder() -> Program:
    """Autoencoder of fractions under binary cross-entropy."""
    x, _ = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    return Program(compiled(stack(64, "sigmoid"), BINARY), x, x, epochs=15)


def zero_head() -> Program:
    """A head of zeros."""
    model = stack(10, None)
    model.layers[-1].kernel.assign(np.zeros((32, 10)))
    return on_digits(
        model, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), epochs=8
    )


def residual() -> Program:
    """Residual branches that end in zeros."""
    inputs = keras.Input((64,))
    x = L.Dense(32)(inputs)
    for _ in range(8):
        branch = L.Dense(32, "relu", kernel_initializer="he_normal")(L.LayerNormalization()(x))
        x = x + L.Dense(32, kernel_initializer="zeros")(branch)
    return on_digits(keras.Model(inputs, L.Dense(10, "softmax")(x)))


def transformer() -> Program:
    """A block of attention on the rows of digits."""
    inputs = keras.Input((64,))
    x = L.Dense(16)(L.Reshape((8, 8))(inputs))
    x = x + L.MultiHeadAttention(2, 8)(*[L.LayerNormalization()(x)] * 2)
    x = x + L.Dense(16)(L.Dense(32, "gelu")(L.LayerNormalization()(x)))
    return on_digits(
        keras.Model(inputs, L.Dense(10, "softmax")(L.Flatten()(L.LayerNormalization()(x))))
    )


def noisy_labels() -> Program:
    """A fifth of the labels is wrong."""
    return Program(compiled(stack(1, "sigmoid", shape=(12,)), BINARY), *binary(0.2), epochs=12)


def imbalanced() -> Program:
    """One sample of twenty is of the second class."""
    model = compiled(stack(1, "sigmoid", shape=(12,)), BINARY)
    return Program(model, *binary(share=0.05), epochs=12)


def regression() -> Program:
    """Targets with as much noise as signal."""
    return Program(compiled(stack(1, None, shape=(12,)), "mse"), *table(1.0), epochs=12)


def absolute_errors() -> Program:
    """Regression by absolute errors."""
    return Program(compiled(stack(1, None, shape=(12,)), "mae"), *table(), epochs=12)


def fine_tuning() -> Program:
    """A new head on frozen layers that are trained."""
    base = on_digits(stack(10, "softmax"))
    base.model.fit(base.x, base.y, verbose=0)
    frozen = keras.Sequential(base.model.layers[:-1])
    frozen.trainable = False
    return on_digits(
        keras.Sequential([keras.Input((64,)), frozen, L.Dense(10, "softmax", name="new")])
    )


def two_heads() -> Program:
    """Two outputs with losses of their own."""
    inputs = keras.Input((64,))
    x = L.Dense(32, "relu")(inputs)
    outputs = [L.Dense(10, "softmax", name="digit")(x), L.Dense(1, "sigmoid", name="even")(x)]
    x, y = digits()
    model = compiled(keras.Model(inputs, outputs), [SPARSE, BINARY], loss_weights=[1.0, 0.5])
    return Program(model, x, [y, (y % 2 == 0).astype("float32")])


def embedding() -> Program:
    """Words as numbers, averaged."""
    rng = np.random.default_rng(3)
    words = rng.integers(0, 200, (2000, 12))
    y = ((words < 40).sum(axis=1) > 2).astype("float32")
    model = keras.Sequential(
        [L.Embedding(200, 8), L.GlobalAveragePooling1D(), L.Dense(1, "sigmoid")]
    )
    return Program(compiled(model, BINARY, keras.optimizers.Adam(0.01)), words, y, epochs=12)


class Adversaries(keras.Model):
    """A generator against a discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = stack(12, None, shape=(4,))
        self.discriminator = stack(1, None, shape=(12,))
        self.generator_optimizer = keras.optimizers.Adam(1e-3)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train the discriminator, then the generator."""
        import tensorflow as tf

        real = data[0] if isinstance(data, tuple) else data
        noise = keras.random.normal((keras.ops.shape(real)[0], 4))
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        with tf.GradientTape(persistent=True) as tape:
            judged = [self.discriminator(batch) for batch in (real, self.generator(noise))]
            ones, zeros = keras.ops.ones_like(judged[0]), keras.ops.zeros_like(judged[1])
            own = loss(ones, judged[0]) + loss(zeros, judged[1])
            fooled = loss(ones, judged[1])
        parts = (
            (self.optimizer, self.discriminator, own),
            (self.generator_optimizer, self.generator, fooled),
        )
        for optimizer, net, value in parts:
            variables = net.trainable_variables
            gradients = tape.gradient(value, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": own}


def adversaries() -> Program:
    """A GAN."""
    model = Adversaries()
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    return Program(model, table()[0], None)


HEALTHY: tuple[Callable[[], Program], ...] = (
    *(plain, logits, slow, two_sigmoids, convolutions, recurrent, autoencoder, zero_head),
    *(residual, transformer, noisy_labels, imbalanced, regression, absolute_errors, fine_tuning),
    *(two_heads, embedding, adversaries),
)

# Faulty.


def xavier_relu() -> Program:
    """Thirty ReLU layers with Xavier's weights."""
    rate = keras.optimizers.SGD(0.002, momentum=0.9)
    return on_digits(
        stack(10, "softmax", depth=30, width=64), "vanishing", "bad_start", optimizer=rate
    )


def five_sigmoids() -> Program:
    """Five sigmoid layers with plain gradient descent."""
    rate = keras.optimizers.SGD(0.01)
    return on_digits(
        stack(10, "softmax", "sigmoid", depth=5), "vanishing", "deep_sigmoids", optimizer=rate
    )


def dead() -> Program:
    """ReLUs that are all inactive."""
    start = keras.initializers.Constant(-100.0)
    return on_digits(stack(10, "softmax", bias_initializer=start), "dead_units", "no_gradient")


def zeros() -> Program:
    """Weights of zero."""
    model = stack(10, "softmax", kernel_initializer="zeros")
    return on_digits(model, "no_gradient", "equal_weights")


def rate_too_high() -> Program:
    """Adam with a learning rate of 1."""
    rate = keras.optimizers.Adam(1.0)
    return on_digits(stack(10, "softmax"), "learning_rate", "large_updates", optimizer=rate)


def rate_too_low() -> Program:
    """Adam with a learning rate of 1e-7."""
    rate = keras.optimizers.Adam(1e-7)
    return on_digits(stack(10, "softmax"), "small_updates", "learning_rate", optimizer=rate)


def rate_too_high_for_numbers() -> Program:
    """Plain gradient descent on targets with a large scale."""
    x, y = table()
    model = compiled(stack(1, None, shape=(12,)), "mse", keras.optimizers.SGD(0.1))
    return Program(model, x, 1000 * y, ("target_scale", "nonfinite", "rising_loss", "exploding"))


def raw_inputs() -> Program:
    """Inputs of thousands."""
    program = on_binary(stack(1, "sigmoid", "tanh", shape=(12,)), "input_scale")
    return program._replace(x=program.x * 3 + 4000)


def softmax_of_one() -> Program:
    """A softmax over one unit."""
    return on_binary(stack(1, "softmax", shape=(12,)), "single_unit_softmax")


def relu_head() -> Program:
    """A ReLU as the output of a probability."""
    return on_binary(stack(1, "relu", shape=(12,)), "head_activation")


def sigmoids_for_classes() -> Program:
    """Labels up to 9 for one sigmoid."""
    return on_digits(stack(1, "sigmoid"), "target_range", "label_form", loss=BINARY)


def no_logits() -> Program:
    """Outputs without an activation, under a loss of probabilities."""
    return on_digits(stack(10, None), "logits")


def strong_penalty() -> Program:
    """An L2 penalty heavier than the loss."""
    model = stack(10, "softmax", depth=4, kernel_regularizer=keras.regularizers.L2(3.0))
    return on_digits(model, "strong_penalty")


def shuffled() -> Program:
    """Targets in another order than the inputs."""
    program = on_binary(stack(1, "sigmoid", shape=(12,), width=4), "not_learning")
    return program._replace(y=np.random.default_rng(0).permutation(program.y), epochs=10)


def nan_inputs() -> Program:
    """NaN in some samples."""
    program = on_binary(stack(1, "sigmoid", shape=(12,)), "bad_numbers", "nonfinite")
    x = program.x.copy()
    x[::100, 3] = np.nan
    return program._replace(x=x)


def too_short() -> Program:
    """Two epochs of large batches."""
    rate = keras.optimizers.SGD(0.01)
    return on_digits(stack(10, "softmax"), "ended_early", optimizer=rate, epochs=3, batch=64)


FAULTY: tuple[Callable[[], Program], ...] = (
    *(xavier_relu, five_sigmoids, dead, zeros, rate_too_high, rate_too_low),
    *(rate_too_high_for_numbers, raw_inputs, softmax_of_one, relu_head),
    *(sigmoids_for_classes, no_logits, strong_penalty, shuffled, nan_inputs, too_short),
)


def train(
    build: Callable[[], Program], seed: int, every: int
) -> tuple[Program, list[Finding], Any]:
    """Train a program; return its findings and its record."""
    keras.utils.set_random_seed(seed)
    program = build()
    monitor = GradientMonitor(every_n_steps=every)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program.model.fit(
            program.x, program.y, program.batch, program.epochs, verbose=0, callbacks=[monitor]
        )
    history = monitor.history
    steps = program.epochs * -(-len(program.x) // program.batch)
    history.setup = history.setup or read_setup(program.model, steps)
    return program, judge(history, ended=True), history


def main() -> None:
    """Train all programs, print their findings, and count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", help="a part of the programs' names")
    arguments = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    for build in (*HEALTHY, *FAULTY):
        if arguments.only not in build.__name__:
            continue
        for seed in arguments.seeds:
            begin = time.monotonic()
            program, found, history = train(build, seed, arguments.every)
            told = [finding for finding in found if finding.severity != "note" or program.kinds]
            loss = history["loss"][-1].mean()
            first = told[0].kind if told else ""
            is_faulty = build in FAULTY
            counts["faulty" if is_faulty else "healthy"] += 1
            counts["found" if is_faulty else "accused"] += bool(told)
            counts["right"] += is_faulty and first in program.kinds
            mark = "" if (first in program.kinds if is_faulty else not told) else "  <--"
            words = "; ".join(f"{f.kind}@{f.step} {f.layer}" for f in found) or "-"
            seconds = time.monotonic() - begin
            print(f"{build.__name__:26}{seed:3}{seconds:5.0f} s  loss {loss:8.3g}  {words}{mark}")
            keras.backend.clear_session()
    print(
        f"found {counts['found']} of {counts['faulty']}, the right kind first in "
        f"{counts['right']}; accused {counts['accused']} of {counts['healthy']}"
    )


if __name__ == "__main__":
    main()
