"""A log gives back exactly what was written, to us and to TensorBoard's own dashboards."""

from __future__ import annotations

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

from tensorboard_plugin_initkit.event_file import EventFileWriter, event_files
from tensorboard_plugin_initkit.history import read_log
from tensorboard_plugin_initkit.log import PLUGIN_NAME, RUN, LogWriter, read_chunks
from tensorboard_plugin_initkit.schema import (
    RECORDED,
    STATISTICS,
    Chunk,
    Layout,
    Variable,
    per_layer,
)

HOSTILE = [
    "plain",
    "sequential/block/dense#2",
    "with space, comma; and 100 %",
    "gradients",
    "initkit/norm",
    "a//b/",
    "/",
    "norm",
    "\"quotes\" and 'others' and \\",
    "line\nbreak\ttab\r\x00\x7f",
    "<script>alert(1)</script>&amp;",
    "{{ braces }} ${shell} ../../etc",
    "x" * 1_000,
    "слой 层 طبقة 𝔏 é",
]


def layout_of(*layers: str) -> Layout:
    """Two variables a layer, all the kernels first."""
    variables = [("kernel", (3, 2)), ("bias", (2,))]
    return Layout(
        tuple(
            Variable(f"{layer}/{name}", layer, shape)
            for name, shape in variables
            for layer in layers
        )
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
    return Chunk(layout, np.asarray(steps, np.int64), values)


def write(log_dir: Path, *chunks: Chunk, scalars: bool = True) -> None:
    writer = LogWriter(log_dir, scalars)
    for chunk in chunks:
        writer.write(chunk)


def assert_equal(some: Chunk, other: Chunk) -> None:
    assert some.layout == other.layout
    assert some.steps.dtype == other.steps.dtype == np.int64
    np.testing.assert_array_equal(some.steps, other.steps)
    assert set(some.values) == set(other.values) == set(RECORDED)
    for name in RECORDED:
        assert some.values[name].dtype == np.float32
        np.testing.assert_array_equal(some.values[name], other.values[name], err_msg=name)


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
    with np.errstate(over="ignore"):
        return {
            (f"gradients/{layer}/{statistic}", int(step)): np.float32(value)
            for statistic in STATISTICS
            for step, row in zip(chunk.steps, per_layer(chunk, statistic), strict=True)
            for layer, value in zip(chunk.layout.layers, row, strict=True)
        }


# The record.

steps_lists = st.lists(st.integers(0, 2**40), min_size=1, max_size=8, unique=True).map(sorted)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.text("ab/", max_size=3), max_size=3, unique=True), steps_lists)),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_chunks_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    contents: list[tuple[list[str], list[int]]],
    scalars: bool,
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


@pytest.mark.parametrize("step", [0, 1, 2**24 - 1, 2**24, 2**24 + 1, 2**31, 2**40 - 1, 2**40])
def test_large_steps_are_exact(tmp_path: Path, step: int) -> None:
    chunk = chunk_of(layout_of("dense"), [step, step + 1])
    write(tmp_path, chunk)
    (read,) = read_chunks(tmp_path)
    np.testing.assert_array_equal(read.steps, [step, step + 1])
    assert {logged for _, logged in logged_scalars(tmp_path)} == {step, step + 1}


@pytest.mark.parametrize("value", [0, 1e-45, 3.4e38, np.inf, np.nan], ids=str)
def test_every_float32_is_exact(tmp_path: Path, value: float) -> None:
    layout = layout_of("dense")
    table = np.full((3, 2), value, np.float32)
    chunk = Chunk(layout, np.arange(3), dict.fromkeys(RECORDED, table))
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
    write(tmp_path, chunk_of(layout_of("dense"), [3, 5]), scalars=False)
    _, *events = logged_events(tmp_path)
    assert [event.step for event in events] == [3] + [5] * len(RECORDED)
    for event in events:
        (value,) = event.summary.value
        assert value.metadata.plugin_data.plugin_name == PLUGIN_NAME
        assert value.metadata.plugin_data.content == b'{"version": 1}'
        assert value.metadata.data_class == 2  # DATA_CLASS_TENSOR


def test_a_chunk_is_read_only_when_it_is_there_whole(tmp_path: Path) -> None:
    chunks = [chunk_of(layout_of("dense"), [i], i) for i in range(2)]
    writer = LogWriter(tmp_path, scalars=False)
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
    chunk = chunk_of(layout_of(*HOSTILE), [1])
    write(tmp_path, chunk)
    parsed = set()
    for tag, _ in logged_scalars(tmp_path):
        layer, _, statistic = tag.removeprefix("gradients/").rpartition("/")
        parsed.add((layer, statistic))
    assert parsed == {(layer, statistic) for layer in HOSTILE for statistic in STATISTICS}


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
    events = logged_events(tmp_path)[-len(chunk.steps) :]
    for event, step in zip(events, map(int, chunk.steps), strict=True):
        summary = Summary()
        for tag in tags:
            summary.value.add(tag=tag, simple_value=expected[tag, step])
        same = Event(step=step, wall_time=event.wall_time, summary=summary)
        assert event.SerializeToString() == same.SerializeToString()


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
    write(tmp_path, chunk, scalars=False)
    assert logged_scalars(tmp_path) == {}
    (read,) = read_chunks(tmp_path)
    assert_equal(read, chunk)


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
                value.tensor.string_val[0] = text.replace(b'"version": 1', b'"version": 9')
        newer.write([event.SerializeToString()])
    with pytest.raises(ValueError, match=r"must have schema version 1\. Received: version 9\."):
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
