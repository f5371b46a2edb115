"""A capture: the gradients of a model's training, measured and read in chunks."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.callbacks.capture.backend import Storage
from keras_initkit.callbacks.capture.batches import BatchListener
from keras_initkit.callbacks.capture.listener import listening
from keras_initkit.callbacks.capture.loss import Losses
from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.own_loss import OwnLoss
from keras_initkit.callbacks.capture.recorded_step import Call, TrainFunction, plain_function
from keras_initkit.callbacks.capture.recorder import UpdateRecorder
from keras_initkit.callbacks.capture.row import Numbers, unpack
from keras_initkit.callbacks.capture.saving import before_saves
from keras_initkit.callbacks.capture.watch import Watch, Watched, make_layout
from keras_initkit.callbacks.measures.directions import DirectionTracker
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.layout import Layout


class Capture:
    """Measures each update of a model as requested; the backend's storage keeps the rows."""

    def __init__(self, target: Target, watch: Watch, storage: Storage) -> None:
        # Instrumented training functions, kept so a second `fit` traces nothing.
        self.functions: dict[tuple[Any, ...], TrainFunction] = {}
        # Held by recorded steps, and by who reads.
        self.lock = threading.RLock()
        self.step_of = 0  # the thread of a recorded step
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
        # What watches the steps in between for spikes, or `None`.
        self.spikes: Any = None  # `spikes.Spikes`, which imports this file
        self._batches = BatchListener(
            target.model, storage.store_batch, storage.arrays.measure_port, storage.find_trace
        )
        self._directions = DirectionTracker()
        self._calls: list[tuple[int, Call]] = []
        self._plain = plain_function(target.model)
        self._trained = target.trained_variables(was_used=self.batches_done() > 0)
        self._known_layout: tuple[Any, Layout, list[int]] = None, Layout(()), []

    @property
    def capacity(self) -> int:
        """Greatest number of updates between two reads; 0 until it is known."""
        return self._storage.capacity

    @property
    def own_loss(self) -> OwnLoss | None:
        """The loss of Keras's that code of the user's computes, if it is all that is reported."""
        return self._batches.own_loss

    def fits(self, model: Any) -> bool:
        """Check that a model is still the captured one, with the same optimizers."""
        now, then = Target.of_model(model), self._target
        same = [id(root) for _, root in now.roots] == [id(root) for _, root in then.roots]
        return then.model is model and same

    def follows(self) -> bool:
        """Check that the next step is trained by the captured optimizers; prepare to record it.

        Raises:
            ValueError: If the function that trains it was traced before its model was changed, so
                that the instrumented one would train something else.
        """
        model, functions = self._target.model, self.functions
        plain = plain_function(model)
        is_traced = not (model.run_eagerly or keras.backend.backend() == "torch")
        if is_traced and any(key[0] is plain for key in functions):
            return True  # both functions are of the same time
        fits, is_new = self.fits(model), plain is not self._plain
        self._plain = plain
        if not is_traced or is_new:
            return fits
        changed = self._target.changed_layers(self._trained) if fits else ["optimizer"]
        if changed:
            raise ValueError(
                "Layers and optimizer must be those that training was compiled with. Received: "
                f"changed since then: {', '.join(changed)}. Call `model.compile` after the change."
            )
        return True

    def batches_done(self) -> int:
        """Count the batches with gradients given to the optimizers so far."""
        counts = [self._storage.iterations(leaf.optimizer) for leaf in self._target.leaves]
        # Several need not be in step, and one that was never used does not count.
        return min([count for count in counts if count] or [0])

    def build(self, *args: Any) -> None:
        """Build what the training function would build when it is called with `args`."""
        self._storage.build(*args)

    @contextlib.contextmanager
    def instrumenting(self) -> Iterator[None]:
        """Prepare the training function made inside the context."""
        with self.listening(), self._storage.instrumenting():
            yield

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the updates traced or run inside the context."""
        self._attempt(self._recorder.meet_optimizers)
        attempt = self._attempt_untraced
        batches: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self._storage.hears_batches:
            in_own_step = self._target.own_step and self._storage.hears_own_steps
            batches = self._batches.listening(attempt, in_own_step and not self.several)
        with self._storage.carrying(), batches, listening(self._target, self._recorder, attempt):
            yield

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        self._storage.begin_call(call)

    def end_call(self, call: Call, result: Any) -> None:
        """Take the result of the training function."""
        self.calls_made += 1
        self._attempt(self._end_call, call, result)

    def read(self) -> tuple[Chunk, Sequence[np.ndarray]]:
        """Move the updates heard since the last read from the device; keep those due.

        Returns:
            The record, with the spikes of other steps; and for each variable, elements of its
            gradient: float32 arrays (n, elements), with 0 elements if none are kept.
        """
        with self.lock:
            found = self._read()
        return found if self.spikes is None else self.spikes.merge(*found)

    def _read(self) -> tuple[Chunk, list[np.ndarray]]:
        steps, tables, batches = self._storage.take()
        heard = self._heard() if tables else {}  # none, if nothing came since
        parts = [unpack(watched.row, tables[key]) for key, watched in heard.items()]
        totals = self._totals_of_calls(steps, parts)
        due = np.array([bool(self._watch.is_due(int(step))) for step in steps], bool)
        if parts:  # a call may have made no update
            due &= ~np.isnan(totals["learning_rate"]).all(axis=1)
        if not parts or not due.any():
            return Chunk(Layout(()), np.zeros(0, np.int64), {}), []
        layout, order = self._layout(heard)
        nothing = [np.full_like(part.values["norm"], np.nan) for part in parts]
        values = {}
        for name in sorted(self._watch.statistics):
            found = [part.values.get(name, n) for part, n in zip(parts, nothing, strict=True)]
            if any(name in part.values for part in parts) or name == "dead_units":
                values[name] = np.concatenate(found, axis=1)[due][:, order]
        if "dead_units" in self._watch.statistics:
            # By biases, and in layers without one by kernels.
            sources = [source for watched in heard.values() for source in watched.unit_sources]
            are_biases = np.array(sources)[order] == "bias"
            values["dead_units"] = np.where(are_biases, values["zeros"], values["dead_units"])
        samples = [array[due] for part in parts for array in part.samples]
        samples = [samples[i] for i in order]
        if self._watch.sample_size:
            values |= self._directions.add(samples)._asdict()
        totals = {name: array[due] for name, array in totals.items()}
        ports: dict[str, np.ndarray] = {}
        if layout.ports:
            losses, ports = self._batches.read(batches[due])
            losses["batch_loss"] = losses["batch_loss"] * self._storage.replicas
            # The loss of others is the mean of the steps since the record before.
            alone = np.diff(steps[due], prepend=-1) == 1
            self._batches.compare(totals["loss"][alone, 0], losses["batch_loss"][alone, 0])
            totals |= {name: np.repeat(array, len(parts), 1) for name, array in losses.items()}
        return Chunk(layout, steps[due], values, totals, ports), samples

    def begin_epoch(self) -> None:
        """Note that the calls to come are of another epoch."""
        self._losses.epoch += 1

    def before_saves(self, action: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """Call a function each time that the model's state is about to be saved in the context."""
        return before_saves(self._target, action)

    def _heard(self) -> dict[int, Watched]:
        """Return what is recorded of each heard optimizer, in the order of the model's."""
        heard = self._recorder.heard
        keys = [id(leaf.optimizer) for leaf in self._target.leaves]
        return {key: heard[key] for key in keys if key in heard and heard[key].variables}

    def _layout(self, heard: dict[int, Watched]) -> tuple[Layout, list[int]]:
        """Return the layout, and the places of its columns; both show when updates are heard."""
        given = {key: self._recorder.given_columns(key) for key in heard}
        known = given, self._recorder.frozen, self._batches.plan.ports
        if self._known_layout[0] != known:
            layout, order = make_layout(self._target, heard, given, self._watch.per, known[1])
            layout = dataclasses.replace(layout, ports=known[2])
            self._known_layout = known, layout, order
            self._directions = DirectionTracker()
        return self._known_layout[1:]

    def _attempt(self, action: Callable[..., None], *args: Any) -> None:
        """Call a function, and keep its exceptions from the training."""
        if self.error is None:
            try:
                action(*args)
            except Exception as error:
                self.error = error

    def _end_call(self, call: Call, result: Any) -> None:
        logs = self._storage.end_call(result)
        if self._watch.hears_batch and not self._storage.has_loss:
            self._losses.hear(call, logs, self._storage.metric)
        self._calls.append((self._losses.epoch, call))

    def _totals_of_calls(
        self, steps: np.ndarray, parts: Sequence[Numbers]
    ) -> dict[str, np.ndarray]:
        """Return the totals of optimizers; those of calls are the same for all."""
        calls, self._calls = self._calls, []
        skipped, epochs = np.full((2, len(steps)), np.nan, np.float32)
        for epoch, call in calls:
            skipped[call.covers(steps)] = call.skipped
            epochs[call.covers(steps)] = epoch
        if not self._storage.has_loss:
            losses = self._losses.of_calls(steps, epochs, self._storage.to_host)
        elif parts:
            losses = self._losses.of_rows(epochs, parts[0].loss)
        else:
            losses = skipped
        totals = {
            name: np.concatenate([part.totals[name] for part in parts], axis=1)
            for name in ("learning_rate", "loss_scale")
            if parts
        }
        both = {"loss": losses, "skipped": skipped}
        return totals | {
            name: np.repeat(array[:, None], len(parts), 1) for name, array in both.items()
        }
