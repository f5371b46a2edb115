"""Turning updates into rows, stored on the device."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_initkit.callbacks.capture.backend import Storage
from keras_initkit.callbacks.capture.measure import (
    Plan,
    Update,
    make_plan,
    measure_gradients,
    measure_weights,
    sample_gradients,
)
from keras_initkit.callbacks.capture.model_parts import Leaf, Target, frozen_layers
from keras_initkit.callbacks.capture.watch import (
    Watch,
    Watched,
    choose_capacity,
    watch_optimizer,
)


class UpdateRecorder:
    """Measures updates, and stores a row of each: `begin`, `measure`, `finish`. See `Capture`.

    An optimizer is built for its variables at its first update at the latest, when all layers that
    its step calls are built. So the columns are settled then, and hold for as long as it does.

    Attributes:
        heard: For the `id` of each optimizer that has made an update, what is recorded of it.
        given: For the same, the `id`s of the variables that it was given; None for all.
        frozen: Paths of the layers that were frozen when the last update was traced or run.
    """

    def __init__(self, target: Target, watch: Watch, storage: Storage) -> None:
        self.heard: dict[int, Watched] = {}
        self.given: dict[int, set[int] | None] = {}
        self.frozen: tuple[str, ...] = ()
        self._target = target
        self._watch = watch
        self._arrays = storage.arrays
        self._storage = storage
        self._watched: dict[int, Watched] = {}
        self._columns: dict[int, dict[int, int]] = {}
        self._plans: dict[Any, Plan] = {}
        self._loss_sums = target.loss_sums if storage.has_loss else ()

    def meet_optimizers(self) -> None:
        """Prepare for the updates of all built optimizers."""
        for leaf in self._target.leaves:
            if leaf.optimizer.built:
                self._meet(leaf.optimizer)

    def _meet(self, optimizer: Any) -> Watched:
        """Prepare for the updates of a built optimizer."""
        key = id(optimizer)
        if key not in self._watched:
            storage = self._storage
            watched = watch_optimizer(
                self._target, optimizer, self._watch, storage.replicas, storage.has_loss
            )
            self._columns[key] = {
                id(known): column
                for column, variable in enumerate(watched.variables)
                for known in (variable, self._arrays.handle(variable))
            }
            if not storage.capacity:
                storage.capacity = choose_capacity(self._target, watched.row)
            storage.allocate(key, watched.row)
            self._watched[key] = watched
        return self._watched[key]

    def note_given(self, leaf: Leaf, variables: Sequence[Any] | None) -> None:
        """Note which variables an optimizer is given, with gradients or without."""
        given = self.given.setdefault(id(leaf.optimizer), set())
        if variables is None or given is None:
            self.given[id(leaf.optimizer)] = None
        else:
            given.update(map(id, variables))

    def given_columns(self, optimizer: int) -> list[int]:
        """Return which variables in its row an optimizer was given."""
        given, count = self.given[optimizer], len(self._watched[optimizer].variables)
        if given is None:
            return list(range(count))
        return sorted({c for known, c in self._columns[optimizer].items() if known in given})

    def begin(self, leaf: Leaf, gradients: Sequence[Any]) -> Update:
        """Keep the weights before an update, if they are wanted."""
        watched = self.heard[id(leaf.optimizer)] = self._meet(leaf.optimizer)
        self.frozen = frozen_layers(self._target.model)
        wanted = {"weight_norm", "update_norm"} & set(watched.row.statistics)
        before = self._arrays.weights(watched.variables, keep=True) if wanted else []
        return Update(leaf, watched, list(gradients), before)

    def measure(self, update: Update, clipped: Any, applied: Any, variables: Sequence[Any]) -> None:
        """Measure the gradients of an update."""
        update.clipped, update.applied = clipped, applied
        update.plan = plan = self._plan(update, variables)
        if plan.columns:
            update.statistics = measure_gradients(update, self._arrays)
            if self._watch.sample_size:
                sizes = update.watched.row.samples
                update.samples = sample_gradients(applied, plan, sizes, self._arrays)

    def finish(self, update: Update, learning_rate: Any) -> None:
        """Store the row of a finished update."""
        watched, optimizer = update.watched, update.leaf.optimizer
        if update.before and update.plan.columns:
            after: list[Any] = []
            if "update_norm" in watched.row.statistics:
                after = self._arrays.weights(watched.variables)
            update.statistics |= measure_weights(update, after, self._arrays)
        totals = [learning_rate, self._storage.loss_scale(update.leaf)]
        totals += [variable.value for variable in self._loss_sums]
        row = self._assemble(update, totals)
        self._storage.store(id(optimizer), row, optimizer.iterations)

    def _plan(self, update: Update, variables: Sequence[Any]) -> Plan:
        optimizer = id(update.leaf.optimizer)
        key = optimizer, tuple(map(id, variables)), tuple(map(type, update.applied))
        if key not in self._plans:
            known = self._columns[optimizer]
            columns = {
                place: known[id(variable)]
                for place, variable in enumerate(variables)
                if id(variable) in known
            }
            self._plans[key] = make_plan(update.applied, columns, self._arrays)
        return self._plans[key]

    def _assemble(self, update: Update, totals: Sequence[Any]) -> Any:
        """Bring an update's numbers into the order of a row."""
        row, columns = update.watched.row, update.plan.columns
        numbers = [update.statistics[name] for name in row.statistics if columns]
        numbers.append(ops.stack(list(map(_as_scalar, [*totals, math.nan]))))
        ordered = self._arrays.elements(ops.concatenate(numbers, axis=0), row.order(columns))
        if not sum(row.samples):
            return ordered
        samples = update.samples or [np.full(sum(row.samples), np.nan, np.float32)]
        return ops.concatenate([ordered, *(array for array in samples if array.shape[0])], axis=0)


def _as_scalar(number: Any) -> Any:
    """Return a number as a tensor; one of Python's without a copy to a GPU, which waits for it."""
    if isinstance(number, float):
        return ops.zeros((), "float32") + number
    return ops.cast(number, "float32")
