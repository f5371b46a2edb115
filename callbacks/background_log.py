"""Writing a log off the training thread."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from keras_initkit.user_warnings import warn_user
from tensorboard_plugin_initkit.log.paths import path_at

# Of up to 64 steps each; 20 MB for 100 variables.
_MAX_PENDING = 64


class BackgroundLog:
    """Calls the methods of a writer on a thread of its own.

    The first failure ends the log, and not more: it is one warning. Training never waits for the
    log before `finish`. While `_MAX_PENDING` calls wait for a slow disk, further ones are left
    out, with one warning.

    Args:
        open_writer: Opens the log, on that thread, when there is something to write.
        log_dir: Its place, for the warnings, as the callback's name and its attribute with the
            record are: `owner`, `kept_in`.
    """

    def __init__(
        self, open_writer: Callable[[], Any], log_dir: Path | str, owner: str, kept_in: str
    ) -> None:
        self._open_writer = open_writer
        self._log_dir = log_dir
        self._owner = owner
        self._kept_in = kept_in
        self._writer: Any = None
        self._executor: ThreadPoolExecutor | None = None
        self._futures: list[Future[None]] = []
        self._failed = False
        self._lagged = False

    def write(self, *args: Any) -> None:
        """Have `writer.write` called, unless the log lags behind."""
        self._check_done()
        if len(self._futures) < _MAX_PENDING:
            self._submit("write", *args)
        elif not self._lagged:
            self._lagged = True
            warn_user(
                f"{self._owner} leaves recorded steps out of the log in {self._log_dir}, which "
                "takes them more slowly than they come. Training goes on; what is recorded is "
                f"kept in `{self._kept_in}`. Record fewer steps, or log to a local directory."
            )

    def call(self, method: str, *args: Any) -> None:
        """Have a method of the writer called, also if the log lags behind."""
        self._check_done()
        self._submit(method, *args)

    def finish(self, *methods: str) -> None:
        """Have last methods of the writer called, and wait until all is written."""
        if self._executor is not None:
            for method in methods:
                self._submit(method)
            self._executor.shutdown(wait=True)
            self._executor = None
        self._check_done()

    def _submit(self, method: str, *args: Any) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="keras-initkit-log")
        self._futures.append(self._executor.submit(self._run, method, *args))

    def _run(self, method: str, *args: Any) -> None:
        if self._failed:
            return
        try:
            if self._writer is None:
                self._writer = self._open_writer()
            getattr(self._writer, method)(*args)
        except Exception:
            self._failed = True
            raise

    def _check_done(self) -> None:
        done = [future for future in self._futures if future.done()]
        self._futures = [future for future in self._futures if future not in done]
        for future in done:
            if error := future.exception():
                warn_user(
                    f"{self._owner} can no longer write to {self._log_dir}: {error}. Training "
                    f"goes on; what is recorded is kept in `{self._kept_in}`."
                )


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
