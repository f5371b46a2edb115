"""Layers that a `call` of the user's makes anew, and those that are made once."""

import functools

import keras
import pytest
from keras import layers
from keras.layers import Dense

from keras_initkit.anatomy.own_calls import name_made_layer
from keras_initkit.anatomy.setup import read_setup

pytestmark = pytest.mark.backends("torch")


class Block(keras.layers.Layer):
    def __init__(self, inner=None):
        super().__init__()
        self.inner = inner or Dense(3)

    def call(self, x):
        return self.inner(x)


class Scale(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:])


class Slim(Dense):
    def __init__(self):
        super().__init__(1)


def inside(kind):
    def call(self, x):
        return kind()(x)

    return functools.wraps(call)(lambda *args: call(*args))


def from_a_module(self, x):
    return layers.Activation("relu")(keras.layers.Conv1D(3, 1)(x))


def in_a_list(self, x):
    return keras.ops.stack([Dense(units)(x) for units in (3, 3)])


def careful(self, x: Dense, Conv1D=None):  # noqa: N803 (the name of a layer)
    """It names layers, makes one once, and others without weights."""
    if self.inner is None:
        self.inner = Dense(3)
    x = layers.Dropout(0.1)(layers.Add()([x, super(Block, self).call(x)]))
    return Conv1D(x) if isinstance(self.inner, Dense) and Conv1D else self.inner(x)


def after_a_return(self, x):
    if self.inner is not None:
        return self.inner(x)
    self.inner = Dense(3)
    return self.inner(x)


def in_a_factory(self, x):
    return self.get("a", lambda: Dense(3))(x)


def without_weights(self, x):
    return layers.LayerNormalization(center=False, scale=False)(x)


CALLS = {
    "after an early return": (after_a_return, ""),
    "in a factory": (in_a_factory, ""),
    "a normalization without weights": (without_weights, ""),
    "from a module": (from_a_module, "Conv1D"),
    "in a list": (in_a_list, "Dense"),
    "a block of one's own": (inside(Block), "Block"),
    "with weights of its own": (inside(Scale), "Scale"),
    "of a class of Keras": (inside(Slim), "Slim"),
    "no weights": (inside(layers.Flatten), ""),
    "no source": (eval("lambda self, x: Dense(3)(x)"), ""),
    "made once": (careful, ""),
}


def own(call, base=keras.layers.Layer, **fields):
    return type("Own", (base,), {"call": call})(**fields)


@pytest.mark.parametrize("name", CALLS)
def test_layers_with_weights_that_are_made_in_each_call(name):
    call, expected = CALLS[name]
    assert name_made_layer(own(call)) == expected


def test_the_setup_has_the_layers_and_the_model_that_make_others():
    model = keras.Sequential([keras.Input((4, 2)), own(from_a_module), Block()])
    arguments = [item.arguments for item in read_setup(model).layers]
    found = [(item.get("makes"), item.get("is_own")) for item in arguments]
    assert found == [("Conv1D", True), ("", True), (None, None)]
    net = own(in_a_list, keras.Model)
    net(keras.ops.zeros((2, 3)))
    last = read_setup(net).layers[-1]
    assert (last.path, last.type, last.arguments["makes"]) == ("", "Own", "Dense")
