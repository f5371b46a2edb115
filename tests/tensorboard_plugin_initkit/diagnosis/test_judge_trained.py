"""Networks that are really trained."""

from collections.abc import Callable
from typing import Any

import keras
import pytest

from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.diagnosis.judge import judge

pytestmark = pytest.mark.numpy_alone

VS = keras.initializers.VarianceScaling


def deep(activation: str, scale: float, depth: int, **head: Any) -> Callable[[], Any]:
    def build() -> Any:
        hidden = [
            keras.layers.Dense(32, activation, kernel_initializer=VS(scale, seed=i))
            for i in range(depth - 1)
        ]
        return keras.Sequential([*hidden, keras.layers.Dense(4, "softmax", **head)])

    return build


def normalized() -> Any:
    layers: list[Any] = []
    for _ in range(4):
        layers += [
            keras.layers.Dense(32, kernel_initializer=VS(0.01)),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
        ]
    return keras.Sequential([*layers, keras.layers.Dense(4, "softmax")])


def residual() -> Any:
    inputs = keras.Input((16,))
    x = keras.layers.Dense(32)(inputs)
    for _ in range(5):
        branch = keras.layers.Dense(32, "relu", kernel_initializer="he_normal")(x)
        x = x + keras.layers.Dense(32, kernel_initializer="zeros")(branch)
    return keras.Model(inputs, keras.layers.Dense(4, "softmax")(x))


def attention() -> Any:
    inputs = keras.Input((16,))
    x = keras.layers.Dense(16)(keras.layers.Reshape((16, 1))(inputs))
    for _ in range(2):
        x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 8)(x, x))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, "softmax")(x))


def recurrent() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Reshape((16, 1)),
            layers.LSTM(16),
            layers.Dense(8, "relu"),
            layers.Dense(4, "softmax"),
        ]
    )


def dead_relu() -> Any:
    layers = [
        keras.layers.Dense(32, "relu", bias_initializer=keras.initializers.Constant(bias))
        for bias in (0.0, -1e3, 0.1, 0.1)
    ]
    return keras.Sequential([*layers, keras.layers.Dense(4, "softmax")])


TRAINED: list[tuple[str, Callable[[], Any], float, str]] = [
    ("he_relu", deep("relu", 2.0, 12), 1e-3, ""),
    ("zero_head", deep("relu", 2.0, 5, kernel_initializer="zeros"), 1e-3, ""),
    ("batch_normalization", normalized, 1e-3, ""),
    ("residual_from_zeros", residual, 1e-3, ""),
    ("attention", attention, 1e-3, ""),
    ("lstm", recurrent, 1e-3, ""),
    ("weights_too_small", deep("relu", 0.1, 10), 1e-3, "vanishing"),
    ("sigmoid", deep("sigmoid", 1.0, 12), 1e-3, "vanishing"),
    ("weights_too_large", deep("relu", 50.0, 10), 1e-3, "exploding"),
    ("exponential", deep("exponential", 2.0, 8), 1e-3, "nonfinite"),
    ("dead_relu", dead_relu, 1e-3, "dead_units"),
    ("rate_too_large", deep("relu", 2.0, 3), 10.0, "large_updates"),
    ("rate_too_small", deep("relu", 2.0, 3), 1e-10, "small_updates"),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::keras_initkit.callbacks.GradientWarning")
@pytest.mark.parametrize(
    ("build", "rate", "expected"), [row[1:] for row in TRAINED], ids=[row[0] for row in TRAINED]
)
def test_trained_networks(build, rate, expected, rng):
    x = rng.normal(size=(640, 16)).astype("float32")
    y = x[:, :4].argmax(axis=1)
    model = build()
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)  # compiling takes longer
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(x, y, batch_size=64, epochs=4, verbose=0, callbacks=[monitor])
    found = judge(monitor.history)
    assert [f.kind for f in found][:1] == ([expected] if expected else []), found
