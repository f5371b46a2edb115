"""Cost of GradientMonitor and of its peers: step time with each, relative to without.

    python -m benchmarks.monitor_overhead                      # every model, graph and XLA
    python -m benchmarks.monitor_overhead --models mlp cnn --modes graph --peers
    KERAS_BACKEND=jax python -m benchmarks.monitor_overhead    # or torch
    python -m benchmarks.monitor_overhead --write              # the rows into the docs, too

One `fit` trains a model on batches of 64, in epochs of 50 steps. Every five steps another one has
its turn, in random order: no callback, the monitor with some settings, a peer; so what else the
machine does falls on all alike. A figure is the time of a step relative to one without: the median
of steps that are recorded and that of the others, weighted as the settings say; and the mean of
the time in the callback (which moves records to the host, judges and logs them), after the first
tenth of the run: a training begins once, and its first record is judged at once. All that is on the
training thread: what the log's own thread does is measured by `log.py`. Behind ± is
the standard error, from ten parts of the run. Beside them is the step itself, and the limit: one
pass over the gradients, of which every norm is made, at the speed of a plain sum over an array that
no cache holds (NumPy, one core).

Peers: `keras.callbacks.TensorBoard(histogram_freq=1)`; a callback that computes gradients of a
sample batch anew with a `GradientTape`, at every 10th step; and Weights & Biases'
`WandbMetricsLogger`, offline, which logs no gradients (where wandb is installed).
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import keras
import numpy as np

from benchmarks.tables import print_row
from keras_initkit.callbacks import GradientMonitor

BATCH, STEPS, TURN, PARTS, FIRST_STEP = 64, 50, 5, 10, 225
BACKEND = keras.backend.backend()
MODES = {
    "tensorflow": {"graph": "TensorFlow, graph", "xla": "TensorFlow, XLA"},
    "jax": {"jit": "JAX"},
    "torch": {"eager": "PyTorch"},
}[BACKEND]
TITLES = {
    "mlp": "20 dense layers of 256",
    "thin": "200 thin layers",
    "cnn": "residual network of 14 convolutions",
    "transformer": "two transformer blocks",
}
# The columns of the first table in the docs, and those of the peers'.
OURS = (
    "by default",
    "every 10th step",
    "`spikes=True`",
    "every step, gradients only",
    "every step, all",
)
PEERS = (
    "`keras.callbacks.TensorBoard(histogram_freq=1)`",
    "gradients anew, every 10th step",
    "`WandbMetricsLogger`, offline",
)
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
    return encoder(2, 64)


def encoder(blocks: int, tokens: int) -> keras.Model:
    """Encoder blocks of width 64 on sequences of some tokens, 64 numbers together."""
    inputs = keras.Input((64,))
    x = layers.Dense(64)(layers.Reshape((tokens, 64 // tokens))(inputs))
    for _ in range(blocks):
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


class Measured(NamedTuple):
    """A measured variant: a callback, or none, and every how many steps it works."""

    callback: keras.callbacks.Callback | None
    every_n_steps: int | None = None


class Step(NamedTuple):
    """A timed step."""

    part: int
    is_recorded: bool
    seconds: float


class TakingTurns(keras.callbacks.Callback):
    """Has every few steps be trained with another callback, and times them."""

    # On JAX what would be timed is else the handing over of a step, not the step.
    async_safe = BACKEND != "jax"

    def __init__(self, measured: dict[str, Measured], rounds: int) -> None:
        super().__init__()
        self.measured = measured
        rng = np.random.default_rng(0)
        turns = [name for _ in range(rounds) for name in rng.permutation(list(measured))]
        self.order = [name for name in turns for _ in range(TURN)]
        self.steps: dict[str, list[Step]] = {name: [] for name in measured}
        # Time in hooks: of batches, which a callback has in its turns; of epochs, which all have;
        # and in those of no account.
        self.batches = dict.fromkeys(measured, 0.0)
        self.epochs = dict.fromkeys(measured, 0.0)
        self.others = dict.fromkeys(measured, 0.0)
        self.compiled: set[str] = set()
        self.step = 0

    @property
    def name(self) -> str:
        """The variant on turn."""
        return self.order[min(self.step, len(self.order) - 1)]

    @property
    def part(self) -> int:
        """The part of the run."""
        return self.step * PARTS // len(self.order)

    def pass_on(self, hook: str, *args: Any, seconds: dict[str, float], name: str = "") -> None:
        """Call a hook of one callback, or of all, and add the time to `seconds`."""
        for key in [name] if name else self.measured:
            if callback := self.measured[key].callback:
                start = time.perf_counter()
                getattr(callback, hook)(*args)
                if self.part:
                    seconds[key] += time.perf_counter() - start

    def set_model(self, model: Any) -> None:
        """Pass on."""
        super().set_model(model)
        self.pass_on("set_params", self.params, seconds=self.others)
        self.pass_on("set_model", model, seconds=self.others)

    def on_train_begin(self, logs: Any = None) -> None:
        """Pass on."""
        self.pass_on("on_train_begin", logs, seconds=self.others)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Pass on."""
        self.pass_on("on_epoch_begin", epoch, logs, seconds=self.epochs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Pass on, and begin to time a step."""
        hook = "on_train_batch_begin"
        self.pass_on(hook, batch, logs, seconds=self.batches, name=self.name)
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop timing it, and pass on."""
        seconds = time.perf_counter() - self.start
        every_n_steps = self.measured[self.name].every_n_steps
        acts = every_n_steps is not None and (FIRST_STEP + self.step) % every_n_steps == 0
        # The first that is recorded is compiled.
        if self.name in self.compiled or not acts:
            self.steps[self.name].append(Step(self.part, acts, seconds))
        if acts:
            self.compiled.add(self.name)
        hook = "on_train_batch_end"
        self.pass_on(hook, batch, logs, seconds=self.batches, name=self.name)
        self.step += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Pass on."""
        self.pass_on("on_epoch_end", epoch, logs, seconds=self.epochs)

    def on_train_end(self, logs: Any = None) -> None:
        """Pass on."""
        self.pass_on("on_train_end", logs, seconds=self.others)

    def figures(self) -> dict[str, tuple[float, float]]:
        """Time of a step with each callback relative to one without, and its standard error."""
        whole = range(PARTS)
        without = self.seconds("without", whole)
        figures = {}
        for name in self.measured:
            if name == "without":
                continue
            turns = sum(step.part > 0 for step in self.steps[name])
            all_turns = self.step * (PARTS - 1) / PARTS
            hooks = self.batches[name] / turns + self.epochs[name] / all_turns
            ratio = (self.seconds(name, whole) + hooks) / without
            ratios = [self.seconds(name, [i]) / self.seconds("without", [i]) for i in whole]
            figures[name] = ratio, statistics.stdev(ratios) / PARTS**0.5
        return figures

    def seconds(self, name: str, parts: Sequence[int]) -> float:
        """Time of a step in some parts of the run: the medians of both kinds, weighted."""
        every_n_steps = self.measured[name].every_n_steps
        share = 1 / every_n_steps if every_n_steps else 0.0
        steps = [step for step in self.steps[name] if step.part in parts]
        recorded = [step.seconds for step in steps if step.is_recorded]
        others = [step.seconds for step in steps if not step.is_recorded]
        if not (recorded and others):
            return statistics.median(recorded or others)
        return share * statistics.median(recorded) + (1 - share) * statistics.median(others)


def read_speed() -> float:
    """Measure how fast memory is read, in bytes a second: the best of five sums."""
    array, seconds = np.ones(2**26, np.float32), []
    for _ in range(5):
        start = time.perf_counter()
        array.sum()
        seconds.append(time.perf_counter() - start)
    return array.nbytes / min(seconds)


def compared(log_dir: Path, x: np.ndarray, y: np.ndarray, peers: bool) -> dict[str, Measured]:
    """Return the measured variants by the heading of their column."""
    free = ["max_abs", "zeros", "dead_units"]
    every_step = GradientMonitor(log_dir / "free", every_n_steps=1, statistics=free)
    ours = (
        Measured(GradientMonitor(log_dir / "default"), 50),
        Measured(GradientMonitor(log_dir / "tenth", every_n_steps=10), 10),
        Measured(GradientMonitor(log_dir / "spikes", spikes=True), 50),
        Measured(every_step, 1),
        Measured(GradientMonitor(log_dir / "all", every_n_steps=1), 1),
    )
    measured = {"without": Measured(None), **dict(zip(OURS, ours, strict=True))}
    if peers:
        tensorboard = keras.callbacks.TensorBoard(log_dir / "keras", histogram_freq=1)
        measured[PEERS[0]] = Measured(tensorboard)
        if BACKEND == "tensorflow":
            measured[PEERS[1]] = Measured(RecomputedGradients(x, y, 10))
        if importlib.util.find_spec("wandb"):
            import wandb
            from wandb.integration.keras import WandbMetricsLogger

            wandb.init(project="overhead", dir=log_dir)
            measured[PEERS[2]] = Measured(WandbMetricsLogger(log_freq=10))
    return measured


def figures(
    make: Callable[[], keras.Model], mode: str, rounds: int, peers: bool
) -> tuple[float, float, dict[str, tuple[float, float]]]:
    """Measure a model.

    Returns:
        Seconds of a step; the limit relative to it; and by callback the time of a step relative to
        one without, and its standard error.
    """
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * STEPS, 64)).astype("float32")
    y = rng.integers(0, 10, len(x)).astype("int32")
    model = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss, jit_compile=mode in ("xla", "jit"))
    # Past the steps that the default schedule records more densely; and an odd number, so that
    # what is recorded is not always the first step of an epoch, which is a slow one.
    x_before, y_before = (np.resize(a, (FIRST_STEP * BATCH, *a.shape[1:])) for a in (x, y))
    model.fit(x_before, y_before, BATCH, shuffle=False, verbose=0)
    with tempfile.TemporaryDirectory() as log_dir:
        measured = compared(Path(log_dir), x[:BATCH], y[:BATCH], peers)
        turns = TakingTurns(measured, rounds)
        epochs = len(turns.order) // STEPS
        model.fit(x, y, BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=[turns])
    step = turns.seconds("without", range(PARTS))
    size = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return step, 1 + 4 * size / read_speed() / step, turns.figures()


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--peers", action="store_true", help="measure the peers as well")
    parser.add_argument("--write", action="store_true", help="write the rows into the docs")
    arguments = parser.parse_args()
    for name in arguments.models:
        for mode in arguments.modes:
            step, limit, measured = figures(MODELS[name], mode, arguments.rounds, arguments.peers)
            told = {key: f"{ratio:.2f} ± {error:.2f}" for key, (ratio, error) in measured.items()}
            row = [TITLES[name], MODES[mode]]
            ours = [f"{1e3 * step:.1f} ms", f"{limit:.2f}", *(told[key] for key in OURS)]
            print_row("step", [*row, *ours], arguments.write and not arguments.peers)
            if arguments.peers:
                theirs = [told.get(key, "not measured") for key in PEERS]
                print_row("peers", [*row, told[OURS[0]], *theirs], arguments.write)


if __name__ == "__main__":
    main()
