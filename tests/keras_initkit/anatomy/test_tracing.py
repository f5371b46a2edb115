"""Calls on symbolic tensors: the graph of a subclassed model, and nothing left behind."""

import keras
import numpy as np
import pytest

from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.anatomy.setup import read_setup
from keras_initkit.anatomy.tracing import OPEN_SIZE, calls_inside, model_inputs, traced
from tests.callbacks.training import QUICK

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers, ops = keras.layers, keras.ops


class Noisy(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="noisy")
        self.drop = layers.Dropout(0.5, name="drop")

    def call(self, x, training=False):
        return self.drop(x, training=training)


class Model(keras.Model):
    def __init__(self, refuse=False):
        super().__init__()
        self.refuse = refuse
        self.table = layers.Embedding(7, 4, name="table")
        self.first = layers.Dense(4, "relu", name="first")
        self.noisy = Noisy()
        self.norm = layers.BatchNormalization(name="norm")
        self.net = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="fc")], name="net")
        self.head = layers.Dense(2, "softmax", name="head")

    def call(self, inputs, training=False):
        x = self.first(inputs["x"]) + self.table(inputs["words"])[:, 0]
        if self.refuse and isinstance(x, keras.KerasTensor):
            raise TypeError
        x = self.norm(self.noisy(x, training=training), training=training)
        return {"b": self.head(self.net(x)), "a": ops.sigmoid(self.net(x))}


def made(**arguments):
    model = Model(**arguments)
    model.compile("sgd", {"a": "mse", "b": "categorical_crossentropy"}, **QUICK)
    model({"x": np.ones((2, 3), "float32"), "words": np.ones((2, 1), "int32")})
    return model


def test_keras_notes_calls_as_it_is_expected():
    """If this fails, see the top of anatomy/tracing.py."""
    first, second = layers.Dense(2), layers.Dense(2)
    second(first(keras.KerasTensor((None, 3))))
    assert [len(x) for x in (first._inbound_nodes, first._outbound_nodes)] == [1, 1]
    assert [len(x) for x in (second._inbound_nodes, second._outbound_nodes)] == [1, 0]


def test_a_subclassed_model_has_a_graph():
    setup = read_setup(made())
    assert setup.has_graph
    rows = {layer.path: (layer.activation, layer.takes) for layer in setup.layers}
    places = [layer.path for layer in setup.layers]
    assert rows["first"] == ("relu", (-1,))
    assert rows["norm"] == ("", (places.index("noisy"),))
    assert rows["net/fc"] == ("", (places.index("norm"),))
    assert [(h.name, h.activation, h.shape, h.loss) for h in setup.heads] == [
        ("a", "sigmoid", (-1, 4), "mean_squared_error"),
        ("b", "softmax", (-1, 2), "categorical_crossentropy"),
    ]
    assert places[setup.heads[1].layer] == "head"


def test_nothing_remains(rng):
    model = made()
    before = [ops.convert_to_numpy(variable.value) for variable in model.variables]
    inside = list(layers_inside(model))
    counts = [len(layer._inbound_nodes) + len(layer._outbound_nodes) for layer in inside]
    with traced(model):
        assert len(model.first._inbound_nodes) == 1
    after = [ops.convert_to_numpy(variable.value) for variable in model.variables]
    for first, second in zip(before, after, strict=True):
        assert first.tobytes() == second.tobytes()
    assert counts == [len(layer._inbound_nodes) + len(layer._outbound_nodes) for layer in inside]
    # And a training is the same as without it.
    x = {"x": rng.normal(size=(8, 3)).astype("float32"), "words": rng.integers(0, 7, (8, 1))}
    y = {"a": np.ones((8, 4)), "b": np.eye(2)[np.arange(8) % 2]}
    fits = []
    for is_read in (False, True):
        keras.utils.set_random_seed(3)
        model = made()
        if is_read:
            assert read_setup(model).has_graph
        model.fit(x, y, batch_size=4, epochs=2, verbose=0)
        fits.append([ops.convert_to_numpy(variable.value) for variable in model.variables])
    for first, second in zip(*fits, strict=True):
        assert first.tobytes() == second.tobytes()


def test_models_that_refuse_or_are_not_built():
    for model in (made(refuse=True), Model()):
        setup = read_setup(model)
        assert not setup.has_graph
        assert "noisy/drop" in [layer.path for layer in setup.layers]
        assert not any(layer._inbound_nodes for layer in (model.first, model.table))


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
