"""Cost of GradientMonitor on a GPU, on JAX and PyTorch: three models, a table of ratios.

    benchmarks/gpu.sh [--wheels FOLDER]     # all of it: eight minutes or so on an H200
    python -m benchmarks.gpu --backends torch --models mlp

On JAX each model has two processes. The first trains without the monitor, the second with it: both
measure the time from `fit` to the end of step 40, compiling included, and the peak of the device's
memory. On PyTorch, where nothing is compiled, there is only the second. That then trains on, in
turns of 50 steps: without the monitor, and with it at every 50th step (as by default after the
first 200), every 10th, and every step. A figure is the median time of a turn relative to the median
without; behind ± is half the distance of the quartiles. Batches lie on the device, so that no copy
from the host hides the monitor's cost.

Counted are the reads of the device that wait for it, in steps with a record and without. And the
recorded norms of the dense layers are compared with gradients computed by the framework itself.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODELS = ("mlp", "gpt", "resnet50")
TITLES = {
    "mlp": "20 dense layers of 4,096, batch 512, float32",
    "gpt": "GPT of 12 blocks of 768, 8 x 512 tokens, mixed_bfloat16",
    "resnet50": "ResNet50, batch 64, mixed_bfloat16",
}
# Steps from one record to the next; 0 is without the monitor.
EVERY = {"without": 0, "by default": 50, "every 10th step": 10, "every step": 1}
TURN, FIRST = 50, 40


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


def read_peak() -> float:
    """Return the peak of the device's memory in GB."""
    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

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


def repeat(x: Any, y: Any) -> Iterator[tuple[Any, Any]]:
    """Yield one batch for ever."""
    while True:  # Keras takes a generator, not `itertools.repeat`
        yield x, y


def make_turns(every: dict[str, int], monitor: Any, order: list[str]) -> Any:
    """Make a callback that trains an epoch with the monitor on turn, and times it."""
    import keras

    class Turns(keras.callbacks.Callback):
        """Passes the hooks on in epochs with the monitor; `seconds` has the times by name."""

        async_safe = True

        def __init__(self) -> None:
            super().__init__()
            self.seconds: dict[str, list[float]] = {name: [] for name in order}
            self.waits: dict[str, int] = dict.fromkeys(order, 0)
            self.name = order[0]

        def on_train_begin(self, logs: Any = None) -> None:
            monitor.set_params(self.params)
            monitor.set_model(self._model)
            monitor.on_train_begin(logs)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.name = order[epoch]
            every["n"] = EVERY[self.name]
            wait()
            self.caught = warnings.catch_warnings(record=True)
            self.heard = self.caught.__enter__()
            warnings.simplefilter("always")
            self.start = time.perf_counter()
            monitor.on_epoch_begin(epoch, logs)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if every["n"]:
                monitor.on_train_batch_begin(batch, logs)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            monitor.on_train_batch_end(batch, logs)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            monitor.on_epoch_end(epoch, logs)
            wait()
            self.seconds[self.name].append(time.perf_counter() - self.start)
            self.caught.__exit__(None, None, None)
            self.waits[self.name] += sum("synchroni" in str(w.message) for w in self.heard)

        def on_train_end(self, logs: Any = None) -> None:
            monitor.on_train_end(logs)

    return Turns()


def compare_norms(model: Any, x: Any, y: Any) -> float:
    """Return the largest relative difference of recorded norms from the framework's own."""
    import numpy as np

    from keras_initkit.callbacks import GradientMonitor

    weights = model.get_weights()
    monitor = GradientMonitor(every_n_steps=1, per="variable", statistics=[])
    model.fit(repeat(x, y), steps_per_epoch=1, verbose=0, callbacks=[monitor])
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
    history = monitor.history
    paths = [variable.path for variable in model.trainable_variables]
    assert all(path.endswith(name) for path, name in zip(paths, history.variables, strict=True))
    return float(np.max(np.abs(history.per_variable("norm")[-1] / np.array(own) - 1)))


def measure(
    name: str, with_monitor: bool, rounds: int, small: bool, chosen: list[str] | None
) -> dict[str, Any]:
    """Measure a model in this process; with the monitor all, without it what needs its own."""
    from keras_initkit.callbacks import GradientMonitor

    model, x, y = make_model(name, small)
    log_dir = os.environ["INITKIT_LOG_DIR"]
    callbacks = [GradientMonitor(Path(log_dir) / "first")] if with_monitor else []
    start = time.perf_counter()
    model.fit(repeat(x, y), steps_per_epoch=FIRST, verbose=0, callbacks=callbacks)
    wait()
    found: dict[str, Any] = {"seconds_to_step_40": time.perf_counter() - start, "card": name_card()}
    found["peak"] = read_peak()
    if not with_monitor:
        return found
    del callbacks
    every = {"n": 1}
    monitor = GradientMonitor(
        Path(log_dir) / "turns",
        every_n_steps=lambda step: every["n"] > 0 and step % every["n"] == 0,
        statistics=chosen,
    )
    model.fit(repeat(x, y), steps_per_epoch=3, verbose=0, callbacks=[monitor])
    model.fit(repeat(x, y), steps_per_epoch=3, verbose=0)  # its own function is compiled, too
    order = [*EVERY] * rounds
    turns = make_turns(every, monitor, order)
    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
    model.fit(repeat(x, y), steps_per_epoch=TURN, epochs=len(order), verbose=0, callbacks=[turns])
    found["seconds"] = turns.seconds
    found["waits"] = turns.waits
    found["records"] = len(monitor.history.steps)
    if name == "mlp":
        found["norms"] = compare_norms(model, x, y)
    return found


def run_child(backend: str, name: str, part: str, options: list[str]) -> dict[str, Any]:
    """Measure in a fresh process; return what it printed last."""
    import tempfile

    with tempfile.TemporaryDirectory() as log_dir:
        environment = os.environ | {
            "KERAS_BACKEND": backend,
            "INITKIT_LOG_DIR": log_dir,
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, "-m", "benchmarks.gpu", "--measure", name, part, *options]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        print(result.stderr[-1500:], file=sys.stderr)
        return {"error": (result.stderr.strip().splitlines() or ["?"])[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def tell(backend: str, name: str, without: dict[str, Any], found: dict[str, Any]) -> None:
    """Print the row of a model."""
    import statistics

    print(f"## {TITLES[name]}: {backend}, {found['card']}")
    middle = statistics.median(found["seconds"]["without"])
    print(f"step without the monitor: {1000 * middle / TURN:.2f} ms")
    for key, values in found["seconds"].items():
        low, median, high = statistics.quantiles(values, n=4)
        print(
            f"  {key}: {median / middle:.3f} ± {(high - low) / 2 / middle:.3f}, "
            f"{found['waits'][key]} waits in {TURN * len(values)} steps"
        )
    if without:  # PyTorch compiles nothing here
        first = [result["seconds_to_step_40"] for result in (without, found)]
        ratio = first[1] / first[0]
        print(f"  to step 40: {first[0]:.1f} s without, {first[1]:.1f} s with: {ratio:.2f}")
        print(f"  peak of memory: {without['peak']:.2f} GB without, {found['peak']:.2f} GB with")
    if "norms" in found:
        print(f"  norms: at most {found['norms']:.1e} from the framework's own")
    print(f"  {found['records']} records", flush=True)


def main() -> None:
    """Run all, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=("jax", "torch"), default=["jax", "torch"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="small models, to try the script")
    parser.add_argument("--statistics", nargs="*", help="of the monitor; all if it is not given")
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "PART"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, part = arguments.measure
        chosen = arguments.rounds, arguments.small, arguments.statistics
        print(json.dumps(measure(name, part == "with", *chosen)))
        return
    options = ["--rounds", str(arguments.rounds), *(["--small"] if arguments.small else [])]
    if arguments.statistics is not None:
        options += ["--statistics", *arguments.statistics]
    for backend, name in itertools.product(arguments.backends, arguments.models):
        without = run_child(backend, name, "without", options) if backend == "jax" else {}
        found = run_child(backend, name, "with", options)
        if "error" in without | found:
            print(f"## {TITLES[name]}: {backend}: {without} {found}", flush=True)
        else:
            tell(backend, name, without, found)


if __name__ == "__main__":
    main()
