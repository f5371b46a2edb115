"""A log gives back exactly what was written, to us and to TensorBoard's own dashboards."""

import itertools
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.util.tensor_util import make_ndarray

from tensorboard_plugin_initkit import PLUGIN_NAME
from tensorboard_plugin_initkit.diagnosis.depth import depth_slopes
from tensorboard_plugin_initkit.diagnosis.finding import Finding, to_json
from tensorboard_plugin_initkit.log import event_file
from tensorboard_plugin_initkit.log.event_file import EventFileWriter, event_files
from tensorboard_plugin_initkit.log.gradient_log import RUN, LogWriter
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record.chunk import RECORDED, TOTALS, Chunk
from tensorboard_plugin_initkit.record.layout import SCHEMA_VERSION, Layout
from tensorboard_plugin_initkit.record.statistics import (
    STATISTICS,
    TOTAL_STATISTICS,
    per_layer,
    per_optimizer,
)
from tensorboard_plugin_initkit.record.thinning import rows_to_keep
from tests.tensorboard_plugin_initkit.record.made import (
    PORTS,
    assert_equal,
    dense,
    ones,
    random_chunk,
)
from tests.tensorboard_plugin_initkit.support.made_logs import (
    HOSTILE,
    read_chunks,
    read_findings,
    write_half,
)

pytestmark = pytest.mark.numpy_alone

NAMES = [*HOSTILE, "a//b/", "/", "gradients", "initkit/norm", "optimizer/loss", "\x00\x7f", "𝔏"]


ALL = (*STATISTICS, *TOTAL_STATISTICS)
OVERVIEW = ["first_to_last", "largest_share", "nonfinite"]


def write(log_dir, *chunks, scalars=ALL):
    writer = LogWriter(log_dir, scalars)
    for chunk in chunks:
        writer.write(chunk)


def logged_events(log_dir):
    """Read events by TensorBoard's reader."""
    (path,) = event_files(log_dir / RUN)
    return list(LegacyEventFileLoader(str(path)).Load())


def logged_scalars(log_dir):
    return {
        (value.tag, event.step): value.simple_value
        for event in logged_events(log_dir)
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def names_of_scalars(log_dir, prefix):
    return {tag.removeprefix(prefix) for tag, _ in logged_scalars(log_dir) if prefix in tag}


# The record.

steps = st.sampled_from([2**24 - 1, 2**24, 2**24 + 1, 2**31, 2**40]) | st.integers(0, 2**40)
contents = st.tuples(
    st.lists(st.sampled_from(NAMES) | st.text("ab/", max_size=3), max_size=3, unique=True),
    st.sampled_from([("",), ("encoder", "head")]),
    st.lists(steps, min_size=1, max_size=8, unique=True).map(sorted),
    st.sampled_from([(), ("loss",), ("cosine", "clip_ratio", "skipped"), (*RECORDED[1:], *TOTALS)]),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(contents), st.sampled_from([None, (), ALL]), st.integers(0, 2**32))
def test_chunks_are_read_as_they_were_written(tmp_path_factory, contents, scalars, seed):
    log_dir = tmp_path_factory.mktemp("log")
    chunks = []
    for layers, optimizers, steps, missing in contents:
        chunk = random_chunk(
            dense(*layers, optimizers=optimizers, ports=PORTS[: len(layers)]),
            steps,
            seed,
            special=0.05,
        )
        values, totals = (
            {name: array for name, array in arrays.items() if name not in missing}
            for arrays in (chunk.values, chunk.totals)
        )
        ports = {} if missing else chunk.ports
        chunks.append(Chunk(chunk.layout, chunk.steps, values, totals, ports))
    write(log_dir, *chunks, scalars=scalars)
    for got, want in zip(read_chunks(log_dir), chunks, strict=True):
        assert_equal(got, want)
    if scalars is None:
        assert logged_scalars(log_dir) == {}
    # The layout is written when it changes only.
    tags = [value.tag for event in logged_events(log_dir) for value in event.summary.value]
    layouts = [None, *(chunk.layout for chunk in chunks)]
    changes = sum(layout != before for before, layout in itertools.pairwise(layouts))
    assert tags.count("initkit/layout") == changes


def test_columns_that_come_again_are_taken_apart_once(tmp_path, monkeypatch):
    layouts, parsed, real = [dense("a"), dense("a", "b")], [], Layout.from_json
    write(tmp_path, *(ones(layouts[step % 2], [step]) for step in range(40)), scalars=None)

    def parse(text):
        parsed.append(text)
        return real(text)

    monkeypatch.setattr(Layout, "from_json", parse)
    assert [chunk.layout for chunk in read_chunks(tmp_path)] == 20 * layouts
    assert len(parsed) == 2


def test_tensors_carry_what_tensorboard_needs_to_keep_them(tmp_path):
    write(tmp_path, ones(dense("a"), [3, 5]), scalars=None)
    _, *events = logged_events(tmp_path)
    assert [event.step for event in events] == [3] * (len(RECORDED) + 2)
    for event in events:
        (value,) = event.summary.value
        assert value.metadata.plugin_data.plugin_name == PLUGIN_NAME
        content = json.loads(value.metadata.plugin_data.content)
        assert content["version"] == SCHEMA_VERSION
        assert ("layout" in content) == (value.tag != "initkit/layout")
        assert value.metadata.data_class == 2  # DATA_CLASS_TENSOR


def test_a_chunk_is_read_only_when_it_is_there_whole(tmp_path):
    writer, sizes = LogWriter(tmp_path, scalars=None), []
    chunks = [random_chunk(dense("a"), [i], i) for i in range(2)]
    (path,) = event_files(tmp_path / RUN)
    for chunk in chunks:
        writer.write(chunk)
        sizes.append(path.stat().st_size)
    content = path.read_bytes()
    for size in (*range(sizes[0], sizes[1], 17), sizes[1] - 1):
        path.write_bytes(content[:size])
        (read,) = read_chunks(tmp_path)
        assert_equal(read, chunks[0])


# The scalars.


@pytest.mark.parametrize("optimizers", [("",), NAMES], ids=len)
@pytest.mark.parametrize("layers", [[], NAMES, [f"layer_{i}" for i in range(200)]], ids=len)
def test_scalars_are_byte_for_byte_what_protocol_buffers_would_write(tmp_path, layers, optimizers):
    layout = dense(*layers, optimizers=tuple(optimizers))
    chunk = random_chunk(layout, [0, 1, 127, 128, 2**40], special=0.05)
    write(tmp_path, ones(dense("before"), [0]), chunk)
    others = ("dead_units", "weight_norm", "update_ratio")
    names = [name if name in others else f"gradient_{name}" for name in STATISTICS]
    tags = [f"{name}/{layer}" for name in names for layer in layers]
    groups = [f"{name}/" if name else "" for name in optimizers]
    tags += [f"gradients/{group}{name}" for name in TOTAL_STATISTICS for group in groups]
    columns = [function(chunk, name) for names, function in RECORD for name in names]
    with np.errstate(over="ignore"):
        table = np.concatenate(columns, axis=1).astype(np.float32)
    events = logged_events(tmp_path)[-len(chunk.steps) :]
    for event, step, row in zip(events, chunk.steps.tolist(), table, strict=True):
        scalars = zip(tags, row, strict=True)
        values = [Summary.Value(tag=t, simple_value=v) for t, v in scalars if not np.isnan(v)]
        overview = event.summary.value[len(values) :]
        assert {v.tag.rpartition("/")[2] for v in overview} <= {*OVERVIEW, "findings"}
        summary = Summary(value=[*values, *overview])
        same = Event(step=step, wall_time=event.wall_time, summary=summary)
        assert event.SerializeToString() == same.SerializeToString()


RECORD = (STATISTICS, per_layer), (TOTAL_STATISTICS, per_optimizer)


def test_by_default_a_layer_has_one_scalar_and_a_training_six(tmp_path):
    layers = [f"layer_{i}" for i in range(200)]
    writer = LogWriter(tmp_path)
    writer.write(random_chunk(dense(*layers), range(3), nonfinite=0))
    tags = {tag for tag, _ in logged_scalars(tmp_path)}
    totals = {"global_norm", "learning_rate", *OVERVIEW, "findings"}
    assert tags == {f"gradient_norm/{layer}" for layer in layers} | {
        f"gradients/{name}" for name in totals
    }


def test_the_overview_is_of_the_layers_of_each_optimizer(tmp_path):
    layout = dense(*"abcdefghijkl", optimizers=("left", "right"))  # by turns
    levels = np.stack([2.0 ** np.arange(6), np.ones(6)], axis=1).ravel()
    chunk = ones(layout, [6, 7], norm=np.tile(levels, 2), nonfinite=0, zeros=0)
    chunk.values["nonfinite"][1, :3] = 2
    writer = LogWriter(tmp_path, [])
    writer.write(chunk)
    notes = [Finding("vanishing", "a", 7, "!", severity=s) for s in ("note", "warning", "error")]
    writer.write_findings(to_json(notes), 3, 2)
    scalars = logged_scalars(tmp_path)
    assert scalars.pop(("gradients/findings", 7)) == 2
    values = {tag.removeprefix("gradients/"): value for (tag, _), value in scalars.items()}
    for name, nonfinite, share in (("left", 4, 3 / 4 / (1 - 4.0**-6)), ("right", 2, 1 / 6)):
        assert values[f"{name}/nonfinite"] == nonfinite
        assert values[f"{name}/largest_share"] == pytest.approx(share)
    slopes = depth_slopes(read_log(tmp_path), np.array([0]))[0]
    totals = [values[f"{name}/first_to_last"] for name in ("left", "right")]
    assert totals == pytest.approx([2.0 ** (-10 / 3), 1])
    assert totals == pytest.approx([slope.total for slope in slopes])


def test_a_chunk_without_statistics_has_scalars_of_its_totals(tmp_path):
    write(tmp_path, ones(dense("a"), [0], **dict.fromkeys(RECORDED)))
    assert {tag for tag, _ in logged_scalars(tmp_path)} >= {"gradients/loss"}
    assert not names_of_scalars(tmp_path, "gradient_")


def test_a_statistic_has_scalars_where_it_was_recorded(tmp_path):
    layout = dense("a")
    write(tmp_path, ones(layout, [0], cosine=None), ones(layout, [1]), ones(layout, [2], snr=None))
    scalars = logged_scalars(tmp_path)
    assert [step for tag, step in scalars if tag == "gradient_cosine/a"] == [1, 2]
    assert [step for tag, step in scalars if tag == "gradient_snr/a"] == [0, 1]
    assert len({tag for tag, _ in scalars if tag.endswith("/a")}) == len(STATISTICS)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, {"loss", "learning_rate", "global_norm", "global_raw_norm", "skipped", "penalty"}),
        ({"clip_ratio": None}, {"loss", "learning_rate", "global_norm", "skipped", "penalty"}),
        (
            {"clip_ratio": None, "skipped": 0, "penalty": 0, "loss_scale": 1024},
            {"loss", "learning_rate", "global_norm", "loss_scale"},
        ),
        (
            dict.fromkeys(("clip_ratio", "skipped", "loss_scale", "penalty")) | {"loss": np.nan},
            {"learning_rate", "global_norm"},
        ),
        (dict.fromkeys((*TOTALS, "clip_ratio", "norm")), set()),
    ],
)
def test_totals_have_scalars_where_they_say_something(tmp_path, values, names):
    write(tmp_path, ones(dense("a", "b"), [0, 1], **values))
    overview = {*OVERVIEW, "findings", "batch_loss", "spike"}
    assert names_of_scalars(tmp_path, "gradients/") - overview == names


def test_the_scalar_of_the_noise_scale_is_that_of_the_history(tmp_path, rng):
    norms = {
        name: rng.uniform(low, low + 0.3, (150, 4))
        for name, low in (("norm", 1), ("local_norm", 1.2))
    }
    chunk = ones(dense("a", "b", replicas=4), range(150), **norms)
    chunk.values["norm"][70] = np.nan
    pieces = np.split(np.arange(150), [1, 2, 30, 31, 96, 141])
    write(tmp_path, *map(chunk.select, pieces))
    logged = {s: v for (t, s), v in logged_scalars(tmp_path).items() if t.endswith("noise_scale")}
    expected = read_log(tmp_path)["noise_scale"][:, 0]
    assert len(logged) >= 149
    for step, value in logged.items():
        assert value == pytest.approx(expected[step], rel=1e-5)


def test_a_norm_beyond_float32_is_infinite_without_a_warning(tmp_path):
    write(tmp_path, ones(dense("a"), [0], norm=3e38, max_abs=3e38))
    assert logged_scalars(tmp_path)["gradient_norm/a", 0] == np.inf
    assert logged_scalars(tmp_path)["gradient_max_abs/a", 0] == np.float32(3e38)
    assert read_log(tmp_path)["norm"] == pytest.approx(np.sqrt(2) * 3e38)


# The histograms.


def logged_histograms(log_dir):
    return {
        (value.tag, event.step): (make_ndarray(value.tensor), value.metadata)
        for event in logged_events(log_dir)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "histograms"
    }


def write_histograms(log_dir, layout, samples, **options):
    steps = 10 * np.arange(len(samples[0]))
    LogWriter(log_dir, scalars=None, **options).write(
        ones(layout, steps), [np.asarray(array, np.float32) for array in samples]
    )


def test_histograms_count_the_elements_of_a_layer_by_magnitude(tmp_path):
    kernel = [[1e-3, -2e-3, 0, 5, np.inf, 4], [np.nan] * 6, [0] * 6]
    bias = [[-0.5], [0.2], [0]]  # one of two elements
    write_histograms(tmp_path, dense("a"), [kernel, bias], histograms=1)
    histograms = logged_histograms(tmp_path)
    assert set(histograms) == {("log10_gradient/a", 0), ("log10_gradient/a", 10)}
    table, metadata = histograms["log10_gradient/a", 0]
    np.testing.assert_array_equal(table[:, 0], np.arange(-3, 1, 0.5))
    np.testing.assert_array_equal(table[:, 1], table[:, 0] + 0.5)
    np.testing.assert_array_equal(table[:, 2], [2, 0, 0, 0, 0, 2, 0, 2])
    assert metadata.data_class == 2  # DATA_CLASS_TENSOR
    assert "Exact zeros are left out" in metadata.summary_description
    table, _ = histograms["log10_gradient/a", 10]
    np.testing.assert_array_equal(table, [[-1, -0.5, 2]])


def test_histograms_agree_with_numpy(tmp_path, rng):
    layers = [f"layer_{i}" for i in range(20)]
    layout = dense(*layers)
    scales = 10.0 ** -np.arange(20)  # of kernels, then biases
    samples = [rng.normal(scale=s, size=(3, 6)) for s in scales]
    samples += [rng.normal(scale=s, size=(3, 2)) for s in scales]
    write_histograms(tmp_path, layout, samples, histograms=2)
    histograms = logged_histograms(tmp_path)
    tags = [f"log10_gradient/{layer}" for layer in layers]
    assert list(histograms) == [(tag, step) for step in (0, 20) for tag in tags]
    for i, ((_, step), (table, _)) in enumerate(histograms.items()):
        own = np.concatenate([samples[j][step // 10] for j in (i % 20, i % 20 + 20)])
        edges = np.append(table[:, 0], table[-1, 1])
        counts, _ = np.histogram(np.log10(abs(own.astype(np.float32))), edges)
        np.testing.assert_array_equal(counts, table[:, 2])
        assert counts.sum() == 8
        assert counts[0] > 0 < counts[-1]


@pytest.mark.parametrize("value", [1e-45, 1, 10**0.5, 3.4e38])
def test_histograms_hold_every_float32(tmp_path, value):
    write_histograms(tmp_path, dense("a"), [[[value] * 6], [[value] * 2]], histograms=1)
    ((table, _),) = logged_histograms(tmp_path).values()
    ((left, right, count),) = table
    assert left <= np.log10(np.float64(np.float32(value))) < right
    assert count == 8


def test_steps_without_samples_have_no_histograms(tmp_path):
    writers = [LogWriter(tmp_path / str(every), histograms=every) for every in (0, 2)]
    samples = [np.ones((1, v.size), np.float32) for v in dense("a").variables]
    for step in range(6):
        for writer in writers:
            writer.write(ones(dense("a"), [step]), samples if step >= 3 else None)
    assert logged_histograms(tmp_path / "0") == {}
    assert {step for _, step in logged_histograms(tmp_path / "2")} == {3, 5}


# Findings.


def test_findings_are_read_as_they_were_written(tmp_path):
    early, late = (Finding("vanishing", "слой\n" * 9_000, step, "Far less.") for step in (3, 7))
    texts = [to_json(found) for found in ([late], [], [late, early])]
    chunk = random_chunk(dense("a"), range(9))
    writer = LogWriter(tmp_path)
    writer.write_findings(texts[0], 7)
    writer.write(chunk)
    writer.write_findings(texts[1], 7)
    LogWriter(tmp_path).write_findings(texts[2], 8)
    assert read_findings(tmp_path) == read_findings(tmp_path / RUN) == texts
    assert read_log(tmp_path).findings == [early, late]
    assert read_log(tmp_path).select(slice(0, 2)).findings == [early, late]
    (read,) = read_chunks(tmp_path)
    assert_equal(read, chunk)


# Directories and files.


@pytest.mark.parametrize("made", [True, False], ids=["empty", "missing"])
def test_a_directory_without_a_log_is_an_error_with_the_lines_that_log(tmp_path, made):
    log_dir = tmp_path / "runs"
    if made:
        log_dir.mkdir()
    message = (
        "`log_dir` must be a directory that a GradientMonitor has written to. Received: "
        f"log_dir={str(log_dir)!r}, which holds no such log. Train with "
        f"`callbacks=[GradientMonitor({str(log_dir)!r})]` first."
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        read_log(log_dir)
    LogWriter(log_dir)
    assert len(read_log(log_dir)) == 0  # a log without a record yet


def test_what_is_no_path_is_an_error_that_says_so():
    places: list[Any] = [None, 3, "", "x" * 300]
    for log_dir in places:
        with pytest.raises(ValueError, match=r"^`log_dir` must be .* Received: log_dir="):
            read_log(log_dir)


def test_a_log_of_another_schema_version_is_refused_in_words(tmp_path):
    write(tmp_path, ones(dense("a"), [0]))
    newer = EventFileWriter(tmp_path / "newer" / RUN)
    old, new = b'"version": 4', b'"version": 9'
    newer.write(e.SerializeToString().replace(old, new) for e in logged_events(tmp_path))
    with pytest.raises(
        ValueError, match=r"layout of a log must have version 4\. Received: version 9"
    ):
        read_log(tmp_path / "newer")


@pytest.mark.parametrize(("start", "layer"), [(5, "a"), (3, "a"), (0, "b")])
def test_a_later_training_replaces_the_record_from_its_first_step_on(tmp_path, start, layer):
    first = random_chunk(dense("a"), range(5))
    second = random_chunk(dense(layer), range(start, 9), 1)
    write(tmp_path, first)
    write(tmp_path, second)
    history = read_log(str(tmp_path / RUN))
    assert history.findings == []
    assert history.layers == [layer]
    np.testing.assert_array_equal(history.steps, range(9))
    np.testing.assert_array_equal(history["norm"][:start], per_layer(first, "norm")[:start])
    np.testing.assert_array_equal(history["norm"][start:], per_layer(second, "norm"))


def test_a_long_log_is_thinned_on_demand_only(tmp_path, monkeypatch):
    chunks = [ones(dense("a"), range(i, i + 100)) for i in range(0, 5_000, 100)]
    write(tmp_path, *chunks, scalars=None)
    assert len(read_log(tmp_path)) == 5_000
    judged = []

    def noted(chunk, most):
        judged.append(len(chunk.steps))
        return rows_to_keep(chunk, most)

    monkeypatch.setattr("tensorboard_plugin_initkit.record.thinning.rows_to_keep", noted)
    history = read_log(tmp_path, max_steps=200)
    assert sum(judged) < 1.2 * 5_000  # thinning costs as much as reading: it is done seldom
    assert history.thinned
    assert len(history) <= 200
    with pytest.raises(ValueError, match="`max_steps` must be a positive integer"):
        read_log(tmp_path, max_steps=0)


def test_after_a_write_that_failed_the_log_goes_on_with_the_next(tmp_path, monkeypatch):
    writer, chunk = LogWriter(tmp_path), ones(dense("a"), [1])
    with monkeypatch.context() as patch:
        patch.setattr(event_file, "_write_all", write_half)
        with pytest.raises(OSError, match="No space left"):
            writer.write(ones(dense("a"), [0]))
    writer.write(chunk)
    (read,) = read_chunks(tmp_path)
    assert_equal(read, chunk)
