"""Fewer columns than records, without losing what stands out."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tensorboard_plugin_initkit.charts.binning import bin_blocks, bin_layers, bin_steps, extent
from tensorboard_plugin_initkit.charts.values import rows_seen

pytestmark = pytest.mark.numpy_alone

REDUCE: dict[str, Any] = {"max": np.max, "min": np.min, "mean": np.mean}


@st.composite
def records(draw, specials=(np.nan, np.inf, -np.inf, 0.0)):
    gaps = draw(st.lists(st.integers(1, 50), max_size=40))
    steps = draw(st.integers(0, 2**40)) + np.cumsum([0, *gaps])
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.lognormal(sigma=12, size=(len(steps), draw(st.integers(1, 3))))
    for special in specials:
        values[rng.random(values.shape) < draw(st.sampled_from([0, 0.1, 0.5]))] = special
    return steps, values, rng.random(values.shape) < 0.1


def rows_of(bins, steps, column):
    """The records that a column shows."""
    return (steps >= bins.first[column]) & (steps <= bins.last[column])


@settings(max_examples=100, deadline=None)
@given(records(), st.integers(1, 60), st.sampled_from(sorted(REDUCE)))
def test_a_column_shows_what_the_slow_way_finds(record, columns, how):
    steps, values, broken = record
    bins = bin_steps(steps, values, columns, how, broken)
    assert 1 <= len(bins.first) <= columns
    for i in range(len(bins.first)):
        rows = rows_of(bins, steps, i)
        for layer in range(values.shape[1]):
            own = values[rows, layer]
            finite = own[np.isfinite(own)]
            expected = REDUCE[how](finite) if len(finite) else np.nan
            np.testing.assert_allclose(bins.values[i, layer], expected, rtol=1e-12)
            nonfinite = bool((np.isinf(own) | broken[rows, layer]).any())
            assert bins.nonfinite[i, layer] == nonfinite
            assert bins.missing[i, layer] == (not len(finite) and not nonfinite)


@settings(max_examples=100, deadline=None)
@given(records(), st.integers(1, 60))
@example((np.array([0, 1, 2, 3, 47, 93]), np.ones((6, 1)), None), 46)
def test_every_record_is_in_the_column_that_lies_over_its_step(record, columns):
    steps, values, _ = record
    bins = bin_steps(steps, values, columns)
    assert bins.records.sum() == len(steps)
    np.testing.assert_allclose(np.diff(bins.edges), np.diff(bins.edges)[0], rtol=1e-2)
    assert bins.edges[0] == steps[0]
    np.testing.assert_allclose(extent(steps), bins.edges[[0, -1]])
    for i in np.flatnonzero(bins.records):
        assert bins.edges[i] <= bins.first[i] <= bins.last[i] < bins.edges[i + 1]
        assert rows_of(bins, steps, i).sum() == bins.records[i]
    for i in np.flatnonzero(bins.records == 0):  # repeats the one before
        assert bins.last[i] == bins.last[i - 1] < bins.edges[i]
        np.testing.assert_array_equal(bins.values[i], bins.values[i - 1])


@settings(max_examples=100, deadline=None)
@given(records(), st.integers(1, 60), st.sampled_from(sorted(REDUCE)), st.integers(1, 50))
def test_blocks_make_what_all_at_once_makes(record, columns, how, most):
    steps, values, broken = record
    asked = []

    def read(rows):
        asked.append(rows)
        return values[rows], broken[rows]

    whole, blocks = (
        bin_steps(steps, values, columns, how, broken),
        bin_blocks(steps, read, columns, how, most),
    )
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_array_equal(one, other)
    rows = [row for r in asked for row in range(r.start, r.stop)]
    assert rows == list(range(len(steps)))  # each record once
    assert all(r.stop - r.start <= max(most, whole.records.max()) for r in asked)


@settings(max_examples=100, deadline=None)
@given(records(), st.integers(1, 60), st.data())
def test_the_spike_of_a_single_step_is_in_one_column_of_every_range_that_shows_it(
    record, columns, data
):
    steps, values, _ = record
    row = data.draw(st.integers(0, len(steps) - 1))
    first = data.draw(st.integers(0, int(steps[row])))
    last = data.draw(st.integers(int(steps[row]), 2**41))
    values[row] = 1e300
    rows = rows_seen(steps, (first, last))
    bins = bin_steps(steps[rows], values[rows], columns)
    own = bins.records > 0  # the others repeat the one before
    assert (bins.values[own, 0] == 1e300).sum() == 1
    (column,) = np.flatnonzero((bins.values[:, 0] == 1e300) & own)
    assert bins.edges[column] <= steps[row] < bins.edges[column + 1]


@settings(max_examples=100, deadline=None)
@given(records(), st.integers(0, 2**41), st.integers(0, 2**41))
def test_a_range_shows_its_records_and_one_more_on_either_side(record, first, last):
    steps = record[0]
    first, last = sorted((first, last))
    rows = rows_seen(steps, (first, last))
    shown, inside = steps[rows], (steps >= first) & (steps <= last)
    assert set(steps[inside]) <= set(shown)
    assert 1 <= len(shown) <= inside.sum() + 2
    assert shown[0] <= first or rows.start == 0
    assert shown[-1] > last or rows.stop >= len(steps)


def test_a_range_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match=r"`steps` must be the first and .* steps=\(3, 2\)\."):
        rows_seen(np.arange(5), (3, 2))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.sampled_from(sorted(REDUCE)))
def test_a_row_shows_neighbouring_layers(layers, rows, how):
    rng = np.random.default_rng(layers * 100 + rows)
    values = rng.lognormal(sigma=5, size=(4, layers))
    values[rng.random(values.shape) < 0.2] = 0
    values[rng.random(values.shape) < 0.2] = np.nan
    broken = rng.random(values.shape) < 0.1
    bins = bin_steps(np.arange(4), values, 4, how, broken)
    combined, first, last = bin_layers(bins, rows, how)
    assert len(first) == min(rows, layers)
    assert (first[0], last[-1]) == (0, layers - 1)
    np.testing.assert_array_equal(first[1:], last[:-1] + 1)
    for row, (begin, end) in enumerate(zip(first, last, strict=True)):
        own = slice(begin, end + 1)
        for column in range(4):
            known = values[column, own][~np.isnan(values[column, own])]
            expected = REDUCE[how](known) if len(known) else np.nan
            np.testing.assert_allclose(combined.values[column, row], expected)
            assert combined.zero[column, row] == (known == 0).any()
            assert combined.nonfinite[column, row] == broken[column, own].any()
            assert combined.missing[column, row] == (
                not len(known) and not broken[column, own].any()
            )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(2, 30))
def test_records_at_equal_distances_keep_a_column_each(first, every, count):
    steps = first + every * np.arange(count)
    values = np.random.default_rng(0).random((count, 2))
    bins = bin_steps(steps, values, count)
    np.testing.assert_array_equal(bins.values, values)
    np.testing.assert_array_equal(bins.first, steps)
    np.testing.assert_allclose(bins.edges, first + every * np.arange(count + 1))


def test_no_record_has_no_column():
    bins = bin_steps([], np.zeros((0, 3)))
    assert bins.values.shape == (0, 3)
    assert len(bins.edges) == 1


def test_the_mean_of_large_numbers_is_finite():
    bins = bin_steps([0, 1], [[1e308], [1.5e308]], 1, "mean")
    np.testing.assert_allclose(bins.values, [[1.25e308]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": 0}, r"`columns` must be a positive integer\. Received: columns=0\."),
        ({"how": "sum"}, r'`how` must be "max", "min" or "mean"\. Received: how=\'sum\'\.'),
        ({"steps": [1, 2]}, r"must have a row for each step .* shape \(3, 2\) with steps of"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    arguments = {"steps": [1, 2, 3], "values": np.zeros((3, 2))} | options
    with pytest.raises(ValueError, match=message):
        bin_steps(**arguments)
