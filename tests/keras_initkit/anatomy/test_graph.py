"""The graph of a model: what it reads in Keras, calls, nested models and gates."""

import keras
import pytest

from keras_initkit.anatomy.graph import Graph

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers


def takers(graph, tensor):
    """Names of the layers that take a tensor, through the borders of models."""
    names = []
    for call in graph.takers.get(tensor, []):
        if call.operation is None:
            names += [name for output in call.outputs for name in takers(graph, output)]
        else:
            names.append(call.operation.name)
    return names


def test_keras_is_as_the_graph_expects():
    """If this fails, see the top of anatomy/graph.py."""
    inputs = keras.Input((3,))
    outputs = layers.ReLU()(layers.Dense(2)(inputs))
    operation, index, place = outputs._keras_history
    node = operation._inbound_nodes[index]
    assert (type(operation), place) == (layers.ReLU, 0)
    assert node.output_tensors[0] is outputs
    assert type(node.input_tensors[0]._keras_history[0]) is layers.Dense
    assert keras.Model(inputs, outputs).inputs[0] is inputs


def test_calls_are_found_by_the_tensors_that_they_take():
    inputs = keras.Input((3,))
    first = layers.Dense(3, name="first")
    x = first(inputs)
    again = first(x)  # a shared layer has several calls
    outputs = layers.Add(name="sum")([x, again])
    layers.Softmax()(x)  # is noted by Keras, but not in the model
    graph = Graph(keras.Model(inputs, outputs))
    assert takers(graph, id(inputs)) == ["first"]
    assert sorted(takers(graph, id(x))) == ["first", "sum"]
    assert sorted(graph.made[id(first)]) == sorted([id(x), id(again)])
    assert graph.outputs == {id(outputs)}
    assert len(graph.calls_on([id(inputs), id(x)])) == 3


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_way_leads_into_inner_models_and_out_of_them(wrapped):
    inside = layers.Dense(3, name="inside")
    inner = keras.Sequential([keras.Input((3,)), inside])
    inputs = keras.Input((5, 3) if wrapped else (3,))
    outputs = layers.TimeDistributed(inner)(inputs) if wrapped else inner(inputs)
    graph = Graph(keras.Model(inputs, layers.ReLU(name="relu")(outputs)))
    assert takers(graph, id(inputs)) == ["inside"]
    assert "relu" in [name for made in graph.made[id(inside)] for name in takers(graph, made)]


def test_a_model_without_a_graph_has_no_calls():
    for model in (type("Subclassed", (keras.Model,), {})(), layers.Dense(3)):
        graph = Graph(model)
        assert (graph.takers, graph.made, graph.outputs) == ({}, {}, set())


def test_gates():
    inputs = keras.Input((3,))
    gate, signal, alone = (layers.Dense(3)(inputs) for _ in range(3))
    product = layers.Multiply()([gate, signal])
    outputs = layers.Add()([product, signal, layers.ReLU()(alone)])
    graph = Graph(keras.Model(inputs, outputs))
    assert graph.is_gate([id(gate)])
    for tensors in ([signal], [alone], [outputs], []):
        assert not graph.is_gate(map(id, tensors))
