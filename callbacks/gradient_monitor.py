"""`GradientMonitor`: the real training gradients of `model.fit`, layer by layer."""

import contextlib
import functools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_initkit.callbacks.background_log import BackgroundLog
from keras_initkit.callbacks.capture import BACKENDS, Capture, open_capture, record_next_step
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
            self._stop(error)

    return guarded


class GradientMonitor(keras.callbacks.Callback):
    """Logs the magnitude of the gradients that the optimizer applies, per layer and variable.

    The gradients are measured inside the compiled training step, at the moment of the update:
    after unscaling (mixed precision), accumulation and clipping. Nothing is computed anew, and
    steps that are not recorded run the model's own, unchanged training function. What fails
    inside the monitor is one warning, and training goes on.

    For TensorBoard, each recorded step logs for each layer the scalars
    `gradients/<layer>/<statistic>` under the run `<log_dir>/gradients`. In Python the same record
    is `monitor.history`, or `keras_initkit.read_log(log_dir)`; `keras_initkit.History` explains
    the statistics.

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
            says for a step whether to record it. Where a model is compiled again, its new
            optimizer counts from 0: its steps are recorded after those before.
        scalars: Whether to log scalars for TensorBoard's own dashboards, besides the compact
            record that `read_log` reads. Scalars are most of the log's size (about 350 bytes
            for a layer and step).

    Attributes:
        history: `History` of what was recorded up to now.

    Raises:
        ValueError: If an argument is not as described.
        NotImplementedError: On another backend than TensorFlow, JAX and PyTorch.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        every_n_steps: int | Schedule = 10,
        scalars: bool = True,
    ) -> None:
        super().__init__()
        if keras.backend.backend() not in BACKENDS:
            raise NotImplementedError(
                f"GradientMonitor works on the backends {', '.join(BACKENDS)}. Received: backend "
                f'"{keras.backend.backend()}". Set KERAS_BACKEND to one of these before importing '
                "keras."
            )
        self._log_dir = _checked_log_dir(log_dir)
        self._schedule = as_schedule(every_n_steps)
        self._scalars = scalars
        self._history = History()
        self._log: BackgroundLog | None = None
        self._watched: Any = None
        self._optimizer: Any = None
        self._capture: Capture | None = None
        self._capacity = 0
        # Number of batches that the optimizer had been given at batch 0 of this epoch, and what
        # is added to its iterations since it is not this monitor's first optimizer.
        self._first_batch = 0
        self._first_step = 0
        # Steps asked for that may be waiting on the device, and the one that runs next.
        self._pending = 0
        self._armed = 0
        self._asked = 0
        self._recorded = 0
        self._last_flush = 0.0
        self._stopped = False

    @property
    def history(self) -> History:
        """`History` of what was recorded up to now."""
        self._update_history()
        return self._history

    def set_model(self, model: Any) -> None:
        """Watch a model (called by Keras)."""
        super().set_model(model)
        # `Callback.model` would synchronise the whole state at each access on some backends.
        self._watched = model

    def on_train_begin(self, logs: Any = None) -> None:
        """Prepare to record (called by Keras)."""
        self._stopped = False
        self._begin()

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
        was_due = self._armed > 0
        self._settle()
        if self._pending and time.monotonic() - self._last_flush > _CHUNK_SECONDS:
            self._flush()
        block = range(batch, batch + self._watched.steps_per_execution)
        due = any(map(self._is_due, block))
        if (due or was_due) and not self._capture.steady:
            # The update before may have been skipped, or still be to come.
            self._first_batch = self._capture.batches_done() - batch
            due = any(map(self._is_due, block))
        if due:
            if self._pending + len(block) > self._capacity:
                self._flush()
            record_next_step(self._watched, self._capture)
            self._armed = len(block)
            self._asked += len(block)

    @_never_breaks_training
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log what was recorded (called by Keras)."""
        self._settle()
        self._flush()

    @_never_breaks_training
    def on_train_end(self, logs: Any = None) -> None:
        """Log what was recorded, and wait until it is written (called by Keras)."""
        self._settle()
        self._flush()
        if self._log is not None:
            self._log.finish()
        if self._asked and not self._recorded:
            warnings.warn(
                "GradientMonitor recorded no step of this training: nothing was updated through "
                f"`apply` of the model's optimizer ({type(self._optimizer).__name__}). Either a "
                "loss scale skipped every step; or a train_step uses other optimizers, or one "
                "that holds others: compile with one optimizer; or the optimizer overrides "
                "`apply`: override `update_step` instead.",
                stacklevel=2,
            )

    @_never_breaks_training
    def _begin(self) -> None:
        if self._log_dir is not None and self._log is None:
            self._log = BackgroundLog(self._log_dir, self._scalars)
        self._asked = self._recorded = 0
        # What an interrupted training has left; the optimizer may have been set back since.
        self._settle()
        self._flush()
        self._open_capture()

    def _stop(self, error: Exception) -> None:
        self._stopped = True
        # What is there already is kept, if it can be had.
        with contextlib.suppress(Exception):
            self._flush()
        if self._log is not None:
            self._log.finish()
        self._capture = None
        warnings.warn(
            f"GradientMonitor stops recording, training goes on. Reason: {error!r}.",
            stacklevel=4,
        )

    def _open_capture(self) -> None:
        model = self._watched
        if model.optimizer is None or (model.built and not model.trainable_variables):
            self._capture = None
            return
        known = (
            self._capture is not None
            and self._optimizer is model.optimizer
            and self._capacity >= model.steps_per_execution
            and _identical(self._capture.variables, model.trainable_variables)
        )
        if not known:
            self._capacity = max(_CHUNK_STEPS, model.steps_per_execution)
            self._capture = open_capture(model, self._capacity)
        assert self._capture is not None
        self._first_batch = self._capture.batches_done()
        self._last_flush = time.monotonic()
        if self._optimizer is not model.optimizer:
            self._optimizer = model.optimizer
            next_step = self._first_batch // self._capture.batches_per_update
            recorded = self._history.steps
            restarts = len(recorded) > 0 and next_step <= recorded[-1]
            self._first_step = int(recorded[-1]) + 1 - next_step if restarts else 0

    def _is_due(self, batch: int) -> bool:
        assert self._capture is not None
        per_update = self._capture.batches_per_update
        step, part = divmod(self._first_batch + batch, per_update)
        return part == per_update - 1 and bool(self._schedule(step))

    def _settle(self) -> None:
        """Count the step that was to run as run."""
        self._pending += self._armed
        self._armed = 0

    @_never_breaks_training
    def _update_history(self) -> None:
        self._flush()

    def _flush(self) -> None:
        """Move what was recorded from the device to the history and the log."""
        if self._capture is None or not self._pending + self._armed:
            return
        recorded = self._capture.read()
        self._pending, self._last_flush = 0, time.monotonic()
        due = np.array([bool(self._schedule(int(step))) for step in recorded.steps], bool)
        if due.any():
            self._recorded += int(due.sum())
            layout = layout_of(self._capture.variables)
            steps = recorded.steps + self._first_step
            chunk = Chunk(layout, steps, recorded.values).select(due)
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
    if "://" in str(log_dir):
        raise ValueError(
            "`log_dir` must be the path of a local directory. Received: "
            f"log_dir={str(log_dir)!r}. Log to a directory here, and copy it afterwards."
        )
    path = Path(log_dir)
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"`log_dir` must be the path of a directory. Received: log_dir={str(log_dir)!r}, which "
            "is a file. Name another directory; it is made if it is missing."
        )
    return path
