"""Prediction by `propagate` against measurement, on seven families of networks.

    python -m benchmarks.propagation [-v] [FAMILY ...]    # -v: a line for each layer

The measurement is independent: one pass of normal numbers through the model, and the framework's
own gradients of a random projection of its output.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.models.propagate.propagate import propagate

layers = keras.layers
Families = dict[str, Callable[[int], Any]]


class Errors(NamedTuple):
    """Mean and largest over layers of |predicted/measured - 1|, and the number of layers."""

    mean: float
    worst: float
    layers: int


def mlp(width: int) -> Any:
    """Build a multilayer perceptron of ten layers."""
    x = inputs = keras.Input((width,))
    for activation in ["relu", "tanh", "gelu", "selu", "relu"] * 2:
        x = layers.Dense(width, activation, kernel_initializer="he_normal")(x)
        x = layers.Dropout(0.1)(x)
    return keras.Model(inputs, layers.Dense(width // 2)(x))


def vgg(width: int) -> Any:
    """Build a network like VGG, of eight convolutions with max pooling."""
    x = inputs = keras.Input((32, 32, 8))
    for stage in range(4):
        for _ in range(2):
            x = layers.Conv2D(
                width, 3, padding="same", activation="relu", kernel_initializer="he_normal"
            )(x)
        x = layers.MaxPooling2D(2)(x) if stage % 2 else layers.AveragePooling2D(2)(x)
    x = layers.Dense(width, "relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(width)(x))


def resnet(width: int) -> Any:
    """Build a residual network with batch normalization."""
    inputs = keras.Input((32, 32, 8))
    x = layers.Conv2D(width, 7, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage in range(3):
        for block in range(2):
            strides = 2 if stage and not block else 1
            y = layers.Conv2D(width, 3, strides, padding="same", use_bias=False)(x)
            y = layers.ReLU()(layers.BatchNormalization()(y))
            y = layers.Conv2D(width, 3, padding="same", use_bias=False)(y)
            y = layers.BatchNormalization()(y)
            if strides > 1:
                x = layers.BatchNormalization()(layers.Conv2D(width, 1, strides)(x))
            x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(width)(layers.GlobalAveragePooling2D()(x)))


def mobilenet(width: int) -> Any:
    """Build a network of inverted residuals and separable convolutions, squeeze and excitation."""
    inputs = keras.Input((32, 32, 8))
    x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    for block in range(4):
        y = layers.Conv2D(2 * width, 1, use_bias=False)(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(3, strides=1 + block % 2, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
        gate = layers.Conv2D(2 * width, 1, activation="sigmoid")(gate)
        y = layers.Multiply()([y, gate])
        y = layers.BatchNormalization()(layers.Conv2D(width, 1, use_bias=False)(y))
        x = y if block % 2 else layers.Add()([x, y])
    x = layers.SeparableConv2D(width, 3, padding="same", activation="silu")(x)
    return keras.Model(inputs, layers.Dense(width)(layers.GlobalAveragePooling2D()(x)))


def unet(width: int) -> Any:
    """Build a U-Net with transposed convolutions and one upsampling."""

    def convolve(x: Any, count: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(count, 3, padding="same", kernel_initializer="he_normal")(x)
            x = layers.Activation("relu")(x)
        return x

    x = inputs = keras.Input((32, 32, 8))
    skips = []
    for _ in range(3):
        x = convolve(x, width)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = convolve(x, width)
    for place, skip in enumerate(reversed(skips)):
        if place == 1:
            x = layers.UpSampling2D()(x)
        else:
            x = layers.Conv2DTranspose(width, 2 + place // 2, strides=2, padding="same")(x)
        x = convolve(layers.Concatenate()([x, skip]), width)
    return keras.Model(inputs, layers.Conv2D(8, 1)(x))


def transformer(width: int) -> Any:
    """Build an encoder like ViT and BERT: patches, attention, before and behind normalization."""
    inputs = keras.Input((32, 32, 8))
    x = layers.Conv2D(width, 4, strides=4)(inputs)
    x = layers.Reshape((64, width))(x)
    for block in range(4):
        y = layers.LayerNormalization()(x) if block % 2 else x
        y = layers.MultiHeadAttention(4, width // 4, dropout=0.1)(y, y)
        x = layers.Add()([x, layers.Dropout(0.1)(y)])
        x = x if block % 2 else layers.LayerNormalization()(x)
        y = layers.LayerNormalization()(x) if block % 2 else x
        y = layers.Dense(width)(layers.Dense(2 * width, "gelu")(y))
        x = layers.Add()([x, y])
        x = x if block % 2 else layers.LayerNormalization()(x)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(width, "tanh")(x))


def recurrent(width: int) -> Any:
    """Build a stack of recurrent layers."""
    x = inputs = keras.Input((16, width))
    x = layers.LSTM(width, return_sequences=True)(x)
    x = layers.GRU(width, return_sequences=True)(x)
    x = layers.Bidirectional(layers.LSTM(width // 2, return_sequences=True))(x)
    x = layers.LayerNormalization()(x)
    x = layers.SimpleRNN(width, return_sequences=True)(x)
    x = layers.TimeDistributed(layers.Dense(width, "relu"))(x)
    return keras.Model(inputs, layers.Dense(width)(layers.LSTM(width)(x)))


# Behind ReLU examples look alike, and the mean square over the units of a layer is random by
# √(2/units): errors below are of the prediction as far as layers are wide.
WIDTHS = {"MLP": 1024, "VGG": 256, "U-Net": 192, "ResNet": 192}
DRAWS = {"ViT/BERT": 32, "VGG": 16, "U-Net": 48, "ResNet": 16}
# Without normalization and dropout there is one mode.
ONE_MODE = ("VGG", "U-Net")
FAMILIES: Families = {
    "MLP": mlp,
    "VGG": vgg,
    "ResNet": resnet,
    "MobileNet": mobilenet,
    "U-Net": unet,
    "ViT/BERT": transformer,
    "LSTM/GRU": recurrent,
}


def measure(model: Any, training: bool, examples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Measure the mean squares of all layers' outputs, and of the gradients at them.

    Returns:
        By the name of a layer of a Functional model.
    """
    inner = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    outputs = [layer.output for layer in inner]
    whole = keras.Model(model.input, outputs)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, *model.input_shape[1:])).astype("float32")
    r = rng.normal(size=(examples, *model.output_shape[1:])).astype("float32")
    values, gradients = _differentiate(whole, x, r, training)
    found = {}
    for layer, value, gradient in zip(inner, values, gradients, strict=True):
        squares = (np.asarray(array, np.float64) ** 2 for array in (value, gradient))
        found[layer.name] = tuple(float(square.mean()) for square in squares)
    return found  # type: ignore[return-value]


def _differentiate(model: Any, x: Any, r: Any, training: bool) -> tuple[list[Any], list[Any]]:
    """Return all outputs of a model, and the gradients at them of the last one times numbers."""
    if keras.backend.backend() == "torch":
        values = model(x, training=training)
        for value in values:
            value.retain_grad()
        keras.ops.sum(values[-1] * keras.ops.convert_to_tensor(r)).backward()
        return [v.detach().cpu() for v in values], [v.grad.cpu() for v in values]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x := tf.constant(x))
        values = model(x, training=training)
        projected = tf.reduce_sum(values[-1] * r)
    return values, tape.gradient(projected, values, unconnected_gradients="zero")


def compare(
    build: Callable[[], Any], training: bool, draws: int = 8, examples: int = 16
) -> tuple[Errors, Errors, str]:
    """Compare prediction and measurement, forward and backward.

    Both are means over draws of the weights.

    Returns:
        The errors of the second moments of signals and gradients, and a table of all layers.
    """
    predicted, measured = [], []
    for seed in range(draws):
        keras.utils.set_random_seed(seed)
        model = build()
        prediction = propagate(model, training=training)
        found = measure(model, training, examples, seed)
        rows = [prediction[name] for name in found]
        predicted.append([(row.second_moment, row.gradient_second_moment or 0.0) for row in rows])
        measured.append(list(found.values()))
    means = np.mean(predicted, axis=0), np.mean(measured, axis=0)
    errors = means[0] / means[1] - 1.0
    lines = [
        f"  {row.path:32}{p[0]:11.4g}{m[0]:11.4g}{e[0]:8.1%}"
        f"{p[1]:11.4g}{m[1]:11.4g}{e[1]:8.1%}  {row.how}"
        for row, p, m, e in zip(rows, *means, errors, strict=True)
    ]
    forward, backward = (
        Errors(float(np.abs(x).mean()), float(np.abs(x).max()), len(x)) for x in errors.T
    )
    return forward, backward, "\n".join(lines)


def main(names: list[str]) -> None:
    """Print the errors of each family."""
    is_long = "-v" in names
    names = [name for name in names if name != "-v"]
    print("family      mode        layers   signals: mean  worst   gradients: mean  worst")
    for name in names or FAMILIES:
        for training in (False,) if name in ONE_MODE else (False, True):
            build = functools.partial(FAMILIES[name], WIDTHS.get(name, 128))
            signals, gradients, table = compare(build, training, DRAWS.get(name, 8))
            mode = "training" if training else "inference"
            if is_long:
                print(table)
            print(
                f"{name:12}{mode:12}{signals.layers:6}{signals.mean:16.1%}{signals.worst:7.1%}"
                f"{gradients.mean:18.1%}{gradients.worst:7.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
