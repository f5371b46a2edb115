"""Cost of GradientMonitor on a GPU, on JAX and PyTorch: three models, a table of ratios.

    benchmarks/gpu.sh [--wheels FOLDER]     # all of it
    python -m benchmarks.gpu --backends torch --models mlp

On JAX each model has two processes. The first trains without the monitor, the second with it: both
measure the time from `fit` to the end of step 40, compiling included, and the peak of the device's
memory. On PyTorch, where nothing is compiled, one process does. It then trains on in turns of 50
steps (of 20, where a step takes long): without the monitor, and with it at every 50th step (as by
default after the first 200), every 10th, every step, and every 50th with `spikes=True`. A figure is
the median time of a step relative to the median without; behind ± is half the distance of the
quartiles. Records are read after a turn, in training every few seconds: how long that takes for one
record, of a turn with one at every step, has its own column. Batches lie on the device, so that no
copy from the host hides the monitor's cost.

Counted are the reads of the device in steps, which wait for it. And the recorded norms of the dense
layers are compared with gradients computed by the framework itself: before the turns, since a batch
that is learned by heart has gradients which the rounding of another program changes.

What is not timed is kept short. A process imports what it needs while the one before it measures.
The plain step that the first process on JAX has compiled is not compiled again by the second, whose
own steps are: only whole programs that take a second are kept, and no tuning of their parts.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

MODELS = ("mlp", "gpt", "resnet50")
TITLES = {
    "mlp": "20 dense layers of 4,096, batch 512, float32",
    "gpt": "GPT of 12 blocks of 768, 8 x 512 tokens, mixed_bfloat16",
    "resnet50": "ResNet50, batch 64, mixed_bfloat16",
}
# Steps from one record to the next; 0 is without the monitor.
EVERY = {"without": 0, "by default": 50, "every 10th step": 10, "every step": 1, "spikes": 50}
TURN, SHORT_TURN, UNTIMED, FIRST = 50, 20, 5, 40
# Seconds of a step from which on turns are short; the least and greatest number of turns of a kind.
LONG_STEP, ROUNDS = 0.02, (3, 9)


class Job(NamedTuple):
    """What a process measures."""

    backend: str
    model: str
    part: str  # "without" or "with" the monitor


def import_all(backend: str) -> None:
    """Import what a measurement needs; the device is not touched."""
    import keras

    import keras_initkit.callbacks

    assert keras.backend.backend() == backend
    assert keras_initkit.callbacks is not None


def make_model(name: str, small: bool) -> tuple[Any, Any, Any]:
    """Return a compiled model and a batch for it, on the device; `small` is to try the script."""
    import keras
    import numpy as np

    layers, rng = keras.layers, np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    if name != "mlp":
        keras.config.set_dtype_policy("mixed_bfloat16")
    if name == "mlp":
        width = 32 if small else 4096
        hidden = [layers.Dense(width, "relu", kernel_initializer="he_normal") for _ in range(20)]
        model = keras.Sequential([keras.Input((width,)), *hidden, layers.Dense(10)])
        x = rng.normal(size=(512, width)).astype("float32")
        y = rng.integers(0, 10, len(x))
    elif name == "gpt":
        width, tokens, blocks, words = (16, 8, 2, 50) if small else (768, 512, 12, 8192)
        model = make_gpt(width, tokens, blocks, words)
        x = rng.integers(0, words, (8, tokens)).astype("int32")
        y = rng.integers(0, words, (8, tokens))
    else:
        side = 32 if small else 224
        model = keras.applications.ResNet50(
            weights=None, input_shape=(side, side, 3), classes=1000, classifier_activation=None
        )
        x = rng.normal(size=(2 if small else 64, side, side, 3)).astype("float32")
        y = rng.integers(0, 1000, len(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # PyTorch's own compiler is not measured here.
    compiles = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.Adam(1e-4), loss, jit_compile=compiles)
    return model, keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y.astype("int32"))


def make_gpt(width: int, tokens: int, blocks: int, words: int) -> Any:
    """Build a decoder with causal attention and learned positions."""
    import keras

    layers = keras.layers

    class Positions(keras.layers.Layer):
        """Adds a vector for each place."""

        def build(self, shape: Any) -> None:
            self.table = self.add_weight(shape[1:], "random_normal")

        def call(self, x: Any) -> Any:
            return x + self.table

    inputs = keras.Input((tokens,), dtype="int32")
    x = Positions()(layers.Embedding(words, width)(inputs))
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        heads = max(1, width // 64)
        x = x + layers.MultiHeadAttention(heads, width // heads)(y, y, use_causal_mask=True)
        y = layers.Dense(4 * width, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(width)(y)
    return keras.Model(inputs, layers.Dense(words)(layers.LayerNormalization()(x)))


def wait() -> None:
    """Wait until the device has done all that it was given."""
    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def read_peak(reset: bool = False) -> float:
    """Return the peak of the device's memory in GB; on PyTorch it can be reset."""
    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

        if reset and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e9


def name_card() -> str:
    """Return the device's name and the versions."""
    import keras

    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

        card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        return f"{card}, torch {torch.__version__}, keras {keras.__version__}"
    import jax

    return f"{jax.devices()[0].device_kind}, jax {jax.__version__}, keras {keras.__version__}"


@contextlib.contextmanager
def counted_reads() -> Iterator[Callable[[], int]]:
    """Count the reads of the device that wait for it, inside the context."""
    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

        mode = torch.cuda.set_sync_debug_mode if torch.cuda.is_available() else str
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            mode("warn")
            yield lambda: sum("synchroni" in str(w.message) for w in heard)
            mode("default")
        return
    from jax._src.array import ArrayImpl  # JAX has no public way to count

    read, reads = ArrayImpl._value, []

    def value(array: Any) -> Any:
        if array._npy_value is None:
            reads.append(1)
        return read.fget(array)

    ArrayImpl._value = property(value)
    try:
        yield lambda: len(reads)
    finally:
        ArrayImpl._value = read


class Training:
    """A model that trains on one batch, with monitors in turn.

    Attributes:
        seconds: Times of a step in the turns, by name.
        reading: Seconds to read a record, in the turns with one at every step.
        waits: Numbers of reads in steps, but for the read of all records, by name.
        records: The same of recorded steps.
    """

    def __init__(self, name: str, small: bool, log_dir: Path) -> None:
        from keras_initkit.callbacks import GradientMonitor

        self.model, self.x, self.y = make_model(name, small)
        self.every = 1

        def is_due(step: int) -> bool:
            return step % self.every == 0

        self.monitor = GradientMonitor(log_dir / "usual", is_due)
        self.spikes = GradientMonitor(log_dir / "spikes", is_due, spikes=True)
        self.seconds: dict[str, list[float]] = {kind: [] for kind in EVERY}
        self.reading: list[float] = []
        self.waits, self.records = dict.fromkeys(EVERY, 0), dict.fromkeys(EVERY, 0)

    def fit(self, steps: int, callbacks: Sequence[Any]) -> None:
        """Train for some steps."""

        def batches() -> Iterator[Any]:
            while True:  # Keras takes a generator, not `itertools.repeat`
                yield self.x, self.y

        self.model.fit(batches(), steps_per_epoch=steps, verbose=0, callbacks=list(callbacks))

    def prepare(self, kind: str) -> list[Any]:
        """Return the callbacks of a kind of turn, and have all steps recorded."""
        self.every = 1
        if kind == "spikes":
            return [self.spikes]
        return [self.monitor] if EVERY[kind] else []

    def take_turn(self, kind: str, steps: int) -> float:
        """Train for some steps, and keep how long each took; return it."""
        import keras

        callbacks, begun, before = self.prepare(kind), [0.0, 0.0], [0]

        def begin(batch: int, logs: Any) -> None:
            if batch == UNTIMED:  # until then all are recorded, and the first is read
                self.every = EVERY[kind] or 1
                before[0] = sum(len(monitor.history) for monitor in callbacks)
                wait()
                begun[:] = [time.perf_counter(), count()]

        def end(epoch: int, logs: Any) -> None:
            self.waits[kind] += count() - int(begun[1])
            wait()
            over = time.perf_counter()
            self.seconds[kind].append((over - begun[0]) / steps)
            # All that waits on the device is read.
            records = sum(len(monitor.history) for monitor in callbacks) - before[0]
            if kind == "every step":
                self.reading.append((time.perf_counter() - over) / max(1, records))
            self.records[kind] += records

        timer = keras.callbacks.LambdaCallback(on_train_batch_begin=begin, on_epoch_end=end)
        timer.async_safe = True
        with counted_reads() as count:
            self.fit(UNTIMED + steps, [timer, *callbacks])
        return self.seconds[kind][-1]

    def take_turns(self, seconds: float) -> None:
        """Train in turns for about so many seconds."""
        for kind in EVERY:  # what is not compiled yet is
            self.take_turn(kind, 2)
        is_long = self.take_turn("without", SHORT_TURN) > LONG_STEP
        steps = dict.fromkeys(EVERY, SHORT_TURN if is_long else TURN) | {"by default": TURN}
        start, rounds = time.perf_counter(), 0
        self.seconds, self.reading = {kind: [] for kind in EVERY}, []
        self.waits, self.records = dict.fromkeys(EVERY, 0), dict.fromkeys(EVERY, 0)
        while rounds < ROUNDS[0] or (
            rounds < ROUNDS[1] and (time.perf_counter() - start) * (1 + 1 / rounds) < seconds
        ):
            for kind in EVERY:
                self.take_turn(kind, steps[kind])
            rounds += 1


def compare_norms(training: Training) -> float:
    """Return the largest relative difference of recorded norms from the framework's own."""
    import numpy as np

    model, x, y = training.model, training.x, training.y
    weights = model.get_weights()
    training.fit(1, training.prepare("every step"))
    model.set_weights(weights)
    if os.environ["KERAS_BACKEND"] == "torch":
        model.zero_grad()
        model.compute_loss(x=x, y=y, y_pred=model(x, training=True)).backward()
        gradients = [v.value.grad for v in model.trainable_variables]
        own = [float(g.double().norm()) for g in gradients]
    else:
        import jax

        def loss(trainable: Any, other: Any) -> Any:
            y_pred, _ = model.stateless_call(trainable, other, x, training=True)
            return model.loss(y, y_pred)

        trainable = [v.value for v in model.trainable_variables]
        others = [v.value for v in model.non_trainable_variables]
        gradients = jax.jit(jax.grad(loss))(trainable, others)
        own = [float(np.linalg.norm(np.asarray(g, np.float64))) for g in gradients]
    history = training.monitor.history
    paths = [variable.path for variable in model.trainable_variables]
    assert all(path.endswith(name) for path, name in zip(paths, history.variables, strict=True))
    return float(np.max(np.abs(history.per_variable("norm")[-1] / np.array(own) - 1)))


def measure(job: Job, seconds: float, small: bool) -> dict[str, Any]:
    """Measure a model in this process; with the monitor all, without it what needs its own."""
    training = Training(job.model, small, Path(os.environ["INITKIT_LOG_DIR"]))
    found: dict[str, Any] = {"card": name_card()}
    if job.backend == "jax":
        callbacks = [training.monitor] if job.part == "with" else []
        start = time.perf_counter()
        training.fit(FIRST, callbacks)
        wait()
        found["seconds_to_step_40"] = time.perf_counter() - start
        found["peaks"] = [read_peak()]
    else:
        for callbacks in ([], [], [training.monitor]):  # first the optimizer's state is made
            read_peak(reset=True)
            training.fit(5, callbacks)
            found["peaks"] = [*found.get("peaks", []), read_peak()]
    if job.part == "with":
        if job.model == "mlp":
            found["norms"] = compare_norms(training)
        training.take_turns(seconds)
        found |= {key: getattr(training, key) for key in ("seconds", "reading", "waits", "records")}
    return found


def start(job: Job, options: list[str], folder: str) -> Any:
    """Start a process that imports what it needs, and waits for a line to measure."""
    environment = os.environ | {
        "KERAS_BACKEND": job.backend,
        "INITKIT_LOG_DIR": str(Path(folder, *job)),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_COMPILATION_CACHE_DIR": str(Path(folder, "compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
    }
    command = [sys.executable, "-m", "benchmarks.gpu", "--measure", *job, *options]
    with open(Path(folder, "-".join(job)), "w") as errors:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def run_jobs(jobs: Sequence[Job], options: list[str]) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Yield what each job has found, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        following = start(jobs[0], options, folder)
        for i, job in enumerate(jobs):
            process = following
            following = start(jobs[i + 1], options, folder) if i + 1 < len(jobs) else None
            output, _ = process.communicate("\n")
            if process.returncode:
                lines = Path(folder, "-".join(job)).read_text().strip().splitlines()
                print("\n".join(lines[-20:]), file=sys.stderr)
                yield job, {"error": (lines or ["?"])[-1]}
            else:
                yield job, json.loads(output.strip().splitlines()[-1])


def tell_row(job: Job, without: dict[str, Any], found: dict[str, Any]) -> None:
    """Print the row of a model."""
    middle = statistics.median(found["seconds"]["without"])
    cells = [f"{TITLES[job.model]}, {job.backend}", f"{1000 * middle:.1f} ms"]
    for kind, values in found["seconds"].items():
        low, median, high = (value / middle for value in statistics.quantiles(values, n=4))
        if EVERY[kind]:
            cells.append(f"{median:.3f} ± {(high - low) / 2:.3f}")
    cells.append(f"{1000 * statistics.median(found['reading']):.2f} ms")
    first = [result.get("seconds_to_step_40") for result in (without, found)]
    cells.append(f"{first[0]:.1f} → {first[1]:.1f} s" if without else "")
    peaks = [*without.get("peaks", []), *found["peaks"]][-2:]
    cells.append(f"{peaks[0]:.2f} → {peaks[1]:.2f} GB")
    of_kinds = zip(found["waits"].values(), found["records"].values(), strict=True)
    cells.append(", ".join(f"{waits} / {records}" for waits, records in of_kinds))
    cells.append(f"{found['norms']:.0e}" if "norms" in found else "")
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run all, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=("jax", "torch"), default=["jax", "torch"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=12, help="of a model's turns, about")
    parser.add_argument("--small", action="store_true", help="small models, to try the script")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        job = Job(*arguments.measure)
        import_all(job.backend)
        sys.stdin.readline()
        print(json.dumps(measure(job, arguments.seconds, arguments.small)))
        return
    options = ["--seconds", str(arguments.seconds), *(["--small"] if arguments.small else [])]
    parts = {"jax": ("without", "with"), "torch": ("with",)}
    jobs = [
        Job(backend, model, part)
        for backend in arguments.backends
        for model in arguments.models
        for part in parts[backend]
    ]
    begun, card = time.perf_counter(), ""
    without: dict[str, Any] = {}
    heading = ["model", "step", *(kind for kind in EVERY if EVERY[kind])]
    heading += ["reading a record", f"to step {FIRST}"]
    heading += ["peak of memory", f"reads in steps / records: {', '.join(EVERY)}", "error of norms"]
    print(f"| {' | '.join(heading)} |\n{'|---' * len(heading)}|", flush=True)
    for job, found in run_jobs(jobs, options):
        if "error" in found:
            print(f"| {TITLES[job.model]}, {job.backend}, {job.part} | {found['error']} |")
            without = {}
        elif job.part == "without":
            without = found
        else:
            tell_row(job, without, found)
            without = {}
        if found.get("card", card) != card:
            card = found["card"]
            print(card, file=sys.stderr, flush=True)
    print(f"{time.perf_counter() - begun:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    main()
