"""The weights of a model and their names, without a single step of training."""

import keras
import pytest

from keras_initkit.anatomy.weights import _strip_number, check_built, weights_of

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


class Subclassed(keras.Model):
    """Layers in a dict and a list."""

    def __init__(self, *inside, name="sub"):
        super().__init__(name=name)
        self.first, self.others = {"first": inside[:1]}, list(inside[1:])


def fc(name="fc"):
    return layers.Dense(2, use_bias=False, name=name)


def sequential(name, *inside):
    return keras.Sequential([keras.Input((2,)), *inside], name=name)


def joined(name, *inside):
    """Return a functional model with layers side by side, and one behind them."""
    inputs = keras.Input((2,))
    outputs = layers.Concatenate()([inputs, *(layer(inputs) for layer in inside)])
    return keras.Model(inputs, fc("head")(outputs), name=name)


PATHS = {
    "two towers": (
        lambda: joined("m", joined("left", fc()), joined("right", fc())),
        ["left/fc", "left/head", "right/fc", "right/head", "head"],
    ),
    "deeper": (
        lambda: joined("m", joined("a", joined("in")), joined("b", joined("in"))),
        ["a/in/head", "a/head", "b/in/head", "b/head", "head"],
    ),
    "in Sequential": (lambda: sequential("s", joined("left"), fc()), ["left/head", "fc"]),
    "in a subclass": (
        lambda: Subclassed(joined("left"), Subclassed(joined("right"), name="inner")),
        ["left/head", "inner/right/head"],
    ),
    "of one name, not built": (
        lambda: Subclassed(keras.Sequential([fc()], name="twin"), sequential("twin", fc())),
        ["twin#2/fc"],
    ),
    "a model's name in it": (lambda: joined("m", joined("m", fc())), ["m/fc", "m/head", "head"]),
    "a wrapper": (
        lambda: sequential("s", layers.Reshape((1, 2)), layers.TimeDistributed(fc(), name="each")),
        ["each/fc"],
    ),
}


@pytest.mark.parametrize("case", PATHS)
def test_a_path_has_the_names_of_all_layers_around(case):
    make, paths = PATHS[case]
    assert [weight.layer for weight in weights_of(make())] == paths


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
    # It is called by its place in the fewest layers.
    assert [place.path for place in weights_of(model)[0].places] == ["shared", "inner/shared"]


def test_the_numbers_that_keras_gives_are_not_part_of_a_stream():
    for kind in [kind for kind in vars(layers).values() if isinstance(kind, type)]:
        namesake = type(kind.__name__, (layers.Layer,), {})
        first, second = namesake(), namesake()
        assert first.name != second.name
        streams = [_strip_number(layer.name, kind.__name__) for layer in (first, second)]
        assert streams[0] == streams[1], kind


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
