"""Writing a log off the training thread."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_initkit.user_warnings import warn_user
from tensorboard_plugin_initkit.log import remote
from tensorboard_plugin_initkit.record.schema import Chunk

# Of up to 64 steps each; 20 MB for 100 variables.
_MAX_PENDING = 64


class BackgroundLog:
    """Writes chunks to a log on a thread of its own.

    The first failure ends the log, and not more: it is one warning. Training never waits for the
    log before `finish`. Where the disk is so slow that `_MAX_PENDING` chunks wait to be written,
    further ones are left out of the log until there is room, with one warning.

    Args:
        log_dir: A path from `checked_log_dir`.
        scalars: Of every how many recorded steps to write scalars; 0 for none.
        histograms: Of every how many recorded steps to write histograms; 0 for none.
    """

    def __init__(self, log_dir: Path | str, scalars: int = 1, histograms: int = 0) -> None:
        self._open = functools.partial(_open_log, log_dir, scalars, histograms)
        self._writer: Any = None
        self._executor: ThreadPoolExecutor | None = None
        self._futures: list[Future[None]] = []
        self._log_dir = log_dir
        self._failed = False
        self._lagged = False

    def write(self, chunk: Chunk, samples: Sequence[np.ndarray] | None = None) -> None:
        """Have a chunk written, and histograms of samples of its gradients."""
        self._check_done()
        if len(self._futures) < _MAX_PENDING:
            self._submit("write", chunk, samples)
        elif not self._lagged:
            self._lagged = True
            warn_user(
                f"GradientMonitor leaves recorded steps out of the log in {self._log_dir}, which "
                "takes them more slowly than they come. Training goes on; what is recorded is "
                "kept in `monitor.history`. Record fewer steps, or log to a local directory."
            )

    def write_findings(self, text: str, step: int) -> None:
        """Have what was found up to a step written, as JSON."""
        self._check_done()
        self._submit("write_findings", text, step)

    def finish(self) -> None:
        """Wait until all is written."""
        if self._executor is not None:
            self._submit("end")
            self._submit("flush")
            self._executor.shutdown(wait=True)
            self._executor = None
        self._check_done()

    def _submit(self, method: str, *args: Any) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="gradient-monitor")
        self._futures.append(self._executor.submit(self._call, method, *args))

    def _call(self, method: str, *args: Any) -> None:
        if self._failed:
            return
        try:
            if self._writer is None:
                self._writer = self._open()
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
                    f"GradientMonitor can no longer write to {self._log_dir}: {error}. Training "
                    "goes on; what is recorded is kept in `monitor.history`."
                )


def _open_log(log_dir: Path | str, scalars: int, histograms: int) -> Any:
    # TensorBoard's protocol buffers take 70 ms to import: off the training thread.
    from tensorboard_plugin_initkit.log.gradient_log import LogWriter

    return LogWriter(log_dir, scalars, histograms)


def checked_log_dir(log_dir: str | os.PathLike[str] | None) -> Path | str | None:
    """Check an argument `log_dir`.

    Args:
        log_dir: Path of a directory, URL of one that fsspec reaches, or `None`.

    Returns:
        The path, the URL, or `None`.

    Raises:
        ImportError: If a package for the URL is missing.
        ValueError: If it is none of these.
    """
    if log_dir is None:
        return None
    if not isinstance(log_dir, str | os.PathLike) or not str(log_dir):
        raise ValueError(
            "`log_dir` must be the path of a directory, or None to record in memory only. "
            f"Received: log_dir={log_dir!r}."
        )
    if remote.is_remote(log_dir):
        remote.require(str(log_dir))
        return str(log_dir)
    path = Path(log_dir)
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"`log_dir` must be the path of a directory. Received: log_dir={str(log_dir)!r}, which "
            "is a file. Name another directory; it is made if it is missing."
        )
    return path
