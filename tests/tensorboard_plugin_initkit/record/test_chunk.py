"""Rows of chunks, and chunks on other layouts. `test_history.py` has what is replaced."""

import dataclasses

import numpy as np
import pytest

from tensorboard_plugin_initkit.record.chunk import RECORDED, Chunk, LazyArrays, join
from tensorboard_plugin_initkit.record.statistics import (
    STATISTICS,
    per_layer,
    per_optimizer,
    recorded_statistics,
)
from tests.tensorboard_plugin_initkit.record.made import (
    A,
    B,
    assert_equal,
    ones,
    random_chunk,
    sized,
)

pytestmark = pytest.mark.numpy_alone


class Unread(LazyArrays):
    """Arrays that list which of them were read."""

    def __init__(self, arrays):
        self._arrays, self.read = arrays, []

    def __getitem__(self, name):
        self.read.append(name)
        return self._arrays[name]

    def __contains__(self, name):
        return name in self._arrays

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self):
        return len(self._arrays)


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([True, False, True, True]), [3, 0]])
def test_only_what_is_asked_for_is_read(rows):
    chunk = random_chunk(sized(A, B), [1, 2, 5, 9])
    values = Unread(chunk.values)
    part = Chunk(chunk.layout, chunk.steps, values).select(rows)
    assert "norm" in part.values
    assert "unknown" not in part.values
    assert list(part.values) == list(chunk.values)
    assert len(part.values) == len(chunk.values)
    assert recorded_statistics(part.values) == list(STATISTICS)
    assert values.read == []
    expected = chunk.select(rows)
    np.testing.assert_array_equal(part.steps, chunk.steps[rows])
    np.testing.assert_array_equal(expected.values["norm"], chunk.values["norm"][rows])
    np.testing.assert_array_equal(per_layer(part, "max_abs"), per_layer(expected, "max_abs"))
    assert set(values.read) == {"max_abs", "nonfinite"}


def test_joined_statistics_are_nan_where_they_were_not_recorded():
    layout = sized(A, B)
    first = ones(layout, [0, 1], cosine=None, skipped=None)
    second = ones(layout, [2, 3], clip_ratio=None, loss=None)
    both = join([first, second])
    assert list(both.values) == list(RECORDED)
    np.testing.assert_array_equal(both.values["cosine"][:, 0], [np.nan, np.nan, 1, 1])
    np.testing.assert_array_equal(both.values["clip_ratio"], 1)
    np.testing.assert_array_equal(per_optimizer(both, "loss")[:, 0], [1, 1, np.nan, np.nan])
    np.testing.assert_array_equal(per_optimizer(both, "skipped")[:, 0], [np.nan, np.nan, 1, 1])
    empty = [dataclasses.replace(chunk, values={}, totals={}) for chunk in (first, second)]
    assert join(empty).values == join(empty).totals == {}
    assert_equal(join([first]), first)
    assert first.spread(layout) is first


def test_a_layer_whose_kernel_changes_its_shape_stays_one_layer():
    chunks = [random_chunk(sized(("a", size)), [step]) for step, size in enumerate((2, 6))]
    both = join(chunks)
    assert both.layout.layers == ["a"]
    assert len(both.layout.variables) == 2
    expected = [per_layer(chunk, "mean_abs")[0, 0] for chunk in chunks]
    np.testing.assert_allclose(per_layer(both, "mean_abs")[:, 0], expected, rtol=1e-12)
