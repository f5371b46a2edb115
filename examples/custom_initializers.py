"""Initializers in a model, each for its activation: by name, slope or function.

Each initializer is passed to a layer as Keras's own are; `model.compile` and everything after
it stay as they were.

    python examples/custom_initializers.py
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_initkit
from keras_initkit.initializers import HeNormal, LecunNormal, VarianceScaling, XavierUniform


def swish(x):  # type: ignore[no-untyped-def]
    """An activation of one's own."""
    return x * keras.ops.sigmoid(1.5 * x)


def build_model(x: np.ndarray) -> keras.Model:
    """Build layers of different activations, each with its initializer."""
    dense = keras.layers.Dense
    normalization = keras_initkit.layers.Normalization()
    normalization.adapt(x)
    return keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            normalization,
            # ReLU: variance 2 / fan_in.
            dense(128, "relu", kernel_initializer=HeNormal()),
            # A leaky ReLU of another slope: variance 2 / (1 + slope²) / fan_in.
            dense(128, kernel_initializer=HeNormal(negative_slope=0.3)),
            keras.layers.LeakyReLU(negative_slope=0.3),
            # Any activation of keras.activations: its gain by name.
            dense(128, "gelu", kernel_initializer=LecunNormal(gain="gelu")),
            # Any function: its gain is computed.
            dense(128, swish, kernel_initializer=VarianceScaling(gain=swish)),
            # tanh: Xavier balances the signal and the gradient.
            dense(128, "tanh", kernel_initializer=XavierUniform()),
            dense(10, kernel_initializer=XavierUniform()),
        ]
    )


def main() -> None:
    """Show the variance after each layer, then train."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=5)
    epochs = parser.parse_args().epochs

    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32")
    model = build_model(x)

    print("Mean square after each layer, before training:")
    outputs = x
    for layer in model.layers:
        outputs = layer(outputs)
        print(f"  {layer.name:15} {float(np.mean(np.square(outputs))):.2f}")

    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=2)


if __name__ == "__main__":
    main()
