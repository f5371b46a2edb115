"""Networks that are really trained."""

import keras
import pytest

from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.diagnosis.judge import judge

VS = keras.initializers.VarianceScaling


def deep(activation, scale, depth, bias=0.0):
    hidden = [
        keras.layers.Dense(
            24,
            activation,
            kernel_initializer=VS(scale, seed=i),
            bias_initializer=keras.initializers.Constant(bias if i == 1 else 0.0),
        )
        for i in range(depth - 1)
    ]
    return keras.Sequential([*hidden, keras.layers.Dense(4, "softmax")])


def residual_attention():
    inputs = keras.Input((16,))
    x = keras.layers.Dense(16)(keras.layers.Reshape((16, 1))(inputs))
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 8)(x, x))
    branch = keras.layers.Dense(32, "relu", kernel_initializer="he_normal")(x)
    x = x + keras.layers.Dense(16, kernel_initializer="zeros")(branch)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, "softmax")(x))


# The rules are proven on made histories; here is a network of each kind, healthy ones first.
TRAINED = {
    "he_relu": (lambda: deep("relu", 2.0, 8), 1e-3, ""),
    "residual_attention": (residual_attention, 1e-3, ""),
    "sigmoid": (lambda: deep("sigmoid", 1.0, 12), 1e-3, "vanishing"),
    "exponential": (lambda: deep("exponential", 2.0, 8), 1e-3, "nonfinite"),
    "dead_relu": (lambda: deep("relu", 2.0, 4, bias=-1e3), 1e-3, "dead_units"),
    "rate_too_large": (lambda: deep("relu", 2.0, 3), 10.0, "large_updates"),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::keras_initkit.callbacks.GradientWarning")
@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks(name, rng):
    build, rate, expected = TRAINED[name]
    x = rng.normal(size=(640, 16)).astype("float32")
    y = x[:, :4].argmax(axis=1)
    model = build()
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)  # compiling takes longer
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(x, y, batch_size=64, epochs=4, verbose=0, callbacks=[monitor])
    found = judge(monitor.history)
    assert [f.kind for f in found][:1] == ([expected] if expected else []), found
