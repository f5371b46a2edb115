"""The weights of a model and their names, without a single step of training."""

import keras
import pytest

from keras_initkit.anatomy import weights
from keras_initkit.anatomy.layers_inside import chains
from keras_initkit.anatomy.weights import check_built, weights_of

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers


def test_weights_and_layers_know_their_place():
    inside = [layers.Dense(2, name="one"), layers.LSTM(2, name="memory")]
    block = keras.Sequential([keras.Input((3, 2)), *inside], name="block")
    model = keras.Sequential([keras.Input((3, 2)), block, layers.Dense(1, name="head")])
    found = {weight.path: weight for weight in weights_of(model)}
    assert list(found) == [
        *("block/one/kernel", "block/one/bias"),
        *(f"block/memory/lstm_cell/{name}" for name in ("kernel", "recurrent_kernel", "bias")),
        *("head/kernel", "head/bias"),
    ]
    weight = found["block/memory/lstm_cell/recurrent_kernel"]
    memory = block.layers[1]
    assert weight.layers == (model, block, memory, memory.cell)
    assert weight.holder is memory.cell
    assert (weight.layer, weight.name) == ("block/memory/lstm_cell", "recurrent_kernel")
    assert weight.stream == "block/memory/lstm_cell/recurrent_kernel"
    names = [
        "/".join(layer.name for layer in chain[1:])
        for chain in chains(model)
        if not isinstance(chain[-1], layers.InputLayer)
    ]
    assert names == ["block", "block/one", "block/memory", "block/memory/lstm_cell", "head"]


def test_layers_that_share_a_path_are_numbered():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(2, use_bias=False, name="twin")
            self.second = layers.Dense(2, name="twin")
            self.first.build((None, 2))
            self.second.build((None, 2))

    paths = [weight.path for weight in weights_of(Twins())]
    assert paths == ["twin/kernel", "twin#2/kernel", "twin#2/bias"]


def test_weights_of_one_name_are_numbered():
    layer = keras.Layer(name="own")
    layer.weight, layer.other = (layer.add_weight(shape=(2,), name="a") for _ in range(2))
    layer.built = True
    assert [weight.path for weight in weights_of(layer)] == ["a", "a#2"]
    model = keras.Sequential([layer])
    assert [weight.path for weight in weights_of(model)] == ["own/a", "own/a#2"]


def test_shared_layers_are_listed_once():
    shared = layers.Dense(2, name="shared")
    inputs = keras.Input((2,))
    inner = keras.Model(inputs, shared(inputs), name="inner")
    model = keras.Model(inputs, shared(inner(inputs)))
    assert [weight.path for weight in weights_of(model)] == ["shared/kernel", "shared/bias"]
    names = [[layer.name for layer in chain[1:]] for chain in chains(model)]
    assert sum(name[-1] == "shared" for name in names) == 1


def test_the_numbers_that_keras_gives_are_not_part_of_a_stream():
    for kind in [kind for kind in vars(layers).values() if isinstance(kind, type)]:
        namesake = type(kind.__name__, (layers.Layer,), {})
        first, second = namesake(), namesake()
        assert first.name != second.name
        assert weights._strip_number(first) == weights._strip_number(second), kind


def test_the_owner_is_the_outermost_layer_with_a_rule():
    layer = layers.Bidirectional(layers.LSTM(2))
    layer.build((None, 3, 2))
    assert all(weight.owner is weight.holder for weight in weights_of(layer))
    for kind in (layers.LSTM, layers.LSTMCell, layers.Bidirectional):
        found = weights_of(layer, lambda inner: type(inner) is kind)  # noqa: B023
        assert {type(weight.owner) for weight in found} == {kind}
        assert all(weight.owner in weight.layers for weight in found)


def test_what_has_no_weights_is_named():
    for model, message in (
        ("net.keras", "`model` must be a keras.Model or a layer. .* model='net.keras'. Load"),
        (layers.Dense(2, name="net"), "`model` must be built, .* Received: 'net', .* Call it on"),
        (layers.ReLU(name="net"), "`model` must have weights. Received: 'net', .* must be called"),
    ):
        with pytest.raises(ValueError, match=message):
            check_built(model)
