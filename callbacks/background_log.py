"""Writing a log off the training thread."""

import functools
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tensorboard_plugin_initkit.schema import Chunk


class BackgroundLog:
    """Writes chunks to a log on a thread of its own; the first failure ends the log, not more."""

    def __init__(self, log_dir: Path, scalars: bool) -> None:
        self._open = functools.partial(_open_log, log_dir, scalars)
        self._writer: Any = None
        self._executor: ThreadPoolExecutor | None = None
        self._futures: list[Future[None]] = []
        self._log_dir = log_dir
        self._failed = False

    def write(self, chunk: Chunk) -> None:
        """Have a chunk written."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="gradient-monitor")
        self._futures.append(self._executor.submit(self._write, chunk))
        self._check([future for future in self._futures if future.done()])

    def finish(self) -> None:
        """Wait until all is written."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None
        self._check(self._futures)

    def _write(self, chunk: Chunk) -> None:
        if self._failed:
            return
        try:
            if self._writer is None:
                self._writer = self._open()
            self._writer.write(chunk)
        except Exception:
            self._failed = True
            raise

    def _check(self, done: list[Future[None]]) -> None:
        self._futures = [future for future in self._futures if future not in done]
        for future in done:
            if error := future.exception():
                warnings.warn(
                    f"GradientMonitor can no longer write to {self._log_dir}: {error}. Training "
                    "goes on; what is recorded is kept in `monitor.history`.",
                    stacklevel=4,
                )


def _open_log(log_dir: Path, scalars: bool) -> Any:
    # TensorBoard's protocol buffers take 70 ms to import: off the training thread.
    from tensorboard_plugin_initkit.log import LogWriter

    return LogWriter(log_dir, scalars)
