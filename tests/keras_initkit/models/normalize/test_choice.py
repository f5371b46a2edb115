"""Which inputs are normalized, by the rule and by selectors; every form of targets."""

import re

import keras
import numpy as np
import pytest

from keras_initkit.models.normalize.choice import choose_inputs, find_sources
from keras_initkit.models.normalize.ports import read_ports
from keras_initkit.models.normalize.with_normalization import with_normalization
from tests.keras_initkit.models.normalize.houses import columns, layers, regression

pytestmark = pytest.mark.backends("tensorflow", "torch")

BACKEND = keras.backend.backend()


def choose(model, only=None, exclude=None):
    chosen, _ = choose_inputs(model, read_ports(model)[0], only, exclude)
    return [port.name for port in chosen]


def through(layer, dtype="float32", cast=None):
    """A model of "x", which feeds a layer, and of "z", which does not."""
    x, z = keras.Input((1,), name="x", dtype=dtype), keras.Input((1,), name="z")
    taken = layer(keras.ops.cast(x, cast) if cast else x)
    flat = layers.Flatten()(keras.ops.cast(taken, "float32"))
    return keras.Model({"x": x, "z": z}, layers.Concatenate()([flat, z]))


LEFT_ALONE = {
    "Embedding": lambda: through(layers.Embedding(3, 2)),
    "Embedding after a cast": lambda: through(layers.Embedding(3, 2), cast="int32"),
    "Embedding in an inner model": lambda: through(
        keras.Sequential([layers.Reshape((1,)), layers.Embedding(3, 2)])
    ),
    "Embedding in TimeDistributed": lambda: through(
        keras.Sequential([layers.Reshape((1, 1)), layers.TimeDistributed(layers.Embedding(3, 2))])
    ),
    "Rescaling": lambda: through(layers.Rescaling(1 / 255)),
    "integers": lambda: through(layers.Identity(), dtype="int64"),
    "booleans": lambda: through(layers.Identity(), dtype="bool"),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_categorical_and_scaled_inputs_are_left_alone(case):
    assert choose(LEFT_ALONE[case]()) == ["z"]


def test_sparse_inputs_are_left_alone():
    if BACKEND == "torch":
        pytest.skip("has no sparse tensors")
    x, z = keras.Input((5,), name="x", sparse=True), keras.Input((1,), name="z")
    model = keras.Model([x, z], layers.Concatenate()([layers.Dense(2)(x), z]))
    assert choose(model) == ["z"]
    wrapped = with_normalization(model, {"z": columns()["age"]})
    assert wrapped.inputs[0].sparse


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["age", "blood"]),
        ({"only": "blood"}, ["blood"]),
        ({"only": re.compile("^b")}, ["blood"]),
        ({"only": lambda layer: layer.batch_shape[-1] == 3}, ["blood"]),
        ({"only": (layers.InputLayer, re.compile("o"), "blood")}, ["blood"]),
        ({"exclude": ["age", "job"]}, ["blood"]),
        ({"only": ["age", "blood"], "exclude": ["age"]}, ["blood"]),
    ],
)
def test_inputs_can_be_selected(options, expected):
    assert choose(regression(), **options) == expected


def test_only_goes_before_the_rule():
    assert choose(LEFT_ALONE["Rescaling"](), only="x") == ["x"]


def outputs_of(*names, keys=False, activation=None):
    x = keras.Input((2,))
    outputs = {f"{name}_key": layers.Dense(1, activation, name=name)(x) for name in names}
    return read_ports(keras.Model(x, outputs if keys else list(outputs.values())))[1]


def found(targets, outputs):
    sources = find_sources(targets, outputs)
    return {port.name: getattr(x, "tolist", lambda x=x: x)() for port, x in sources.items()}


@pytest.mark.parametrize(
    ("names", "targets", "expected"),
    [
        ("a", None, {}),
        ("a", True, {"a": True}),
        ("a", "column", {"a": "column"}),
        ("a", [1.0, 2.0], {"a": [1.0, 2.0]}),
        ("ab", True, {"a": True, "b": True}),
        ("ab", {"a": True, "b": None}, {"a": True}),
        ("ab", [None, True], {"b": True}),
        ("ab", (np.ones(2), "c"), {"a": [1.0, 1.0], "b": "c"}),
    ],
)
def test_every_form_of_targets(names, targets, expected):
    assert found(targets, outputs_of(*names)) == expected


def test_outputs_in_a_dict_go_by_keys_and_by_names_and_tensors_are_read():
    outputs = outputs_of("a", "b", keys=True)
    for name in ("a_key", "a"):
        for tensor in (keras.ops.ones(2), keras.Variable(np.ones(2))):
            assert found({name: tensor}, outputs) == {"a_key": [1.0, 1.0]}


def ends_in(last):
    x = keras.Input((2,))
    return read_ports(keras.Model(x, last(x)))[1]


BOUNDED = r"^`targets` must belong to outputs that can take any value, .* which is of "
ERRORS = [
    (
        lambda: choose(regression(), only=["age", "wage"]),
        r"^`only` must select inputs of the model. Received: 'wage', which selects none. The "
        r"inputs are 'age', 'blood', 'job'.$",
    ),
    (lambda: choose(regression(), exclude="wage"), r"^`exclude` must select .* Received: 'wage'"),
    (lambda: choose(regression(), only=3), r"^`only` must select layers: by a class of layers, a"),
    (
        lambda: choose(regression(), only="job"),
        r"^`only` must select .* floating .* 'job', which is of dtype int32. Declare it with `k",
    ),
    (
        lambda: choose(through(layers.Masking(0.0, name="padding"))),
        r"Received: input 'x', which feeds the Masking layer 'padding'. Put a `Normalization` "
        r"after that layer, adapt it with `mask_value=0.0`, and pass `exclude='x'`.$",
    ),
    (
        lambda: with_normalization(LEFT_ALONE["Embedding"](), {}, exclude="z"),
        r"^`model` must have an input to normalize. Received: a model of which 'x' feeds the "
        r"Embedding layer 'embedding'. Name continuous inputs with `only=`.$",
    ),
    (
        lambda: find_sources({"prize": True}, outputs_of("price")),
        r"^`targets` must name outputs of the model. Received: 'prize'. The outputs are 'price'.$",
    ),
    (
        lambda: find_sources(np.ones(3), outputs_of("price", "kind")),
        r"^`targets` must be a dict or list for the 2 outputs 'price', 'kind'. Received: targets "
        r"of type ndarray. Pass `{name: array}`; outputs that are not named are left alone.$",
    ),
    (
        lambda: find_sources(3.0, outputs_of("price")),
        r"^`targets` must be arrays with a row .*, `True`, or names of columns. Received: 3.0.$",
    ),
    (
        lambda: find_sources(True, outputs_of("kind", activation="softmax")),
        BOUNDED + r"activation softmax. End it without activation, or name only",
    ),
    (lambda: find_sources(True, ends_in(layers.ReLU())), BOUNDED + "activation relu"),
    (
        lambda: find_sources(True, ends_in(lambda x: keras.ops.cast(x, "int32"))),
        BOUNDED + "dtype int32",
    ),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_errors_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()
