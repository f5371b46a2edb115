"""`GradientMonitor`: the real training gradients of `model.fit`, layer by layer."""

import contextlib
import dataclasses
import functools
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.anatomy.compilation import name_own_loss
from keras_initkit.anatomy.selectors import Selection, SelectionError, Selector
from keras_initkit.anatomy.setup import read_setup
from keras_initkit.anatomy.weights import is_complete, places_of, weights_of
from keras_initkit.callbacks.announcer import Announcer, OnFinding, sum_up
from keras_initkit.callbacks.background_log import check_log_dir
from keras_initkit.callbacks.capture import BACKENDS, Capture, Watch, open_capture, record_next_step
from keras_initkit.callbacks.clock import StepClock
from keras_initkit.callbacks.fit_call import FitCall
from keras_initkit.callbacks.guard import GuardedCallback, never_breaks_training
from keras_initkit.callbacks.judge import Ask, Judge
from keras_initkit.callbacks.reporter import OnRecord, Reporter
from keras_initkit.callbacks.settings import (
    Schedule,
    Settings,
    as_schedule,
    check_amount,
    check_on_finding,
    check_per,
    check_scalars,
    measure_for,
)
from keras_initkit.callbacks.sink import Sink
from keras_initkit.models.check.check import Start, look_at_start
from keras_initkit.models.check.dependence import ask_model
from keras_initkit.models.check.own_loss import ask_loss
from keras_initkit.models.columns import check_selection, outside_weight
from keras_initkit.models.propagate.propagate import predict_signals
from keras_initkit.user_warnings import tell_user
from tensorboard_plugin_initkit.diagnosis.diagnosis import tell_verdict
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.kinds import check_kinds
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.notebook import FINDING_COLUMNS, finding_rows, make_card
from tensorboard_plugin_initkit.record.history import GradientHistory, tell_extent
from tensorboard_plugin_initkit.record.setup import Setup

# Records are moved to the host after so many seconds: at the end of an epoch, and within one.
_SECONDS_BETWEEN_EPOCHS, _SECONDS = 1.0, 5.0
# Of larger models no signals are predicted, and in no more time.
_MOST_WEIGHTS, _PREDICTION_SECONDS = 50_000_000, 2.0


class GradientMonitor(GuardedCallback):
    """Logs the magnitude of the gradients applied by the optimizer, per layer and variable.

    The gradients are measured inside the compiled training step, at the moment of the update:
    after unscaling (mixed precision), accumulation and clipping. Nothing is recomputed, and steps
    that are not recorded run the model's own, unchanged training function. A failure inside the
    monitor is one warning, and training goes on.

    The log is the run `<log_dir>/gradients`: TensorBoard's tab Gradient Flow shows all of it,
    TensorBoard's own dashboards the scalars `gradient_norm/<layer>` and a few totals,
    `gradients/<total>`. In Python the same records are `monitor.history`, or
    `keras_initkit.read_log(log_dir)`: a `keras_initkit.GradientHistory`, which explains the
    statistics. Another training in the same directory has a run of its own,
    `<log_dir>/gradients_2`, and so on; a resumed training continues the last run.

    Each fault found is a `GradientWarning` at the line of `fit`, with the layer, the step and the
    numbers, the cause and what to change, and an entry of `monitor.findings`. An output, a loss and
    targets that do not fit each other are reported before the second step.

    Example:
    ```python
    monitor = keras_initkit.callbacks.GradientMonitor("runs/first")
    model.fit(x, y, callbacks=[monitor])
    print(monitor.history["norm"][-1])  # one number a layer
    ```

    Args:
        log_dir: Directory to log to: the one given to `tensorboard --logdir`, or one below it; or
            the URL of one (`gs://…`, `s3://…`), for which the extra `fsspec` is needed. `None`
            records in memory only.
        every_n_steps: A positive integer n, to record the steps 0, n, 2n, … of
            `optimizer.iterations`, which go on from one `fit` to the next; or a function of the
            step that returns whether to record it. `None` records the first 100 steps, where a
            bad start shows, every 10th of the next 100, and every 50th later. If a model is
            compiled again, its new optimizer counts from 0: these steps are numbered after the
            earlier ones.
        layers: Which layers to record: a class of layers; a name or path, to select the layers
            inside as well, and all of that name (`"<name>#2"` is the second one alone); a
            compiled regular expression, searched for in the path; a function of the layer; a list
            of these, any of which selects; or a tuple, all of which must. `None` records all.
            One that selects no layer, alone or in a list, is an error before training.
        per: "layer"; or "variable", to record every variable as a layer of its own.
        statistics: Which of "mean_abs", "max_abs", "zeros", "dead_units", "weight_norm" and
            "update_ratio" to record; `None` for all. The last two take a second pass over the
            weights, and "update_ratio" a copy of them for the duration of a recorded step.
        sample_size: Number of elements of each variable's gradient to keep on recorded steps,
            for "cosine", "snr" and histograms. They are moved to the host with each record.
        scalars: Statistics to write as scalars, `gradient_<statistic>/<layer>`, for TensorBoard's
            own dashboards, out of those of `GradientHistory`; True for all, which are ten and more
            a layer. Six totals are always among them: the global norm, the ratio of the first
            layer's signal to the last layer's, the largest share of a layer, the numbers of
            non-finite elements and of faults found, and the learning rate. False for no scalars:
            the tab does not need them.
        histograms: A number n, to write histograms of log10|g| of the sampled elements at every
            n-th recorded step; 0 or False for none.
        on_finding: "warn"; "stop" to warn and end the training after this batch; "raise" to raise a
            `FindingError`; or a function, called with each `Finding` that is more than a note.
        ignore: Kinds of findings to leave out, such as `["input_scale"]`: they are told neither
            by themselves nor among the consequences of others, and what follows from them is told.
        verbose: Whether to print one line at the end of `fit`: what was recorded, the verdict, and
            the command that shows it. `None` prints it unless `fit` has `verbose=0`.
        on_record: A function, called with each recorded step as a `Record`, at most some seconds
            after the step and at the end of the epoch, on the thread of `fit`; after an exception
            in `fit` the last calls may be on another thread. If it raises, there is one warning per
            training. `keras_initkit.callbacks.trackers` has functions for trackers.
        logs: True to add the totals of the last record to Keras's `logs` at the end of each epoch,
            as `gradients/global_norm`: for `CSVLogger` and others that come after the monitor in
            the list of callbacks, and for the `History` that `fit` returns.
        spikes: True to measure norms at all steps, also at those that are not due, and to keep the
            spikes among these: steps where the norm of a layer, or of all, is ten times its running
            median or more, or not finite. Each is a record with only `"spike"`, `"norm"` and
            `"nonfinite"`, and the first one is a finding. No step then runs the model's own
            training function.

    Attributes:
        history: `GradientHistory` of the training up to now.
        findings: List of `Finding`s: the faults found up to now.

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
        layers: Selector | None = None,
        per: str = "layer",
        statistics: Sequence[str] | None = None,
        sample_size: int = 0,
        scalars: Sequence[str] | bool = ("norm",),
        histograms: int = 0,
        on_finding: OnFinding = "warn",
        ignore: Sequence[str] = (),
        verbose: bool | None = None,
        on_record: OnRecord | None = None,
        logs: bool = False,
        spikes: bool = False,
    ) -> None:
        super().__init__()
        if keras.backend.backend() not in BACKENDS:
            raise NotImplementedError(
                f"GradientMonitor works on the backends {', '.join(BACKENDS)}. Received: backend "
                f'"{keras.backend.backend()}". Set KERAS_BACKEND to one of these before importing '
                "keras."
            )
        self._settings = settings = Settings(
            log_dir=check_log_dir(log_dir),
            schedule=as_schedule(every_n_steps),
            layers=Selection("layers", layers),
            per=check_per(per),
            statistics=measure_for(statistics),
            sample_size=check_amount(
                "sample_size", sample_size, "the number of elements of each gradient to keep"
            ),
            scalars=check_scalars(scalars),
            histograms=check_amount(
                "histograms", histograms, "the number of recorded steps from one to the next"
            ),
            on_finding=check_on_finding(on_finding),
            ignore=check_kinds(ignore),
            verbose=verbose,
            on_record=on_record,
            logs=bool(logs),
            spikes=bool(spikes),
        )
        self._sink = Sink(settings.log_dir, settings.scalars, settings.histograms)
        self._clock = StepClock()
        self._judge = Judge(settings.ignore)
        self._announcer = Announcer(settings.on_finding)
        self._reporter = Reporter(on_record, settings.scalars or (), settings.logs)
        self._watched: Any = None
        self._optimizer: Any = None
        self._capture: Capture | None = None
        self._calls_before = 0
        self._recorded = 0
        self._last_read = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy or pickle, without the training watched."""
        _ = self.history  # what waits on the device is read, and copied as well
        return super().__getstate__() | dict.fromkeys(("_capture", "_watched", "_optimizer"))

    @property
    def history(self) -> GradientHistory:
        """The `GradientHistory` up to now; for another thread, up to some seconds ago."""
        fit = self._fit
        if fit is None or fit.is_around():
            self._attempt(self._deliver)
        elif fit.can_be_ended():
            self.end_training(fit)
        return self._sink.history

    def is_busy(self) -> bool:
        """Check for a method, or a recorded step, that this thread has not finished."""
        thread = threading.get_ident()
        return super().is_busy() or any(c.step_of == thread for c in self._captures)

    @property
    def _captures(self) -> list[Capture]:
        """The capture, and the one that watches for spikes."""
        capture = self._capture
        return [] if capture is None else [capture, *(s.capture for s in [capture.spikes] if s)]

    @property
    def findings(self) -> list[Finding]:
        """The faults found up to now, as in `history.findings`."""
        return self._sink.history.findings

    @never_breaks_training
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find the optimizer's place in the schedule (called by Keras)."""
        # Several optimizers need not be in step: there, batches count.
        counts = self._capture if self._capture and not self._capture.several else None
        self._clock.begin_epoch(counts.batches_done() if counts else None)
        self._reporter.epoch = epoch
        for capture in self._captures:
            capture.begin_epoch()

    @never_breaks_training
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Record the coming step if it is due (called by Keras)."""
        capture, clock = self._capture, self._clock
        if capture is None:
            return
        was_due = clock.settle()
        is_first = clock.has_due and not self._recorded  # which tells of broken contracts
        if clock.waiting and (is_first or time.monotonic() - self._last_read > _SECONDS):
            self._deliver()
        block = range(batch, batch + self._watched.steps_per_execution)
        if not capture.steady and (was_due or clock.is_due(block, self._settings.schedule)):
            # The update before may have been skipped, or still be to come.
            clock.look(batch, capture.batches_done())
        schedule = self._settings.schedule
        listener = _choose(self._captures, clock.is_due(block, schedule))
        if listener is not None and not listener.follows():
            self._deliver()  # the model was compiled again, or given another optimizer
            self._begin()
            if (capture := self._capture) is None:
                return
            clock.begin_epoch(capture.batches_done())
            clock.look(batch, capture.batches_done())
            listener = _choose(self._captures, clock.is_due(block, schedule))
        if listener is not None:
            if clock.waiting + len(clock.iterations(block)) > listener.capacity:
                self._deliver()
            record_next_step(self._watched, listener, clock.call(block, capture.skips))
            clock.expect(block, is_due=listener is capture)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the batch (called by Keras)."""
        if self._fit is not None:
            self._attempt(self._clock.end_batch, batch)

    @never_breaks_training
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the records of the epoch (called by Keras)."""
        self._clock.settle()
        is_due = time.monotonic() - self._last_read > _SECONDS_BETWEEN_EPOCHS
        if is_due or self._reporter.is_needed:
            self._deliver()
        self._reporter.add_to(logs)

    @never_breaks_training
    def on_train_end(self, logs: Any = None) -> None:
        """Log the last records, and wait until they are written (called by Keras)."""
        is_trained = bool(self._watched.trainable_variables)
        if self._capture and not is_trained:  # of a model that was built in its first step
            self._deliver()
            if not self._recorded:
                self._describe()
        self._end()
        calls = self._capture.calls_made if self._capture else 0
        if calls > self._calls_before and is_trained and not self._recorded:
            check_selection(self._watched, self._settings.layers, ValueError)
            tell_user(
                "GradientMonitor recorded no step of this training: no update went through "
                f"`apply` of the model's optimizer ({type(self._optimizer).__name__}). Either "
                "train_step never calls `self.optimizer.apply(gradients, variables)`; or the loss "
                "scale skipped every step; or train_step uses optimizers that are not attributes "
                "of the model (make them attributes); or the optimizer overrides `apply` "
                "(override `update_step` instead)."
            )
        says = self._settings.verbose
        if says is None:  # a loop of one's own may have given no parameters
            says = bool((self.params or {}).get("verbose"))
        if self._recorded and says:
            sum_up(self._sink.history, self._settings.log_dir, self._sink.run)

    def _repr_html_(self) -> str:
        verdict = tell_verdict(self.history, self.findings)
        log_dir = self._settings.log_dir
        sentences = [
            f"GradientMonitor: {tell_extent(self.history)}.",
            f"Log: {log_dir}" if log_dir is not None else "No log: the records are in memory only.",
        ]
        rows = finding_rows(self.findings)
        return make_card(verdict.text, verdict.level, sentences, FINDING_COLUMNS, rows)

    def _begin(self) -> None:
        # `Callback.model` would synchronise the whole state at each access on some backends.
        self._watched = self._model
        self._recorded = 0
        self._reporter.begin()
        former = self._capture
        self._capture = _open_capture(self._watched, former, self._settings)
        if self._capture is None:
            if self._watched.built and is_complete(self._watched):
                self._describe()  # that nothing is trained is a fault
            return
        if self._capture is not former:
            self._judge.restart()
        assert self._fit is not None
        self._fit.needs_its_thread = True  # for `_look_at_refused`
        self._calls_before = self._capture.calls_made
        self._last_read = time.monotonic()
        self._clock.begin_training(self._capture.batches_done(), self._capture.batches_per_update)
        if self._optimizer is not self._watched.optimizer:
            self._optimizer = self._watched.optimizer
            steps = self._sink.history.steps
            self._clock.continue_after(int(steps[-1]) if len(steps) else -1)
        if self._capture.writes:
            self._sink.open()
            self._fit.cleanup.close()  # of the capture before, if the model was compiled again
            # A training that goes on from what is saved does not record the steps before again.
            flush = functools.partial(self._attempt, self._catch_up, all_now=True)
            self._fit.cleanup.enter_context(self._capture.before_saves(flush))
        if is_complete(self._watched):
            self._describe()

    def _describe(self) -> None:
        """Keep how the model is built and compiled; the first record tells of its targets."""
        planned = self._clock.count_updates(self.params)
        setup = read_setup(self._watched, planned and self._clock.steps_before + planned)
        if self._capture is not None and self._capture.own_loss is not None:
            heads = name_own_loss(setup.heads, *self._capture.own_loss)
            setup = dataclasses.replace(setup, heads=heads)
        if self._fit is not None:
            setup = ask_loss(self._watched, setup, *self._fit.read_data()[:2])
        if (known := self._sink.history.setup) is not None:
            setup = dataclasses.replace(setup, prediction=known.prediction)
        elif not (self._recorded or self._clock.steps_before + self._clock.offset):
            setup = dataclasses.replace(setup, prediction=_predict(self._watched, setup))
        self._sink.describe(setup, self._clock.offset)
        self._judge.describe(setup)

    def _catch_up(self, all_now: bool = False) -> None:
        """Write the records that have waited for long; or all, and wait for the disk."""
        if all_now or time.monotonic() - self._last_read > _SECONDS:
            self._deliver()
        if all_now:
            self._sink.flush()

    def _end(self) -> None:
        """End the record of a training: write the last records, and say what is in them."""
        self._clock.settle()
        assert self._fit is not None
        try:
            self._deliver()
            is_refused = not self._recorded and self._capture and not self._fit.is_around()
            start = _look_at_refused(self._watched, self._fit) if is_refused else None
            if start is not None:
                self._sink.describe(start.setup, self._clock.offset)
                self._judge.describe(start.setup)
                self._sink.history.append(start.record)
                self._report(self._judge.add(start.record))
            self._report(self._judge.finish(_ask_by(self._watched, self._fit)))
            self._reporter.report()
            self._announcer.announce(self._watched, is_over=True)
        finally:
            try:
                self._sink.finish()
            finally:
                self._leave()

    def _check(self) -> None:
        for capture in self._captures:
            if capture.error is not None:
                raise capture.error

    def _close(self) -> None:
        try:
            self._deliver()
        finally:
            self._capture = None
            self._sink.finish(has_ended=False)

    def _deliver(self) -> None:
        """Move the records from the device to the history and the log, and judge them."""
        if self._capture is None or not self._clock.waiting:
            return
        former = self._capture.own_loss if self._recorded else None
        chunk, samples = self._capture.read()
        self._clock.read()
        self._last_read = time.monotonic()
        if len(chunk.steps):
            self._recorded += len(chunk.steps)
            if self._fit is not None:
                self._fit.needs_its_thread = False
            chunk = dataclasses.replace(chunk, steps=chunk.steps + self._clock.offset)
            self._sink.take(chunk, samples, self._clock.resumes)
            self._reporter.take(chunk)
            # The model has been built since, or its loss is known, or is not any more.
            if self._judge.setup is None or self._capture.own_loss != former:
                self._describe()
            self._report(self._judge.add(chunk, _ask_by(self._watched, self._fit)))

    def _report(self, findings: Sequence[Finding]) -> None:
        if (setup := self._judge.setup) not in (None, self._sink.history.setup):
            self._sink.describe(setup, self._clock.offset)  # the model has been asked
        self._sink.report(findings)
        self._announcer.take(findings)
        self._reporter.take_findings(findings)
        # An error can end the training only on its own thread.
        if self._fit is not None and self._fit.is_around():
            self._reporter.report()
            self._announcer.announce(self._watched)


def _open_capture(model: Any, former: Capture | None, settings: Settings) -> Capture | None:
    """Return a capture of the model, the former one if it fits; `None` if nothing trains."""
    if model.optimizer is None or (model.built and not model.trainable_variables):
        return None
    if is_complete(model):
        check_selection(model, settings.layers, SelectionError)
    if former and former.fits(model) and former.capacity >= model.steps_per_execution:
        return former
    watch = Watch(
        functools.partial(_select, model, settings.layers),
        settings.statistics,
        settings.sample_size,
        settings.per,
        settings.schedule,
    )
    return open_capture(model, watch, settings.spikes)


def _choose(captures: Sequence[Capture], is_due: bool) -> Capture | None:
    """Return what is to listen to steps that are due or not: all, the watch for spikes, or None."""
    return captures[0] if is_due else next(iter(captures[1:]), None)


def _select(model: Any, layers: Selection, variables: Sequence[Any]) -> list[Any]:
    if not any(map(layers, places_of(model).values())):
        tell_user(f"No layer is selected by layers={layers.selector!r}: all are recorded.")
        layers = Selection("layers", None)
    weights = {id(weight.variable): weight for weight in weights_of(model)}
    selected = []
    for variable in variables:
        weight = weights.get(id(variable)) or outside_weight(model, variable)
        if 0 not in variable.shape and layers(weight.places):
            selected.append(variable)
    return selected


def _predict(model: Any, setup: Setup) -> dict[str, tuple[float, float]]:
    """Predict the signals of the first record, if the model is deep and it takes little time."""
    depth = sum(layer.weights > 0 for layer in setup.layers)
    if depth < THRESHOLDS["depth_layers"].value:
        return {}
    # Of layers of the user's on symbolic tensors, and of a model that never is built as a whole.
    with contextlib.suppress(Exception):
        if model.count_params() <= _MOST_WEIGHTS:
            return predict_signals(model, _PREDICTION_SECONDS)
    return {}


def _ask_by(model: Any, call: FitCall | None) -> Ask:
    """Return what asks a model of one replica, trained on arrays, on the thread of `fit`."""

    def ask(setup: Setup) -> Setup | None:
        strategy = getattr(model, "distribute_strategy", None)
        is_alone = getattr(strategy, "num_replicas_in_sync", 1) == 1
        if not is_alone or call is None or not call.is_around():
            return None
        asked = ask_model(model, setup, call.read_data()[0])
        return asked if asked != setup else None

    return ask


def _look_at_refused(model: Any, call: FitCall) -> Start | None:
    """Look at model and data of a training that ended before its first record, by an exception."""
    x, y, sample_weight = call.read_data()
    was_stopped = isinstance(getattr(sys, "last_value", None), KeyboardInterrupt)
    if x is not None and not hasattr(x, "__next__") and not was_stopped:
        with contextlib.suppress(Exception):  # of the user's model, which has been raised
            start = look_at_start(model, (x, y, sample_weight))
            makes = any(item.arguments.get("makes") for item in start.setup.layers)
            return start if start.error is not None or start.is_cut or makes else None
    return None
