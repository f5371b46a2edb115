"""The log never holds up training, nor ends it."""

import re
import threading
import time
import types
import warnings
from typing import Any

import pytest

from keras_initkit.callbacks import background_log
from keras_initkit.callbacks.background_log import BackgroundLog

pytestmark = pytest.mark.numpy_alone


class Writer:
    """Keeps the calls; some fail, all wait for the disk."""

    def __init__(self, fails=(), disk=None):
        self.calls, self.threads, self.fails, self.disk = [], set(), fails, disk
        self.gone, self.opened = False, 0
        self.error: Exception = OSError("disk full")

    def open(self, log_dir, run):
        assert (log_dir, run) == ("runs/first", "run")
        if "open" in self.fails:
            raise OSError("no such device")
        self.opened, self.gone = self.opened + 1, False
        return self

    def write(self, *args):
        self._take("write", *args)

    def count_records(self):
        return 3

    def end(self):
        self._take("end")

    def _take(self, *call):
        if self.disk:
            self.disk.wait(60)
        if self.gone:
            raise FileNotFoundError("runs/first/events")
        self.threads.add(threading.current_thread())
        self.calls.append(call)
        if call in self.fails:
            raise self.error


def log_to(writer):
    place: Any = types.SimpleNamespace(log_dir="runs/first", choose=lambda: "run", resumes=False)
    return BackgroundLog(writer.open, place, "GradientMonitor", "monitor.history")


def test_everything_is_written_in_order_on_one_other_thread_when_it_is_finished():
    writer = Writer()
    log = log_to(writer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.finish("end")
        assert writer.calls == []  # nothing was written: nothing is opened
        for _ in range(2):
            log.write(1, 1, "one")
            log.call("write", 2)
            log.finish("end")
    assert writer.calls == 2 * [("write", 1, "one"), ("write", 2), ("end",)]
    assert threading.current_thread() not in writer.threads


def train(log, steps):
    log.begin()
    log.flush()
    for step in steps:
        log.write(10, step)
        log.flush()
    log.finish("end")


FAILS = (
    r"^GradientMonitor cannot write to runs/first: {}\. Training goes on, and writing is tried "
    r"again; what is recorded is kept in `monitor\.history`\.$"
)
AGAIN = (
    r"^GradientMonitor could not write to runs/first for a time: {}\. It can again, and {} "
    r"recorded steps are missing there; all are kept in `monitor\.history`\.$"
)


def test_a_log_that_fails_is_tried_again_and_what_it_lacks_is_said(monkeypatch):
    monkeypatch.setattr(background_log, "_MAX_PENDING", 3)
    writer = Writer(fails=["open"])
    log = log_to(writer)
    for steps in (range(5), [5]):
        with pytest.warns(UserWarning, match=FAILS.format("no such device")) as caught:
            train(log, steps)
        assert len(caught) == 1
    writer.fails = [("write", 1)]
    with pytest.warns(UserWarning, match=FAILS.format("disk full")):
        train(log, [6])
    writer.fails = []
    with pytest.warns(UserWarning, match=AGAIN.format("disk full", 40)) as caught:
        train(log, [7])
    assert len(caught) == 1
    train(log, [8])
    assert [args for _, *args in writer.calls if args] == [[0], [1], [1], [1], [2], [7], [8]]


def test_failures_are_tried_ever_more_rarely(monkeypatch):
    now, tries = [-1.0], []
    writer = Writer()

    def fail(log_dir, run):
        tries.append(now[0])
        raise OSError("no such device")

    def tick():
        return now[0]

    def steps():
        for now[0] in range(250):
            yield now[0]

    monkeypatch.setattr(time, "monotonic", tick)
    monkeypatch.setattr(writer, "open", fail)
    with pytest.warns(UserWarning, match=FAILS.format("no such device")):
        train(log_to(writer), steps())
    assert tries == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 249]


def test_a_file_that_was_removed_is_begun_anew_and_what_cannot_be_written_is_left_out():
    writer = Writer()
    log = log_to(writer)
    train(log, [0])
    writer.gone = True
    with pytest.warns(UserWarning, match=AGAIN.format("runs/first/events", 7)):
        train(log, [1])
    assert writer.opened == 2
    writer.fails, writer.error = [("write", 2)], TypeError("no such thing")
    with pytest.warns(UserWarning, match="no such thing") as caught:
        train(log, [2, 3])
    assert re.match(AGAIN.format("no such thing", 17), str(caught[-1].message))
    assert [args for _, *args in writer.calls if args] == [[0], [1], [2], [3]]


def test_a_warning_is_never_an_error(caplog):
    log = log_to(Writer(fails=["open"]))
    log.write(1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.finish()
    assert "cannot write to runs/first" in caplog.text
    caplog.clear()


def test_a_log_that_lags_behind_leaves_steps_out_and_never_waits():
    disk = threading.Event()
    writer = Writer(disk=disk)
    log, most = log_to(writer), background_log._MAX_PENDING
    for step in range(most):
        log.write(1, step)
    with pytest.warns(UserWarning, match="leaves recorded steps out of the log"):
        log.write(1, most)
    for step in range(most + 1, 10 * most):
        log.write(1, step)
    log.call("write", "never left out")
    disk.set()
    log.finish()
    log.write(1, 1000)
    log.finish()
    written = [args[0] for _, *args in writer.calls]
    assert written == [*range(most), "never left out", 1000]
