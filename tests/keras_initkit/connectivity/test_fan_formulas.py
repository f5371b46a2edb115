"""Fans from shapes and axes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_initkit.connectivity.fan_formulas import fans_from_shape

sizes = st.integers(1, 12)


@pytest.mark.parametrize(
    ("shape", "fans"),
    [
        ((), (1, 1)),
        ((7,), (7, 7)),
        ((3, 5), (3, 5)),
        ((4, 4, 8, 32), (128, 512)),
        ((0, 5), (0, 5)),
        ((3, 3, 0, 4), (0, 36)),
    ],
)
def test_a_shape_is_read_in_keras_way(shape, fans):
    assert fans_from_shape(shape) == fans


@given(st.data(), st.lists(sizes, min_size=1, max_size=5))
def test_moving_axes_moves_fans_along(data, shape):
    rank = len(shape)
    cut = data.draw(st.integers(0, rank))
    order = data.draw(st.permutations(range(rank)))
    moved = [shape[axis] for axis in order]
    start = data.draw(st.sampled_from([0, -rank]))  # axes may be counted from the end
    input_axes = [start + order.index(axis) for axis in range(cut)]
    output_axes = [start + order.index(axis) for axis in range(cut, rank)]
    expected = math.prod(shape[:cut]), math.prod(shape[cut:])
    assert fans_from_shape(moved, input_axes, output_axes) == expected


@pytest.mark.parametrize(("input_axes", "output_axes"), [([0], None), (None, [1])])
def test_axes_come_in_pairs(input_axes, output_axes):
    with pytest.raises(ValueError, match=r"must be given together.*Received: input_axes="):
        fans_from_shape((3, 4), input_axes, output_axes)


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_lies_in_the_shape(axis):
    with pytest.raises(ValueError, match=r"`output_axes` must be axes .* from -2 to 1 for"):
        fans_from_shape((3, 4), [0], [axis])
