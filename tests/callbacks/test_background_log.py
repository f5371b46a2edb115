"""The log never holds up training, nor ends it."""

import threading
import warnings

import pytest

from keras_initkit.callbacks import background_log
from keras_initkit.callbacks.background_log import BackgroundLog

pytestmark = pytest.mark.numpy_alone


class Writer:
    """Keeps the calls; some fail, all wait for the disk."""

    def __init__(self, fails=(), disk=None):
        self.calls, self.threads, self.fails, self.disk = [], set(), fails, disk

    def open(self):
        if "open" in self.fails:
            raise OSError("no such device")
        return self

    def write(self, *args):
        self._take("write", *args)

    def end(self):
        self._take("end")

    def _take(self, *call):
        if self.disk:
            self.disk.wait(60)
        self.threads.add(threading.current_thread())
        self.calls.append(call)
        if call in self.fails:
            raise OSError("disk full")


def log_to(writer):
    return BackgroundLog(writer.open, "runs/first", "GradientMonitor", "monitor.history")


def test_everything_is_written_in_order_on_one_other_thread_when_it_is_finished():
    writer = Writer()
    log = log_to(writer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.finish("end")
        assert writer.calls == []  # nothing was written: nothing is opened
        for _ in range(2):
            log.write(1, "one")
            log.call("write", 2)
            log.finish("end")
    assert writer.calls == 2 * [("write", 1, "one"), ("write", 2), ("end",)]
    assert threading.current_thread() not in writer.threads


@pytest.mark.parametrize(
    ("failure", "reason", "written"),
    [("open", "no such device", 0), (("write", 3), "disk full", 4), (("end",), "disk full", 6)],
)
def test_the_first_failure_is_one_warning_and_ends_the_log(failure, reason, written):
    writer = Writer(fails=[failure])
    log = log_to(writer)

    def train():
        for step in range(5):
            log.write(step)
        log.finish("end")

    message = (
        rf"^GradientMonitor can no longer write to runs/first: {reason}\. Training goes on; what "
        r"is recorded is kept in `monitor\.history`\.$"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        train()
    train()
    log.call("write", 5)
    log.finish()
    assert len(caught) == 1
    assert len(writer.calls) == written


def test_a_log_that_lags_behind_leaves_steps_out_and_never_waits():
    disk = threading.Event()
    writer = Writer(disk=disk)
    log, most = log_to(writer), background_log._MAX_PENDING
    for step in range(most):
        log.write(step)
    with pytest.warns(UserWarning, match="leaves recorded steps out of the log"):
        log.write(most)
    for step in range(most + 1, 10 * most):
        log.write(step)
    log.call("write", "never left out")
    disk.set()
    log.finish()
    log.write(1000)
    log.finish()
    written = [args[0] for _, *args in writer.calls]
    assert written == [*range(most), "never left out", 1000]
