"""Ports: models that have them, and structures of values."""

import keras
import numpy as np
import pytest

from keras_initkit.models.normalize.ports import Ports, read_ports
from tests.keras_initkit.models.normalize.houses import Subclassed, layers, stack

pytestmark = pytest.mark.backends("tensorflow", "torch")

ERRORS = [
    (lambda: "model", r"^`model` must be a `keras.Model`. Received: model='model'.$"),
    (
        Subclassed,
        r"^`model` must have symbolic inputs. Received: 'own' of type Subclassed, which has none. "
        r"Give it inputs first: `x = keras.Input\(shape\); model = keras.Model\(x, model\(x\)\)`. ",
    ),
    (
        lambda: keras.Sequential([layers.Dense(1)], name="stack"),
        r"Received: 'stack' of type Sequential, .* Begin it with `keras.Input\(shape\)`, or call",
    ),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_models_without_inputs(make, message):
    with pytest.raises(ValueError, match=message):
        read_ports(make())


def test_a_port_has_the_name_shape_and_axis_of_its_tensor():
    inputs, outputs = read_ports(stack(3))
    assert [(p.name, p.shape, p.axis, p.is_float) for p in inputs] == [("x", (None, 3), -1, True)]
    assert outputs.names == ["dense_1"]
    (ids,) = Ports(keras.Input((), dtype="int64", name="id"), "data")
    assert (ids.shape, ids.axis, ids.dtype, ids.is_float) == ((None,), None, "int64", False)
    (series,) = Ports(keras.Input((None,), name="steps"), "data")
    assert (series.shape, series.axis) == ((None, None), None)


@pytest.mark.parametrize(
    ("make", "packed", "labels"),
    [
        (lambda a, b: a, 1, ["`data`"]),
        (lambda a, b: [a, b], [1, 2], ["`data['a']`", "`data['b']`"]),
        (lambda a, b: {"z": a, "c": b}, {"z": 1, "c": 2}, ["`data['z']`", "`data['c']`"]),
        (lambda a, b: {"z": a}, {"z": 1}, ["`data['z']`"]),
    ],
)
def test_values_in_the_structure_of_a_model(make, packed, labels):
    ports = Ports(make(keras.Input((1,), name="a"), keras.Input((1,), name="b")), "data")
    values = list(range(1, len(labels) + 1))
    assert ports.pack(values) == packed
    assert [port.label for port in ports] == labels
    assert ports.unpack(packed) == values
    tensor = np.zeros(3)
    assert Ports([keras.Input((1,))], "data").unpack(tensor) == [tensor]
