"""A log gives back exactly what was written, to us and to TensorBoard's own dashboards."""

from __future__ import annotations

import errno
import re
import warnings
from pathlib import Path
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
from tensorboard_plugin_initkit.diagnosis.finding import Finding, to_json
from tensorboard_plugin_initkit.log import event_file
from tensorboard_plugin_initkit.log.event_file import EventFileWriter, event_files
from tensorboard_plugin_initkit.log.gradient_log import (
    RUN,
    LogWriter,
)
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record.chunk import RECORDED, TOTALS, Chunk, join
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tensorboard_plugin_initkit.record.statistics import (
    STATISTICS,
    TOTAL_STATISTICS,
    per_layer,
    per_optimizer,
)
from tests.callbacks.training import label
from tests.tensorboard_plugin_initkit.support.made_logs import read_chunks, read_findings

HOSTILE = [
    "plain",
    "sequential/block/dense#2",
    "with space, comma; and 100 %",
    "gradients",
    "initkit/norm",
    "a//b/",
    "/",
    "norm",
    "learning_rate",
    "optimizer/loss",
    "log10_gradient",
    "\"quotes\" and 'others' and \\",
    "line\nbreak\ttab\r\x00\x7f",
    "<script>alert(1)</script>&amp;",
    "{{ braces }} ${shell} ../../etc",
    "x" * 1_000,
    "слой 层 طبقة 𝔏 é",
]


def layout_of(*layers: str, optimizers: tuple[str, ...] = ("",), replicas: int = 1) -> Layout:
    """Two variables a layer, all the kernels first."""
    variables = [("kernel", (3, 2)), ("bias", (2,))]
    return Layout(
        tuple(
            Variable(f"{layer}/{name}", layer, shape, optimizers[-1])
            for name, shape in variables
            for layer in layers
        ),
        optimizers,
        layers[:1],
        replicas,
    )


def chunk_of(layout: Layout, steps: Any, seed: int = 0) -> Chunk:
    """Random values, among them missing gradients and those that are not finite."""
    rng = np.random.default_rng(seed)
    shape = (len(steps), len(layout.variables))
    values = {}
    for name in RECORDED:
        values[name] = rng.lognormal(sigma=12, size=shape).astype(np.float32)
        for special in (0, np.nan, np.inf):
            values[name][rng.random(shape) < 0.1] = special
    shape = (len(steps), len(layout.optimizers))
    totals = {name: rng.lognormal(size=shape).astype(np.float32) for name in TOTALS}
    return Chunk(layout, np.asarray(steps, np.int64), values, totals)


def write(log_dir: Path, *chunks: Chunk, scalars: int = 1) -> None:
    writer = LogWriter(log_dir, scalars)
    for chunk in chunks:
        writer.write(chunk)


def assert_equal(some: Chunk, other: Chunk) -> None:
    assert some.layout == other.layout
    assert some.steps.dtype == other.steps.dtype == np.int64
    np.testing.assert_array_equal(some.steps, other.steps)
    assert set(some.values) == set(other.values)
    for name in some.values:
        assert some.values[name].dtype == np.float32
        np.testing.assert_array_equal(some.values[name], other.values[name], err_msg=name)
    for name in TOTALS:  # what is not known is written as NaN
        expected = per_optimizer(other, name)
        np.testing.assert_array_equal(some.totals[name], expected, err_msg=name)


def logged_events(log_dir: Path) -> list[Event]:
    """By TensorBoard's reader."""
    (path,) = event_files(log_dir / RUN)
    return list(LegacyEventFileLoader(str(path)).Load())


def logged_scalars(log_dir: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in logged_events(log_dir)
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def expected_scalars(chunk: Chunk) -> dict[tuple[str, int], np.float32]:
    """Those of a chunk with all statistics."""
    columns: list[tuple[str, Any]] = []
    for statistic in STATISTICS:
        tags = [f"gradients/{layer}/{statistic}" for layer in chunk.layout.layers]
        columns += zip(tags, per_layer(chunk, statistic).T, strict=True)
    for statistic in TOTAL_STATISTICS:
        for name, column in zip(
            chunk.layout.optimizers, per_optimizer(chunk, statistic).T, strict=True
        ):
            several = f"{name}/" if len(chunk.layout.optimizers) > 1 else ""
            columns.append((f"optimizer/{several}{statistic}", column))
    with np.errstate(over="ignore"):
        return {
            (tag, int(step)): np.float32(value)
            for tag, column in columns
            for step, value in zip(chunk.steps, column, strict=True)
            if not np.isnan(value)
        }


# The record.

steps_lists = st.lists(st.integers(0, 2**40), min_size=1, max_size=8, unique=True).map(sorted)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.text("ab/", max_size=3), max_size=3, unique=True), steps_lists)),
    st.integers(0, 3),
    st.integers(0, 2**32),
)
def test_chunks_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    contents: list[tuple[list[str], list[int]]],
    scalars: int,
    seed: int,
) -> None:
    log_dir = tmp_path_factory.mktemp("log")
    chunks = [
        chunk_of(layout_of(*layers), steps, seed + i) for i, (layers, steps) in enumerate(contents)
    ]
    write(log_dir, *chunks, scalars=scalars)
    read = list(read_chunks(log_dir))
    assert len(read) == len(chunks)
    for got, want in zip(read, chunks, strict=True):
        assert_equal(got, want)


def test_statistics_that_were_not_recorded_are_not_written(tmp_path: Path) -> None:
    whole = chunk_of(layout_of("a", "b"), range(3))
    names = ("norm", "nonfinite", "snr")
    partly = Chunk(whole.layout, whole.steps, {name: whole.values[name] for name in names})
    write(tmp_path, whole, partly, whole)
    for got, want in zip(read_chunks(tmp_path), [whole, partly, whole], strict=True):
        assert_equal(got, want)


def test_every_optimizer_has_its_totals(tmp_path: Path) -> None:
    chunk = chunk_of(layout_of("a", optimizers=("encoder", "head")), range(3))
    chunk.totals["loss"][1, 0] = np.nan
    write(tmp_path, chunk)
    (read,) = read_chunks(tmp_path)
    assert_equal(read, chunk)


@pytest.mark.parametrize("step", [0, 1, 2**24 - 1, 2**24, 2**24 + 1, 2**31, 2**40 - 1, 2**40])
def test_large_steps_are_exact(tmp_path: Path, step: int) -> None:
    chunk = chunk_of(layout_of("dense"), [step, step + 1])
    write(tmp_path, chunk)
    (read,) = read_chunks(tmp_path)
    np.testing.assert_array_equal(read.steps, [step, step + 1])
    assert {logged for _, logged in logged_scalars(tmp_path)} == {step, step + 1}


@pytest.mark.parametrize("value", [0, 1e-45, 3.4e38, np.inf, np.nan], ids=label)
def test_every_float32_is_exact(tmp_path: Path, value: float) -> None:
    layout = layout_of("dense")
    table = np.full((3, 2), value, np.float32)
    totals = dict.fromkeys(TOTALS, table[:, :1])
    chunk = Chunk(layout, np.arange(3), dict.fromkeys(RECORDED, table), totals)
    write(tmp_path, chunk)
    (read,) = read_chunks(tmp_path)
    assert_equal(read, chunk)


def test_the_layout_is_written_when_it_changes_only(tmp_path: Path) -> None:
    one, two = layout_of("a"), layout_of("a", "b")
    chunks = [chunk_of(layout, [i], i) for i, layout in enumerate([one, one, two, two, one])]
    write(tmp_path, *chunks)
    for got, want in zip(read_chunks(tmp_path), chunks, strict=True):
        assert_equal(got, want)
    tags = [value.tag for event in logged_events(tmp_path) for value in event.summary.value]
    assert tags.count("initkit/layout") == 3


@pytest.mark.parametrize("layer", HOSTILE)
def test_any_layer_name_is_read_as_it_was_written(tmp_path: Path, layer: str) -> None:
    chunk = chunk_of(layout_of(layer, "other"), [1, 2])
    write(tmp_path, chunk)
    (read,) = read_chunks(tmp_path)
    assert_equal(read, chunk)


def test_tensors_carry_what_tensorboard_needs_to_keep_them(tmp_path: Path) -> None:
    write(tmp_path, chunk_of(layout_of("dense"), [3, 5]), scalars=0)
    _, *events = logged_events(tmp_path)
    assert [event.step for event in events] == [3] * (len(RECORDED) + 2)
    for event in events:
        (value,) = event.summary.value
        assert value.metadata.plugin_data.plugin_name == PLUGIN_NAME
        assert value.metadata.plugin_data.content == b'{"version": 3}'
        assert value.metadata.data_class == 2  # DATA_CLASS_TENSOR


def test_a_chunk_is_read_only_when_it_is_there_whole(tmp_path: Path) -> None:
    chunks = [chunk_of(layout_of("dense"), [i], i) for i in range(2)]
    writer = LogWriter(tmp_path, scalars=0)
    (path,) = event_files(tmp_path / RUN)
    sizes = []
    for chunk in chunks:
        writer.write(chunk)
        sizes.append(path.stat().st_size)
    content = path.read_bytes()
    for size in range(sizes[0], sizes[1]):
        path.write_bytes(content[:size])
        (read,) = read_chunks(tmp_path)
        assert_equal(read, chunks[0])


# The scalars.


def test_scalars_are_the_statistics_of_layers(tmp_path: Path) -> None:
    chunks = [chunk_of(layout_of("a", "b/c"), [0, 10], 0), chunk_of(layout_of("d"), [20], 1)]
    write(tmp_path, *chunks)
    expected = expected_scalars(chunks[0]) | expected_scalars(chunks[1])
    scalars = logged_scalars(tmp_path)
    assert list(scalars.keys() ^ expected.keys()) == []
    for key, value in scalars.items():
        np.testing.assert_array_equal(np.float32(value), expected[key], err_msg=str(key))


def test_the_tags_of_scalars_parse_back_to_any_layer_name(tmp_path: Path) -> None:
    chunk = ones(layout_of(*HOSTILE, optimizers=tuple(HOSTILE)), [1], loss_scale=2)
    write(tmp_path, chunk)
    parsed = set()
    for tag, _ in logged_scalars(tmp_path):
        group, _, rest = tag.partition("/")
        parsed.add((group, *rest.rpartition("/")[::2]))
    of_layers = {("gradients", layer, name) for layer in HOSTILE for name in STATISTICS}
    of_optimizers = {("optimizer", name, total) for name in HOSTILE for total in TOTALS}
    assert parsed >= of_layers | of_optimizers
    assert {group for group, _, _ in parsed} == {"gradients", "optimizer"}


@pytest.mark.parametrize(
    "layers", [[], ["a"], HOSTILE, [f"layer_{i}" for i in range(300)]], ids=len
)
def test_scalars_are_byte_for_byte_what_protocol_buffers_would_write(
    tmp_path: Path, layers: list[str]
) -> None:
    chunk = chunk_of(layout_of(*layers), [0, 1, 127, 128, 2**40])
    write(tmp_path, chunk)
    expected = expected_scalars(chunk)
    tags = [f"gradients/{layer}/{name}" for layer in layers for name in STATISTICS]
    tags += [f"optimizer/{name}" for name in TOTAL_STATISTICS]
    events = logged_events(tmp_path)[-len(chunk.steps) :]
    for event, step in zip(events, map(int, chunk.steps), strict=True):
        summary = Summary()
        for tag in tags:
            if (tag, step) in expected:
                summary.value.add(tag=tag, simple_value=expected[tag, step])
        same = Event(step=step, wall_time=event.wall_time, summary=summary)
        assert event.SerializeToString() == same.SerializeToString()


def ones(layout: Layout, steps: Any, **values: Any) -> Chunk:
    """A chunk whose values and totals are 1 where they are not given, and not written if None."""
    shapes = dict.fromkeys(RECORDED, len(layout.variables))
    shapes |= dict.fromkeys(TOTALS, len(layout.optimizers))
    tables = {
        name: np.full((len(steps), width), values.get(name, 1), np.float32)
        for name, width in shapes.items()
        if values.get(name, 1) is not None
    }
    return Chunk(
        layout,
        np.asarray(steps, np.int64),
        {name: table for name, table in tables.items() if name in RECORDED},
        {name: table for name, table in tables.items() if name in TOTALS},
    )


def names_of_scalars(log_dir: Path, prefix: str) -> set[str]:
    return {tag.removeprefix(prefix) for tag, _ in logged_scalars(log_dir) if prefix in tag}


@pytest.mark.parametrize(
    ("missing", "without"),
    [
        (["cosine"], {"cosine"}),
        (["cosine", "snr", "local_norm"], {"cosine", "snr", "local_norm"}),
        (["clip_ratio"], {"clip_ratio", "raw_norm"}),
        (["update_norm"], {"update_ratio"}),
        (["weight_norm"], {"weight_norm", "update_ratio"}),
        ([], set()),
    ],
)
def test_only_what_was_recorded_has_scalars(
    tmp_path: Path, missing: list[str], without: set[str]
) -> None:
    write(tmp_path, ones(layout_of("a"), [0, 1], **dict.fromkeys(missing)))
    assert names_of_scalars(tmp_path, "gradients/a/") == set(STATISTICS) - without


def test_a_statistic_that_is_recorded_later_has_scalars_from_then_on(tmp_path: Path) -> None:
    layout = layout_of("a")
    write(tmp_path, ones(layout, [0], cosine=None), ones(layout, [1]), ones(layout, [2], snr=None))
    scalars = logged_scalars(tmp_path)
    assert [step for tag, step in scalars if tag == "gradients/a/cosine"] == [1, 2]
    assert [step for tag, step in scalars if tag == "gradients/a/snr"] == [0, 1]


def test_what_is_nan_is_left_out_of_scalars(tmp_path: Path) -> None:
    chunk = ones(layout_of("a", "b"), [0, 1])
    chunk.values["cosine"][0, [0, 2]] = np.nan  # layer a's kernel and bias
    chunk.totals["loss"][1] = np.nan
    write(tmp_path, chunk)
    assert set(expected_scalars(chunk)) - set(logged_scalars(tmp_path)) == {
        ("optimizer/loss_scale", 0),
        ("optimizer/loss_scale", 1),
    }
    scalars = logged_scalars(tmp_path)
    assert ("gradients/a/cosine", 0) not in scalars
    assert ("gradients/a/cosine", 1) in scalars
    assert ("gradients/b/cosine", 0) in scalars
    assert ("optimizer/loss", 1) not in scalars


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, {"loss", "learning_rate", "global_norm", "global_raw_norm", "skipped"}),
        ({"clip_ratio": None}, {"loss", "learning_rate", "global_norm", "skipped"}),
        (
            {"clip_ratio": None, "skipped": 0, "loss_scale": 1024},
            {"loss", "learning_rate", "global_norm", "loss_scale"},
        ),
        (
            {"clip_ratio": None, "skipped": None, "loss_scale": None, "loss": np.nan},
            {"learning_rate", "global_norm"},
        ),
        (dict.fromkeys((*TOTALS, "clip_ratio", "norm")), set()),
    ],
)
def test_totals_have_scalars_where_they_say_something(
    tmp_path: Path, values: dict[str, Any], names: set[str]
) -> None:
    write(tmp_path, ones(layout_of("a", "b"), [0, 1], **values))
    assert names_of_scalars(tmp_path, "optimizer/") == names


def test_the_scalar_of_the_noise_scale_is_that_of_the_history(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layout = layout_of("a", "b", replicas=4)
    chunk = ones(layout, range(150))
    for name, low in (("norm", 1), ("local_norm", 1.2)):
        chunk.values[name][:] = rng.uniform(low, low + 0.3, chunk.values[name].shape)
    chunk.values["norm"][70] = np.nan
    pieces = np.split(np.arange(150), [1, 2, 30, 31, 96, 141])
    write(tmp_path, *map(chunk.select, pieces), scalars=3)
    logged = {s: v for (t, s), v in logged_scalars(tmp_path).items() if t.endswith("noise_scale")}
    history = read_log(tmp_path)
    expected = history["noise_scale"][::3, 0]
    assert len(logged) >= 49
    for step, value in logged.items():
        assert value == pytest.approx(expected[step // 3], rel=1e-5)


@pytest.mark.parametrize("every", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("size", [1, 4, 64])
def test_scalars_are_of_every_nth_recorded_step(tmp_path: Path, every: int, size: int) -> None:
    whole = ones(layout_of("a"), 10 * np.arange(50))
    pieces = np.split(np.arange(50), range(size, 50, size))
    write(tmp_path, *map(whole.select, pieces), scalars=every)
    steps = {step for _, step in logged_scalars(tmp_path)}
    assert steps == set(range(0, 500, 10 * every))
    assert_equal(join(list(read_chunks(tmp_path))), whole)


def test_a_norm_beyond_float32_is_infinite_without_a_warning(tmp_path: Path) -> None:
    table = np.full((1, 2), 3e38, np.float32)
    chunk = Chunk(layout_of("dense"), np.zeros(1, np.int64), dict.fromkeys(RECORDED, table))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path, chunk)
    assert logged_scalars(tmp_path)["gradients/dense/norm", 0] == np.inf
    assert logged_scalars(tmp_path)["gradients/dense/max_abs", 0] == np.float32(3e38)
    assert read_log(tmp_path)["norm"] == pytest.approx(np.sqrt(2) * 3e38)


def test_without_scalars_only_the_record_is_written(tmp_path: Path) -> None:
    chunk = chunk_of(layout_of("a"), range(5))
    write(tmp_path, chunk, scalars=0)
    assert logged_scalars(tmp_path) == {}
    (read,) = read_chunks(tmp_path)
    assert_equal(read, chunk)


# The histograms.


def logged_histograms(log_dir: Path) -> dict[tuple[str, int], Any]:
    return {
        (value.tag, event.step): (make_ndarray(value.tensor), value.metadata)
        for event in logged_events(log_dir)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "histograms"
    }


def write_histograms(log_dir: Path, layout: Layout, samples: list[Any], **options: Any) -> None:
    steps = 10 * np.arange(len(samples[0]))
    LogWriter(log_dir, scalars=0, **options).write(
        ones(layout, steps), [np.asarray(array, np.float32) for array in samples]
    )


def test_histograms_count_the_elements_of_a_layer_by_magnitude(tmp_path: Path) -> None:
    kernel = [[1e-3, -2e-3, 0, 5, np.inf, 4], [np.nan] * 6, [0] * 6]
    bias = [[-0.5], [0.2], [0]]  # one of two elements
    write_histograms(tmp_path, layout_of("a"), [kernel, bias], histograms=1)
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


def test_histograms_agree_with_numpy(tmp_path: Path, rng: Any) -> None:
    layers = [f"layer_{i}" for i in range(20)]
    layout = layout_of(*layers)
    samples = [
        rng.normal(scale=10.0 ** -(i % 20), size=(3, variable.size))
        for i, variable in enumerate(layout.variables)
    ]
    samples[5][1] = 0
    write_histograms(tmp_path, layout, samples, histograms=2)
    histograms = logged_histograms(tmp_path)
    assert {step for _, step in histograms} == {0, 20}
    assert len(histograms) == 2 * len(layers)
    for (tag, step), (table, _) in histograms.items():
        own = [
            array[step // 10]
            for variable, array in zip(layout.variables, samples, strict=True)
            if variable.layer == tag.removeprefix("log10_gradient/")
        ]
        values = np.log10(abs(np.concatenate(own).astype(np.float32)))
        counts, _ = np.histogram(values, np.append(table[:, 0], table[-1, 1]))
        np.testing.assert_array_equal(counts, table[:, 2])
        assert counts.sum() == 8
        assert counts[0] > 0 < counts[-1]


@pytest.mark.parametrize("value", [1e-45, 1e-38, 1, 10**0.5, 3.4e38])
def test_histograms_hold_every_float32(tmp_path: Path, value: float) -> None:
    write_histograms(tmp_path, layout_of("a"), [[[value] * 6], [[value] * 2]], histograms=1)
    ((table, _),) = logged_histograms(tmp_path).values()
    ((left, right, count),) = table
    assert left <= np.log10(np.float64(np.float32(value))) < right
    assert count == 8


def test_steps_without_samples_have_no_histograms(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, histograms=2)
    layout = layout_of("a")
    samples = [np.ones((1, v.size), np.float32) for v in layout.variables]
    for step in range(6):
        writer.write(ones(layout, [step]), samples if step >= 3 else None)
    assert {step for _, step in logged_histograms(tmp_path)} == {3, 5}


def test_histograms_are_written_on_demand_only(tmp_path: Path) -> None:
    write_histograms(tmp_path, layout_of("a"), [[[1] * 6], [[1] * 2]])
    assert logged_histograms(tmp_path) == {}


# Findings.


def test_findings_are_read_as_they_were_written(tmp_path: Path) -> None:
    texts = ['[{"kind": "vanishing", "layer": "слой\\n"}]', "[]", '{"x": "' + "y" * 70_000 + '"}']
    chunk = chunk_of(layout_of("a"), [0, 1])
    writer = LogWriter(tmp_path)
    writer.write_findings(texts[0], 0)
    writer.write(chunk)
    writer.write_findings(texts[1], 1)
    LogWriter(tmp_path).write_findings(texts[2], 2)
    assert read_findings(tmp_path) == read_findings(tmp_path / RUN) == texts
    (read,) = read_chunks(tmp_path)
    assert_equal(read, chunk)


def test_a_history_has_the_findings_of_its_log(tmp_path: Path) -> None:
    early, late = (Finding("vanishing", "a", step, "Far less.") for step in (3, 7))
    writer = LogWriter(tmp_path)
    writer.write(chunk_of(layout_of("a"), range(9)))
    writer.write_findings(to_json([late]), 7)
    writer.write_findings(to_json([late, early]), 8)
    assert read_log(tmp_path).findings == [early, late]
    assert read_log(tmp_path).select(slice(0, 2)).findings == [early, late]


def test_a_log_without_findings_has_none(tmp_path: Path) -> None:
    write(tmp_path, chunk_of(layout_of("a"), [0]))
    assert read_findings(tmp_path) == []
    assert read_log(tmp_path).findings == []
    with pytest.raises(FileNotFoundError, match="holds no such log"):
        read_findings(tmp_path / "missing")


# Directories and files.


def test_a_log_is_found_from_its_directory_and_from_its_run(tmp_path: Path) -> None:
    chunk = chunk_of(layout_of("a"), range(5))
    write(tmp_path / "first", chunk)
    for log_dir in (tmp_path / "first", str(tmp_path / "first"), tmp_path / "first" / RUN):
        (read,) = read_chunks(log_dir)
        assert_equal(read, chunk)


@pytest.mark.parametrize("made", [True, False], ids=["empty", "missing"])
def test_a_directory_without_a_log_is_an_error_with_the_lines_that_log(
    tmp_path: Path, made: bool
) -> None:
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


def test_a_log_without_a_record_yet_is_an_empty_history(tmp_path: Path) -> None:
    LogWriter(tmp_path)
    assert len(read_log(tmp_path)) == 0


def test_a_log_of_another_schema_version_is_refused_in_words(tmp_path: Path) -> None:
    chunk = chunk_of(layout_of("a"), [0])
    write(tmp_path, chunk)
    (path,) = event_files(tmp_path / RUN)
    newer = EventFileWriter(tmp_path / "newer" / RUN)
    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.tag == "initkit/layout":
                text = value.tensor.string_val[0]
                value.tensor.string_val[0] = text.replace(b'"version": 3', b'"version": 9')
        newer.write([event.SerializeToString()])
    with pytest.raises(ValueError, match=r"must have schema version 3\. Received: version 9\."):
        read_log(tmp_path / "newer")


def test_a_resumed_training_continues_the_record(tmp_path: Path) -> None:
    first, second = (chunk_of(layout_of("a"), range(start, start + 5), start) for start in (0, 5))
    write(tmp_path, first)
    write(tmp_path, second)
    history = read_log(tmp_path)
    np.testing.assert_array_equal(history.steps, range(10))
    expected = np.concatenate([per_layer(chunk, "norm") for chunk in (first, second)])
    np.testing.assert_array_equal(history["norm"], expected)


def test_a_training_resumed_from_a_checkpoint_replaces_what_came_after_it(
    tmp_path: Path,
) -> None:
    first, second = (chunk_of(layout_of("a"), range(start, start + 5), start) for start in (0, 3))
    write(tmp_path, first)
    write(tmp_path, second)
    history = read_log(tmp_path)
    np.testing.assert_array_equal(history.steps, range(8))
    np.testing.assert_array_equal(history["norm"][:3], per_layer(first, "norm")[:3])
    np.testing.assert_array_equal(history["norm"][3:], per_layer(second, "norm"))


def test_a_training_that_starts_anew_replaces_the_record(tmp_path: Path) -> None:
    old, new = chunk_of(layout_of("a"), range(9)), chunk_of(layout_of("b"), [0, 5], 1)
    write(tmp_path, old)
    write(tmp_path, new)
    history = read_log(tmp_path)
    assert history.layers == ["b"]
    np.testing.assert_array_equal(history.steps, [0, 5])
    np.testing.assert_array_equal(history["norm"], per_layer(new, "norm"))


def test_a_long_log_is_thinned_on_demand_only(tmp_path: Path) -> None:
    write(tmp_path, *(ones(layout_of("a"), range(i, i + 100)) for i in range(0, 6_000, 100)))
    assert len(read_log(tmp_path)) == 6_000
    history = read_log(tmp_path, max_steps=200)
    assert history.thinned
    assert len(history) <= 200
    with pytest.raises(ValueError, match="`max_steps` must be a positive integer"):
        read_log(tmp_path, max_steps=0)


def test_after_a_write_that_failed_the_log_goes_on_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = layout_of("a")
    writer = LogWriter(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(event_file, "_write_all", fail_half_way)
        with pytest.raises(OSError, match="No space left"):
            writer.write(ones(layout, [0]))
    chunk = ones(layout, [1])
    writer.write(chunk)
    (read,) = read_chunks(tmp_path)
    assert_equal(read, chunk)


def fail_half_way(file: Any, data: bytes) -> None:
    file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")
