"""Logs at URLs: in memory, on a disk, and on file systems that are slow, broken or missing."""

from __future__ import annotations

import re
import shutil
import sys
import time
import types
from pathlib import Path
from unittest import mock

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest

from keras_initkit.callbacks.background_log import check_log_dir
from keras_initkit.callbacks.sink import Sink
from tensorboard_plugin_initkit.diagnosis.finding import to_json
from tensorboard_plugin_initkit.log import uploaded_event_file
from tensorboard_plugin_initkit.log.gradient_log import LogWriter
from tensorboard_plugin_initkit.log.paths import path_at
from tensorboard_plugin_initkit.log.read_log import read_log
from tests.tensorboard_plugin_initkit.record.made import dense, ones
from tests.tensorboard_plugin_initkit.support.made_logs import read_findings

pytestmark = pytest.mark.numpy_alone


def chunk_at(*steps):
    return ones(dense("a"), steps)


def write(log_dir, *steps):
    writer = LogWriter(log_dir)
    writer.write(chunk_at(*steps))
    writer.flush()


def steps_of(url):
    return read_log(url).steps.tolist()


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path}/runs/first"
    else:
        yield f"memory://{tmp_path.name}/runs"
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands at the number in the list."""
    now = [1_000.0]
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(uploaded_event_file, "time", clock)
    return now


def fail(*args, **options):
    raise ConnectionError("the network is down")


# What is written there is read from there.


@pytest.mark.parametrize("end", ["", "/"])
def test_a_log_at_a_url_is_read_like_another(url, end):
    message = f"Received: log_dir={url!r}, which holds no such log."
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        read_log(url)
    writer = LogWriter(url + end)
    writer.write(chunk_at(0, 10))
    writer.write_findings(to_json([]), 10)
    writer.flush()
    with fsspec.open(f"{url}/gradients/events.out.tfevents.1.other", "wb") as file:
        file.write(b"not ours")
    for log_dir in (url, url + "/", f"{url}/gradients"):
        assert steps_of(log_dir) == [0, 10]
        assert read_findings(log_dir) == [to_json([])]
    write(url, 20)
    assert steps_of(url) == [0, 10, 20]


def test_a_log_on_a_disk_is_the_same_by_its_path_and_by_its_url(tmp_path):
    for write_to, read_from in (
        (tmp_path / "1", f"file://{tmp_path}/1"),
        (f"file://{tmp_path}/2", tmp_path / "2"),
    ):
        write(write_to, 2)
        assert steps_of(read_from) == [2]


def test_a_path_object_may_name_a_protocol():
    class CloudPath:
        def __fspath__(self):
            return "memory://cloud/runs"

        __str__ = __fspath__

    write(CloudPath(), 3)
    assert str(check_log_dir(CloudPath())) == "memory://cloud/runs"
    assert steps_of(CloudPath()) == [3]


# When it is uploaded.


def test_a_log_is_uploaded_at_once_then_when_due_and_at_the_end(url, clock, monkeypatch):
    upload = mock.Mock(wraps=uploaded_event_file.upload)
    monkeypatch.setattr(uploaded_event_file, "upload", upload)
    writer = LogWriter(url)
    assert upload.call_count == 1
    assert steps_of(url) == []
    for step in range(11):
        writer.write(chunk_at(step))
        clock[0] += 10
    assert upload.call_count == 1 + 3
    assert steps_of(url) == list(range(10))
    writer.flush()
    writer.flush()
    assert upload.call_count == 1 + 4
    assert steps_of(url) == list(range(11))
    assert len({str(call.args) for call in upload.call_args_list}) == 1


def test_a_slow_upload_is_made_less_often(tmp_path, clock, monkeypatch):
    made = []

    def slow(local, url):
        made.append(clock[0])
        clock[0] += 10

    monkeypatch.setattr(uploaded_event_file, "upload", slow)
    writer = LogWriter(f"file://{tmp_path}")
    for step in range(300):
        writer.write(chunk_at(step))
        clock[0] += 3
    assert 4 <= len(made) <= 6
    assert np.diff(made).min() >= 20 * 10


def test_an_upload_that_failed_is_made_up_for(url, clock, monkeypatch):
    writer = LogWriter(url)
    with monkeypatch.context() as patch:
        patch.setattr(uploaded_event_file, "upload", fail)
        clock[0] += 60
        writer.write(chunk_at(0))
    clock[0] += 60
    assert steps_of(url) == []
    writer.write(chunk_at(1))
    assert steps_of(url) == [0, 1]


def test_where_the_last_upload_fails_the_local_copy_is_kept_and_named(url, monkeypatch):
    writer = LogWriter(url)
    monkeypatch.setattr(uploaded_event_file, "upload", fail)
    writer.write(chunk_at(0))
    with pytest.raises(OSError, match=r"network is down.*is kept as (.*)") as caught:
        writer.flush()
    local = Path(str(caught.value).rpartition(" ")[2])
    del writer
    assert steps_of(local.parent) == [0]
    shutil.rmtree(local.parent)


def test_the_local_copy_goes_with_its_writer(url):
    writer = uploaded_event_file.UploadedEventFile(path_at(url))
    local = writer._file.path
    assert local.exists()
    del writer
    assert not local.parent.exists()


# Off the training thread.


def test_what_fails_at_the_url_is_one_warning(url, monkeypatch):
    monkeypatch.setattr(uploaded_event_file, "upload", fail)
    sink = Sink(url)
    sink.open()

    def train():
        for step in range(5):
            sink.take(chunk_at(step), [])
        sink.finish()

    with pytest.warns(UserWarning, match="cannot write to .*network is down") as caught:
        train()
    train()  # of which nothing is new
    assert len(caught) == 1


def test_a_slow_file_system_does_not_hold_up_training(url, monkeypatch):
    monkeypatch.setattr(uploaded_event_file, "upload", lambda local, url: time.sleep(0.5))
    sink = Sink(url)
    sink.open()
    start = time.monotonic()
    for step in range(20):
        sink.take(chunk_at(step), [])
    assert time.monotonic() - start < 0.4
    sink.finish()


# Packages that are missing.


def remove(monkeypatch, *packages):
    """Make packages fail to import."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("package", ["fsspec", "upath"])
def test_without_its_packages_a_url_is_refused_with_what_to_install(monkeypatch, package):
    remove(monkeypatch, package)
    message = (
        "`log_dir` must be a local directory unless universal_pathlib is installed. "
        "Received: log_dir='gs://bucket/runs'. Run `pip install 'keras-initkit[fsspec]'`."
    )
    for use in (check_log_dir, read_log, LogWriter):
        with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
            use("gs://bucket/runs")


@pytest.mark.parametrize(
    ("url", "package"), [("gs://bucket/runs", "gcsfs"), ("s3://bucket/runs", "s3fs")]
)
def test_the_package_of_a_protocol_that_is_missing_is_named(monkeypatch, url, package):
    remove(monkeypatch, package)
    message = rf"^`log_dir` must be of a protocol whose package is .*{url}.*nstall {package}"
    with pytest.raises(ImportError, match=message):
        check_log_dir(url)


def test_a_protocol_that_does_not_exist_is_refused():
    message = (
        "`log_dir` must be of a protocol that fsspec knows. Received: log_dir='gss://bucket/runs'. "
        "Write a local path, or a URL such as gs://bucket/runs."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_log_dir("gss://bucket/runs")


def test_local_paths_need_no_fsspec(monkeypatch, tmp_path):
    remove(monkeypatch, "fsspec", "upath")
    write(tmp_path, 0)
    assert steps_of(tmp_path) == [0]
    assert check_log_dir(str(tmp_path)) == tmp_path
