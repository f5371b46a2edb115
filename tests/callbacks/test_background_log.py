"""The log never holds up training, nor ends it."""

from __future__ import annotations

import errno
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_initkit.callbacks import background_log
from keras_initkit.callbacks.background_log import BackgroundLog, checked_log_dir
from tensorboard_plugin_initkit.log import event_file
from tensorboard_plugin_initkit.log.gradient_log import read_findings
from tensorboard_plugin_initkit.record.history import read_log
from tensorboard_plugin_initkit.record.schema import RECORDED, Chunk, Layout, Variable

LAYOUT = Layout((Variable("dense/kernel", "dense", (3, 2)),))


def chunk_at(*steps: int) -> Chunk:
    table = np.ones((len(steps), 1), np.float32)
    return Chunk(LAYOUT, np.array(steps), dict.fromkeys(RECORDED, table))


def tags(log_dir: Path) -> list[str]:
    (path,) = event_file.event_files(log_dir / "gradients")
    return [v.tag for event in event_file.read_events(path) for v in event.summary.value]


def write_steps(log: BackgroundLog, steps: range) -> None:
    for step in steps:
        log.write(chunk_at(step))


def train(log: BackgroundLog, steps: range) -> None:
    write_steps(log, steps)
    log.finish()


def test_everything_is_there_when_it_is_finished(tmp_path: Path) -> None:
    log = BackgroundLog(tmp_path, histograms=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steps in (range(40), range(40, 60)):
            write_steps(log, steps)
            log.write_findings(f"[{steps.start}]", steps.start)
            log.finish()
            assert read_log(tmp_path).steps.tolist() == list(range(steps.stop))
            assert tags(tmp_path).count("initkit/end") == (steps.stop == 60) + 1
            assert tags(tmp_path)[-1] == "initkit/end"
    log.write(chunk_at(60), [np.ones((1, 6), np.float32)])
    log.finish()
    assert read_findings(tmp_path) == ["[0]", "[40]"]
    (path,) = event_file.event_files(tmp_path / "gradients")
    assert b"log10_gradient/dense" in path.read_bytes()


def test_nothing_is_made_where_nothing_is_written(tmp_path: Path) -> None:
    BackgroundLog(tmp_path / "log").finish()
    assert not (tmp_path / "log").exists()


def full_disk(file: Any, data: bytes) -> None:
    file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_warning_and_what_was_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = BackgroundLog(tmp_path)
    train(log, range(3))
    monkeypatch.setattr(event_file, "_write_all", full_disk)
    with pytest.warns(UserWarning, match=r"can no longer write to .*No space left") as caught:
        train(log, range(3, 9))
    train(log, range(9, 12))
    log.write_findings("[]", 12)
    log.finish()
    assert len(caught) == 1
    assert read_log(tmp_path).steps.tolist() == [0, 1, 2]


@pytest.mark.parametrize("place", ["file/log", "/proc/initkit/log", "/dev/full/log"])
def test_a_path_that_cannot_be_written_is_one_warning(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    log = BackgroundLog(tmp_path / place)
    with pytest.warns(UserWarning, match="Training goes on; what is recorded is kept") as caught:
        train(log, range(5))
    train(log, range(5, 9))
    assert len(caught) == 1


def test_a_log_that_lags_behind_leaves_steps_out_and_never_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    open_log = background_log._open_log

    def open_slowly(*args: Any) -> Any:
        disk.wait(60)
        return open_log(*args)

    monkeypatch.setattr(background_log, "_open_log", open_slowly)
    log = BackgroundLog(tmp_path)
    most = background_log._MAX_PENDING
    write_steps(log, range(most))
    with pytest.warns(UserWarning, match="leaves recorded steps out of the log") as caught:
        write_steps(log, range(most, 10 * most))
    assert len(caught) == 1
    log.write_findings("[]", 0)  # is never left out
    disk.set()
    log.finish()
    train(log, range(1_000, 1_003))
    assert read_log(tmp_path).steps.tolist() == [*range(most), 1_000, 1_001, 1_002]
    assert read_findings(tmp_path) == ["[]"]


# The argument `log_dir`.


def test_paths_are_paths(tmp_path: Path) -> None:
    assert checked_log_dir(None) is None
    assert checked_log_dir("runs/first") == Path("runs/first")
    assert checked_log_dir(tmp_path) == tmp_path
    assert checked_log_dir("memory://runs/first") == "memory://runs/first"


@pytest.mark.parametrize("log_dir", [7, "", b"runs", True])
def test_what_is_no_path_is_refused(log_dir: Any) -> None:
    message = (
        "`log_dir` must be the path of a directory, or None to record in memory only. "
        f"Received: log_dir={log_dir!r}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checked_log_dir(log_dir)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"which is a file\. Name another directory"):
        checked_log_dir(tmp_path / "file")
