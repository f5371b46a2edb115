"""What GradientMonitor costs, and what its peers cost: step time with each, relative to without.

    python benchmarks/monitor_overhead.py                      # every model, graph and XLA
    python benchmarks/monitor_overhead.py --models mlp cnn --modes graph --peers
    KERAS_BACKEND=jax python benchmarks/monitor_overhead.py    # or torch

One `fit` trains a model on batches of 64. Its epochs of 50 steps take turns: without a callback,
with the monitor's settings, with the peers. A figure is the median over epochs, relative to the
median without. Peers: `keras.callbacks.TensorBoard(histogram_freq=1)`; a callback that computes
gradients of a sample batch anew with a `GradientTape`, at every 10th step; and Weights & Biases'
`WandbMetricsLogger`, offline, which logs no gradients (where wandb is installed).
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import keras
import numpy as np

from keras_initkit.callbacks import GradientMonitor

BATCH, STEPS = 64, 50
BACKEND = keras.backend.backend()
MODES = {"tensorflow": ("graph", "xla"), "jax": ("jit",), "torch": ("eager",)}[BACKEND]
layers = keras.layers


def mlp() -> keras.Model:
    """20 layers of 256 units: 1.3 million parameters."""
    hidden = [layers.Dense(256, "relu") for _ in range(20)]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])


def thin() -> keras.Model:
    """200 layers of 32 units: the cost of many small variables."""
    hidden = [layers.Dense(32, "relu") for _ in range(200)]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])


def cnn() -> keras.Model:
    """A residual network of 14 convolutions on 16x16 images."""
    inputs = keras.Input((64,))
    x = layers.Conv2D(32, 3, padding="same")(layers.Reshape((8, 8, 1))(inputs))
    x = layers.UpSampling2D()(x)
    for filters in (32, 32, 64):
        if x.shape[-1] != filters:
            x = layers.Conv2D(filters, 1, strides=2)(x)
        for _ in range(2):
            y = layers.Activation("relu")(layers.BatchNormalization()(x))
            y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
            y = layers.Activation("relu")(layers.BatchNormalization()(y))
            x = layers.Add()([x, layers.Conv2D(filters, 3, padding="same")(y)])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def transformer() -> keras.Model:
    """Two encoder blocks of width 64 on sequences of 64 tokens."""
    inputs = keras.Input((64,))
    x = layers.Dense(64)(layers.Reshape((64, 1))(inputs))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 16)(y, y)])
        y = layers.Dense(256, "gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(64)(y)])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


MODELS: dict[str, Callable[[], keras.Model]] = {
    model.__name__: model for model in (mlp, thin, cnn, transformer)
}


class RecomputedGradients(keras.callbacks.Callback):
    """The usual recipe: gradients of a sample batch, computed anew beside the training."""

    async_safe = True

    def __init__(self, x: np.ndarray, y: np.ndarray, every_n_steps: int) -> None:
        super().__init__()
        self.batch, self.every_n_steps = (x, y), every_n_steps
        self.norms: list[list[float]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Compute and keep the norms."""
        import tensorflow as tf

        if batch % self.every_n_steps:
            return
        x, y = self.batch
        with tf.GradientTape() as tape:
            loss = self.model.compute_loss(y=y, y_pred=self.model(x, training=True))
        gradients = tape.gradient(loss, self.model.trainable_weights)
        self.norms.append([float(tf.norm(gradient)) for gradient in gradients])


class TakingTurns(keras.callbacks.Callback):
    """Has each epoch be trained with another callback, and times it."""

    async_safe = True

    def __init__(self, callbacks: dict[str, keras.callbacks.Callback | None]) -> None:
        super().__init__()
        self.callbacks = callbacks
        self.times: dict[str, list[float]] = {name: [] for name in callbacks}
        self.now: keras.callbacks.Callback | None = None

    def set_model(self, model: Any) -> None:
        """Pass on."""
        super().set_model(model)
        for callback in filter(None, self.callbacks.values()):
            callback.set_params(self.params)
            callback.set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Pass on."""
        for callback in filter(None, self.callbacks.values()):
            callback.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin to time, and pass on to the one whose turn it is."""
        self.name = list(self.callbacks)[epoch % len(self.callbacks)]
        self.now = self.callbacks[self.name]
        self.start = time.perf_counter()
        if self.now:
            self.now.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Pass on."""
        if self.now:
            self.now.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Pass on."""
        if self.now:
            self.now.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Pass on, and stop timing."""
        if self.now:
            self.now.on_epoch_end(epoch, logs)
        self.times[self.name].append(time.perf_counter() - self.start)

    def on_train_end(self, logs: Any = None) -> None:
        """Pass on."""
        for callback in filter(None, self.callbacks.values()):
            callback.on_train_end(logs)


def compared(
    log_dir: Path, x: np.ndarray, y: np.ndarray, peers: bool
) -> dict[str, keras.callbacks.Callback | None]:
    """What is measured, by the heading of its column."""
    free = ["max_abs", "zeros", "dead_units"]
    callbacks: dict[str, keras.callbacks.Callback | None] = {
        "without": None,
        "default": GradientMonitor(log_dir / "default"),
        "every 10th step": GradientMonitor(log_dir / "tenth", every_n_steps=10),
        "every step, gradients only": GradientMonitor(
            log_dir / "free", every_n_steps=1, statistics=free
        ),
        "every step, all": GradientMonitor(log_dir / "all", every_n_steps=1),
    }
    if peers:
        callbacks["TensorBoard(histogram_freq=1)"] = keras.callbacks.TensorBoard(
            log_dir / "keras", histogram_freq=1
        )
        if BACKEND == "tensorflow":
            callbacks["GradientTape, every 10th"] = RecomputedGradients(x, y, 10)
        if importlib.util.find_spec("wandb"):
            import wandb
            from wandb.integration.keras import WandbMetricsLogger

            wandb.init(project="overhead", dir=log_dir)
            callbacks["WandbMetricsLogger"] = WandbMetricsLogger(log_freq=10)
    return callbacks


def ratios(
    make: Callable[[], keras.Model], mode: str, rounds: int, peers: bool
) -> dict[str, float]:
    """Median time of an epoch with each callback, relative to one without."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * STEPS, 64)).astype("float32")
    y = rng.integers(0, 10, len(x)).astype("int32")
    model = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss, jit_compile=mode in ("xla", "jit"))
    with tempfile.TemporaryDirectory() as log_dir:
        turns = TakingTurns(compared(Path(log_dir), x[:BATCH], y[:BATCH], peers))
        epochs = (rounds + 1) * len(turns.callbacks)  # in the first round all is compiled
        model.fit(x, y, BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=[turns])
    medians = {name: statistics.median(times[1:]) for name, times in turns.times.items()}
    return {name: time / medians["without"] for name, time in medians.items() if name != "without"}


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", action="store_true", help="measure the peers as well")
    arguments = parser.parse_args()
    heading = True
    for name in arguments.models:
        for mode in arguments.modes:
            figures = ratios(MODELS[name], mode, arguments.rounds, arguments.peers)
            if heading:
                print(f"| model | {BACKEND} | {' | '.join(figures)} |")
                print("|---" * (len(figures) + 2) + "|")
            heading = False
            cells = " | ".join(f"{figure:.3f}" for figure in figures.values())
            print(f"| {name} | {mode} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
