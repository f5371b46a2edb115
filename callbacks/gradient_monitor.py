"""`GradientMonitor`: the real training gradients of `model.fit`, layer by layer."""

import functools
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_initkit.callbacks.capture import Capture, open_capture, record_next_step
from keras_initkit.callbacks.columns import layout_of
from keras_initkit.callbacks.schedule import Schedule, as_schedule
from tensorboard_plugin_initkit.history import History
from tensorboard_plugin_initkit.schema import Chunk

_CHUNK_STEPS = 64
_CHUNK_SECONDS = 5.0


def _never_breaks_training(hook: Callable[..., None]) -> Callable[..., None]:
    """Report the first failure inside a hook as a warning, and stop monitoring."""

    @functools.wraps(hook)
    def guarded(self: "GradientMonitor", *args: Any, **kwargs: Any) -> None:
        if self._stopped:
            return
        try:
            hook(self, *args, **kwargs)
            error = self._capture.error if self._capture else None
        except Exception as exception:
            error = exception
        if error is not None:
            self._stopped = True
            warnings.warn(
                f"GradientMonitor stops recording, training goes on. Reason: {error!r}.",
                stacklevel=2,
            )

    return guarded


class GradientMonitor(keras.callbacks.Callback):
    """Logs the magnitude of the gradients that the optimizer applies, per layer and variable.

    The gradients are measured inside the compiled training step, at the moment of the update:
    after unscaling (mixed precision), accumulation and clipping. Nothing is computed anew, and
    steps that are not recorded run the model's own, unchanged training function.

    For TensorBoard, each recorded step logs for each layer the scalars
    `gradients/<layer>/<statistic>` under the run `<log_dir>/gradients`. In Python the same record
    is `monitor.history`, or `keras_initkit.read_log(log_dir)`; `keras_initkit.History` explains
    the statistics.

    Works on the TensorFlow backend.

    Example:
    ```python
    monitor = keras_initkit.callbacks.GradientMonitor("runs/first")
    model.fit(x, y, callbacks=[monitor])
    print(monitor.history["norm"][-1])  # one number a layer
    ```

    Args:
        log_dir: Directory to log to, the one that `tensorboard --logdir` is pointed at or a
            directory below it. `None` records in memory only.
        every_n_steps: A positive integer n, to record the steps 0, n, 2n, … of
            `optimizer.iterations`, which go on from one `fit` to the next; or a function that
            says for a step whether to record it. With `steps_per_execution` > 1, whole blocks
            that hold a recorded step run instrumented.
        scalars: Whether to log scalars for TensorBoard's own dashboards, besides the compact
            record that `read_log` reads. Scalars are most of the log's size (about 350 bytes
            for a layer and step).

    Attributes:
        history: `History` of what was recorded up to now.

    Raises:
        ValueError: If an argument is not as described.
        NotImplementedError: On another backend than TensorFlow.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        every_n_steps: int | Schedule = 10,
        scalars: bool = True,
    ) -> None:
        super().__init__()
        if keras.backend.backend() != "tensorflow":
            raise NotImplementedError(
                "GradientMonitor works on the TensorFlow backend. Received: backend "
                f'"{keras.backend.backend()}". Set KERAS_BACKEND=tensorflow before importing keras.'
            )
        self._log_dir = _checked_log_dir(log_dir)
        self._schedule = as_schedule(every_n_steps)
        self._scalars = scalars
        self._history = History()
        self._log: _BackgroundLog | None = None
        self._watched: Any = None
        self._optimizer: Any = None
        self._capture: Capture | None = None
        self._capacity = 0
        self._first_batch = 0
        self._pending = 0
        self._asked = 0
        self._last_flush = 0.0
        self._stopped = False

    @property
    def history(self) -> History:
        """`History` of what was recorded up to now."""
        self._flush()
        return self._history

    def set_model(self, model: Any) -> None:
        """Watch a model (called by Keras)."""
        super().set_model(model)
        # `Callback.model` would synchronise the whole state at each access on some backends.
        self._watched = model

    @_never_breaks_training
    def on_train_begin(self, logs: Any = None) -> None:
        """Prepare to record (called by Keras)."""
        if self._log_dir is not None and self._log is None:
            self._log = _BackgroundLog(self._log_dir, self._scalars)
        self._asked = 0
        self._open_capture()

    @_never_breaks_training
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find the optimizer's place in the schedule (called by Keras)."""
        if self._capture:
            self._first_batch = self._capture.batches_done()

    @_never_breaks_training
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Record the coming step if it is due (called by Keras)."""
        if self._capture is None:
            return
        if self._pending and time.monotonic() - self._last_flush > _CHUNK_SECONDS:
            self._flush()
        block = self._watched.steps_per_execution
        if any(map(self._is_due, range(batch, batch + block))):
            if self._pending + block > self._capacity:
                self._flush()
            record_next_step(self._watched, self._capture)
            self._pending += block
            self._asked += block

    @_never_breaks_training
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log what was recorded (called by Keras)."""
        self._flush()

    @_never_breaks_training
    def on_train_end(self, logs: Any = None) -> None:
        """Log what was recorded, and wait until it is written (called by Keras)."""
        self._flush()
        if self._log is not None:
            self._log.finish()
        if self._asked and not len(self._history):
            warnings.warn(
                f"GradientMonitor recorded no step of this training: the optimizer "
                f"{type(self._optimizer).__name__} made no update through "
                "`keras.Optimizer.apply`. Either a loss scale skipped every step, or the "
                "optimizer overrides `apply`: override `update_step` instead.",
                stacklevel=2,
            )

    def _open_capture(self) -> None:
        model = self._watched
        # What an interrupted training has left; the optimizer may have been set back since.
        self._flush()
        if model.optimizer is None:
            return
        known = (
            self._capture is not None
            and self._optimizer is model.optimizer
            and self._capacity >= model.steps_per_execution
            and _identical(self._capture.variables, model.trainable_variables)
        )
        if not known:
            self._optimizer = model.optimizer
            self._capacity = max(_CHUNK_STEPS, model.steps_per_execution)
            self._capture = open_capture(model, self._capacity)
        assert self._capture is not None
        self._first_batch = self._capture.batches_done()
        self._last_flush = time.monotonic()

    def _is_due(self, batch: int) -> bool:
        assert self._capture is not None
        per_update = self._capture.batches_per_update
        step, part = divmod(self._first_batch + batch, per_update)
        return part == per_update - 1 and bool(self._schedule(step))

    def _flush(self) -> None:
        """Move what was recorded from the device to the history and the log."""
        if self._capture is None or not self._pending:
            return
        recorded = self._capture.read()
        self._pending, self._last_flush = 0, time.monotonic()
        due = np.array([bool(self._schedule(int(step))) for step in recorded.steps], bool)
        if due.any():
            layout = layout_of(self._capture.variables)
            chunk = Chunk(layout, recorded.steps, recorded.values).select(due)
            self._history.append(chunk)
            if self._log is not None:
                self._log.write(chunk)


def _identical(some: list[Any], others: list[Any]) -> bool:
    return list(map(id, some)) == list(map(id, others))


def _checked_log_dir(log_dir: Any) -> Path | None:
    if log_dir is None:
        return None
    if not isinstance(log_dir, str | os.PathLike) or not str(log_dir):
        raise ValueError(
            "`log_dir` must be the path of a directory, or None to record in memory only. "
            f"Received: log_dir={log_dir!r}."
        )
    path = Path(log_dir)
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"`log_dir` must be the path of a directory. Received: log_dir={str(log_dir)!r}, which "
            "is a file. Name another directory; it is made if it is missing."
        )
    return path


class _BackgroundLog:
    """Writes chunks to a log on a thread of its own; the first failure ends the log, not more."""

    def __init__(self, log_dir: Path, scalars: bool) -> None:
        self._open = functools.partial(_open_log, log_dir, scalars)
        self._writer: Any = None
        self._executor: ThreadPoolExecutor | None = None
        self._futures: list[Future[None]] = []
        self._log_dir = log_dir
        self._failed = False

    def write(self, chunk: Chunk) -> None:
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
