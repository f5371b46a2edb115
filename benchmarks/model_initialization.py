"""Starts of whole models, beside each other: variance kept, gradients, and accuracy soon after.

    KERAS_BACKEND=torch python benchmarks/model_initialization.py
    KERAS_BACKEND=torch python benchmarks/model_initialization.py --models mlp --seeds 5

The same models, data and optimizer, from

- Keras's defaults;
- PyTorch's defaults: uniform weights and biases of bound 1/sqrt(fan_in), as `reset_parameters` of
  `Linear` and `Conv2d` draws them;
- PyPI's `lsuv`;
- `keras_initkit.initialize` by the schemes "lsuv" and "auto".

Columns: the largest over the smallest mean square of the kernels' outputs before the activation,
all but the last; the norm of the loss's gradient at the first kernel over that at the last hidden
one, relative to the kernels' norms; accuracy on unseen digits after a fixed number of steps, of
each seed. PyPI's `lsuv`, where it is installed, knows PyTorch's own modules alone: it draws a twin
of the `mlp`, on the PyTorch backend. AutoInit does not import under Keras 3: it needs Keras 2.
"""

import argparse
import importlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_initkit
from keras_initkit.models.check.step import run_step

layers = keras.layers


def mlp(activation: str = "gelu") -> keras.Model:
    """Build 40 fully connected layers of gelu."""
    hidden = [layers.Dense(64, activation) for _ in range(40)]
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), *hidden, layers.Dense(10)])


def cnn() -> keras.Model:
    """Build 30 convolutions of silu."""
    hidden = [layers.Conv2D(16, 3, padding="same", activation="silu") for _ in range(30)]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *hidden, *head])


def resnet() -> keras.Model:
    """Build 30 residual blocks of two convolutions and ReLU, without normalization."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same")(inputs)
    for _ in range(30):
        y = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
        x = layers.Add()([x, layers.Conv2D(16, 3, padding="same")(y)])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


MODELS: dict[str, Callable[[], keras.Model]] = {"mlp": mlp, "cnn": cnn, "resnet": resnet}


def draw_as_torch(model: keras.Model, x: np.ndarray, seed: int) -> None:
    """Draw kernels and biases uniformly within 1/sqrt(fan_in)."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.weights:
            bound = float(np.prod(layer.kernel.shape[:-1])) ** -0.5
            for weight in layer.weights:
                weight.assign(generator.uniform(-bound, bound, weight.shape))


def draw_by_lsuv(model: keras.Model, x: np.ndarray, seed: int) -> None:
    """Draw the kernels of dense layers of gelu by PyPI's `lsuv`, in a twin of PyTorch's modules."""
    import torch

    torch.manual_seed(seed)
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    linear = [torch.nn.Linear(*layer.kernel.shape) for layer in dense]
    hidden = [module for one in linear[:-1] for module in (one, torch.nn.GELU())]
    twin = torch.nn.Sequential(torch.nn.Flatten(), *hidden, linear[-1])
    importlib.import_module("lsuv").lsuv_with_singlebatch(twin, torch.tensor(x[:32]), verbose=False)
    for layer, module in zip(dense, linear, strict=True):
        layer.kernel.assign(module.weight.detach().numpy().T)
        layer.bias.assign(module.bias.detach().numpy())


STARTS: dict[str, Callable[[keras.Model, np.ndarray, int], Any]] = {
    "Keras's": lambda model, x, seed: None,
    "PyTorch's": draw_as_torch,
    "PyPI's lsuv": draw_by_lsuv,
    "lsuv": lambda model, x, seed: keras_initkit.initialize(model, x, "lsuv", seed),
    "auto": lambda model, x, seed: keras_initkit.initialize(model, x, "auto", seed),
}


def measure_start(model: keras.Model, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the ratios of the variances and of the gradients over the depth."""
    holders = [layer for layer in model.layers if layer.weights][:-1]
    outputs = []
    # Pre-activations: each layer's kernel on what reaches it.
    reached = keras.Model(model.inputs[0], [layer.input for layer in holders])(x)
    for layer, taken in zip(holders, reached, strict=True):
        function, layer.activation = layer.activation, keras.activations.linear
        outputs.append(float((keras.ops.convert_to_numpy(layer(taken)) ** 2).mean()))
        layer.activation = function
    gradients = run_step(model, (x, y, None)).gradients
    norms = [
        float(np.linalg.norm(gradient))
        * float(np.linalg.norm(keras.ops.convert_to_numpy(weight.value)))
        for gradient, weight in zip(gradients, model.trainable_variables, strict=True)
        if weight.name == "kernel" and gradient is not None
    ]
    return max(outputs) / max(min(outputs), 1e-38), norms[0] / max(norms[-2], 1e-38)


def main() -> None:
    """Print a row for each model and start."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = ((x[order] - 5) / 6).astype("float32").reshape(-1, 8, 8, 1), y[order]
    print("| model | start | variance, most/least | gradient, first/last | accuracy, each seed |")
    print("|---|---|---|---|---|")
    for name in arguments.models:
        for title, start in STARTS.items():
            if start is draw_by_lsuv and (name != "mlp" or not find_spec("lsuv")):
                continue
            ratios, accuracies = [], []
            for seed in range(arguments.seeds):
                keras.utils.set_random_seed(seed)
                model = MODELS[name]()
                start(model, x[:1400], seed)
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                model.compile(keras.optimizers.Adam(3e-4), loss, metrics=["accuracy"])
                ratios.append(measure_start(model, x[:100], y[:100]))
                model.fit(x[:1400], y[:1400], 100, arguments.epochs, verbose=0)
                accuracies.append(model.evaluate(x[1400:], y[1400:], 397, verbose=0)[1])
                keras.backend.clear_session()
            variances, gradients = zip(*ratios, strict=True)
            print(
                f"| {name} | {title} | {np.median(variances):.2g} | {np.median(gradients):.2g} | "
                f"{' '.join(f'{accuracy:.0%}' for accuracy in accuracies)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
