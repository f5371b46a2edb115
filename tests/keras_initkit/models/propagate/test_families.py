"""Prediction against measurement on small versions of seven families of networks.

`python -m benchmarks.propagation` does it with wide layers and many draws of the weights.
"""

import functools

import pytest

import keras_initkit
from benchmarks.propagation import FAMILIES, compare

# Few draws of narrow layers are off by less than this; most without normalization.
SIGNALS, GRADIENTS = 0.3, 0.25

# On PyTorch, the quickest: on TensorFlow each rule is held against its layer, in `rules/`.
pytestmark = pytest.mark.backends("torch")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(name):
    training = name not in ("VGG", "U-Net")
    build = functools.partial(FAMILIES[name], 48)
    signals, gradients, table = compare(build, training, draws=3, examples=8)
    assert signals.mean < SIGNALS, table
    assert gradients.mean < GRADIENTS, table


@pytest.mark.parametrize("name", FAMILIES)
def test_all_layers_of_a_family_have_rules(name):
    model = FAMILIES[name](16)
    names = [layer.name for layer in model.layers]
    found = keras_initkit.propagate(model)
    assert [row.path for row in found if row.how == "sampled"] == []
    assert {row.path for row in found} == set(names)
