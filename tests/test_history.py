"""`History` against a dictionary of steps."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tensorboard_plugin_initkit.history import History
from tensorboard_plugin_initkit.schema import (
    RECORDED,
    STATISTICS,
    Chunk,
    Layout,
    Variable,
    per_layer,
    per_variable,
)

VARIABLES = (
    Variable("a/kernel", "a", (2, 3)),
    Variable("a/bias", "a", (3,)),
    Variable("b/scale", "b", ()),
)


def chunk_of(layout: Layout, steps: Any, seed: int = 0) -> Chunk:
    shape = (len(RECORDED), len(steps), len(layout.variables))
    values = np.random.default_rng(seed).random(shape).astype(np.float32)
    return Chunk(layout, np.asarray(steps, np.int64), dict(zip(RECORDED, values, strict=True)))


def history_of(*chunks: Chunk) -> History:
    history = History()
    for chunk in chunks:
        history.append(chunk)
    return history


class Reference:
    """The record as a dictionary of rows: one row a step, one entry a column."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[Variable, list[float]]] = {}

    def append(self, chunk: Chunk) -> None:
        if not len(chunk.steps):
            return
        first = chunk.steps[0]
        self.rows = {step: row for step, row in self.rows.items() if step < first}
        for i, step in enumerate(chunk.steps):
            self.rows[int(step)] = {
                variable: [chunk.values[name][i, j] for name in RECORDED]
                for j, variable in enumerate(chunk.layout.variables)
            }

    def chunk(self, variables: tuple[Variable, ...]) -> Chunk:
        missing = [np.nan] * len(RECORDED)
        table: NDArray[Any] = np.array(
            [[row.get(v, missing) for v in variables] for row in self.rows.values()], np.float32
        ).reshape(len(self.rows), len(variables), len(RECORDED))
        values = {name: table[:, :, i] for i, name in enumerate(RECORDED)}
        return Chunk(Layout(variables), np.array(list(self.rows), np.int64), values)


layouts = st.permutations(VARIABLES).flatmap(
    lambda order: st.integers(1, 3).map(lambda n: Layout(tuple(order[:n])))
)
appends = st.lists(
    st.tuples(
        layouts,
        st.lists(st.integers(0, 30), max_size=6, unique=True).map(sorted),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(appends)
def test_what_is_appended_replaces_the_record_from_its_first_step_on(
    contents: list[tuple[Layout, list[int], bool]],
) -> None:
    history, reference = History(), Reference()
    for i, (layout, steps, read_between) in enumerate(contents):
        chunk = chunk_of(layout, steps, i)
        history.append(chunk)
        reference.append(chunk)
        if read_between:
            assert len(history["norm"]) == len(reference.rows)
    np.testing.assert_array_equal(history.steps, list(reference.rows))
    assert len(history) == len(reference.rows)
    by_path = {variable.path: variable for variable in VARIABLES}
    recorded = {variable.path for row in reference.rows.values() for variable in row}
    assert recorded <= set(history.variables)
    expected = reference.chunk(tuple(by_path[path] for path in history.variables))
    assert history.layers == expected.layout.layers
    for statistic in STATISTICS:
        np.testing.assert_array_equal(history[statistic], per_layer(expected, statistic))
        np.testing.assert_array_equal(
            history.per_variable(statistic), per_variable(expected, statistic)
        )


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_the_record_is_the_same_however_it_was_cut_into_chunks(size: int) -> None:
    whole = chunk_of(Layout(VARIABLES), range(50))
    history = history_of(
        *(whole.select(np.arange(start, min(start + size, 50))) for start in range(0, 50, size))
    )
    for statistic in STATISTICS:
        np.testing.assert_array_equal(history[statistic], per_layer(whole, statistic))


def test_layers_and_variables_are_in_the_models_order() -> None:
    history = history_of(chunk_of(Layout(VARIABLES), [0]))
    assert history.layers == ["a", "b"]
    assert history.variables == ["a/kernel", "a/bias", "b/scale"]


def test_shapes_and_types() -> None:
    history = history_of(chunk_of(Layout(VARIABLES), [3, 5, 8, 13]))
    assert history.steps.shape == (4,)
    assert history.steps.dtype == np.int64
    for statistic in STATISTICS:
        assert history[statistic].shape == (4, 2)
        assert history.per_variable(statistic).shape == (4, 3)
        assert history[statistic].dtype == history.per_variable(statistic).dtype == np.float64


def test_an_empty_history_has_no_steps_and_no_layers() -> None:
    history = history_of(chunk_of(Layout(VARIABLES), []))
    assert len(history) == 0
    assert history.layers == history.variables == []
    assert history.steps.shape == (0,)
    assert history.steps.dtype == np.int64
    for statistic in STATISTICS:
        assert history[statistic].shape == history.per_variable(statistic).shape == (0, 0)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], "<History: 0 recorded steps of 0 layers>"),
        ([7], "<History: 1 recorded steps of 2 layers, steps 7 to 7>"),
        ([0, 10, 20], "<History: 3 recorded steps of 2 layers, steps 0 to 20>"),
    ],
)
def test_repr_says_what_was_recorded(steps: list[int], text: str) -> None:
    assert repr(history_of(chunk_of(Layout(VARIABLES), steps))) == text


@pytest.mark.parametrize("recorded", [[], [0, 1]], ids=["empty", "recorded"])
@pytest.mark.parametrize("name", ["std", "update_norm", "", 0])
def test_an_unknown_statistic_is_an_error_that_lists_those_there_are(
    recorded: list[int], name: Any
) -> None:
    history = history_of(chunk_of(Layout(VARIABLES), recorded))
    message = (
        'The statistic must be one of "norm", "mean_abs", "max_abs", "zeros", "nonfinite", '
        f'"weight_norm", "update_ratio". Received: {name!r}.'
    )
    for read in (history.__getitem__, history.per_variable):
        with pytest.raises(KeyError, match="The statistic must be one of") as caught:
            read(name)
        assert re.fullmatch(re.escape(message), caught.value.args[0])
