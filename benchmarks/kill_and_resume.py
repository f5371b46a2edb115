"""Kill trainings at random moments, resume them, and look for recorded steps that are missing.

python -m benchmarks.kill_and_resume                # 24 rounds, in about 2 minutes
python -m benchmarks.kill_and_resume --rounds 500 --seed 1

In each round a process trains with a monitor and saves a checkpoint every 20 steps, in one of the
ways of `WAYS`; it is killed by SIGKILL; another process goes on from the checkpoint. Before and
after that, the log must hold each step of the schedule, up to the checkpoint at least, and its
notes must not name a gap. `BackupAndRestore` writes its file in place: a kill can damage it, and
training then begins at 0, in a run of its own. The exit code is 1 if a step is missing.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_initkit import read_log
from keras_initkit.callbacks import GradientMonitor

WAYS = ("BackupAndRestore", "save, os.replace", "tf.train.Checkpoint")
EVERY = (1, 3, 10)
EPOCHS, STEPS_PER_EPOCH, BATCH, STEPS_PER_CHECKPOINT = 4, 40, 8, 20
SECONDS_A_STEP, MOST_SECONDS = 0.005, 60


class Tick(keras.callbacks.Callback):
    """Says how far training is, keeps its first step, and slows it down."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.first = folder, -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keep the step that training begins with."""
        if self.first < 0:
            self.first = int(self.model.optimizer.iterations)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Wait, as for a larger model."""
        with open(self.folder / "progress", "ab") as file:
            file.write(b".")
        time.sleep(SECONDS_A_STEP)


class Save(keras.callbacks.Callback):
    """Saves a checkpoint as a whole or not at all."""

    def __init__(self, folder: Path, way: str) -> None:
        super().__init__()
        self.folder, self.way = folder, way

    def on_train_begin(self, logs: Any = None) -> None:
        """Go on from the last checkpoint."""
        tracked = tf.train.Checkpoint(model=self.model)
        self.manager = tf.train.CheckpointManager(tracked, self.folder / "tf", max_to_keep=2)
        if self.way == "tf.train.Checkpoint":
            self.manager.restore_or_initialize()
        elif (self.folder / "last.weights.h5").exists():
            self.model.optimizer.build(self.model.trainable_variables)
            self.model.load_weights(self.folder / "last.weights.h5")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save every so many steps."""
        if batch % STEPS_PER_CHECKPOINT != STEPS_PER_CHECKPOINT - 1:
            return
        if self.way == "tf.train.Checkpoint":
            self.manager.save()
        else:
            self.model.save_weights(self.folder / "next.weights.h5")
            os.replace(self.folder / "next.weights.h5", self.folder / "last.weights.h5")


def train(folder: Path, way: str, every: int) -> None:
    """Train to the end, from the last checkpoint if there is one; keep first and last step."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(BATCH * STEPS_PER_EPOCH, 8)).astype("float32")
    tick, saver = Tick(folder), Save(folder, way)
    if way == "BackupAndRestore":
        saver = keras.callbacks.BackupAndRestore(
            folder / "backup", STEPS_PER_CHECKPOINT, delete_checkpoint=False
        )
    callbacks = [GradientMonitor(folder / "log", every), saver, tick]
    model.fit(x, x[:, :1], BATCH, EPOCHS, verbose=0, callbacks=callbacks)
    steps = tick.first, int(model.optimizer.iterations) - 1
    (folder / "steps.json").write_text(json.dumps(steps))


def start(*args: Any) -> int:
    """Train in a process of its own; return its number."""
    child = os.fork()  # nothing has run yet: TensorFlow has no threads
    if child:
        return child
    try:
        train(*args)
    except BaseException:
        traceback.print_exc(limit=1)
        os._exit(1)
    os._exit(0)


def try_once(way: str, every: int, rng: random.Random) -> dict[str, Any]:
    """Kill a training and resume it; return what was found."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (progress := folder / "progress").touch()
        child, end = start(folder, way, every), time.monotonic() + MOST_SECONDS
        killed = rng.randrange(1, EPOCHS * STEPS_PER_EPOCH)
        while progress.stat().st_size < killed and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 2 * SECONDS_A_STEP))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        logged = [run for run in (folder / "log").glob("gradients*") if any(run.iterdir())]
        before = read_log(folder / "log").steps.tolist() if logged else []
        damaged = os.waitpid(start(folder, way, every), 0)[1] != 0
        if damaged:  # only its own callback can know that
            shutil.rmtree(folder / "backup")
            os.waitpid(start(folder, way, every), 0)
        first, last = json.loads((folder / "steps.json").read_text())
        history = read_log(folder / "log")
        missing = set(range(0, last + 1, every)) - set(history.steps.tolist())
        whole = before == list(range(0, len(before) * every, every))
        gaps = [note for note in history.notes if "Not in the log" in note]
        return {
            "way": way,
            "every": every,
            "killed after step": killed,
            "last record": before[-1] if before else "-",
            "resumed at": f"{first}{' (damaged)' if damaged else ''}",
            "last": int(history.steps[-1]),
            "missing": len(missing) + len(gaps) + (not whole),
        }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, missing = random.Random(options.seed), 0
    for number in range(options.rounds):
        row = try_once(WAYS[number % 3], EVERY[number // 3 % 3], rng)
        missing += row["missing"]
        print(", ".join(f"{name}: {value}" for name, value in row.items()), flush=True)
    print(f"{options.rounds} rounds, missing: {missing}")
    sys.exit(missing > 0)


if __name__ == "__main__":
    main()
