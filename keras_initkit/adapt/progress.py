"""Progress of a pass over data, and its end by Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import keras

_SECONDS_WITHOUT_PROGRESS = 5.0


class Progress:
    """Keras's own bar, with a rate.

    Args:
        rows: Number of rows to come, if it is known.
        verbose: 1 to show it, 0 not to, "auto" for a pass of more than 5 s.
    """

    def __init__(self, rows: int | None, verbose: int | str) -> None:
        self._target, self._verbose = rows, verbose
        self._bar = keras.utils.Progbar(rows, unit_name="row")
        self._start, self._is_shown = time.monotonic(), False

    def update(self, rows: int) -> None:
        """Show the number of rows read so far."""
        if not self._is_shown:
            waits = time.monotonic() - self._start < _SECONDS_WITHOUT_PROGRESS
            if not self._verbose or (self._verbose == "auto" and waits):
                return
            self._is_shown = True
        if rows != self._target:
            self._bar.update(rows, finalize=False)

    def close(self, rows: int) -> None:
        """End the line."""
        if self._is_shown:
            self._bar.update(rows, finalize=True)


@contextlib.contextmanager
def note_interrupt() -> Iterator[list[bool]]:
    """Note a first Ctrl-C in a list, no longer empty then; a second one interrupts.

    So an update is never cut in two.
    """
    stop: list[bool] = []
    former = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or former is not signal.default_int_handler:
        yield stop
        return

    def note(*_: Any) -> None:
        stop.append(True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, former)
