"""Turning updates into rows, stored on the device."""

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
from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.watch import Watch, Watched, watch_model


class UpdateRecorder:
    """Measures updates, and stores a row of each: `begin`, `measure`, `finish`. See `Capture`."""

    watched: Watched  # unset until the model is built: see `is_ready`

    def __init__(self, target: Target, watch: Watch, storage: Storage) -> None:
        self.is_ready = False
        self.optimizer_of: dict[int, int] = {}  # for each heard column, the optimizer's number
        self._target = target
        self._watch = watch
        self._arrays = storage.arrays
        self._storage = storage
        self._columns: dict[int, int] = {}
        self._plans: dict[Any, Plan] = {}
        self._loss_sums = target.loss_sums if storage.has_loss else ()

    def meet_variables(self) -> None:
        """Prepare for the variables; a model without an input shape has them in its first step."""
        if self.is_ready or not self._target.model.trainable_variables:
            return
        storage = self._storage
        self.watched = watch_model(self._target, self._watch, storage.replicas, storage.has_loss)
        for column, variable in enumerate(self.watched.variables):
            self._columns[id(variable)] = column
            self._columns[id(self._arrays.handle(variable))] = column
        storage.allocate(self.watched.row, self.watched.capacity)
        self.is_ready = True

    def begin(self, leaf: int, gradients: Sequence[Any]) -> Update:
        """Keep the weights before an update, if they are wanted."""
        self.meet_variables()
        wanted = {"weight_norm", "update_norm"} & set(self.watched.row.statistics)
        variables = self.watched.variables if wanted else []
        before = [self._arrays.weight(variable, keep=True) for variable in variables]
        return Update(leaf, list(gradients), before)

    def measure(self, update: Update, clipped: Any, applied: Any, variables: Sequence[Any]) -> None:
        """Measure the gradients of an update."""
        update.clipped, update.applied = clipped, applied
        update.plan = plan = self._plan(update, variables)
        if plan.columns:
            update.statistics = measure_gradients(update, self.watched, self._arrays)
            if self._watch.sample_size:
                sizes = self.watched.row.samples
                update.samples = sample_gradients(applied, plan, sizes, self._arrays)

    def finish(self, update: Update, learning_rate: Any) -> None:
        """Store the row of a finished update."""
        several, leaf = self._target.several, self._target.leaves[update.leaf]
        row, columns = self.watched.row, update.plan.columns
        if several and not columns:
            return
        if update.before and columns:
            after: list[Any] = []
            if "update_norm" in row.statistics:
                after = list(map(self._arrays.weight, self.watched.variables))
            update.statistics |= measure_weights(update, after, self._arrays)
        totals = [learning_rate, self._storage.loss_scale(leaf)]
        totals += [variable.value for variable in self._loss_sums]
        mine = row.mask(columns, update.leaf) if several else None
        self._storage.store(self._assemble(update, totals), mine, leaf.optimizer.iterations)

    def _plan(self, update: Update, variables: Sequence[Any]) -> Plan:
        key = update.leaf, tuple(map(id, variables)), tuple(map(type, update.applied))
        if key not in self._plans:
            columns = {
                place: self._columns[id(variable)]
                for place, variable in enumerate(variables)
                if id(variable) in self._columns
            }
            self._plans[key] = plan = make_plan(update.applied, columns, self._arrays)
            self.optimizer_of |= dict.fromkeys(plan.columns, update.leaf)
        return self._plans[key]

    def _assemble(self, update: Update, totals: Sequence[Any]) -> Any:
        """Bring an update's numbers into the order of a row."""
        row, columns = self.watched.row, update.plan.columns
        numbers = [update.statistics[name] for name in row.statistics if columns]
        last = [*totals, np.float32("nan")]
        numbers.append(ops.stack([ops.cast(number, "float32") for number in last]))
        order = row.order(columns, update.leaf)
        ordered = self._arrays.elements(ops.concatenate(numbers, axis=0), order)
        if not sum(row.samples):
            return ordered
        samples = update.samples or [np.full(sum(row.samples), np.nan, np.float32)]
        return ops.concatenate([ordered, *(array for array in samples if array.shape[0])], axis=0)
