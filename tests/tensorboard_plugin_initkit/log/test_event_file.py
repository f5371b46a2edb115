"""Event files against TensorFlow and TensorBoard, which write and read them independently."""

from __future__ import annotations

import errno
import io
import itertools
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from tensorboard_plugin_initkit.log import event_file
from tensorboard_plugin_initkit.log.event_file import EventFileWriter, event_files, read_events
from tests.tensorboard_plugin_initkit.support.made_logs import write_half

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.numpy_alone

# Records of one byte to some tens of kilobytes.
SIZES = (0, 1, 7, 1_000, 70_000)


def event(step, size=3):
    value = Summary.Value(tag="t" * size, simple_value=step / 3)
    return Event(step=step, wall_time=step, summary=Summary(value=[value]))


def serialised(*events):
    return [one.SerializeToString() for one in events]


def written(directory, *events):
    writer = EventFileWriter(directory)
    writer.write(serialised(*events))
    return writer.path


def record_ends(path):
    """Offset at which each record of a file ends, by TensorFlow's reading of its lengths."""
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ends, position = [], 0
    for record in records:
        position += 8 + 4 + len(record) + 4
        ends.append(position)
    assert position == path.stat().st_size
    return ends


# Others read ours, and we read theirs.


def test_what_is_written_is_read_at_once_by_tensorboard_by_tensorflow_and_by_us(tmp_path):
    events = [event(step, size) for step, size in enumerate(SIZES)]
    writer = EventFileWriter(tmp_path)
    follower = LegacyEventFileLoader(str(writer.path))
    assert [one.file_version for one in follower.Load()] == ["brain.Event:2"]
    for some in (events[:1], events[1:3], events[3:]):
        writer.write(serialised(*some))
        assert list(follower.Load()) == some
    records = tf.data.TFRecordDataset(str(writer.path)).as_numpy_iterator()
    for reader in (map(Event.FromString, records), read_events(writer.path)):
        version, *read = reader
        assert version.file_version == "brain.Event:2"
        assert read == events


def test_files_of_tensorflow_are_read(tmp_path):
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        for step in range(5):
            tf.summary.scalar("loss", step / 2, step=step)
        tf.summary.text("note", "x" * 70_000, step=5)
    (path,) = tmp_path.iterdir()
    version, *events = read_events(path)
    assert version.file_version == "brain.Event:2"
    assert [one.step for one in events] == [0, 1, 2, 3, 4, 5]
    values = [tf.make_ndarray(one.summary.value[0].tensor) for one in events]
    assert values[:5] == [0, 0.5, 1, 1.5, 2]
    assert values[5] == b"x" * 70_000


# Files that are not whole.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of four records, and where they end."""
    path = written(tmp_path_factory.mktemp("whole"), *map(event, range(3)))
    return path, record_ends(path)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_file_cut_at_any_byte_yields_the_whole_records_before_the_cut(whole, data):
    path, ends = whole
    cut = path.with_name("cut")
    size = data.draw(st.integers(0, ends[-1]) | st.sampled_from(ends))
    cut.write_bytes(path.read_bytes()[:size])
    assert list(read_events(cut)) == list(read_events(path))[: sum(end <= size for end in ends)]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_an_error_that_names_the_record_behind_those_before_it(whole, data):
    path, ends = whole
    position = data.draw(st.integers(0, ends[-1] - 1) | st.sampled_from(ends[:-1]))
    bits = bytearray(path.read_bytes())
    bits[position] ^= 1 << data.draw(st.integers(0, 7))
    damaged = path.with_name("damaged")
    damaged.write_bytes(bits)
    start = max(end for end in [0, *ends] if end <= position)
    events = read_events(damaged)
    for before in itertools.islice(read_events(path), [0, *ends].index(start)):
        assert next(events) == before
    message = (
        r"^An event file must hold whole events that match their checksums\. Received: other "
        r"bytes\. Copy the file again from where it was written\. This is the record at byte "
        rf"{start} of .*damaged\.$"
    )
    with pytest.raises(ValueError, match=message):
        next(events)


# Where files lie.


def test_every_writer_has_a_file_of_its_own_listed_oldest_first(tmp_path):
    writers = [EventFileWriter(tmp_path) for _ in range(12)]
    assert event_files(tmp_path) == [writer.path for writer in writers]
    for step, writer in enumerate(writers):
        writer.write(serialised(event(step)))
    read = [[one.step for one in read_events(path)] for path in event_files(tmp_path)]
    assert read == [[0, step] for step in range(12)]


def test_only_our_files_are_listed(tmp_path):
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        tf.summary.scalar("loss", 1.0, step=0)
    assert event_files(tmp_path) == []
    assert event_files(tmp_path / "missing") == []


def test_a_file_that_is_gone_is_an_os_error_and_is_not_made_anew(tmp_path):
    run = tmp_path / "some" / "run"
    writer = EventFileWriter(run)  # makes its directory
    assert event_files(run) == [writer.path]
    shutil.rmtree(run)
    for _ in range(2):
        with pytest.raises(OSError, match="No such file or directory"):
            writer.write(serialised(event(0)))
        run.mkdir(exist_ok=True)
    assert list(run.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        EventFileWriter(tmp_path / "file" / "run")


# Writes that fail half way.


@pytest.mark.parametrize("truncates", [True, False], ids=["taken back", "left torn"])
def test_a_failed_write_leaves_whole_records_and_the_next_goes_behind_them(
    tmp_path, monkeypatch, truncates
):
    writer = EventFileWriter(tmp_path)
    writer.write(serialised(event(0)))
    size = writer.path.stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(event_file, "_write_all", write_half)
        if not truncates:
            patch.setattr(event_file, "open", open_without_truncating, raising=False)
        with pytest.raises(OSError, match="No space left on device"):
            writer.write(serialised(event(1, 70_000)))
    assert (writer.path.stat().st_size == size) == truncates
    assert [one.step for one in read_events(writer.path)] == [0, 0]
    writer.write(serialised(event(2)))
    assert [one.step for one in read_events(writer.path)] == [0, 0, 2]
    assert record_ends(writer.path)[-1] == writer.path.stat().st_size


class FileThatCannotBeCut(io.FileIO):
    def truncate(self, size: int | None = None):
        if size is not None and size < os.fstat(self.fileno()).st_size:
            raise OSError(errno.EIO, "Input/output error")
        return super().truncate(size)


def open_without_truncating(path, mode, buffering):
    return FileThatCannotBeCut(path, mode.replace("b", ""))


def test_on_a_disk_that_is_full_the_file_stays_whole(tmp_path):
    script = """
import resource, signal, sys
from tensorboard_plugin_initkit.log.event_file import EventFileWriter
from tensorboard.compat.proto.event_pb2 import Event

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = EventFileWriter(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
for step in range(100):
    try:
        writer.write([Event(step=step, file_version="x" * 1_000).SerializeToString()])
    except OSError as error:
        print(step, error)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write([Event(step=1_000).SerializeToString()])
"""
    output = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert output.stdout.strip() == "48 [Errno 27] File too large"
    (path,) = event_files(tmp_path)
    assert [one.step for one in read_events(path)] == [0, *range(48), 1_000]
