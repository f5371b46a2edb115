"""Capture on the JAX backend: optimizer variables, for one call.

A JAX training step is a pure function: its results must be part of its state. For a recorded step
the optimizer has variables more, the step and a row of statistics of each optimizer in it. They are
handed in with the state, assigned where the update is made (inside any condition: Keras threads
optimizer variables through it), and taken off the state that comes out. The model's own state
never holds them, and the rows stay on the device until they are read.

The numbers of the batch go the same way with the state of the model's loss metric: they are known
where the loss is computed, inside the function that JAX differentiates. Of a step of the user's,
that function has results of the user's alone: the numbers are sent to the host as it runs.

Keras internals: the list `_variables` of the optimizer, and of the model's `_loss_tracker`; the
model's `_make_function` (compiles the step), `_get_state_sharding_spec` (the devices of its state)
and `_jax_state` (the state during an epoch).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.replacing import replaced_methods
from keras_initkit.callbacks.capture.backend import NOTHING_STORED, Arrays, Storage, Stored
from keras_initkit.callbacks.capture.batches import BATCH_SIZE
from keras_initkit.callbacks.capture.model_parts import Leaf, Target
from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.capture.row import RowLayout
from keras_initkit.callbacks.measures.jax import measure_at_once, measure_on_cpu

_NO_UPDATE = -1


class _OnDevice(NamedTuple):
    """The rows of a step on the device."""

    step: Any  # iterations of the optimizer
    rows: list[Any]  # of each optimizer
    batch: Any  # numbers of the batch, NaN if none were heard
    number: int  # the call's step
    scales: dict[int, Any]  # loss scale of each optimizer that has one


class _Places(NamedTuple):
    """Places in the state of a recorded step."""

    rows: int  # of the first variable that it has more
    batch: int | None  # None if it is not carried
    scales: dict[int, int]  # of the loss scale of each optimizer that has one


class JaxStorage(Storage):
    """Rows, returned by the training function with the state. See `backend.Storage`."""

    # What is known inside of a function that is differentiated is not to be used after it.
    hears_own_steps = False

    def __init__(self, target: Target) -> None:
        on_cpu = jax.default_backend() == "cpu"
        super().__init__(target, Arrays(measure_on_cpu if on_cpu else measure_at_once))
        self._rows: list[_OnDevice] = []
        self._next_step = 0
        # The variables that the state has more, and the values that they begin a step with: the
        # step, and the row of each optimizer.
        self._empty = [np.array(_NO_UPDATE, np.int32)]
        self._variables = [_make_variable(self._empty[0])]
        self._places: dict[int, int] = {}
        self._shardings: Any = None
        if keras.distribution.distribution() is not None:  # during an epoch they are not known
            self._shardings = target.model._get_state_sharding_spec()
        self._metrics: Any = None
        # The metric with a state that takes the batch along, if there is one.
        tracker = getattr(target.model, "_loss_tracker", None)
        is_there = any(metric is tracker for metric in target.model.metrics)
        is_there &= self._shardings is None and not target.own_step
        self._tracker = tracker if is_there else None
        self._sent: list[Any] = []  # numbers of batches, by steps of the user's
        self._batch = _make_variable(np.full(BATCH_SIZE, np.nan, np.float32))
        self._at = _Places(0, None, {})

    def allocate(self, optimizer: int, row: RowLayout) -> None:
        """Make the variable of an optimizer's row."""
        super().allocate(optimizer, row)
        self._places[optimizer] = len(self._variables)
        self._empty.append(np.full(row.size, np.nan, np.float32))
        self._variables.append(_make_variable(self._empty[-1]))

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        self._next_step = call.first_step
        # Here a failure does not reach the step.
        model = self._target.model
        metrics = [id(v) for v in model.metrics_variables] if self.hears_batches else []
        scales = {
            id(leaf.optimizer): self._place(leaf.loss_scale.dynamic_scale)
            for leaf in self._target.leaves
            if leaf.loss_scale is not None
        }
        batch = metrics.index(id(self._batch)) if id(self._batch) in metrics else None
        self._at = _Places(self._place(self._variables[0]), batch, scales)

    def end_call(self, result: Any) -> Any:
        """Return the logs in a result of the instrumented training function."""
        logs, (_, _, _, self._metrics) = result
        return logs

    def instrumenting(self) -> contextlib.AbstractContextManager[None]:
        """Have the training function carry the row through its state."""
        model = self._target.model
        make, train = model._make_function, model.train_step

        def make_function(step_function: Any, *args: Any, **kwargs: Any) -> Any:
            return make(self._carry_row(step_function), *args, **kwargs)

        def train_step(*args: Any) -> Any:  # the model's own may have been traced, for others
            return train(*args)

        methods: dict[str, Callable[..., Any]] = {
            "_make_function": make_function,
            "train_step": train_step,
        }
        if self._shardings is not None:
            methods["_get_state_sharding_spec"] = self._shardings_with_row()
        return replaced_methods(model, **methods)

    @contextlib.contextmanager
    def carrying(self) -> Iterator[None]:
        """Have the optimizer's state take the row along inside the context."""
        optimizer = self._target.model.optimizer
        lists = [getattr(optimizer, "inner_optimizer", optimizer)._variables]
        lists[0].extend(self._variables)
        if self._tracker is not None and self.hears_batches:
            lists.append(self._tracker._variables)
            lists[1].append(self._batch)
        try:
            yield
        finally:
            own = {id(self._batch), *map(id, self._variables)}
            for variables in lists:
                variables[:] = [variable for variable in variables if id(variable) not in own]

    def store(self, optimizer: int, row: Any, step: Any) -> None:
        """Keep the row of an update in the state."""
        step_kept, kept = self._variables[0], self._variables[self._places[optimizer]]
        step = ops.cast(step, "int32")
        if self._target.own_step and not self._target.several:
            is_first = step_kept.value == _NO_UPDATE  # of several updates the first is kept
            row = ops.where(is_first, row, kept.value)
            step = ops.where(is_first, step, step_kept.value)
        kept.assign(row)
        step_kept.assign(step)

    def store_batch(self, numbers: Any) -> None:
        """Keep the numbers of the batch of the update to come in the state, or send them."""
        if self._target.own_step and self._shardings is None:
            jax.debug.callback(self._receive, numbers)
        elif self._tracker is not None:
            self._batch.assign(numbers)

    def take(self) -> Stored:
        """Return what was stored since the last call."""
        taken, self._rows = self._rows, []
        if not taken:
            return NOTHING_STORED
        steps = self.to_host([stored.step for stored in taken]).astype(np.int64)
        made = steps != _NO_UPDATE
        if self._target.several:
            steps = np.array([stored.number for stored in taken], np.int64)
        tables = {}
        for optimizer, place in self._places.items():
            tables[optimizer] = self.to_host([stored.rows[place - 1] for stored in taken])
            scales = [stored.scales.get(optimizer) for stored in taken]
            if scales[0] is not None:
                tables[optimizer][:, self._layouts[optimizer].loss_scale] = self.to_host(scales)
            tables[optimizer] = tables[optimizer][made]
        batches = self.to_host(self._take_sent(len(taken)) or [stored.batch for stored in taken])
        return Stored(steps[made], tables, batches[made])

    def _receive(self, numbers: Any) -> None:
        if len(self._sent) < self.capacity:  # a function that the user compiles sends for good
            self._sent.append(numbers)

    def _take_sent(self, count: int) -> list[Any]:
        """Return what was sent by steps, if each has sent its batch."""
        if self._target.own_step:
            jax.effects_barrier()
        sent = self._sent[:]
        self._sent.clear()
        return sent if len(sent) == count else []

    def iterations(self, optimizer: Any) -> int:
        """Count the batches with gradients given to an optimizer."""
        model = self._target.model
        if model._jax_state_synced:
            return super().iterations(optimizer)
        # During an epoch the variables are empty, and the model holds their values.
        place = self._place(optimizer._iterations)
        return int(model._jax_state["optimizer_variables"][place])

    def loss_scale(self, leaf: Leaf) -> Any:
        """Return the factor of the loss, NaN where it is copied from the state instead."""
        if leaf.loss_scale is None:
            return super().loss_scale(leaf)
        # It is no variable of the state that the inner optimizer is given: see `_carry_row`.
        return np.float32("nan")

    def metric(self, variable: Any) -> Any:
        """Return the value of a metric's variable after the call, on the device."""
        places = [id(v) for v in self._target.model.metrics_variables]
        return jax.numpy.copy(self._metrics[places.index(id(variable))])

    def to_host(self, arrays: Sequence[Any]) -> np.ndarray:
        """Move arrays of one shape to the host, stacked."""
        # Stacked on the device, each number of arrays would be compiled for.
        return np.stack(jax.device_get(list(arrays)))

    def _carry_row(self, step_function: Callable[..., Any]) -> Callable[..., Any]:
        def step(state: Any, data: Any) -> Any:
            trainable, other, optimizer, metrics = state
            place, last, of_scales = self._at
            nothing = np.full(BATCH_SIZE, np.nan, np.float32)
            if last is not None:
                metrics = [*metrics[:last], nothing, *metrics[last:]]
            # Copied before the step is given the only ones.
            scales = {key: jax.numpy.copy(optimizer[own]) for key, own in of_scales.items()}
            end = place + len(self._empty)
            optimizer = [*optimizer[:place], *self._empty, *optimizer[place:]]
            state = trainable, other, optimizer, metrics
            logs, (trainable, other, optimizer, metrics) = step_function(state, data)
            index, *rows = optimizer[place:end]
            batch = nothing
            if last is not None:
                metrics = list(metrics)
                batch = metrics.pop(last)
            self._rows.append(_OnDevice(index, rows, batch, self._next_step, scales))
            self._next_step += 1
            optimizer = [*optimizer[:place], *optimizer[end:]]
            return logs, (trainable, other, optimizer, metrics)

        return step

    def _shardings_with_row(self) -> Callable[[], Any]:
        """Return a function for the devices of the state; in an epoch the variables are empty."""
        known = vars(self._target.model).get("_get_state_sharding_spec", lambda: self._shardings)

        def shardings() -> Any:
            trainable, other, optimizer, metrics = known()
            place = self._place(self._variables[0])
            rows = [variable.value.sharding for variable in self._variables]
            return trainable, other, [*optimizer[:place], *rows, *optimizer[place:]], metrics

        return shardings

    def _place(self, variable: Any) -> int:
        """Return the place of a variable in the state of the model's optimizer."""
        return [id(v) for v in self._target.model.optimizer.variables].index(id(variable))


def _make_variable(value: np.ndarray) -> Any:
    return keras.Variable(value, dtype=value.dtype.name, trainable=False)
