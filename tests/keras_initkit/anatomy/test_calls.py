"""The calls inside a layer, in order, and nothing left behind."""

import keras
import numpy as np
import pytest

from keras_initkit.anatomy.calls import OPEN_SIZE, calls_inside, model_inputs

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers


def test_calls_come_after_those_that_they_need_and_leave_no_notes():
    x = keras.Input((None, 4))
    y = layers.Dense(4, name="first")(x)
    for i in range(300):
        y = keras.ops.add(y, y) if i % 100 == 0 else layers.ReLU()(y)
    model = keras.Model(x, layers.Add(name="last")([y, x]))
    counts = [len(op._inbound_nodes) for op in model.operations]
    (tensor,) = inputs = [model_inputs(model)]
    assert tensor.shape == (None, OPEN_SIZE, 4)
    found = calls_inside(model, inputs, {})
    known = set(map(id, found.inputs))
    for call in found.calls:
        assert known >= set(map(id, call.inputs))
        known |= set(map(id, call.outputs))
    assert [call.operation.name for call in found.calls][-1] == "last"
    assert [tuple(output.shape) for output in found.outputs] == [(None, OPEN_SIZE, 4)]
    assert counts == [len(op._inbound_nodes) for op in model.operations]


def test_arguments_are_as_in_the_call():
    class Own(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.attention = layers.MultiHeadAttention(2, 4)

        def call(self, x, other):
            return self.attention(x, value=other, use_causal_mask=True)

    layer = Own()
    layer(np.zeros((1, 3, 8)), np.zeros((1, 3, 8)))
    a, b = keras.KerasTensor((None, 3, 8)), keras.KerasTensor((None, 5, 8))
    (call,) = calls_inside(layer, (a,), {"other": b}).calls
    assert call.kwargs["use_causal_mask"] is True
    assert [tensor.shape[1] for tensor in call.inputs] == [3, 5]


def test_a_model_built_without_a_shape_does_not_know_its_inputs():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="must know the shape of its inputs"):
        model_inputs(Own())
