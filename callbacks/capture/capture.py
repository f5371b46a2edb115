"""A capture: the gradients of a model's training, measured and read in chunks."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_initkit.callbacks.capture.backend import Storage
from keras_initkit.callbacks.capture.listener import listening_to
from keras_initkit.callbacks.capture.loss import Losses
from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.recorded_step import Call, TrainFunction
from keras_initkit.callbacks.capture.recorder import UpdateRecorder
from keras_initkit.callbacks.capture.row import unpack
from keras_initkit.callbacks.capture.watch import Watch, make_layout
from keras_initkit.callbacks.measures.directions import DirectionTracker
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.layout import Layout


class Capture:
    """Measures each update of a model as requested; the backend's storage keeps the rows."""

    def __init__(self, target: Target, watch: Watch, storage: Storage) -> None:
        # Instrumented training functions, kept so a second `fit` traces nothing.
        self.functions: dict[tuple[Any, ...], TrainFunction] = {}
        # The first exception inside the capture; after it the capture is deaf.
        self.error: Exception | None = None
        self.calls_made = 0  # number of finished calls of the training function
        # With several optimizers a row holds the last update of each in one call of the training
        # function; its step is the monitor's.
        self.several = target.several
        self.batches_per_update = target.batches_per_update
        self.skips = target.skips  # whether a loss scale can skip updates
        # Whether the number of updates surely follows from the number of batches. A loss scale
        # skips updates, and a custom step may make several of a batch, or none.
        self.steady = target.several or not (target.skips or target.own_step)
        self.writes = storage.writes  # whether this process is to write logs
        self._target = target
        self._watch = watch
        self._storage = storage
        self._recorder = UpdateRecorder(target, watch, storage)
        self._attempt_untraced = storage.untraced(self._attempt)
        self._losses = Losses(target.loss_sums)
        self._directions = DirectionTracker()
        self._calls: list[Call] = []
        self._known_layout: tuple[dict[int, int], list[int], Layout] | None = None
        self._recorder.meet_variables()

    @property
    def variables(self) -> list[Any]:
        """Recorded `keras.Variable`s; empty until the model is built."""
        return self._recorder.watched.variables if self._recorder.is_ready else []

    @property
    def capacity(self) -> int:
        """Greatest number of updates between two reads."""
        return self._recorder.watched.capacity if self._recorder.is_ready else 0

    def batches_done(self) -> int:
        """Count the batches with gradients given to the optimizers so far."""
        counts = [self._storage.iterations(leaf.optimizer) for leaf in self._target.leaves]
        # Several need not be in step, and one that was never used does not count.
        return min([count for count in counts if count] or [0])

    @contextlib.contextmanager
    def instrumenting(self) -> Iterator[None]:
        """Prepare the training function made inside the context."""
        with self.listening(), self._storage.instrumenting():
            yield

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the updates traced or run inside the context."""
        self._attempt(self._recorder.meet_variables)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._storage.carrying())
            for i, leaf in enumerate(self._target.leaves):
                attempt = self._attempt_untraced
                stack.enter_context(listening_to(leaf.optimizer, i, self._recorder, attempt))
            yield

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        self._storage.begin_call(call)

    def end_call(self, call: Call, result: Any) -> None:
        """Take the result of the training function."""
        self.calls_made += 1
        self._attempt(self._end_call, call, result)

    def read(self) -> tuple[Chunk, list[np.ndarray]]:
        """Move the updates heard since the last read from the device; keep those due.

        Returns:
            The record; and for each variable, elements of its gradient: float32 arrays
            (n, elements), with 0 elements if none are kept.
        """
        if not self._recorder.is_ready:
            return Chunk(Layout(()), np.zeros(0, np.int64), {}), []
        watched = self._recorder.watched
        steps, rows = self._storage.take()
        numbers = unpack(watched.row, rows)
        values = dict(numbers.values)
        if "dead_units" in self._watch.statistics:
            # By biases, and in layers without one by kernels.
            dead = values.get("dead_units", np.full_like(values["norm"], np.nan))
            are_biases = np.array([source == "bias" for source in watched.unit_sources])
            values["dead_units"] = np.where(are_biases, values["zeros"], dead)
        totals = numbers.totals | self._totals_of_calls(steps, numbers.loss)
        due = np.array([bool(self._watch.is_due(int(step))) for step in steps], bool)
        values = {name: array[due] for name, array in values.items()}
        samples = [array[due] for array in numbers.samples]
        if self._watch.sample_size and due.any():
            values |= self._directions.add(samples)._asdict()
        # Which optimizers there are and whose the variables are shows when they are heard.
        optimizer_of = self._recorder.optimizer_of
        if self._known_layout is None or self._known_layout[0] != optimizer_of:
            columns = make_layout(self._target, watched, self._watch.per, optimizer_of)
            self._known_layout = dict(optimizer_of), *columns
        _, heard, layout = self._known_layout
        totals = {name: array[due][:, heard] for name, array in totals.items()}
        return Chunk(layout, steps[due], values, totals), samples

    def _attempt(self, action: Callable[..., None], *args: Any) -> None:
        """Call a function, and keep its exceptions from the training."""
        if self.error is None:
            try:
                action(*args)
            except Exception as error:
                self.error = error

    def _end_call(self, call: Call, result: Any) -> None:
        logs = self._storage.end_call(result)
        if not self._storage.has_loss:
            self._losses.hear(call, logs, self._storage.metric)
        self._calls.append(call)

    def _totals_of_calls(self, steps: np.ndarray, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Return the totals of calls; they are the same for all optimizers."""
        calls, self._calls = self._calls, []
        skipped = np.full(len(steps), np.nan, np.float32)
        for call in calls:
            skipped[call.covers(steps)] = call.skipped
        if self._storage.has_loss:
            losses = self._losses.of_rows(sums)
        else:
            losses = self._losses.of_calls(steps, self._storage.to_host)
        totals = {"loss": losses, "skipped": skipped}
        count = len(self._target.leaves)
        return {name: np.repeat(array[:, None], count, 1) for name, array in totals.items()}
