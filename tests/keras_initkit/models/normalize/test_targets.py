"""Where targets are: every form in which they can be given."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keras_initkit.models.normalize.ports import Ports, read_ports
from keras_initkit.models.normalize.targets import find_sources
from tests.keras_initkit.models.normalize.houses import exactly, layers

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def outputs_of(*names: str, keys: bool = False, activation: str | None = None) -> Ports:
    x = keras.Input((2,))
    outputs = {f"{name}_key": layers.Dense(1, activation, name=name)(x) for name in names}
    return read_ports(keras.Model(x, outputs if keys else list(outputs.values())))[1]


def found(targets: Any, outputs: Ports) -> dict[str, Any]:
    sources = find_sources(targets, outputs)
    return {port.name: getattr(x, "tolist", lambda x=x: x)() for port, x in sources.items()}


@pytest.mark.parametrize(
    ("names", "targets", "expected"),
    [
        ("a", None, {}),
        ("a", False, {}),
        ("a", True, {"a": True}),
        ("a", "column", {"a": "column"}),
        ("a", [1.0, 2.0], {"a": [1.0, 2.0]}),
        ("a", np.ones((2, 1)), {"a": [[1.0], [1.0]]}),
        ("a", {"a": True}, {"a": True}),
        ("ab", True, {"a": True, "b": True}),
        ("ab", {"b": "column"}, {"b": "column"}),
        ("ab", {"a": True, "b": None}, {"a": True}),
        ("ab", [None, True], {"b": True}),
        ("ab", (np.ones(2), "c"), {"a": [1.0, 1.0], "b": "c"}),
    ],
)
def test_every_form_of_targets(names, targets, expected):
    assert found(targets, outputs_of(*names)) == expected


def test_outputs_in_a_dict_go_by_keys_and_by_names():
    outputs = outputs_of("a", "b", keys=True)
    assert found({"a_key": True}, outputs) == found({"a": True}, outputs) == {"a_key": True}


def test_a_tensor_or_variable_is_read():
    outputs = outputs_of("a")
    for tensor in (keras.ops.ones(2), keras.Variable(np.ones(2))):
        assert found(tensor, outputs) == {"a": [1.0, 1.0]}


ERRORS = {
    "unknown output": (
        lambda: find_sources({"prize": True}, outputs_of("price")),
        "`targets` must name outputs of the model. Received: 'prize'. The outputs are 'price'.",
    ),
    "one array for several outputs": (
        lambda: find_sources(np.ones(3), outputs_of("price", "kind")),
        "`targets` must be a dict or list for the 2 outputs 'price', 'kind'. Received: targets of "
        "type ndarray. Pass `{name: array}`; outputs that are not named are left alone.",
    ),
    "softmax": (
        lambda: find_sources(True, outputs_of("kind", activation="softmax")),
        "`targets` must be those of outputs that take all values, as normalized ones do. "
        "Received: targets of 'kind', which is of activation softmax. End it without activation, "
        "or name only outputs of regression: `targets={name: ...}`.",
    ),
    "a number": (
        lambda: find_sources(3.0, outputs_of("price")),
        "`targets` must be arrays with a row for each row of `data`, `True`, or names of columns. "
        "Received: 3.0.",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_to_do(case):
    make, message = ERRORS[case]
    with pytest.raises(ValueError, match=exactly(message)):
        make()


@pytest.mark.parametrize(
    ("last", "what"),
    [
        (layers.ReLU(), "activation relu"),
        (layers.Activation("tanh"), "activation tanh"),
        (lambda x: keras.ops.cast(x, "int32"), "dtype int32"),
    ],
)
def test_outputs_that_do_not_take_all_values(last, what):
    x = keras.Input((2,))
    outputs = read_ports(keras.Model(x, last(x)))[1]
    with pytest.raises(ValueError, match=f"which is of {what}"):
        find_sources(True, outputs)
