"""Layers whose initializers know them from the start, on the backend in use."""

import keras
import numpy as np
import pytest

from keras_initkit import layer_aware, reinitialize
from keras_initkit.initializers import HeNormal, XavierUniform
from tests.keras_initkit.initializers.helpers import array, assert_same

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers


def depthwise():
    return layers.DepthwiseConv2D(3, depthwise_initializer=HeNormal(gain=1.0), name="depthwise")


class Own(keras.Model):
    """A model whose layer is built while its training step is traced."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return keras.ops.mean(self.inner(x), axis=(1, 2))


SHAPE = (1, 8, 8, 64)


def fit(layer):
    model = Own(layer)
    model.compile("sgd", "mse")
    model.fit(np.zeros(SHAPE, "float32"), np.zeros((1, 64), "float32"), verbose=0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda layer: layer.build(SHAPE), lambda layer: None),
        (lambda layer: None, lambda layer: layer(np.zeros(SHAPE, "float32"))),
        (lambda layer: None, fit),
    ],
    ids=["built", "called", "in a model with its own call"],
)
def test_a_layer_is_right_when_it_is_built(before, after):
    layer, other = depthwise(), depthwise()
    build = layer.build
    before(layer)
    assert layer_aware(layer, seed=1) is layer
    after(layer)
    assert layer.build == build
    assert array(layer.kernel).var() == pytest.approx(1 / 9, rel=0.2)
    other.build(SHAPE)
    reinitialize(other, seed=1)
    np.testing.assert_array_equal(array(layer.kernel), array(other.kernel))


def test_a_model_with_it_is_saved_and_cloned_as_any_other(tmp_path):
    layer = layer_aware(depthwise(), seed=1)
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(map(array, loaded.weights), map(array, model.weights))
    # A clone has new weights, drawn by Keras.
    clone = keras.models.clone_model(model)
    for other in (loaded, clone):
        reinitialize(other, {layers.DepthwiseConv2D: "zeros"})
        reinitialize(other.layers[0], seed=1)
        assert_same(map(array, other.weights), map(array, model.weights))


def test_layers_inside_are_layer_aware_too():
    inner = layers.LSTM(32, kernel_initializer=XavierUniform())
    layer = layer_aware(layers.Bidirectional(inner), seed=0)
    layer.build((None, 2, 32))
    first, second = [array(w) for w in layer.weights if w.name == "kernel"]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1
    # A gate has 32 inputs and 32 outputs, not 128.
    assert [first.var(), second.var()] == pytest.approx([1 / 32, 1 / 32], rel=0.1)


class Inside(keras.Layer):
    """A layer whose own `build` builds none of the layers inside it."""

    def __init__(self):
        super().__init__()
        dense = [layers.Dense(64, kernel_initializer=HeNormal(seed=1)) for _ in range(2)]
        self.first, self.second = dense
        self.nothing = layers.ReLU()

    def call(self, x, other=False):
        return self.nothing((self.second if other else self.first)(x))


class BuiltBefore(Inside):
    def build(self, shape):
        self.built = True


class EagerAlone(BuiltBefore):
    def call(self, x, other=False):
        x = keras.ops.convert_to_tensor(keras.ops.convert_to_numpy(x))
        return super().call(x, other)


@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer:UserWarning")
@pytest.mark.parametrize("kind", [Inside, BuiltBefore, EagerAlone])
@pytest.mark.parametrize("order", [(False, True), (True, False)])
def test_layers_inside_that_are_built_at_their_first_call_are_layer_aware(kind, order):
    layer = kind()
    builds = [inner.build for inner in (layer.first, layer.second)]
    layer_aware(layer, seed=3)
    x = np.ones((2, 32), "float32")
    outputs = [array(layer(x, other=other)) for other in order]
    # They are drawn before they are used.
    assert_same(outputs, [array(layer(x, other=other)) for other in order])
    assert [inner.build for inner in (layer.first, layer.second)] == builds
    # In any order they are what a layer that is built has.
    expected = kind()
    for inner in (expected.first, expected.second):
        inner.build((None, 32))
    expected.built = True
    reinitialize(expected, seed=3)
    assert_same(map(array, layer.weights), map(array, expected.weights))


def test_weights_that_are_there_before_a_layer_is_built_are_drawn_once():
    layer = keras.Layer()
    layer.kernel_initializer = HeNormal(seed=1)
    layer.kernel = layer.add_weight((8, 8), layer.kernel_initializer, name="kernel")
    layer_aware(layer, seed=3)
    before = array(layer.kernel)
    assert np.any(before != array(HeNormal(seed=1)((8, 8))))
    layer.build((None, 8))
    np.testing.assert_array_equal(array(layer.kernel), before)


def test_a_layer_around_others_is_complete_when_its_weights_are_drawn():
    complete = []

    class Noting(keras.initializers.Zeros):
        def __call__(self, shape, dtype=None, **kwargs):
            complete.append(outer.second.built)
            return super().__call__(shape, dtype)

    class Outer(keras.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.second = (layers.Dense(2, kernel_initializer=Noting()) for _ in "ab")

        def build(self, shape):
            self.first.build(shape)
            self.second.build(shape)

    outer = layer_aware(Outer())
    outer.build((None, 2))
    # Drawn by Keras, in turn, and then by `layer_aware`.
    assert complete == [False, False, True, True]


def test_a_build_that_fails_may_be_tried_again():
    layer = layer_aware(layers.Conv2D(8, 3, groups=2, kernel_initializer=HeNormal(seed=1)), seed=3)
    with pytest.raises(ValueError, match="evenly divisible by the number of groups"):
        layer.build((None, 9, 9, 3))
    layer.build((None, 9, 9, 4))
    assert np.any(array(layer.kernel) != array(HeNormal(seed=1)((3, 3, 2, 8))))


def test_layer_aware_takes_layers():
    with pytest.raises(ValueError, match=r"`layer` must be a keras.layers.Layer. Received: layer="):
        layer_aware(HeNormal())
    with pytest.raises(ValueError, match="`seed` must be an integer or None"):
        layer_aware(depthwise(), seed="1")  # type: ignore[arg-type]
