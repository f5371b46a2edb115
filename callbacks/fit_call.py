"""`FitCall`: one call of `fit`, and its end, whatever ends it."""

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

from keras_initkit.user_warnings import find_user, warning_at

_SECONDS = 1.0  # between two looks at a training
_SECONDS_TO_RETRY = 0.05  # where a signal came while a callback was at work
_SECONDS_TO_END = 30.0  # at most, before a signal ends the process

_running: set["FitCall"] = set()


class Participant(Protocol):
    """A callback that takes part in a call of `fit`; both methods may come from any thread."""

    def look_after(self) -> None:
        """Do what is due in a training that has called no hook for long."""

    def end_training(self, call: "FitCall") -> None:
        """End a training that ended without `on_train_end`."""

    def is_busy(self) -> bool:
        """Check for a method of the callback that this thread has not finished."""


class FitCall:
    """A call of `fit`, found on the stack; it runs as long as it is there.

    Between `begin` and `close`, its callback is looked after on a thread of its own, and told of an
    end that Keras tells nobody of: an exception, Ctrl-C, the end of the interpreter, SIGTERM
    (unless the process handles it itself).

    Attributes:
        needs_its_thread: True as long as its end is to run the user's model: only its own thread
            may do so, as another one would come between what the user does next.
    """

    def __init__(self, callback: Participant) -> None:
        self.needs_its_thread = False
        self.cleanup = contextlib.ExitStack()  # of what is to last as long as the call
        self.callback = callback
        self._place = find_user()
        self._thread = threading.get_ident()
        # Kept, so that no later call has the same one; until `close`, as it keeps the data.
        self._frame: FrameType | None = find_frame()
        self._over = threading.Event()

    def is_around(self) -> bool:
        """Check for a call from inside this call of `fit`."""
        return self._frame is find_frame()

    def is_running(self) -> bool:
        """Check whether the call has not returned or raised."""
        with _no_collection():
            frame = sys._current_frames().get(self._thread)
            while frame is not None and frame is not self._frame:
                frame = frame.f_back
            return frame is not None

    def can_be_ended(self) -> bool:
        """Check whether the call has returned or raised, and this thread may end the training."""
        may = not self.needs_its_thread or threading.get_ident() == self._thread
        return may and not self.is_running()

    def read_data(self) -> tuple[Any, Any, Any]:
        """Return `x`, `y` and `sample_weight` of this call of `fit`; `None` for unknown ones."""
        frame = self._frame
        found = frame.f_locals if frame is not None and _is_fit(frame) else {}
        return found.get("x"), found.get("y"), found.get("sample_weight")

    def begin(self) -> None:
        """Begin to look after the callback."""
        _running.add(self)
        with contextlib.suppress(ValueError):  # not on the main thread
            if _is_default(signal.SIGTERM):
                signal.signal(signal.SIGTERM, _terminate)
        with contextlib.suppress(RuntimeError):  # there are too many threads
            threading.Thread(target=self._watch, name="keras-initkit-watch", daemon=True).start()

    def close(self) -> None:
        """Stop to look after the callback."""
        self._over.set()
        self._frame = None
        _running.discard(self)
        self.cleanup.close()
        if not _running and signal.getsignal(signal.SIGTERM) is _terminate:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def end(self) -> None:
        """Have the callback end the training, with warnings at the line of `fit`."""
        with warning_at(self._place):
            self.callback.end_training(self)

    def _watch(self) -> None:
        while not self._over.wait(_SECONDS):
            with contextlib.suppress(Exception):  # the callback has said so
                if self.can_be_ended():
                    return self.end()
                with warning_at(self._place):
                    self.callback.look_after()
        return None


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Put garbage collection off, while frames of another thread are looked at.

    An object is made for each of them. On CPython 3.11 that may begin a collection, in the middle
    of which the other thread goes on and leaves the frame: the process would crash.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()


def find_frame() -> FrameType:
    """Return the innermost frame of Keras's `fit`, or else the outermost frame."""
    frame = sys._getframe(1)
    while frame.f_back is not None and not _is_fit(frame):
        frame = frame.f_back
    return frame


def _is_fit(frame: FrameType) -> bool:
    """Check for a call of Keras's `fit`."""
    is_keras = frame.f_globals.get("__name__", "").startswith("keras.")
    return frame.f_code.co_name == "fit" and is_keras


@atexit.register
def _end_all() -> None:
    for call in list(_running):
        with contextlib.suppress(Exception):
            call.end()


def _terminate(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM: end the trainings, then the process, as without a handler."""
    if any(call.callback.is_busy() for call in _running):
        again: Any = threading.Timer(_SECONDS_TO_RETRY, os.kill, (os.getpid(), number))
        return again.start()
    ending = threading.Thread(target=_end_all)  # a step may be being traced on this one
    try:
        ending.start()
        ending.join(_SECONDS_TO_END)
    except RuntimeError:
        _end_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return None


def _is_default(number: int) -> bool:
    """Check that nobody handles a signal, also not past Python, as far as can be known."""
    caught = 0
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        caught = next((int(line.split()[1], 16) for line in file if line.startswith("SigCgt")), 0)
    return signal.getsignal(number) is signal.SIG_DFL and not caught >> (number - 1) & 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # the training is the parent's
