"""What GradientMonitor costs: step time with it, relative to step time without.

    python benchmarks/monitor_overhead.py            # every model, graph and XLA
    python benchmarks/monitor_overhead.py --models mlp --modes graph

Blocks of ten steps with and without the monitor alternate in one process, on the same model,
batch of 64; figures are ratios of medians. "every 10th" is the monitor's default.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_initkit.callbacks import GradientMonitor

BATCH, BLOCK = 64, 10
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


def batches() -> Iterator[Any]:
    """The same batch, for ever, on the device."""
    rng = np.random.default_rng(0)
    x = keras.ops.convert_to_tensor(rng.normal(size=(BATCH, 64)).astype("float32"))
    y = keras.ops.convert_to_tensor(rng.integers(0, 10, BATCH))
    while True:
        yield x, y


def ratio(make: Callable[[], keras.Model], xla: bool, every_n_steps: int, blocks: int) -> float:
    """Median time of a block with the monitor, relative to one without."""
    keras.utils.set_random_seed(0)
    model = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss, jit_compile=xla)
    data = batches()
    with tempfile.TemporaryDirectory() as log_dir:
        monitor = GradientMonitor(log_dir, every_n_steps)
        monitor.set_model(model)
        model.train_on_batch(*next(data))
        monitor.on_train_begin()
        times: tuple[list[float], list[float]] = ([], [])
        for block in range(2 * (blocks + 1)):
            monitored = block % 2 == 1
            start = time.perf_counter()
            for step in range(BLOCK):
                if monitored:
                    monitor.on_train_batch_begin(step)
                model.train_function(data)
            if block > 1:  # the first blocks trace
                times[monitored].append(time.perf_counter() - start)
        monitor.on_train_end()
    return statistics.median(times[1]) / statistics.median(times[0])


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=["graph", "xla"], default=["graph", "xla"])
    parser.add_argument("--blocks", type=int, default=15)
    arguments = parser.parse_args()
    print("| model | mode | every 10th step | every step |\n|---|---|---|---|")
    for name in arguments.models:
        for mode in arguments.modes:
            cells = [
                f"{ratio(MODELS[name], mode == 'xla', n, arguments.blocks):.3f}" for n in (10, 1)
            ]
            print(f"| {name} | {mode} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
