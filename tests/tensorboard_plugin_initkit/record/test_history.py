"""`GradientHistory` against a dictionary of steps."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tensorboard_plugin_initkit.record.chunk import RECORDED, TOTALS, Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tensorboard_plugin_initkit.record.statistics import (
    STATISTICS,
    TOTAL_STATISTICS,
    per_layer,
    per_optimizer,
    per_variable,
)
from tensorboard_plugin_initkit.record.thinning import rows_to_keep

pytestmark = pytest.mark.numpy_alone

VARIABLES = (
    Variable("a/kernel", "a", (2, 3)),
    Variable("a/bias", "a", (3,)),
    Variable("b/scale", "b", ()),
)


def chunk_of(layout: Layout, steps: Any, seed: int = 0) -> Chunk:
    rng = np.random.default_rng(seed)
    values = rng.random((len(RECORDED), len(steps), len(layout.variables))).astype(np.float32)
    totals = rng.random((len(TOTALS), len(steps), len(layout.optimizers))).astype(np.float32)
    return Chunk(
        layout,
        np.asarray(steps, np.int64),
        dict(zip(RECORDED, values, strict=True)),
        dict(zip(TOTALS, totals, strict=True)),
    )


def history_of(*chunks: Chunk, max_steps: int | None = 4096) -> GradientHistory:
    history = GradientHistory(max_steps)
    for chunk in chunks:
        history.append(chunk)
    return history


class Reference:
    """The record as a dictionary of rows: one row a step, one entry a column."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[Variable, list[float]]] = {}
        self.totals: dict[int, list[float]] = {}

    def append(self, chunk: Chunk) -> None:
        if not len(chunk.steps):
            return
        first = chunk.steps[0]
        self.rows = {step: row for step, row in self.rows.items() if step < first}
        for i, step in enumerate(chunk.steps):
            self.totals[int(step)] = [chunk.totals[name][i, 0] for name in TOTALS]
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
        totals = np.array([self.totals[step] for step in self.rows], np.float32)
        totals = totals.reshape(-1, len(TOTALS), 1)
        return Chunk(
            Layout(variables),
            np.array(list(self.rows), np.int64),
            values,
            {name: totals[:, i] for i, name in enumerate(TOTALS)},
        )


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


@settings(max_examples=60, deadline=None)
@given(appends)
def test_what_is_appended_replaces_the_record_from_its_first_step_on(
    contents: list[tuple[Layout, list[int], bool]],
) -> None:
    history, reference = GradientHistory(), Reference()
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
    for statistic in TOTAL_STATISTICS:
        np.testing.assert_array_equal(history[statistic], per_optimizer(expected, statistic))
    assert not history.thinned


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


def test_what_is_frozen_is_what_was_frozen_last() -> None:
    first, second = Layout(VARIABLES, frozen=("a", "b")), Layout(VARIABLES, frozen=("b",))
    history = history_of(chunk_of(first, [0]), chunk_of(second, [1]))
    assert history.frozen == ["b"]
    assert len(history["norm"]) == 2
    assert history.frozen == ["b"]


def test_every_optimizer_has_a_column() -> None:
    one, two = Layout(VARIABLES, ("first",)), Layout(VARIABLES, ("first", "second"))
    chunks = chunk_of(one, [0]), chunk_of(two, [1], 1)
    history = history_of(*chunks)
    assert history.optimizers == ["first", "second"]
    expected = [[chunks[0].totals["loss"][0, 0], np.nan], chunks[1].totals["loss"][0]]
    np.testing.assert_array_equal(history["loss"], expected)
    assert history["noise_scale"].shape == (2, 2)


def test_shapes_and_types() -> None:
    history = history_of(chunk_of(Layout(VARIABLES), [3, 5, 8, 13]))
    assert history.steps.shape == (4,)
    assert history.steps.dtype == np.int64
    for statistic in STATISTICS:
        assert history[statistic].shape == (4, 2)
        assert history.per_variable(statistic).shape == (4, 3)
        assert history[statistic].dtype == history.per_variable(statistic).dtype == np.float64
    for statistic in TOTAL_STATISTICS:
        assert history[statistic].shape == (4, 1)
        assert history[statistic].dtype == np.float64


def test_an_empty_history_has_no_steps_and_no_layers() -> None:
    history = history_of(chunk_of(Layout(VARIABLES), []))
    assert len(history) == 0
    assert history.layers == history.variables == history.frozen == []
    assert history.optimizers == [""]
    for statistic in TOTAL_STATISTICS:
        assert history[statistic].shape == (0, 1)
    assert history.steps.shape == (0,)
    assert history.steps.dtype == np.int64
    for statistic in STATISTICS:
        assert history[statistic].shape == history.per_variable(statistic).shape == (0, 0)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], "<GradientHistory: 0 recorded steps of 0 layers>"),
        ([7], "<GradientHistory: 1 recorded steps of 2 layers, steps 7 to 7>"),
        ([0, 10, 20], "<GradientHistory: 3 recorded steps of 2 layers, steps 0 to 20>"),
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
    for read, known in (
        (history.__getitem__, STATISTICS + TOTAL_STATISTICS),
        (history.per_variable, STATISTICS),
    ):
        names = ", ".join(f'"{one}"' for one in known)
        message = f"The statistic must be one of {names}. Received: {name!r}."
        with pytest.raises(KeyError, match="The statistic must be one of") as caught:
            read(name)
        assert re.fullmatch(re.escape(message), caught.value.args[0])


# Thinning.

LAYERS = 3
LAYOUT = Layout(tuple(Variable(f"{i}/kernel", f"{i}", (2,)) for i in range(LAYERS)))


def norms_of(norm: Any, start: int = 0, stride: int = 1) -> Chunk:
    """A chunk of norms; those that are not finite count so."""
    norm = np.asarray(norm, np.float32)
    values = {"norm": norm, "nonfinite": (~np.isfinite(norm)).astype(np.float32)}
    return Chunk(LAYOUT, start + stride * np.arange(len(norm)), values)


def append_in_pieces(history: GradientHistory, chunk: Chunk, size: int) -> int:
    """The largest number of steps that was kept."""
    longest = 0
    for start in range(0, len(chunk.steps), size):
        history.append(chunk.select(slice(start, start + size)))
        longest = max(longest, len(history))
        assert len(history) == len(history.steps)
    return longest


def assert_keeps_what_it_promises(history: GradientHistory, whole: Chunk, max_steps: int) -> None:
    kept = np.isin(whole.steps, history.steps)
    norm, nonfinite = per_layer(whole, "norm"), per_layer(whole, "nonfinite")
    np.testing.assert_array_equal(whole.steps[kept], history.steps)
    np.testing.assert_array_equal(norm[kept], history["norm"])
    assert kept[0]
    assert kept[-max_steps // 2 :].all()
    finite = np.where(np.isfinite(norm), norm, np.nan)
    for layer in range(LAYERS):
        if np.isfinite(finite[:, layer]).any():
            assert np.nanmax(finite[:, layer]) in history["norm"][:, layer]
            assert np.nanmin(finite[:, layer]) in history["norm"][:, layer]
        if (nonfinite[:, layer] > 0).any():
            assert kept[np.argmax(nonfinite[:, layer] > 0)]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 500),
    st.integers(1, 70),
    st.integers(1, 10),
    st.floats(0, 0.3),
    st.integers(0, 2**32),
)
def test_a_thinned_record_keeps_extremes_and_the_newest_steps_and_is_bounded(
    max_steps: int, n: int, size: int, stride: int, special: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    norm = rng.lognormal(sigma=3, size=(n, LAYERS))
    for value in (0, np.inf, np.nan):
        norm[rng.random(norm.shape) < special * rng.random()] = value
    whole = norms_of(norm, int(rng.integers(100)), stride)
    history = GradientHistory(max_steps)
    longest = append_in_pieces(history, whole, size)
    assert longest <= 1.25 * (max_steps + 3 * LAYERS + 3)
    assert history.thinned == (len(history) < n)
    assert (np.diff(history.steps) > 0).all()
    assert_keeps_what_it_promises(history, whole, max_steps)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 100)), max_size=12))
def test_going_back_replaces_a_thinned_record_too(contents: list[tuple[int, int]]) -> None:
    history, reference = GradientHistory(16), Reference()
    layout = Layout(VARIABLES[:2])
    for i, (start, length) in enumerate(contents):
        chunk = chunk_of(layout, range(start, start + length), i)
        history.append(chunk)
        reference.append(chunk)
        assert history.steps[-1] == chunk.steps[-1]
    kept = {int(step): reference.rows[int(step)] for step in history.steps}
    assert list(kept) == sorted(kept)
    reference.rows = kept
    expected = reference.chunk(layout.variables)
    for statistic in STATISTICS if kept else ():
        np.testing.assert_array_equal(history[statistic], per_layer(expected, statistic))
    for statistic in TOTALS if kept else ():
        np.testing.assert_array_equal(history[statistic], per_optimizer(expected, statistic))


def test_a_long_training_is_kept_evenly_with_its_newest_steps_dense() -> None:
    rng = np.random.default_rng(0)
    history = GradientHistory(512)
    longest = 0
    steps = 64 * 1_600
    for start in range(0, steps, 64):
        chunk = norms_of(rng.lognormal(size=(64, LAYERS)), start)
        longest = max(longest, append_in_pieces(history, chunk, 64))
    assert longest <= 512
    in_tenths, _ = np.histogram(history.steps, 10, (0, steps))
    assert in_tenths[:-1].min() > 5
    assert in_tenths[:-1].max() <= 2 * in_tenths[:-1].min()
    np.testing.assert_array_equal(history.steps[-256:], np.arange(steps - 256, steps))


def test_a_spike_of_one_layer_stays_though_another_had_a_larger_one() -> None:
    rng = np.random.default_rng(0)
    norm = rng.lognormal(sigma=0.3, size=(10_000, LAYERS))
    norm[1_000, 0] *= 1e6
    norm[3_000, 0] *= 1e3  # not its extreme, and small beside what the others are used to
    norm[5_000, 1] /= 1e3
    norm[:, 2] *= 1e9
    history = GradientHistory(256)
    append_in_pieces(history, norms_of(norm), 64)
    assert {1_000, 3_000, 5_000} <= set(history.steps)
    assert len(history) <= 256


def test_thinning_wears_out_no_part_of_the_record() -> None:
    rng = np.random.default_rng(0)
    history = GradientHistory(64)
    append_in_pieces(history, norms_of(rng.lognormal(size=(2_000, LAYERS))), 64)
    early = np.sum(history.steps < 1_000)
    append_in_pieces(history, norms_of(rng.lognormal(size=(40, LAYERS)), 2_000), 1)
    assert np.sum(history.steps < 1_000) >= early - 2 * LAYERS


def test_each_span_keeps_two_rows() -> None:
    norm = 1 + 1e-3 * np.random.default_rng(0).random((1_000, LAYERS))
    norm[300] = [1e6, 1e-6, 1]  # stands out in both directions
    norm[0], norm[-1] = [0.5, 1, 0.5], [1, 2, 2]  # the other extremes
    kept = np.flatnonzero(rows_to_keep(norms_of(norm), 64))
    assert 300 in kept
    per_span = np.bincount(kept[kept < 1_000 - 32] // 128)
    assert len(per_span) == 8
    assert (per_span[1:] == 2).all()


def test_more_layers_than_steps_are_bounded_by_their_extremes() -> None:
    layers = 100
    layout = Layout(tuple(Variable(f"{i}/kernel", f"{i}", (2,)) for i in range(layers)))
    rng = np.random.default_rng(0)
    history = GradientHistory(8)
    for start in range(0, 5_000, 50):
        norm = rng.lognormal(size=(50, layers)).astype(np.float32)
        values = {"norm": norm, "nonfinite": np.zeros_like(norm)}
        history.append(Chunk(layout, np.arange(start, start + 50), values))
        assert len(history) <= 1.25 * (8 + 2 * layers + 3)


def test_appending_to_a_thinned_record_is_cheap() -> None:
    rng = np.random.default_rng(0)
    layout = Layout(tuple(Variable(f"{i}/kernel", f"{i // 2}", (2,)) for i in range(20)))
    chunk = chunk_of(layout, range(64))
    history = GradientHistory(1024)
    start = time.process_time()
    for i in range(1_000):
        steps = chunk.steps + 64 * i
        history.append(Chunk(layout, steps, {**chunk.values, "norm": rng.random((64, 20))}))
    assert time.process_time() - start < 5  # 0.4 s for 64,000 steps on an idle machine
    assert len(history) <= 1024


def test_all_steps_are_kept_on_demand() -> None:
    whole = norms_of(np.ones((20_000, LAYERS)))
    history = history_of(whole, max_steps=None)
    assert len(history) == 20_000
    assert not history.thinned
    assert history_of(whole).thinned
    assert repr(history_of(whole)).endswith("steps 0 to 19999, thinned>")


@pytest.mark.parametrize("max_steps", [0, -1, 2.5, "10", True])
def test_max_steps_is_checked(max_steps: Any) -> None:
    message = (
        "`max_steps` must be a positive integer, or None to keep every recorded step. "
        f"Received: max_steps={max_steps!r}. Write `max_steps=4096` for the default."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GradientHistory(max_steps)


# What is said of the columns, and parts of a record.


def test_columns_say_what_they_are():
    kernel = Variable("a/kernel", "a", (2, 3), layer_type="Dense", initializer="HeNormal")
    bias = Variable("a/bias", "a", (3,), layer_type="Dense", initializer="Zeros")
    scale = Variable("b/scale", "b", ())
    history = history_of(chunk_of(Layout((kernel, scale, bias)), [0]))
    assert history.layer_types == ["Dense", ""]
    assert history.layout.variables == (kernel, scale, bias)
    assert GradientHistory().layer_types == []


def test_the_statistics_that_were_recorded_are_its_names():
    history = history_of(chunk_of(Layout(VARIABLES), [0, 1]))
    assert list(history) == [*STATISTICS, *TOTALS, "global_norm", "global_raw_norm"]
    assert all(name in history for name in history)
    assert all(name not in history for name in ("noise_scale", "nom", 3))
    assert list(GradientHistory()) == []
    some = history_of(chunk_of(Layout(VARIABLES, replicas=2), [0]))
    assert list(some)[-1] == "noise_scale"
    values = {"norm": np.ones((1, len(VARIABLES)), np.float32)}
    some = history_of(Chunk(Layout(VARIABLES), np.array([0]), values))
    assert list(some) == ["norm", "rms", "signal", "global_norm"]


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([False, True, True, False]), slice(0, 0)])
def test_a_selection_is_a_history_of_these_records(rows):
    history = history_of(chunk_of(Layout(VARIABLES), [3, 5]), chunk_of(Layout(VARIABLES), [8, 13]))
    part = history.select(rows)
    np.testing.assert_array_equal(part.steps, history.steps[rows])
    np.testing.assert_array_equal(part["norm"], history["norm"][rows])
    np.testing.assert_array_equal(part["loss"], history["loss"][rows])
    assert part.layers == history.layers
    assert len(history) == 4
    part.append(chunk_of(Layout(VARIABLES), [20]))
    assert part.steps.tolist() == [*history.steps[rows], 20]
    assert not part.thinned


def test_a_selection_of_a_thinned_history_is_thinned():
    history = history_of(chunk_of(Layout(VARIABLES), range(500)), max_steps=10)
    assert history.thinned
    assert history.select(slice(0, 2)).thinned
