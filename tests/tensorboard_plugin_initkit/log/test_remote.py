"""Logs at URLs: in memory, on a disk, and on file systems that are slow, broken or missing."""

from __future__ import annotations

import builtins
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from tensorboard_plugin_initkit.record.chunk import RECORDED, Chunk
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tests.tensorboard_plugin_initkit.support.made_logs import read_findings

LAYOUT = Layout((Variable("dense/kernel", "dense", (3, 2)),))


def chunk_at(*steps: int) -> Chunk:
    table = np.ones((len(steps), 1), np.float32)
    return Chunk(LAYOUT, np.array(steps), dict.fromkeys(RECORDED, table))


def steps_of(url: Any) -> list[int]:
    return read_log(url).steps.tolist()


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/runs/first"
    else:
        yield f"memory://{tmp_path.name}/runs"
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """URLs of the uploads that were made."""
    made: list[str] = []
    upload = uploaded_event_file.upload

    def counted(local: Path, target: Any) -> None:
        made.append(str(target))
        upload(local, target)

    monkeypatch.setattr(uploaded_event_file, "upload", counted)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands at the number in the list."""
    now = [1_000.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(uploaded_event_file, "time", Time)
    return now


# What is written there is read from there.


@pytest.mark.parametrize("end", ["", "/"])
def test_a_log_at_a_url_is_read_like_another(url: str, end: str) -> None:
    writer = LogWriter(url + end)
    writer.write(chunk_at(0, 10))
    writer.write_findings(to_json([]), 10)
    writer.flush()
    for log_dir in (url, url + "/", f"{url}/gradients"):
        assert steps_of(log_dir) == [0, 10]
        assert read_findings(log_dir) == [to_json([])]
    later = LogWriter(url)
    later.write(chunk_at(20))
    later.flush()
    assert steps_of(url) == [0, 10, 20]


def test_a_log_on_a_disk_is_the_same_by_its_path_and_by_its_url(tmp_path: Path) -> None:
    LogWriter(tmp_path / "by path").write(chunk_at(0, 1))
    assert steps_of(f"file://{tmp_path}/by path") == [0, 1]
    writer = LogWriter(f"file://{tmp_path}/by url")
    writer.write(chunk_at(2))
    writer.flush()
    assert steps_of(tmp_path / "by url") == [2]


def test_a_url_without_a_log_is_an_error_with_the_lines_that_log(url: str) -> None:
    message = f"Received: log_dir={url!r}, which holds no such log."
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        read_log(url)


def test_only_our_files_are_read(url: str) -> None:
    writer = LogWriter(url)
    writer.write(chunk_at(0))
    writer.flush()
    with fsspec.open(f"{url}/gradients/events.out.tfevents.1.other", "wb") as file:
        file.write(b"something else")
    assert steps_of(url) == [0]


def test_a_path_object_may_name_a_protocol() -> None:
    class CloudPath:
        def __fspath__(self) -> str:
            return "memory://cloud/runs"

        __str__ = __fspath__

    writer = LogWriter(CloudPath())
    writer.write(chunk_at(3))
    writer.flush()
    assert str(check_log_dir(CloudPath())) == "memory://cloud/runs"
    assert steps_of(CloudPath()) == [3]


# When it is uploaded.


def test_a_log_is_uploaded_at_once_then_when_due_and_at_the_end(
    url: str, uploads: list[str], clock: list[float]
) -> None:
    writer = LogWriter(url)
    assert len(uploads) == 1
    assert steps_of(url) == []
    for step in range(100):
        writer.write(chunk_at(step))
        clock[0] += 1
    assert len(uploads) == 1 + 3
    assert steps_of(url) == list(range(91))
    writer.flush()
    writer.flush()
    assert len(uploads) == 1 + 4
    assert steps_of(url) == list(range(100))
    assert len(set(uploads)) == 1


def test_a_slow_upload_is_made_less_often(
    url: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def slow(local: Path, target: Any) -> None:
        made.append(clock[0])
        clock[0] += 10

    monkeypatch.setattr(uploaded_event_file, "upload", slow)
    writer = LogWriter(url)
    for step in range(1_000):
        writer.write(chunk_at(step))
        clock[0] += 1
    assert 4 <= len(made) <= 6
    assert np.diff(made).min() >= 20 * 10


def test_an_upload_that_failed_is_made_up_for(
    url: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LogWriter(url)
    with monkeypatch.context() as patch:
        patch.setattr(uploaded_event_file, "upload", fail)
        clock[0] += 60
        writer.write(chunk_at(0))
    clock[0] += 60
    assert steps_of(url) == []
    writer.write(chunk_at(1))
    assert steps_of(url) == [0, 1]


def fail(*args: Any, **options: Any) -> None:
    raise ConnectionError("the network is down")


def test_where_the_last_upload_fails_the_local_copy_is_kept_and_named(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LogWriter(url)
    monkeypatch.setattr(uploaded_event_file, "upload", fail)
    writer.write(chunk_at(0))
    with pytest.raises(OSError, match=r"network is down.*is kept as (.*)") as caught:
        writer.flush()
    local = Path(str(caught.value).rpartition(" ")[2])
    del writer
    assert steps_of(local.parent) == [0]
    shutil.rmtree(local.parent)


def test_the_local_copy_goes_with_its_writer(url: str) -> None:
    writer = uploaded_event_file.UploadedEventFile(path_at(url))
    local = writer._file.path
    assert local.exists()
    del writer
    assert not local.parent.exists()


# Off the training thread.


def test_what_fails_at_the_url_is_one_warning(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploaded_event_file, "upload", fail)
    sink = Sink(url)
    sink.open()

    def train() -> None:
        for step in range(5):
            sink.take(chunk_at(step), [])
        sink.finish()

    with pytest.warns(UserWarning, match="can no longer write to .*network is down") as caught:
        train()
    train()
    assert len(caught) == 1


def test_a_slow_file_system_does_not_hold_up_training(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploaded_event_file, "upload", lambda local, target: time.sleep(0.5))
    sink = Sink(url)
    sink.open()
    start = time.monotonic()
    for step in range(20):
        sink.take(chunk_at(step), [])
    assert time.monotonic() - start < 0.4
    sink.finish()


# Packages that are missing.


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a package fail to import."""

    def remove(package: str) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] == package:
                monkeypatch.delitem(sys.modules, name)
        original = builtins.__import__

        def importing(name: str, *args: Any, **options: Any) -> Any:
            if name.partition(".")[0] == package:
                raise ImportError(f"No module named {package!r}")
            return original(name, *args, **options)

        monkeypatch.setattr(builtins, "__import__", importing)

    return remove


@pytest.mark.parametrize("package", ["fsspec", "upath"])
def test_without_its_packages_a_url_is_refused_with_what_to_install(
    without: Any, package: str
) -> None:
    without(package)
    message = (
        "`log_dir` must be the path of a local directory where universal_pathlib is not "
        "installed. Received: log_dir='gs://bucket/runs'. Run "
        "`pip install 'keras-initkit[fsspec]'`."
    )
    for use in (check_log_dir, read_log, LogWriter):
        with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
            use("gs://bucket/runs")


@pytest.mark.parametrize(
    ("url", "package"), [("gs://bucket/runs", "gcsfs"), ("s3://bucket/runs", "s3fs")]
)
def test_the_package_of_a_protocol_that_is_missing_is_named(
    without: Any, url: str, package: str
) -> None:
    without(package)
    message = rf"^`log_dir` must be of a protocol whose package is .*{url}.*nstall {package}"
    with pytest.raises(ImportError, match=message):
        check_log_dir(url)


def test_a_protocol_that_does_not_exist_is_refused() -> None:
    message = (
        "`log_dir` must be of a protocol that fsspec knows. Received: log_dir='gss://bucket/runs'. "
        "Write a local path, or a URL as gs://bucket/runs."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_log_dir("gss://bucket/runs")


def test_local_paths_need_no_fsspec(without: Any, tmp_path: Path) -> None:
    without("fsspec")
    without("upath")
    LogWriter(tmp_path).write(chunk_at(0))
    assert steps_of(tmp_path) == [0]
    assert check_log_dir(str(tmp_path)) == tmp_path
