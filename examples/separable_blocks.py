"""Eight separable convolutions without normalization: Keras's defaults do not train, true fans do.

The depthwise kernel of a `SeparableConv2D` has the shape (3, 3, channels, 1). Keras's initializers
read `9 · channels` inputs of a unit from it, where a unit has 9, so that each block divides the
variance of its inputs by about the number of channels. After eight blocks nothing is left.

The same network is trained on the same data with the same optimizer, from the same five seeds,
three times: with the initializers that Keras gives the layers (`glorot_uniform`); with initializers
that suit ReLU, but see only the shape of each weight; and with these by
`keras_initkit.reinitialize`, which knows the layer. All runs are shown.

    python examples/separable_blocks.py            # about two minutes on two cores
    python examples/separable_blocks.py --seeds 1 --epochs 4
"""

import argparse
import os
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_initkit
from keras_initkit.initializers import HeNormal, LecunNormal

BLOCKS, CHANNELS = 8, 32
SeparableConv2D = keras.layers.SeparableConv2D


class Outcome(NamedTuple):
    """Outcome of a training.

    Attributes:
        signal: Mean square behind the last block, before the training.
        loss: Mean of the last epoch.
        accuracy: On held-out images.
    """

    signal: float
    loss: float
    accuracy: float


def digits() -> list[np.ndarray]:
    """Images of handwritten digits, 8x8 pixels, and their classes: for training, and for a test.

    Returns:
        1,437 and 360 images, 1,437 and 360 classes.
    """
    x, y = load_digits(return_X_y=True)
    images = x.astype("float32").reshape(-1, 8, 8, 1)
    parts: list[np.ndarray] = train_test_split(images, y, test_size=360, random_state=0, stratify=y)
    return parts


def build_model(images: np.ndarray, suited: bool = False) -> keras.Model:
    """Blocks of a separable convolution and ReLU, without anything that normalizes between them.

    Args:
        images: What the inputs are normalized for.
        suited: Whether kernels are for what follows them, as Keras draws them: ReLU follows the
            pointwise kernel, the pointwise kernel the depthwise one. Otherwise they are Keras's
            defaults.
    """
    normalization = keras_initkit.layers.Normalization(axis=None)
    normalization.adapt(images)
    block, head = {}, {}
    if suited:
        block = {"depthwise_initializer": "lecun_normal", "pointwise_initializer": "he_normal"}
        head = {"kernel_initializer": "lecun_normal"}
    return keras.Sequential(
        [
            keras.Input(images.shape[1:]),
            normalization,
            *(
                SeparableConv2D(
                    CHANNELS, 3, padding="same", activation="relu", name=f"block_{i + 1}", **block
                )
                for i in range(BLOCKS)
            ),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, **head),
        ]
    )


def keras_defaults(images: np.ndarray, seed: int) -> keras.Model:
    """The model as Keras starts it."""
    return build_model(images)


def fans_of_shapes(images: np.ndarray, seed: int) -> keras.Model:
    """The model as Keras starts it with the initializers that suit ReLU."""
    return build_model(images, suited=True)


def true_fans(images: np.ndarray, seed: int) -> keras.Model:
    """The model with the same initializers, and the true fans."""
    model = build_model(images)
    rules = {
        (SeparableConv2D, "depthwise_kernel"): LecunNormal(),
        (SeparableConv2D, "pointwise_kernel"): HeNormal(),
        keras.layers.Dense: LecunNormal(),
    }
    keras_initkit.reinitialize(model, rules, seed=seed)
    return model


WAYS: dict[str, Callable[[np.ndarray, int], keras.Model]] = {
    "Keras's defaults": keras_defaults,
    "LeCun and He, Keras": fans_of_shapes,
    "LeCun and He, true fans": true_fans,
}


def train(way: str, seed: int, epochs: int) -> Outcome:
    """Train the network from a seed."""
    x, x_test, y, y_test = digits()
    keras.utils.set_random_seed(seed)
    model = WAYS[way](x, seed)
    signals = keras.Model(model.inputs, model.layers[-3].output)(x[:256])
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    fitted = model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    _, accuracy = model.evaluate(x_test, y_test, batch_size=360, verbose=0)
    signal = float(np.mean(np.square(keras.ops.convert_to_numpy(signals))))
    return Outcome(signal, fitted.history["loss"][-1], accuracy)


def main() -> None:
    """Print a row for each way and seed, and then what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()

    print(f"| {'initializers':23} | seed | signal before | loss after | accuracy |")
    print("|---|---|---|---|---|")
    accuracies: dict[str, list[float]] = {way: [] for way in WAYS}
    for way in WAYS:
        for seed in range(arguments.seeds):
            outcome = train(way, seed, arguments.epochs)
            accuracies[way].append(outcome.accuracy)
            numbers = f"{outcome.signal:13.1e} | {outcome.loss:10.3f} | {outcome.accuracy:8.1%}"
            print(f"| {way:23} | {seed:4} | {numbers} |", flush=True)
    print(f"\nLoss of guessing: {np.log(10):.3f}. Accuracy on 360 images, lowest and highest:")
    for way, values in accuracies.items():
        print(f"  {way:23} {min(values):.1%} to {max(values):.1%}")


if __name__ == "__main__":
    main()
