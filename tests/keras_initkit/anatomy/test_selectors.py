"""The one language for "which layers"."""

import re

import keras
import pytest

from keras_initkit.anatomy.selectors import Match, Selection, check_selector, match
from keras_initkit.anatomy.weights import Place

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers
MODEL = keras.Sequential(name="model")
BLOCK = keras.Sequential(name="block")
CONV, DENSE, RNN = layers.Conv2D(1, 1, name="conv"), layers.Dense(1, name="head"), layers.LSTM(1)
CHAINS = {
    "block/conv": [MODEL, BLOCK, CONV],
    "block/conv#2": [MODEL, BLOCK, layers.Conv2D(1, 1, name="conv")],
    "block#2/head": [MODEL, keras.Sequential(name="block"), DENSE],
    "memory/lstm_cell": [MODEL, RNN, RNN.cell],
    "conv_head": [MODEL, layers.Dense(1, name="conv_head")],
}
PLACES = {path: Place(tuple(chain), path) for path, chain in CHAINS.items()}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        # Names and paths.
        ("head", ["block#2/head"]),
        ("lstm_cell", ["memory/lstm_cell"]),
        ("memory/lstm_cell", ["memory/lstm_cell"]),
        ("block", ["block/conv", "block/conv#2", "block#2/head"]),
        ("block#2", ["block#2/head"]),
        ("conv", ["block/conv", "block/conv#2"]),
        ("block/conv#2", ["block/conv#2"]),
        ("block/head", ["block#2/head"]),
        ("onv", []),
        ("kernel", []),
        ("block/conv/kernel", []),
        # Regular expressions see numbers.
        (re.compile("conv"), ["block/conv", "block/conv#2", "conv_head"]),
        (re.compile("conv$"), ["block/conv"]),
        # Classes.
        (layers.Conv2D, ["block/conv", "block/conv#2"]),
        (layers.RNN, ["memory/lstm_cell"]),
        (keras.Sequential, list(PLACES)),
        # Functions see the layer itself alone.
        (lambda layer: layer.name == "head", ["block#2/head"]),
        (lambda layer: not isinstance(layer, layers.Conv2D), list(PLACES)[2:]),
        # Any, all.
        ([layers.LSTM, "head"], ["block#2/head", "memory/lstm_cell"]),
        ((layers.Dense, "block"), ["block#2/head"]),
        ((["conv", "head"], re.compile("2")), ["block/conv#2", "block#2/head"]),
        ([("conv", "block"), (layers.Dense, re.compile("^conv"))], [*PLACES][:2] + [*PLACES][4:]),
        (None, list(PLACES)),
    ],
)
def test_layers(selector, selected):
    selects = Selection("layers", selector)
    assert [place.path for place in PLACES.values() if selects([place])] == selected


@pytest.mark.parametrize(
    ("selector", "how"),
    [
        ("conv", Match.LAYER),
        (re.compile("block"), Match.LAYER),
        (layers.Conv2D, Match.LAYER),
        (lambda layer: layer.filters == 1, Match.LAYER),
        ("kernel", Match.WEIGHT),
        ("conv#2/kernel", Match.WEIGHT),
        ("conv#3/kernel", Match.NONE),
        ("bias", Match.NONE),
        (re.compile("conv.*/kernel$"), Match.WEIGHT),
        (re.compile("^kernel"), Match.NONE),
        (("conv", "kernel"), Match.WEIGHT),
        ((layers.Conv2D, ["kernel", "gamma"]), Match.WEIGHT),
        (["bias", "conv"], Match.LAYER),
    ],
)
def test_weights(selector, how):
    weight = [PLACES["block/conv#2"]], "kernel"
    assert match(selector, *weight) is how
    assert Selection("only", selector)(*weight) == bool(how)


def test_a_layer_that_is_no_model_has_weights_without_a_path():
    for selector in ("kernel", re.compile("^kernel")):
        assert match(selector, [Place((DENSE,))], "kernel") is Match.WEIGHT


@pytest.mark.parametrize("selector", [3, "", [], (), ["conv", 3], ("conv", []), None])
def test_what_is_no_selector(selector):
    message = (
        "`layers` must select layers: by a class of layers, a name or a part of a path, a compiled "
        "regular expression to be searched for in the path, a function of the layer that returns a "
        "bool, a list of these of which any may hold, or a tuple of which all must hold. Received: "
        f"layers={selector!r}. Write for example `re.compile('conv')` for every layer with conv in "
        "its path."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_selector("layers", selector)
