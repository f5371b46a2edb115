"""Writing a log off the training thread."""

import concurrent.futures
import contextlib
import dataclasses
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_initkit.user_warnings import tell_user
from tensorboard_plugin_initkit.log.paths import path_at
from tensorboard_plugin_initkit.log.runs import RunPlace
from tensorboard_plugin_initkit.record.lock import Lock

# Calls that wait for the log: of up to 64 steps each, 20 MB for 100 variables.
_MAX_PENDING = 64
# Seconds to the next try after a failure, doubled by each; and the longest wait for the disk.
_FIRST_DELAY, _LAST_DELAY = 1.0, 60.0
_FLUSH_SECONDS = 10.0


@dataclasses.dataclass
class _BackOff:
    """When to try again."""

    delay: float = 0.0  # doubled by each failure
    next_try: float = 0.0

    def wait(self, at_once: bool) -> None:
        """Put the next try off after a failure; the first time not, if it may be at once."""
        delay = self.delay if at_once else self.delay or _FIRST_DELAY
        self.next_try = time.monotonic() + delay
        self.delay = min(2 * (self.delay or _FIRST_DELAY), _LAST_DELAY)


class BackgroundLog:
    """Calls the methods of a writer on a thread of its own, or here if no thread can be started.

    Training never waits for the log before `flush` and `finish`. A call for which disk or network
    fail is tried again with those that come later, at first after a second, then ever more rarely,
    and by `begin` and `finish`. While `_MAX_PENDING` calls wait, further records are left out. One
    warning a training says that the log fails, one that it works again and what it lacks.

    Args:
        open_writer: Opens a run in a directory, on that thread, when there is something to write.
        place: The directory, and the run.
        owner, kept_in: For the warnings: the callback's name, its attribute with the record.
    """

    def __init__(
        self,
        open_writer: Callable[[Path | str, str], Any],
        place: RunPlace,
        owner: str,
        kept_in: str,
    ) -> None:
        self._arguments = open_writer, place, owner, kept_in
        self._writer: Any = None
        self._calls: deque[tuple[str, int, tuple[Any, ...]]] = deque()  # with numbers of records
        self._working = Lock()
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
        self._future: concurrent.futures.Future[None] | None = None
        self._back_off = _BackOff()
        self._error: BaseException | None = None  # of the last call
        self._reason: BaseException | None = None  # of a failure, until it is said to be over
        self._written = self._missing = 0  # numbers of records: in the open file; in no file
        self._said: set[str] = set()  # in this training

    def __reduce__(self) -> tuple[type["BackgroundLog"], tuple[Any, ...]]:
        return BackgroundLog, self._arguments  # a copy opens a log of its own

    @property
    def place(self) -> RunPlace:
        """The directory, and the run in it."""
        return self._arguments[1]

    def begin(self) -> None:
        """Begin a training: try at once what has failed, and say anew if it fails."""
        self._said, self._error, self._back_off = set(), None, _BackOff()
        if self._calls:
            self._start()

    def start(self, resumes: bool) -> None:
        """Begin to write; the first time, by a training that goes on from earlier steps or not."""
        if self.place.resumes is None:
            self.place.resumes = resumes
            if self._calls:
                self._start()

    def write(self, records: int, *args: Any) -> None:
        """Have `writer.write` called for a number of records, unless the log lags behind."""
        if len(self._calls) < _MAX_PENDING:
            self.call("write", *args, records=records)
            return
        self._missing += records
        if self._error is None and self._reason is None and "lags" not in self._said:
            self._said.add("lags")
            self._say(
                "{owner} leaves recorded steps out of the log: {log_dir} takes them more slowly "
                "than they come. Training goes on, and all of them are kept in `{kept_in}`. "
                "Record fewer steps, or log to a local directory."
            )
        if self._future is None or self._future.done():
            self._start()
        self._tell()

    def call(self, method: str, *args: Any, records: int = 0) -> None:
        """Have a method of the writer called, also if the log lags behind."""
        self._tell()  # while those before are done
        self._calls.append((method, records, args))
        self._start()

    def flush(self) -> None:
        """Wait until all is written that can be, but for a few seconds only."""
        if self._future is not None:
            concurrent.futures.wait([self._future], _FLUSH_SECONDS)

    def finish(self, *methods: str) -> None:
        """Have last methods of the writer called, if there were others, and wait for all."""
        if self._future is None:
            return
        self._back_off.next_try = 0.0
        for method in methods:
            self.call(method)
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        self._tell()
        self._executor = self._future = None

    def _start(self) -> None:
        if self.place.resumes is None:
            return
        try:
            if self._executor is None:
                self._executor = concurrent.futures.ThreadPoolExecutor(
                    1, thread_name_prefix="keras-initkit-log"
                )
            self._future = self._executor.submit(self._work)
        except RuntimeError:  # there are too many threads, or the interpreter ends
            self._work()
            self._future = concurrent.futures.Future()
            self._future.set_result(None)

    def _work(self) -> None:
        with self._working:
            while self._calls and time.monotonic() >= self._back_off.next_try:
                method, records, args = self._calls[0]
                try:
                    if self._writer is None:
                        run = self.place.choose()
                        self._writer = self._arguments[0](self.place.log_dir, run)
                    getattr(self._writer, method)(*args)
                except Exception as error:
                    self._fail(error)
                else:
                    self._calls.popleft()
                    self._written += records
                    self._error, self._back_off.delay = None, 0.0

    def _fail(self, error: Exception) -> None:
        self._error = error
        if self._writer is not None and not isinstance(error, OSError):
            self._reason = error
            self._missing += self._calls.popleft()[1]  # it would fail again
            return
        is_gone = self._writer is not None and isinstance(error, FileNotFoundError)
        if is_gone:  # the file was removed or cut: begin another one
            self._reason = error
            with contextlib.suppress(OSError):
                self._written -= self._writer.count_records()
            self._missing += self._written
            self._writer, self._written = None, 0
        self._back_off.wait(at_once=is_gone)

    def _tell(self) -> None:
        if self._future is not None and self._future.done() and self._future.exception():
            self._error = self._future.exception()
        if self._error is not None and "fails" not in self._said:
            self._said.add("fails")
            self._reason = self._error
            self._say(
                "{owner} cannot write to {log_dir}: {error}. Training goes on, and writing is "
                "tried again; what is recorded is kept in `{kept_in}`.",
                error=self._error,
            )
        elif self._error is None and self._reason is not None and not self._calls:
            reason, self._reason = self._reason, None
            self._said.discard("fails")
            self._say(
                "{owner} could not write to {log_dir} for a time: {reason}. It can again, and "
                "{missing} recorded steps are missing there; all are kept in `{kept_in}`.",
                reason=reason,
                missing=self._missing or "no",
            )

    def _say(self, message: str, **values: Any) -> None:
        log_dir, (*_, owner, kept_in) = self.place.log_dir, self._arguments
        tell_user(message.format(log_dir=log_dir, owner=owner, kept_in=kept_in, **values))


def check_log_dir(log_dir: str | os.PathLike[str] | None) -> Path | None:
    """Return a checked `log_dir`: an absolute `pathlib.Path`, for a URL a `UPath`, or `None`.

    Raises:
        ImportError: If a package for the URL is missing.
        ValueError: If it is none of these.
    """
    if log_dir is None:
        return None
    path: Path = path_at(log_dir)
    if not isinstance(path, Path):
        return path
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"`log_dir` must be the path of a directory. Received: log_dir={str(log_dir)!r}, which "
            "is a file. Name another directory; it is made if it is missing."
        )
    return path.absolute()  # wherever the process goes
