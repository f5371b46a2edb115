"""Views of weights: the linear maps that layers make of them, and back."""

import keras
import numpy as np
import pytest

from keras_initkit.anatomy.weights import weights_of
from keras_initkit.connectivity.layer_fans import has_rule, view_of_weight
from tests.keras_initkit import keras_layers

layers = keras.layers


def views(layer):
    """The weights of a layer that have a view, with it."""
    known = [weight for weight in weights_of(layer, has_rule) if has_rule(weight.owner)]
    pairs = [(each.variable, view_of_weight(each.owner, each.variable)) for each in known]
    return [(variable, view) for variable, view in pairs if view is not None]


@pytest.mark.parametrize("kind", keras_layers.KINDS, ids=lambda kind: kind.__name__)
def test_a_view_takes_a_weight_apart_and_puts_it_together(kind, rng):
    for variable, view in views(keras_layers.built(kind)):
        weight = rng.normal(size=variable.shape).astype("float32")
        maps = view.to_maps(weight)
        assert tuple(maps.shape) == view.maps_shape
        back = keras.ops.convert_to_numpy(view.to_weight(maps))
        np.testing.assert_array_equal(back, weight)
        _, inputs, _ = view.matrix_shape
        # What a unit has weights of is what feeds it; an embedding's inputs are one-hot.
        if "embedding" not in kind.__name__.lower():
            assert view.fans.fan_in == inputs
        if view.is_elementwise:  # a scale
            assert view.fans == (1, 1)


def test_phases_of_a_transposed_convolution_do_not_touch():
    layer = layers.Conv1DTranspose(1, 4, strides=2, padding="same", use_bias=False)
    layer.build((None, 8, 1))
    ((_, view),) = views(layer)
    maps = np.zeros(view.maps_shape, "float32")
    maps[0] = 1
    layer.kernel.assign(view.to_weight(maps))
    outputs = keras.ops.convert_to_numpy(layer(np.ones((1, 8, 1), "float32")))
    reached = outputs[0, 2:-2, 0] != 0
    assert reached[::2].all() != reached[1::2].all()
    assert reached[::2].any() != reached[1::2].any()
