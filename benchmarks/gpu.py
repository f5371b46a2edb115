"""Cost of GradientMonitor on a GPU, on JAX and PyTorch: three models, a table of ratios.

    benchmarks/gpu.sh [--wheels FOLDER]     # all of it, in 280 seconds
    python -m benchmarks.gpu --backends torch --models mlp --deadline 60

On JAX each model has two processes. The first trains without the monitor, the second with it: both
measure the time from `fit` to the end of step 40, compiling included, and the peak of the device's
memory. On PyTorch, where nothing is compiled, one process does. It then trains on in turns of 20
steps (of 10, where a step takes long): without the monitor; with it, between two records; with a
record at every step; and between two records with `spikes=True`. From the medians of turns follows
what a schedule costs, weighted by its records: a figure is that relative to the median without, and
behind ± is half the distance of the quartiles of the rounds. Records are read after a turn, in
training every few seconds: how long that takes for one record, of a turn with one at every step,
has its own column. Batches lie on the device, so that no copy from the host hides the monitor's
cost.

Counted are the reads of the device in steps, which wait for it. And the norms that are recorded of
a few dense layers are compared with gradients computed by the framework itself.

All ends by the deadline. Each process has its share of the time that is left when it begins, and
half as much again before it is stopped: what it has found until then is told, and a row says so if
there is nothing. What takes longest to compile, `spikes` on JAX, is left out if there is no time.
Seconds of the parts go to stderr, and all figures to `$OUT/gpu.json` if `OUT` is set.

What is not timed is kept short. A process imports what it needs while the one before it measures.
The plain step that the first process on JAX has compiled is not compiled again by the second, whose
own steps are: only whole programs that take a second are kept, and no tuning of their parts.
"""

import argparse
import contextlib
import importlib
import json
import math
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
KINDS = ("without", "between", "every step", "spikes")  # of turns
# Steps that are not recorded, and from one record to the next.
SCHEDULES = {
    "by default": ("between", 50),
    "every 10th step": ("between", 10),
    "every step": ("every step", 1),
    "spikes": ("spikes", 50),
}
TURN, SHORT_TURN, UNTIMED, FIRST = 20, 10, 3, 40
# Seconds of a step from which on turns are short; the least and greatest number of turns of a kind.
LONG_STEP, ROUNDS = 0.05, (3, 9)
# The most valuable rows first: what has changed since the last table, or was not in it.
ORDER = (
    ("torch", "resnet50"),
    ("jax", "mlp"),
    ("torch", "mlp"),
    ("jax", "resnet50"),
    ("jax", "gpt"),
    ("torch", "gpt"),
)
# Parts of a backend's process, and how much time they take relative to each other.
PARTS = {"jax": {"without": 1.0, "with": 3.0}, "torch": {"with": 2.0}}


class Job(NamedTuple):
    """What a process measures."""

    backend: str
    model: str
    part: str  # "without" or "with" the monitor


def import_all(backend: str) -> None:
    """Import what a measurement needs, the log's packages as well; the device is not touched."""
    import keras

    for module in ("keras_initkit.callbacks", "tensorboard_plugin_initkit.log.gradient_log"):
        importlib.import_module(module)
    assert keras.backend.backend() == backend


def make_model(name: str, small: bool) -> tuple[Any, Any, Any]:
    """Return a compiled model and a batch for it, on the device; `small` is to try the script."""
    import keras
    import numpy as np

    layers, rng = keras.layers, np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    if name != "mlp":
        keras.config.set_dtype_policy("mixed_bfloat16")
    if name == "mlp":
        width, depth = (32, 4) if small else (4096, 20)
        hidden = [layers.Dense(width, "relu", kernel_initializer="he_normal") for _ in range(depth)]
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
        kinds: Kinds of turns.
        seconds: Times of a step in the turns, by kind.
        reading: Seconds to read a record, in the turns with one at every step.
        waits: Numbers of reads in steps, but for the read of all records, by kind.
        records: The same of recorded steps.
    """

    def __init__(self, name: str, small: bool, log_dir: Path) -> None:
        from keras_initkit.callbacks import GradientMonitor

        self.model, self.x, self.y = make_model(name, small)
        self.records_all = True
        self.monitor = GradientMonitor(log_dir / "usual", lambda step: self.records_all)
        self.spikes = GradientMonitor(
            log_dir / "spikes", lambda step: self.records_all, spikes=True
        )
        self.kinds = list(KINDS)
        self.forget()

    def forget(self) -> None:
        """Begin to measure anew."""
        self.seconds: dict[str, list[float]] = {kind: [] for kind in self.kinds}
        self.reading: list[float] = []
        self.waits, self.records = dict.fromkeys(self.kinds, 0), dict.fromkeys(self.kinds, 0)

    def fit(self, steps: int, callbacks: Sequence[Any]) -> None:
        """Train for some steps."""

        def batches() -> Iterator[Any]:
            while True:  # Keras takes a generator, not `itertools.repeat`
                yield self.x, self.y

        self.model.fit(batches(), steps_per_epoch=steps, verbose=0, callbacks=list(callbacks))

    def take_turn(self, kind: str, steps: int) -> float:
        """Train for some steps, and keep how long each took; return it."""
        import keras

        monitors = {"without": [], "spikes": [self.spikes]}.get(kind, [self.monitor])
        self.records_all, begun, before = True, [0.0, 0.0], [0]

        def begin(batch: int, logs: Any) -> None:
            if batch == UNTIMED:  # until then all are recorded, and the first is read
                self.records_all = kind == "every step"
                before[0] = sum(len(monitor.history) for monitor in monitors)
                wait()
                begun[:] = [time.perf_counter(), count()]

        def end(epoch: int, logs: Any) -> None:
            self.waits[kind] += count() - int(begun[1])
            wait()
            over = time.perf_counter()
            self.seconds[kind].append((over - begun[0]) / steps)
            # All that waits on the device is read.
            records = sum(len(monitor.history) for monitor in monitors) - before[0]
            if kind == "every step":
                self.reading.append((time.perf_counter() - over) / max(1, records))
            self.records[kind] += records

        timer = keras.callbacks.LambdaCallback(on_train_batch_begin=begin, on_epoch_end=end)
        timer.async_safe = True
        with counted_reads() as count:
            self.fit(UNTIMED + steps, [timer, *monitors])
        return self.seconds[kind][-1]

    def take_turns(self, until: float) -> Iterator[None]:
        """Train in turns until about a time; yield after each round."""
        steps = SHORT_TURN if self.seconds["without"][-1] > LONG_STEP else TURN
        self.forget()
        start = time.perf_counter()
        for done in range(ROUNDS[1]):
            now = time.perf_counter()
            if done >= ROUNDS[0] and now + (now - start) / done > until:
                return
            for kind in self.kinds:
                self.take_turn(kind, steps)
            yield


def compare_norms(training: Training) -> float:
    """Return the largest relative difference of recorded norms from the framework's own."""
    import numpy as np

    model, x, y = training.model, training.x, training.y
    weights = model.get_weights()
    training.fit(1, [training.monitor])
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


def measure(job: Job, small: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """Measure a model in this process, in about so many seconds; yield all found so far."""
    log_dir, begun = Path(os.environ["INITKIT_LOG_DIR"]), time.perf_counter()
    parts: dict[str, float] = {}
    found: dict[str, Any] = {"parts": parts}

    def ends(part: str) -> dict[str, Any]:
        spent = time.perf_counter() - begun - sum(parts.values())
        parts[part] = parts.get(part, 0.0) + spent
        return found

    training = Training(job.model, small, log_dir)
    found["card"] = name_card()
    yield ends("build")
    if job.backend == "jax":
        training.fit(FIRST, [training.monitor] if job.part == "with" else [])
        wait()
        found["peaks"] = [read_peak()]
        found["seconds_to_step_40"] = ends("first steps")["parts"]["first steps"]
    else:
        for callbacks in ([], [], [training.monitor]):  # first the optimizer's state is made
            read_peak(reset=True)
            training.fit(2, callbacks)
            found["peaks"] = [*found.get("peaks", []), read_peak()]
        ends("first steps")
    yield found
    if job.part == "without":
        return
    # `spikes` is compiled as long as the first steps were.
    for kind in KINDS:
        left = begun + seconds - time.perf_counter()
        if kind == "spikes" and job.backend == "jax" and left < 1.5 * found["seconds_to_step_40"]:
            training.kinds.remove(kind)
        else:
            training.take_turn(kind, 2)
    ends("warm-up")
    for _ in training.take_turns(begun + seconds):
        found |= {key: getattr(training, key) for key in ("seconds", "reading", "waits", "records")}
        yield ends("turns")
    if not [*(log_dir / "usual").rglob("events.*")]:
        raise RuntimeError("GradientMonitor has written no log: its warning above says why.")
    if job.model == "mlp":
        found["norms"] = compare_norms(Training(job.model, True, log_dir / "norms"))
        yield ends("norms")


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


def run_jobs(
    jobs: Sequence[Job], options: list[str], deadline: float
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Yield what each job has found, one after the other, until a time."""
    weights = [PARTS[job.backend][job.part] for job in jobs]
    with tempfile.TemporaryDirectory() as folder:
        following = start(jobs[0], options, folder)
        for i, job in enumerate(jobs):
            process = following
            following = start(jobs[i + 1], options, folder) if i + 1 < len(jobs) else None
            left = max(0.0, deadline - time.perf_counter())
            share = left * weights[i] / sum(weights[i:])
            found = {"error": "out of time"}
            try:
                output, _ = process.communicate(f"{share}\n", timeout=min(left, 1.5 * share))
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
            if lines := [line for line in output.splitlines() if line.endswith("}")]:
                found = json.loads(lines[-1])
            if process.returncode > 0:  # it was not killed
                lines = Path(folder, "-".join(job)).read_text().strip().splitlines()
                print("\n".join(lines[-20:]), file=sys.stderr)
                found = {"error": (lines or ["?"])[-1]}
            elif "seconds" not in found and job.part == "with":
                found["error"] = "out of time"
            yield job, found


def ratios(seconds: dict[str, list[float]], kind: str, every: int) -> tuple[float, float]:
    """Return the time of a step by a schedule relative to one without, and its error.

    The schedule records every so many steps; the others are those of a kind of turns.
    """
    middle = {name: statistics.median(values) for name, values in seconds.items()}

    def of(other: float, recorded: float) -> float:
        return ((every - 1) * other + recorded) / every / middle["without"]

    rounds = [of(*pair) for pair in zip(seconds[kind], seconds["every step"], strict=True)]
    low, _, high = statistics.quantiles(rounds, n=4) if len(rounds) > 1 else [0.0, 0.0, math.inf]
    return of(middle[kind], middle["every step"]), (high - low) / 2


def tell_row(job: Job, without: dict[str, Any], found: dict[str, Any]) -> None:
    """Print the row of a model."""
    seconds = found["seconds"]
    step = 1000 * statistics.median(seconds["without"])
    cells = [f"{TITLES[job.model]}, {job.backend}", f"{step:.1f} ms"]
    for kind, every in SCHEDULES.values():
        is_there = kind in seconds
        ratio, error = ratios(seconds, kind, every) if is_there else (0.0, 0.0)
        cells.append(f"{ratio:.3f} ± {error:.3f}" if is_there else "out of time")
    cells.append(f"{1000 * statistics.median(found['reading']):.2f} ms")
    first = [result.get("seconds_to_step_40") for result in (without, found)]
    cells.append(f"{first[0]:.1f} → {first[1]:.1f} s" if first[0] else "")
    peaks = [*without.get("peaks", []), *found["peaks"]][-2:]
    cells.append(" → ".join(f"{peak:.2f}" for peak in peaks) + " GB")
    of_kinds = zip(found["waits"].values(), found["records"].values(), strict=True)
    cells.append(", ".join(f"{waits} / {records}" for waits, records in of_kinds))
    cells.append(f"{found['norms']:.0e}" if "norms" in found else "")
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run all, and print a table; fail if a process has."""
    begun = time.perf_counter()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=("jax", "torch"), default=["jax", "torch"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--deadline", type=float, default=280, help="seconds of all, at most")
    parser.add_argument("--small", action="store_true", help="small models, to try the script")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        job = Job(*arguments.measure)
        import_all(job.backend)
        for found in measure(job, arguments.small, float(sys.stdin.readline())):
            print(json.dumps(found), flush=True)
        return
    jobs = [
        Job(backend, model, part)
        for backend, model in ORDER
        for part in PARTS[backend]
        if backend in arguments.backends and model in arguments.models
    ]
    options = ["--small"] if arguments.small else []
    without: dict[str, Any] = {}
    results: list[dict[str, Any]] = []
    heading = ["model", "step", *SCHEDULES, "reading a record", f"to step {FIRST}"]
    heading += ["peak of memory", f"reads in steps / records: {', '.join(KINDS)}", "error of norms"]
    print(f"| {' | '.join(heading)} |\n{'|---' * len(heading)}|", flush=True)
    for job, found in run_jobs(jobs, options, begun + arguments.deadline):
        results.append(job._asdict() | found)
        parts = ", ".join(f"{part} {spent:.1f} s" for part, spent in found.get("parts", {}).items())
        print(f"{' '.join(job)}: {parts} ({found.get('card', '?')})", file=sys.stderr, flush=True)
        if out := os.environ.get("OUT"):
            Path(out, "gpu.json").write_text(json.dumps(results))
        if job.part == "without":
            without = found
            continue
        if "error" in found:
            title = f"{TITLES[job.model]}, {job.backend}"
            print(f"| {title} | not measured: {found['error']} |", flush=True)
        else:
            tell_row(job, without, found)
        without = {}
    print(f"{time.perf_counter() - begun:.0f} s in all", file=sys.stderr)
    failed = [result for result in results if result.get("error", "out of time") != "out of time"]
    sys.exit(f"{len(failed)} processes have failed: see above." if failed else 0)


if __name__ == "__main__":
    main()
