"""Weights as maps: the maps of each kind of weight, and the way back."""

import keras
import numpy as np
import pytest

from keras_initkit.connectivity.fan_formulas import Fans
from keras_initkit.connectivity.kernel_view import (
    view_of_depthwise,
    view_of_einsum,
    view_of_maps_side_by_side,
    view_of_scale,
    view_of_shape,
    view_of_transposed,
)

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

FANS = Fans(1.0, 1.0)
# Views, and NumPy's way from the weight w to its maps.
VIEWS = {
    "matrix": (view_of_shape((3, 4)), lambda w: w[None]),
    "vector": (view_of_shape((3,)), lambda w: w.reshape(1, 3, 1)),
    "number": (view_of_shape(()), lambda w: w.reshape(1, 1, 1)),
    "convolution": (view_of_shape((2, 3, 4, 5)), lambda w: w[None]),
    "gates": (
        view_of_maps_side_by_side((3, 8), 4, FANS),
        lambda w: np.stack([w[:, 2 * gate : 2 * gate + 2] for gate in range(4)]),
    ),
    "depthwise": (
        view_of_depthwise((2, 3, 4), FANS),
        lambda w: np.stack([w[:, channel][:, None] for channel in range(3)]),
    ),
    "transposed": (
        view_of_transposed((4, 3, 2), (2,), FANS),
        lambda w: np.stack([w[phase::2].swapaxes(1, 2) for phase in range(2)]),
    ),
    "transposed, undivided": (
        view_of_transposed((3, 3, 2), (2,), FANS),
        lambda w: w.swapaxes(1, 2)[None],
    ),
    "scale": (view_of_scale((2, 3), FANS), lambda w: w.reshape(6, 1, 1)),
    "heads": (view_of_einsum("bhi,hio->bho", (2, 3, 4), FANS), lambda w: w),
    "output": (view_of_einsum("bhi,ohi->bo", (4, 2, 3), FANS), lambda w: w.reshape(4, 6).T[None]),
}


@pytest.mark.parametrize(("view", "to_maps"), VIEWS.values(), ids=VIEWS)
def test_a_weight_becomes_maps_and_a_weight_again(rng, view, to_maps):
    weight = rng.standard_normal(view.shape, dtype=np.float32)
    maps = keras.ops.convert_to_numpy(view.to_maps(weight))
    np.testing.assert_array_equal(maps, to_maps(weight))
    assert maps.shape == view.maps_shape
    for back in (maps, maps.reshape(view.matrix_shape)):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(view.to_weight(back)), weight)
    assert view.is_elementwise == (maps[0].size == 1)
