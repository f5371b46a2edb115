"""Statistics of layers against NumPy on the gradients themselves, as one long vector."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tensorboard_plugin_initkit.schema import (
    RECORDED,
    STATISTICS,
    Chunk,
    Layout,
    Variable,
    join,
    per_layer,
    per_variable,
)

Array = NDArray[Any]


class Tensors:
    """A variable's gradient, weights and update at one step, and what is recorded of them."""

    def __init__(self, size: int, rng: np.random.Generator, special: float | None) -> None:
        self.gradient, self.weights, self.update = rng.normal(size=(3, size))
        self.gradient[rng.random(size) < 0.3] = 0
        if special is not None:
            self.gradient[rng.integers(size)] = special

    def recorded(self) -> list[float]:
        g = abs(self.gradient)
        return [
            np.linalg.norm(g),
            np.mean(g),
            np.max(g),
            np.mean(g == 0),
            np.sum(~np.isfinite(g)),
            np.linalg.norm(self.weights),
            np.linalg.norm(self.update),
        ]

    @classmethod
    def together(cls, several: list[Tensors]) -> list[float]:
        """The statistics of concatenated tensors, in the order of `STATISTICS`."""
        whole = cls.__new__(cls)
        for name in ("gradient", "weights", "update"):
            setattr(whole, name, np.concatenate([getattr(one, name) for one in several]))
        *statistics, weight_norm, update_norm = whole.recorded()
        return [*statistics, weight_norm, update_norm / weight_norm]


def layout_of(*layers_and_sizes: tuple[str, int]) -> Layout:
    return Layout(
        tuple(
            Variable(f"{layer}/{i}", layer, (size,))
            for i, (layer, size) in enumerate(layers_and_sizes)
        )
    )


def chunk_of(layout: Layout, steps: Any, **values: Any) -> Chunk:
    """A chunk whose values are 1 where they are not given."""
    shape = (len(steps), len(layout.variables))
    table = {name: np.ones(shape, np.float32) for name in RECORDED}
    for name, value in values.items():
        table[name] = np.asarray(value, np.float32).reshape(shape)
    return Chunk(layout, np.asarray(steps, np.int64), table)


def random_chunk(layout: Layout, steps: Any, seed: int = 0) -> Chunk:
    values = np.random.default_rng(seed).random((len(RECORDED), len(steps), len(layout.variables)))
    return chunk_of(layout, steps, **dict(zip(RECORDED, values, strict=True)))


def assert_equal(some: Chunk, other: Chunk) -> None:
    assert some.layout == other.layout
    np.testing.assert_array_equal(some.steps, other.steps)
    assert list(some.values) == list(other.values) == list(RECORDED)
    for name in RECORDED:
        assert some.values[name].dtype == np.float32
        np.testing.assert_array_equal(some.values[name], other.values[name], err_msg=name)


A, B, A2, C = (("a", 4), ("b", 3), ("a", 2), ("c", 5))


# Statistics of a layer.

variables = st.lists(
    st.tuples(st.sampled_from(["first", "second", "third"]), st.integers(1, 50)),
    min_size=1,
    max_size=7,
)


@settings(max_examples=100, deadline=None)
@given(variables, st.integers(0, 4), st.integers(0, 2**32), st.data())
def test_the_variables_of_a_layer_count_as_one_long_vector(
    columns: list[tuple[str, int]], n: int, seed: int, data: st.DataObject
) -> None:
    layout, rng = layout_of(*columns), np.random.default_rng(seed)
    special = st.sampled_from([None, None, None, np.nan, np.inf, -np.inf])
    steps: list[list[Tensors | None]] = [
        [
            Tensors(size, rng, data.draw(special)) if data.draw(st.integers(0, 3)) else None
            for _, size in columns
        ]
        for _ in range(n)
    ]
    missing = [np.nan] * len(RECORDED)
    recorded = [[one.recorded() if one else missing for one in row] for row in steps]
    table = np.array(recorded).reshape(n, len(columns), len(RECORDED))
    values = {name: table[:, :, i] for i, name in enumerate(RECORDED)}
    chunk = chunk_of(layout, range(n), **values)

    expected = np.full((n, len(layout.layers), len(STATISTICS)), np.nan)
    for i, row in enumerate(steps):
        for j, layer in enumerate(layout.layers):
            if own := [t for t, (name, _) in zip(row, columns, strict=True) if t and name == layer]:
                expected[i, j] = Tensors.together(own)
    for k, statistic in enumerate(STATISTICS):
        got = per_layer(chunk, statistic)
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected[:, :, k], rtol=1e-6, err_msg=statistic)


def test_what_is_recorded_of_a_variable_without_gradient_does_not_count() -> None:
    layout = layout_of(A, B, A2)
    garbage = {name: [np.nan, 2, 7] for name in RECORDED if name != "nonfinite"}
    chunk = chunk_of(layout, [0], nonfinite=[np.nan, 0, 0], **garbage)
    for statistic in ("norm", "mean_abs", "max_abs", "zeros", "weight_norm"):
        np.testing.assert_array_equal(per_layer(chunk, statistic), [[7, 2]])
    np.testing.assert_array_equal(per_layer(chunk, "nonfinite"), [[0, 0]])
    np.testing.assert_array_equal(per_layer(chunk, "update_ratio"), [[1, 1]])


@pytest.mark.parametrize("statistic", STATISTICS)
def test_norms_near_the_ends_of_float32_neither_overflow_nor_vanish(statistic: str) -> None:
    layout = layout_of(A, A2)
    for scale in (1e-38, 3e38):
        scaled = {name: [scale] * 2 for name in ("norm", "weight_norm", "update_norm")}
        layer = per_layer(chunk_of(layout, [0], **scaled), statistic)
        assert np.isfinite(layer).all()
        assert (layer > 0).all()


# Statistics of a variable.


def test_a_statistic_of_a_variable_is_what_was_recorded_of_it() -> None:
    chunk = random_chunk(layout_of(A, B, A2), range(5))
    for statistic in STATISTICS[:-1]:
        got = per_variable(chunk, statistic)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, chunk.values[statistic])
    ratio = chunk.values["update_norm"].astype(float) / chunk.values["weight_norm"]
    np.testing.assert_array_equal(per_variable(chunk, "update_ratio"), ratio)


@pytest.mark.parametrize(
    ("update", "weight", "ratio"),
    [
        (3, 2, 1.5),
        (0, 2, 0),
        (0, 0, 0),
        (2, 0, np.inf),
        (np.inf, 2, np.inf),
        (2, np.inf, 0),
        (0, np.inf, 0),
        (np.inf, np.inf, np.nan),
        (np.nan, 2, np.nan),
        (2, np.nan, np.nan),
        (0, np.nan, np.nan),
        (np.nan, 0, np.nan),
        (1e38, 1e-38, 1e76),
    ],
)
@pytest.mark.parametrize("statistic_of", [per_layer, per_variable])
def test_update_ratio(statistic_of: Any, update: float, weight: float, ratio: float) -> None:
    chunk = chunk_of(layout_of(B), [0], update_norm=[update], weight_norm=[weight])
    got = statistic_of(chunk, "update_ratio")
    np.testing.assert_allclose(got, [[ratio]], rtol=1e-6)


# Layouts.


def test_layers_are_listed_once_in_order_of_first_appearance() -> None:
    assert layout_of(B, A, A2, C, B).layers == ["b", "a", "c"]
    assert Layout(()).layers == []


@pytest.mark.parametrize(("shape", "size"), [((), 1), ((7,), 7), ((2, 3, 4), 24), ((0, 3), 0)])
def test_the_size_of_a_variable_is_its_number_of_elements(
    shape: tuple[int, ...], size: int
) -> None:
    assert Variable("path", "layer", shape).size == size


def test_the_size_of_the_largest_variable_is_exact() -> None:
    assert Variable("path", "layer", (2**31, 2**20)).size == 2**51


names = st.text(st.characters(codec="utf-8"), max_size=30)
layouts = st.lists(
    st.builds(Variable, names, names, st.lists(st.integers(0, 2**40), max_size=4).map(tuple))
).map(lambda columns: Layout(tuple(columns)))


@settings(max_examples=100, deadline=None)
@given(layouts)
def test_a_layout_is_the_same_after_json(layout: Layout) -> None:
    text = layout.to_json()
    assert json.loads(text)["version"] == 1
    assert Layout.from_json(text) == layout
    assert Layout.from_json(text.encode()) == layout


@pytest.mark.parametrize("version", [0, 2])
def test_another_schema_version_is_refused_in_words(version: int) -> None:
    text = json.dumps({"version": version, "columns": "of another form"})
    message = (
        rf"^The log must have schema version 1\. Received: version {version}\. Read it with "
        r"the keras-initkit that wrote it\.$"
    )
    with pytest.raises(ValueError, match=message):
        Layout.from_json(text)


@settings(max_examples=100, deadline=None)
@given(layouts, layouts)
def test_a_union_holds_the_columns_of_both_each_once(some: Layout, other: Layout) -> None:
    union = some.union(other)
    assert set(union.variables) == set(some.variables) | set(other.variables)
    assert len(set(union.variables)) == len(union.variables)
    # In the order of the first, or of the second where that has all and more: a layer that is
    # unfrozen later stands where the model has it.
    larger = other if set(some.variables) < set(other.variables) else some
    first = tuple(dict.fromkeys(larger.variables))
    assert union.variables[: len(first)] == first
    assert union.union(other) == union.union(some) == union
    columns = union.columns_of(other)
    assert tuple(union.variables[column] for column in columns) == other.variables


# Chunks on other layouts.


def test_spreading_on_the_own_layout_changes_nothing() -> None:
    chunk = random_chunk(layout_of(A, B), [1, 2])
    assert chunk.spread(chunk.layout) is chunk


def test_spreading_puts_columns_where_the_larger_layout_has_them() -> None:
    chunk = random_chunk(Layout(layout_of(A, B).variables), [1, 2])
    a, b = chunk.layout.variables
    new = Variable("new", "new", (3,))
    spread = chunk.spread(Layout((b, new, a)))
    for name in RECORDED:
        np.testing.assert_array_equal(spread.values[name][:, 0], chunk.values[name][:, 1])
        np.testing.assert_array_equal(spread.values[name][:, 1], [np.nan, np.nan])
        np.testing.assert_array_equal(spread.values[name][:, 2], chunk.values[name][:, 0])
    np.testing.assert_array_equal(spread.steps, chunk.steps)


def test_joining_chunks_of_one_layout_is_concatenation() -> None:
    whole = random_chunk(layout_of(A, B), range(9))
    parts = [whole.select(np.arange(9) // 3 == i) for i in range(3)]
    assert_equal(join(parts), whole)
    assert_equal(join([whole]), whole)


def test_joined_layers_are_nan_where_they_did_not_exist() -> None:
    a, b = layout_of(A, B).variables
    first, second = random_chunk(Layout((a,)), [0, 1]), random_chunk(Layout((b,)), [2])
    both = join([first, second])
    assert both.layout.layers == ["a", "b"]
    for statistic in STATISTICS:
        of_a, of_b = per_layer(both, statistic).T
        np.testing.assert_array_equal(of_a[:2], per_layer(first, statistic)[:, 0])
        np.testing.assert_array_equal(of_b[2:], per_layer(second, statistic)[:, 0])
        assert np.isnan([of_a[2], of_b[0], of_b[1]]).all()


def test_a_layer_whose_kernel_changes_its_shape_stays_one_layer() -> None:
    narrow, wide = Variable("a/kernel", "a", (2,)), Variable("a/kernel", "a", (6,))
    chunks = [
        random_chunk(Layout((variable,)), [step]) for step, variable in enumerate([narrow, wide])
    ]
    both = join(chunks)
    assert both.layout.layers == ["a"]
    expected = [per_layer(chunk, "mean_abs")[0, 0] for chunk in chunks]
    np.testing.assert_allclose(per_layer(both, "mean_abs")[:, 0], expected, rtol=1e-12)
