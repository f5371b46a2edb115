"""Networks that are really trained."""

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.diagnosis.judge import judge

# The rules see records, which are the same on every backend: on PyTorch they come soonest.
pytestmark = [
    pytest.mark.backends("torch"),
    pytest.mark.filterwarnings("ignore::keras_initkit.callbacks.GradientWarning"),
]

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
    "sigmoid": (lambda: deep("sigmoid", 1.0, 12), 1e-3, "deep_sigmoids"),
    "exponential": (lambda: deep("exponential", 2.0, 8), 1e-3, "nonfinite"),
    "dead_relu": (lambda: deep("relu", 2.0, 4, bias=-9.9), 1e-3, "dead_units"),
    "rate_too_large": (lambda: deep("relu", 2.0, 3), 10.0, "learning_rate"),
}


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks(name, rng):
    build, rate, expected = TRAINED[name]
    x = rng.normal(size=(640, 16)).astype("float32")
    y = x[:, :4].argmax(axis=1)
    model = build()
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(x, y, batch_size=64, epochs=4, verbose=0, callbacks=[monitor])
    found = [finding for finding in judge(monitor.history) if finding.severity != "note"]
    assert [f.kind for f in found][:1] == ([expected] if expected else []), found


class Gate(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(initializer="zeros", trainable=False)

    def call(self, x):
        return self.scale * x


class Gated(keras.layers.Layer):
    """No graph shows what is done in it."""

    def __init__(self):
        super().__init__(name="gated")
        self.branch = relu()

    def call(self, x):
        return x + 0.0 * self.branch(x)


def two_heads(activation=None, trunk_bias=0.0):
    """Return a model with two outputs, each with a hidden layer, and a trunk for both."""
    inputs = keras.Input((8,))
    x = relu("trunk", trunk_bias)(inputs)
    hidden = [keras.layers.Dense(8, "tanh")(x) for _ in "ab"]
    last = [keras.layers.Dense(1, activation, name=n)(h) for n, h in zip("ab", hidden, strict=True)]
    return keras.Model(inputs, last)


def residual(branch):
    inputs = keras.Input((8,))
    x = relu("first")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Add()([x, branch(x)])))


def relu(name="branch", bias=0.0):
    start = keras.initializers.Constant(bias)
    return keras.layers.Dense(8, "relu", name=name, bias_initializer=start)


def product(x):
    return keras.layers.Multiply()([relu()(x), keras.ops.zeros_like(x)])


CAUSES = {
    "a loss weight": (two_heads, []),
    "a loss weight behind a sigmoid": (lambda: two_heads("sigmoid"), []),
    "sample weights": (two_heads, [("zero_sample_weights", "")]),
    "both": (lambda: two_heads(trunk_bias=-9.9), [("dead_units", "trunk")]),
    "a gate": (
        lambda: residual(keras.Sequential([relu(), Gate()], name="net")),
        [("no_gradient", "net/branch")],
    ),
    "a product": (lambda: residual(product), [("no_gradient", "branch")]),
    "inside a layer": (lambda: residual(Gated()), [("no_gradient", "gated/branch")]),
    "units": (lambda: residual(relu(bias=-9.9)), [("dead_units", "branch")]),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_gradient_of_zero_is_dead_units_only_where_an_activation_is_the_cause(cause, rng):
    build, expected = CAUSES[cause]
    keras.utils.set_random_seed(1)  # weights with which no model learns in sixteen steps
    model, by_samples = build(), cause == "sample weights"
    x, y = rng.normal(size=(2, 320, 8)).astype("float32")
    y, x[:, 1] = np.tanh(y) ** 2, np.tanh(x[:, 1]) ** 2  # in reach of a sigmoid
    several = len(model.outputs) == 2
    targets = [y[:, 0], x[:, 1]] if several else y[:, 0]
    weights = {"loss_weights": [1.0, float(by_samples)]} if several else {}
    model.compile("adam", ["mse"] * len(model.outputs), **weights)
    sample_weight = [np.ones(320), np.zeros(320)] if by_samples else None
    monitor = GradientMonitor(every_n_steps=2)
    model.fit(x, targets, 20, 1, 0, [monitor], sample_weight=sample_weight)
    found = [finding for finding in monitor.findings if finding.severity != "note"]
    assert [(finding.kind, finding.layer) for finding in found] == expected
