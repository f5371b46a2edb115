"""`GradientHistory` against a dictionary of steps."""

import copy
import pickle
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from tests.tensorboard_plugin_initkit.record.made import ones, random_chunk

pytestmark = pytest.mark.numpy_alone

VARIABLES = (
    Variable("a/kernel", "a", (2, 3)),
    Variable("a/bias", "a", (3,)),
    Variable("b/scale", "b", ()),
)
LAYOUT = Layout(VARIABLES)


def history_of(*chunks, max_steps=4096):
    history = GradientHistory(max_steps)
    for chunk in chunks:
        history.append(chunk)
    return history


class Reference:
    """The record as a dictionary of rows: one row a step, one entry a column."""

    def __init__(self):
        self.rows, self.totals = {}, {}

    def append(self, chunk):
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

    def chunk(self, variables):
        missing = [np.nan] * len(RECORDED)
        table = np.array(
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


def assert_is(history, expected):
    assert history.steps.dtype == np.int64
    np.testing.assert_array_equal(history.steps, expected.steps)
    for statistic in (*STATISTICS, *TOTAL_STATISTICS):
        of_columns = per_optimizer if statistic in TOTAL_STATISTICS else per_layer
        assert history[statistic].dtype == np.float64
        np.testing.assert_array_equal(history[statistic], of_columns(expected, statistic))
    for statistic in STATISTICS:
        got = history.per_variable(statistic)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, per_variable(expected, statistic))


layouts = st.permutations(VARIABLES).flatmap(
    lambda order: st.integers(1, 3).map(lambda n: Layout(tuple(order[:n])))
)
steps_lists = st.lists(st.integers(0, 30), max_size=6, unique=True).map(sorted)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(layouts, steps_lists, st.booleans()), max_size=8))
def test_what_is_appended_replaces_the_record_from_its_first_step_on(contents):
    history, reference = GradientHistory(), Reference()
    for i, (layout, steps, read_between) in enumerate(contents):
        chunk = random_chunk(layout, steps, i)
        history.append(chunk)
        reference.append(chunk)
        if read_between:
            assert len(history["norm"]) == len(reference.rows)
    assert len(history) == len(reference.rows)
    by_path = {variable.path: variable for variable in VARIABLES}
    recorded = {variable.path for row in reference.rows.values() for variable in row}
    assert recorded <= set(history.variables)
    expected = reference.chunk(tuple(by_path[path] for path in history.variables))
    assert history.layers == expected.layout.layers
    assert_is(history, expected)
    assert not history.thinned


def test_every_optimizer_has_a_column_and_what_is_frozen_is_what_was_frozen_last():
    one, two = (
        Layout(VARIABLES, ("first",), ("a", "b")),
        Layout(VARIABLES, ("first", "second"), ("b",)),
    )
    history = history_of(ones(one, [0], loss=3), ones(two, [1], loss=[4, 5]))
    assert history.frozen == ["b"]
    assert history.optimizers == ["first", "second"]
    np.testing.assert_array_equal(history["loss"], [[3, np.nan], [4, 5]])
    assert history["noise_scale"].shape == (2, 2)
    assert history.frozen == ["b"]
    assert repr(history) == "<GradientHistory: 2 recorded steps of 2 layers, steps 0 to 1>"


def test_an_empty_history_has_no_steps_and_no_layers():
    history = history_of(ones(LAYOUT, []))
    assert len(history) == 0
    assert history.layers == history.variables == history.frozen == []
    assert history.optimizers == [""]
    assert history["loss"].shape == (0, 1)
    assert history["norm"].shape == history.per_variable("norm").shape == (0, 0)
    assert repr(history) == "<GradientHistory: 0 recorded steps of 0 layers>"


@pytest.mark.parametrize("recorded", [[], [0, 1]], ids=["empty", "recorded"])
@pytest.mark.parametrize("name", ["update_norm", 0])
def test_an_unknown_statistic_is_an_error_that_lists_those_there_are(recorded, name):
    history = history_of(ones(LAYOUT, recorded))
    for read, known in (
        (history.__getitem__, STATISTICS + TOTAL_STATISTICS),
        (history.per_variable, STATISTICS),
    ):
        names = ", ".join(f'"{one}"' for one in known)
        message = f"The statistic must be one of {names}. Received: {name!r}."
        with pytest.raises(KeyError, match="The statistic must be one of") as caught:
            read(name)
        assert caught.value.args == (message,)


def test_threads_that_read_a_growing_history_lose_no_record():
    history, done = GradientHistory(), threading.Event()

    def read():
        while not done.is_set():
            assert len(history) <= len(history["norm"]) <= len(history.steps) <= 2000

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            for step in range(2000):
                history.append(ones(LAYOUT, [step]))
            done.set()
            for reader in readers:
                reader.result()
    finally:
        sys.setswitchinterval(interval)
    for copied in (history, pickle.loads(pickle.dumps(history)), copy.deepcopy(history)):
        np.testing.assert_array_equal(copied.steps, np.arange(2000))


# Thinning.

LAYERS = 3


def norms_of(norm, start=0, stride=1):
    """Make a chunk of norms; those that are not finite count so."""
    norm = np.asarray(norm, np.float32)
    kernels = (Variable(f"{i}/kernel", f"{i}", (2,)) for i in range(norm.shape[1]))
    values = {"norm": norm, "nonfinite": (~np.isfinite(norm)).astype(np.float32)}
    return Chunk(Layout(tuple(kernels)), start + stride * np.arange(len(norm)), values)


def append_in_pieces(history, chunk, size):
    """Append a chunk and return the largest number of steps that was kept."""
    longest = 0
    for start in range(0, len(chunk.steps), size):
        history.append(chunk.select(slice(start, start + size)))
        longest = max(longest, len(history))
        assert len(history) == len(history.steps)
    return longest


def assert_keeps_what_it_promises(history, whole, max_steps):
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


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 500),
    st.integers(1, 70),
    st.integers(1, 10),
    st.floats(0, 0.3),
    st.integers(0, 2**32),
)
def test_a_thinned_record_keeps_extremes_and_the_newest_steps_and_is_bounded(
    max_steps, n, size, stride, special, seed
):
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


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 100)), max_size=12))
def test_going_back_replaces_a_thinned_record_too(contents):
    history, reference = GradientHistory(16), Reference()
    layout = Layout(VARIABLES[:2])
    for i, (start, length) in enumerate(contents):
        chunk = random_chunk(layout, range(start, start + length), i)
        history.append(chunk)
        reference.append(chunk)
        assert history.steps[-1] == chunk.steps[-1]
    reference.rows = {int(step): reference.rows[int(step)] for step in history.steps}
    if reference.rows:
        assert_is(history, reference.chunk(layout.variables))


def test_a_long_training_is_kept_evenly_with_its_newest_steps_dense(rng):
    history, n = GradientHistory(512), 51_200
    assert append_in_pieces(history, norms_of(rng.lognormal(size=(n, LAYERS))), 64) <= 512
    in_tenths, _ = np.histogram(history.steps, 10, (0, n))
    assert in_tenths[:-1].min() > 5
    assert in_tenths[:-1].max() <= 2 * in_tenths[:-1].min()
    np.testing.assert_array_equal(history.steps[-256:], np.arange(n - 256, n))


def test_a_spike_of_one_layer_stays_though_another_had_a_larger_one(rng):
    norm = rng.lognormal(sigma=0.3, size=(10_000, LAYERS))
    norm[1_000, 0] *= 1e6
    norm[3_000, 0] *= 1e3  # not its extreme, and small beside what the others are used to
    norm[5_000, 1] /= 1e3
    norm[:, 2] *= 1e9
    history = GradientHistory(256)
    append_in_pieces(history, norms_of(norm), 64)
    assert {1_000, 3_000, 5_000} <= set(history.steps)
    assert len(history) <= 256


def test_thinning_wears_out_no_part_of_the_record(rng):
    history = GradientHistory(64)
    append_in_pieces(history, norms_of(rng.lognormal(size=(2_000, LAYERS))), 64)
    early = np.sum(history.steps < 1_000)
    append_in_pieces(history, norms_of(rng.lognormal(size=(40, LAYERS)), 2_000), 1)
    assert np.sum(history.steps < 1_000) >= early - 2 * LAYERS


def test_each_span_keeps_two_rows(rng):
    norm = 1 + 1e-3 * rng.random((1_000, LAYERS))
    norm[300] = [1e6, 1e-6, 1]  # stands out in both directions
    norm[0], norm[-1] = [0.5, 1, 0.5], [1, 2, 2]  # the other extremes
    kept = np.flatnonzero(rows_to_keep(norms_of(norm), 64))
    assert 300 in kept
    per_span = np.bincount(kept[kept < 1_000 - 32] // 128)
    assert len(per_span) == 8
    assert (per_span[1:] == 2).all()


@pytest.mark.parametrize("max_steps", [1, 8, 104, 512])
def test_rows_are_bounded_however_many_layers_are_noisy(rng, max_steps):
    norm = rng.lognormal(size=(2_000, 600))
    norm[np.arange(100, 700), np.arange(600)] = np.nan  # each layer at another row
    norm[50, 7], norm[60, 8] = 1e6, 1e-6
    kept = np.flatnonzero(rows_to_keep(norms_of(norm), max_steps))
    assert len(kept) <= max_steps + 27
    assert {0, 50, 60, 100} <= set(kept)
    np.testing.assert_array_equal(kept[-max_steps // 2 :], np.arange(2_000)[-max_steps // 2 :])


def test_of_many_noisy_layers_thinning_wears_out_no_part_and_is_cheap(rng):
    history, n = GradientHistory(104), 3_000
    norm = rng.lognormal(size=(n, 1_000))
    norm[500, 7], norm[600, 8], norm[700, 9] = 1e6, 1e-6, np.inf
    start = time.process_time()
    assert append_in_pieces(history, norms_of(norm), 16) <= 1.25 * 106
    assert time.process_time() - start < 10  # far less on an idle machine
    assert {500, 600, 700} <= set(history.steps)
    in_fifths, _ = np.histogram(history.steps, 5, (0, n))
    assert in_fifths[:-1].min() >= 6


def test_all_steps_are_kept_on_demand():
    whole = norms_of(np.ones((20_000, LAYERS)))
    history = history_of(whole, max_steps=None)
    assert len(history) == 20_000
    assert not history.thinned
    thinned = history_of(whole)
    assert thinned.thinned
    assert thinned.select(slice(0, 2)).thinned
    assert repr(thinned).endswith("steps 0 to 19,999, thinned>")


@pytest.mark.parametrize("max_steps", [0, 2.5, True])
def test_max_steps_is_checked(max_steps):
    message = (
        "`max_steps` must be a positive integer, or None to keep every recorded step. "
        f"Received: max_steps={max_steps!r}. Write `max_steps=4096` for the default."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GradientHistory(max_steps)


# What is said of the columns, and parts of a record.


def test_columns_say_what_they_are():
    kernel, bias, scale = VARIABLES
    kernel, bias = (one._replace(layer_type="Dense", initializer="He") for one in (kernel, bias))
    history = history_of(ones(Layout((kernel, scale, bias)), [0]))
    assert list(history.layout.layer_types.values()) == ["Dense", ""]
    assert history.layout.variables == (kernel, scale, bias)
    assert history.layers == ["a", "b"]
    assert history.variables == ["a/kernel", "b/scale", "a/bias"]


def test_the_statistics_that_were_recorded_are_its_names():
    history = history_of(ones(LAYOUT, [0, 1]))
    assert list(history) == [*STATISTICS, *TOTALS, "global_norm", "global_raw_norm"]
    assert all(name in history for name in history)
    assert dict(history).keys() == set(history)
    np.testing.assert_array_equal(dict(history)["rms"], history["rms"])
    assert all(name not in history for name in ("noise_scale", "nom", 3))
    assert list(GradientHistory()) == list(dict(GradientHistory())) == []
    some = history_of(ones(Layout(VARIABLES, replicas=2), [0]))
    assert list(some)[-1] == "noise_scale"
    values = dict.fromkeys((*RECORDED, *TOTALS)) | {"norm": 1}
    some = history_of(ones(LAYOUT, [0], **values))
    assert list(some) == ["norm", "rms", "signal", "global_norm"]


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([False, True, True, False]), slice(0, 0)])
def test_a_selection_is_a_history_of_these_records(rows):
    history = history_of(random_chunk(LAYOUT, [3, 5]), random_chunk(LAYOUT, [8, 13], 1))
    part = history.select(rows)
    np.testing.assert_array_equal(part.steps, history.steps[rows])
    np.testing.assert_array_equal(part["norm"], history["norm"][rows])
    np.testing.assert_array_equal(part["loss"], history["loss"][rows])
    assert part.layers == history.layers
    assert len(history) == 4
    part.append(ones(LAYOUT, [20]))
    assert part.steps.tolist() == [*history.steps[rows], 20]
    assert not part.thinned
