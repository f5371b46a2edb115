"""`GradientMonitor`: the real training gradients of `model.fit`, layer by layer."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_initkit.callbacks.arguments import checked_count, checked_per, measured_statistics
from keras_initkit.callbacks.background_log import BackgroundLog, checked_log_dir
from keras_initkit.callbacks.capture import (
    BACKENDS,
    Call,
    Capture,
    Recording,
    Watch,
    open_capture,
    record_next_step,
)
from keras_initkit.callbacks.columns import layer_paths
from keras_initkit.callbacks.schedule import Schedule, as_schedule
from keras_initkit.callbacks.selection import Selector, as_selection
from keras_initkit.user_warnings import warn_user
from tensorboard_plugin_initkit.diagnosis.finding import Finding, to_json
from tensorboard_plugin_initkit.diagnosis.verdicts import judge, news
from tensorboard_plugin_initkit.record.history import GradientHistory

# What is recorded is moved to the host at the end of an epoch, unless that was done just before;
# and within long epochs.
_FLUSH_SECONDS_BETWEEN_EPOCHS, _FLUSH_SECONDS = 1.0, 5.0
# Judging takes at most this share of the time, and looks at so many records of a training.
_JUDGING_SHARE = 0.002
_JUDGED_STEPS = 512


class GradientWarning(UserWarning):
    """What a `GradientMonitor` finds wrong with the gradients of a training."""


def _never_breaks_training(hook: Callable[..., None]) -> Callable[..., None]:
    """Report the first failure inside a hook as a warning, and stop monitoring."""

    @functools.wraps(hook)
    def guarded(self: "GradientMonitor", *args: Any, **kwargs: Any) -> None:
        if self._stopped:
            return
        try:
            hook(self, *args, **kwargs)
            error = self._capture.error if self._capture else None
        except GradientWarning:
            raise  # of someone who has made these warnings errors, to stop the training
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
    is `monitor.history`, or `keras_initkit.read_log(log_dir)`: a `keras_initkit.GradientHistory`,
    which explains the statistics.

    What is wrong with the gradients is one `GradientWarning` each, with the layer, the step and
    the numbers, and an entry of `monitor.findings`.

    Example:
    ```python
    monitor = keras_initkit.callbacks.GradientMonitor("runs/first")
    model.fit(x, y, callbacks=[monitor])
    print(monitor.history["norm"][-1])  # one number a layer
    ```

    Args:
        log_dir: Directory to log to, the one that `tensorboard --logdir` is pointed at or a
            directory below it; or the URL of one (`gs://…`, `s3://…`), for which the extra
            `fsspec` is needed. `None` records in memory only.
        every_n_steps: A positive integer n, to record the steps 0, n, 2n, … of
            `optimizer.iterations`, which go on from one `fit` to the next; or a function that
            says for a step whether to record it. `None` records every 10th of the first 200
            steps, in which a bad start shows, and every 50th later. Where a model is compiled
            again, its new optimizer counts from 0: its steps are recorded after those before.
        layers: Which layers to record: a name or path (which selects the layers inside as well,
            and all of that name; `"<name>#2"` is the second one alone), a compiled regular
            expression that is searched for in the path, a function of the path, or a list of
            these. `None` records all.
        per: "layer"; or "variable", to record every variable as a layer of its own.
        statistics: Which of "mean_abs", "max_abs", "zeros", "dead_units", "weight_norm" and
            "update_ratio" to record; `None` for all. The last two take a second pass over the
            weights, and "update_ratio" a copy of them for the duration of a recorded step.
        sample_size: Number of elements of each variable's gradient to keep on recorded steps,
            for "cosine", "snr" and histograms. They are moved to the host with each record.
        scalars: Write scalars for TensorBoard's own dashboards at every so many recorded steps,
            besides the compact record that `read_log` reads; 0 or False for none. Scalars are
            most of the log's size.
        histograms: Write histograms of log10|g|, of the sampled elements, at every so many
            recorded steps; 0 or False for none.

    Attributes:
        history: `GradientHistory` of what was recorded up to now.
        findings: List of `Finding`s: what was found wrong up to now.

    Raises:
        ValueError: If an argument is not as described.
        ImportError: If the package for a URL's protocol is missing.
        NotImplementedError: On another backend than TensorFlow, JAX and PyTorch.
    """

    # Keras may call `on_train_batch_end` on another thread, and does not wait for it.
    async_safe = True

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        every_n_steps: int | Schedule | None = None,
        *,
        layers: Selector | Sequence[Selector] | None = None,
        per: str = "layer",
        statistics: Sequence[str] | None = None,
        sample_size: int = 0,
        scalars: int = 1,
        histograms: int = 0,
    ) -> None:
        super().__init__()
        if keras.backend.backend() not in BACKENDS:
            raise NotImplementedError(
                f"GradientMonitor works on the backends {', '.join(BACKENDS)}. Received: backend "
                f'"{keras.backend.backend()}". Set KERAS_BACKEND to one of these before importing '
                "keras."
            )
        self._log_dir = checked_log_dir(log_dir)
        self._schedule = as_schedule(every_n_steps)
        self._selects = as_selection(layers)
        self._layers = layers
        self._per = checked_per(per)
        self._statistics = measured_statistics(statistics)
        meaning = "the number of elements of each gradient to keep"
        self._sample_size = checked_count("sample_size", sample_size, meaning)
        meaning = "the number of recorded steps from one to the next that is written"
        self._scalars = checked_count("scalars", scalars, meaning)
        self._histograms = checked_count("histograms", histograms, meaning)
        if self._histograms and not self._sample_size:
            raise ValueError(
                "`histograms` are taken of sampled elements: `sample_size` must be positive. "
                f"Received: histograms={histograms!r}, sample_size={sample_size!r}. Write "
                "`sample_size=1024`."
            )
        self.findings: list[Finding] = []
        self._history = GradientHistory()
        # The part that is judged: of this training, of which the last is `_said`.
        self._judged = GradientHistory(_JUDGED_STEPS)
        self._said: list[Finding] = []
        self._next_judgement = 0.0
        self._unjudged = False
        self._log: BackgroundLog | None = None
        self._watched: Any = None
        self._optimizer: Any = None
        self._capture: Capture | None = None
        # What is added to the optimizer's iterations since it is not this monitor's first one.
        self._first_step = 0
        # Batches that the optimizer had been given at batch 0 of this epoch, and is given a batch.
        self._first_batch = 0
        self._given_a_batch = 1
        self._last_look = (0, 0)
        # Batches of this training: before this epoch, in it, and those the optimizer was given
        # before any of them.
        self._batches_before = 0
        self._batches_in_epoch = 0
        self._given_before = 0
        # Updates asked for that may be waiting on the device, and those of the next call.
        self._pending = 0
        self._armed = 0
        self._calls_before = 0
        self._recorded = 0
        self._last_flush = 0.0
        self._stopped = False

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or pickle has: not the training that it watches."""
        begun = dict.fromkeys(("_capture", "_watched", "_optimizer", "_log", "_model"))
        return self.__dict__ | begun

    @property
    def history(self) -> GradientHistory:
        """`GradientHistory` of what was recorded up to now."""
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
        self._batches_before += self._batches_in_epoch
        self._batches_in_epoch = 0
        if self._capture and self._capture.several:  # they need not be in step: batches count
            self._first_batch = self._given_before + self._batches_before
        elif self._capture:
            self._first_batch = self._capture.batches_done()
            self._last_look = (0, self._first_batch)

    @_never_breaks_training
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Record the coming step if it is due (called by Keras)."""
        if self._capture is None:
            return
        was_due = self._armed > 0
        self._settle()
        if self._pending and time.monotonic() - self._last_flush > _FLUSH_SECONDS:
            self._flush()
        block = range(batch, batch + self._watched.steps_per_execution)
        if not self._capture.steady and (was_due or self._is_due(block)):
            # The update before may have been skipped, or still be to come.
            self._look(batch)
        if self._is_due(block):
            updates = len(block) * self._given_a_batch
            if self._pending + updates > self._capture.capacity:
                self._flush()
            record_next_step(self._watched, self._capture, self._call(block))
            self._armed = updates

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the batch (called by Keras)."""
        self._batches_in_epoch = max(self._batches_in_epoch, batch + 1)

    @_never_breaks_training
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log what was recorded (called by Keras)."""
        self._settle()
        if time.monotonic() - self._last_flush > _FLUSH_SECONDS_BETWEEN_EPOCHS:
            self._flush()

    @_never_breaks_training
    def on_train_end(self, logs: Any = None) -> None:
        """Log what was recorded, and wait until it is written (called by Keras)."""
        self._settle()
        try:
            self._flush()
            if self._unjudged:
                self._judge()
        finally:
            if self._log is not None:
                self._log.finish()
        made = self._capture.calls_made if self._capture else 0
        if made > self._calls_before and not self._recorded:
            warn_user(
                "GradientMonitor recorded no step of this training: nothing was updated through "
                f"`apply` of the model's optimizer ({type(self._optimizer).__name__}). Either a "
                "loss scale skipped every step; or a train_step uses optimizers that are no "
                "attributes of the model: make them so; or the optimizer overrides `apply`: "
                "override `update_step` instead."
            )

    @_never_breaks_training
    def _begin(self) -> None:
        self._recorded = 0
        # What an interrupted training has left; the optimizer may have been set back since.
        self._settle()
        self._flush()
        self._open_capture()
        writes = self._capture is not None and self._capture.writes
        if writes and self._log_dir is not None and self._log is None:
            self._log = BackgroundLog(self._log_dir, self._scalars, self._histograms)

    def _stop(self, error: Exception) -> None:
        self._stopped = True
        # What is there already is kept, if it can be had.
        with contextlib.suppress(Exception):
            self._flush()
        if self._log is not None:
            self._log.finish()
        self._capture = None
        warn_user(f"GradientMonitor stops recording, training goes on. Reason: {error!r}.")

    def _open_capture(self) -> None:
        model = self._watched
        if model.optimizer is None or (model.built and not model.trainable_variables):
            self._capture = None
            return
        watched = self._select(model.trainable_variables)
        if model.built and not watched:
            paths = layer_paths(model)
            names = dict.fromkeys(paths[id(v)] for v in model.trainable_variables)
            raise ValueError(
                "`layers` must select a layer that is trained. Received: "
                f"layers={self._layers!r}. The model's layers are {', '.join(names)}."
            )
        known = (
            self._capture is not None
            and self._optimizer is model.optimizer
            and self._capture.capacity >= model.steps_per_execution
            and _identical(self._capture.variables, watched)
        )
        if not known:
            watch = Watch(
                self._select, self._statistics, self._sample_size, self._per, self._schedule
            )
            self._capture = open_capture(model, watch)
            self._judged, self._said = GradientHistory(_JUDGED_STEPS), []
        assert self._capture is not None
        self._calls_before = self._capture.calls_made
        self._given_a_batch = 1
        self._batches_before = self._batches_in_epoch = 0
        self._given_before = self._first_batch = self._capture.batches_done()
        self._last_flush = time.monotonic()
        if self._optimizer is not model.optimizer:
            self._optimizer = model.optimizer
            next_step = self._first_batch // self._capture.batches_per_update
            recorded = self._history.steps
            restarts = len(recorded) > 0 and next_step <= recorded[-1]
            self._first_step = int(recorded[-1]) + 1 - next_step if restarts else 0

    def _select(self, variables: Sequence[Any]) -> list[Any]:
        paths = layer_paths(self._watched)
        return [v for v in variables if 0 not in v.shape and self._selects(paths[id(v)])]

    def _look(self, batch: int) -> None:
        """See how many batches the optimizer has been given, and so is given for each."""
        assert self._capture is not None
        given, (last_batch, last_given) = self._capture.batches_done(), self._last_look
        if batch > last_batch:
            self._given_a_batch = max(1, round((given - last_given) / (batch - last_batch)))
        self._last_look = (batch, given)
        self._first_batch = given - batch * self._given_a_batch

    def _given(self, batch: int) -> int:
        return self._first_batch + batch * self._given_a_batch

    def _is_due(self, block: range) -> bool:
        assert self._capture is not None
        per_update = self._capture.batches_per_update
        for given in range(self._given(block.start), self._given(block.stop)):
            if given % per_update == per_update - 1 and self._schedule(given // per_update):
                return True
        return False

    def _call(self, block: range) -> Call:
        assert self._capture is not None
        per_update = self._capture.batches_per_update
        given, run = self._given(block.start), self._batches_before + block.start
        return Call(
            given // per_update,
            (self._given(block.stop) - 1) // per_update,
            max(0, run - (given - self._given_before)) if self._capture.skips else 0,
        )

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
        recording = self._capture.read()
        self._pending, self._last_flush = 0, time.monotonic()
        if len(recording.chunk.steps):
            self._recorded += len(recording.chunk.steps)
            self._keep(recording)

    def _keep(self, recording: Recording) -> None:
        chunk, samples = recording
        chunk = dataclasses.replace(chunk, steps=chunk.steps + self._first_step)
        self._history.append(chunk)
        self._judged.append(chunk)
        self._unjudged = True
        if self._log is not None:
            self._log.write(chunk, samples if self._histograms else None)
        if time.monotonic() >= self._next_judgement:
            self._judge()

    def _judge(self) -> None:
        """Say what is wrong that was not said before."""
        start = time.monotonic()
        self._unjudged = False
        found = news(self._said, judge(self._judged))
        now = time.monotonic()
        self._next_judgement = now + (now - start) / _JUDGING_SHARE
        self._said.extend(found)
        self.findings.extend(found)
        if found and self._log is not None:
            self._log.write_findings(to_json(self.findings), found[-1].rank)
        for finding in found:
            warn_user(finding.message, GradientWarning)


def _identical(some: list[Any], others: list[Any]) -> bool:
    return list(map(id, some)) == list(map(id, others))
