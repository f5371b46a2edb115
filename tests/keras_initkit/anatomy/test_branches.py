"""Residual branches of graphs of known shape."""

import keras
import pytest

from keras_initkit.anatomy.branches import find_branches
from keras_initkit.anatomy.graph import Graph
from keras_initkit.connectivity.layer_fans import has_rule

layers = keras.layers


def dense(name):
    return layers.Dense(4, name=name)


def plain(x):
    return dense("b")(layers.ReLU()(dense("a")(x)))


def identity(x):
    return layers.Add()([x, dense("b")(layers.ReLU()(dense("a")(x)))])


def projection(x):
    return layers.Add()([dense("short")(x), dense("b")(dense("a")(x))])


def normalized(x):
    return layers.Add()([layers.BatchNormalization()(dense("b")(dense("a")(x))), x])


def multiplied(x):
    return layers.Rescaling(2.0)(x) + 0.1 * dense("a")(x)


def two_in_a_row(x):
    x = identity(x)
    return layers.Add()([x, dense("d")(dense("c")(x))])


def side_by_side(x):
    return layers.Add()([dense("a")(x), dense("b")(x)])


def nested(x):
    inner = keras.Sequential([keras.Input((4,)), dense("a"), dense("b")])
    return layers.Add()([x, inner(x)])


@pytest.mark.parametrize(
    ("build", "inside", "last", "depth"),
    [
        (plain, [], [], 0),
        (identity, ["a b"], ["b"], 1),
        (projection, ["a b"], ["b"], 1),
        (normalized, ["a b"], ["b"], 1),
        (multiplied, ["a"], ["a"], 1),
        (two_in_a_row, ["a b", "c d"], ["b", "d"], 2),
        (side_by_side, [], [], 0),
        (nested, ["a b"], ["b"], 1),
    ],
)
def test_branches_are_found(build, inside, last, depth):
    stem = dense("stem")(first := keras.Input((4,)))
    model = keras.Model(first, dense("head")(build(stem)))
    found = find_branches(Graph(model), has_rule)
    assert found.depth == depth
    assert [" ".join(layer.name for layer in branch.inside) for branch in found.branches] == inside
    assert [" ".join(layer.name for layer in branch.last) for branch in found.branches] == last
    is_normalized = build is normalized
    assert all(branch.is_normalized == is_normalized for branch in found.branches)


def test_two_embeddings_of_one_input_are_no_branch():
    tokens = keras.Input((6,), dtype="int32")
    both = layers.Embedding(9, 4)(tokens) + layers.Dense(4)(layers.Embedding(9, 4)(tokens))
    assert not find_branches(Graph(keras.Model(tokens, both)), has_rule).branches
