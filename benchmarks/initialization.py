"""Cost of initializing whole models with our initializers, relative to Keras's own.

    python benchmarks/initialization.py
    python benchmarks/initialization.py --models bert --rounds 9

The kernels of a model are drawn by Keras's `HeNormal`, by ours as Keras calls it, and by
`keras_initkit.reinitialize`, which also finds each weight's own stream and fans and assigns it:
once with Keras's initializer, once with ours; and by `keras_initkit.initialize`, which calls the
model on a batch of 32 as well. Last comes a forward and backward pass of that batch. They take
turns in random order; figures are median times relative to the first.
"""

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_initkit
from keras_initkit.initializers import HeNormal
from keras_initkit.models.check.step import run_step

layers = keras.layers


def resnet50() -> keras.Model:
    """Build ResNet50: 26 million parameters."""
    return keras.applications.ResNet50(weights=None)


def xception() -> keras.Model:
    """Build Xception: 23 million parameters."""
    return keras.applications.Xception(weights=None)


def bert() -> keras.Model:
    """Build twelve encoder blocks of width 768: 85 million parameters."""
    inputs = keras.Input((128, 768))
    x = inputs
    for _ in range(12):
        x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(12, 64)(x, x)]))
        y = layers.Dense(768)(layers.Dense(3072, "gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, y]))
    return keras.Model(inputs, x)


MODELS: dict[str, Callable[[], keras.Model]] = {
    model.__name__: model for model in (resnet50, bert, xception)
}


def ways(model: keras.Model) -> dict[str, Callable[[], object]]:
    """Return the functions to time, by the headings of their columns."""
    kernels = [(tuple(w.shape), w.dtype) for w in model.weights if "kernel" in w.name]
    theirs, ours = keras.initializers.HeNormal(), HeNormal()

    def draw_by(initializer: Callable[..., object]) -> None:
        for shape, dtype in kernels:
            keras.ops.convert_to_numpy(initializer(shape, dtype=dtype))

    def redraw_by(initializer: object) -> None:
        rules = {keras.Layer: initializer}
        keras_initkit.reinitialize(model, rules, seed=0, only=re.compile("kernel[^/]*$"))

    shape = tuple(model.inputs[0].shape[1:])
    x = np.random.default_rng(0).standard_normal((32, *shape)).astype("float32")
    model.compile("sgd", "mean_squared_error", jit_compile=False)
    y = np.zeros((32, *model.outputs[0].shape[1:]), "float32")

    return {
        "Keras's": lambda: draw_by(theirs),
        "ours": lambda: draw_by(ours),
        "reinitialize, Keras's": lambda: redraw_by(theirs),
        "reinitialize, ours": lambda: redraw_by(ours),
        "initialize": lambda: keras_initkit.initialize(model, x, seed=0),
        "forward and backward": lambda: run_step(model, (x, y, None)),
    }


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    heading = True
    for name in arguments.models:
        timed = ways(MODELS[name]())
        seconds: dict[str, list[float]] = {way: [] for way in timed}
        for round_ in range(arguments.rounds + 1):
            for way in rng.permutation(list(timed)):
                start = time.perf_counter()
                timed[way]()
                if round_:  # the first prepares
                    seconds[way].append(time.perf_counter() - start)
        medians = {way: statistics.median(times) for way, times in seconds.items()}
        if heading:
            print(f"| model | seconds | {' | '.join(timed)} |")
            print("|---" * (len(timed) + 2) + "|")
        heading = False
        first = medians["Keras's"]
        cells = " | ".join(f"{median / first:.3f}" for median in medians.values())
        print(f"| {name} | {first:.2f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
