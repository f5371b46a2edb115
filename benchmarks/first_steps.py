"""Time from `fit` to the end of step 40 with GradientMonitor, relative to without.

    python -m benchmarks.first_steps                       # every model, graph and XLA
    python -m benchmarks.first_steps --models mlp --modes graph
    KERAS_BACKEND=jax python -m benchmarks.first_steps     # or torch
    python -m benchmarks.first_steps --rounds 5 --seconds 600   # of a row, at most about so many
    python -m benchmarks.first_steps --write               # the rows into the docs, too

What a user feels first is tracing and compiling. Each figure is of fresh processes, with and
without in turn: the ratio of the medians, of seconds and of CPU seconds. A callback on both sides
takes them when step 40 has ended, so what is done after a training is not in them. Batches have 64
samples, those of `resnet50` 8: with 64 its steps would take all the time, not their compilation.
Every training has the metric of classifiers. The first hundred steps are recorded each by default.
Behind ± is half the distance of the extremes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.monitor_overhead import BATCH, MODELS, MODES, TITLES, encoder
from benchmarks.tables import print_row
from keras_initkit.callbacks import GradientMonitor

STEPS = 40
layers = keras.layers


def resnet50() -> keras.Model:
    """ResNet50 on images of 32x32."""
    inputs = keras.Input((64,))
    x = layers.UpSampling2D(4)(layers.Reshape((8, 8, 1))(inputs))
    x = layers.Concatenate()([x, x, x])
    network = keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None
    )
    return keras.Model(inputs, network(x))


ALL_MODELS: dict[str, Callable[[], keras.Model]] = {
    **MODELS,
    "resnet50": resnet50,
    "encoder": lambda: encoder(12, 16),
}
ALL_TITLES = {
    **TITLES,
    "resnet50": "ResNet50 on 32x32, batches of 8",
    "encoder": "encoder of 12 blocks, 16 tokens",
}


class Clock(keras.callbacks.Callback):
    """Takes the times at the end of the only epoch, before callbacks after it have their turn."""

    async_safe = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Take them."""
        self.end = time.perf_counter(), time.process_time()


def train(name: str, mode: str, callback: str) -> tuple[float, float]:
    """Train for 40 steps; return the seconds that passed and those of the CPU."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    batch, clock = 8 if name == "resnet50" else BATCH, Clock()
    x = rng.normal(size=(batch * STEPS, 64)).astype("float32")
    y = rng.integers(0, 10, len(x)).astype("int32")
    model = ALL_MODELS[name]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    jit_compile = mode in ("xla", "jit")
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=jit_compile)
    with tempfile.TemporaryDirectory() as log_dir:
        every_n_steps = 1 if callback == "every step" else None
        monitor = GradientMonitor(log_dir, every_n_steps=every_n_steps)
        callbacks = [clock] if callback == "without" else [clock, monitor]
        start = time.perf_counter(), time.process_time()
        model.fit(x, y, batch, verbose=0, callbacks=callbacks)
    return clock.end[0] - start[0], clock.end[1] - start[1]


def measure(name: str, mode: str, rounds: int, most: float) -> list[str]:
    """Run processes in turn; return a cell for each way to monitor, and the seconds without.

    No round begins after `most` seconds, and a process is stopped that takes as long: then there
    are no cells.
    """
    ways, begun = ("without", "default", "every step"), time.monotonic()
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        if found["without"] and time.monotonic() - begun > most:
            break
        for way in ways:
            command = [sys.executable, "-m", "benchmarks.first_steps", "--one", name, mode, way]
            try:
                result = subprocess.run(
                    command, capture_output=True, text=True, check=True, timeout=most
                )
            except subprocess.TimeoutExpired:
                return []
            found[way].append(json.loads(result.stdout.splitlines()[-1]))
    medians = {way: [statistics.median(c) for c in zip(*found[way], strict=True)] for way in ways}
    seconds, cpu = medians["without"]
    cells = [f"{seconds:.1f} s, {cpu:.1f} s"]
    for way in ways[1:]:
        spread = [max(c) - min(c) for c in zip(*found[way], strict=True)]
        triples = zip(medians[way], (seconds, cpu), spread, strict=True)
        cells.append(", ".join(_tell(x / plain, s / 2 / plain) for x, plain, s in triples))
    return cells


def _tell(ratio: float, error: float) -> str:
    """Tell a ratio; of a single round no error is known."""
    return f"{ratio:.2f} ± {error:.2f}" if error else f"{ratio:.2f}"


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=ALL_MODELS, default=list(ALL_MODELS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600, help="of a row, at most")
    parser.add_argument("--write", action="store_true", help="write the rows into the docs")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(train(*arguments.one)))
        return
    for name in arguments.models:
        for mode in arguments.modes:
            row = [ALL_TITLES[name], MODES[mode]]
            cells = measure(name, mode, arguments.rounds, arguments.seconds)
            if cells:
                print_row("first steps", [*row, *cells], arguments.write)
            else:
                print(f"| {' | '.join(row)} | more than {arguments.seconds:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
