"""Where targets are: every form in which they can be given."""

import keras
import numpy as np
import pytest

from keras_initkit.models.normalize.ports import read_ports
from keras_initkit.models.normalize.targets import find_sources
from tests.keras_initkit.models.normalize.houses import layers

pytestmark = pytest.mark.backends("tensorflow", "torch")


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


BOUNDED = r"^`targets` must be those of outputs that take all values, .* which is of "
ERRORS = [
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
