"""Turning updates into rows, stored on the device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_initkit.callbacks.capture.backend import Arrays, Storage
from keras_initkit.callbacks.capture.loss import loss_sums
from keras_initkit.callbacks.capture.measure import (
    Gradients,
    Measured,
    Plan,
    make_plan,
    measure_gradients,
    measure_weights,
    sample_gradients,
)
from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.watch import Watch, Watched, watch_model


class UpdateRecorder:
    """Measures updates, and stores a row of each.

    Args:
        target: The model and its optimizers.
        watch: The request.
        arrays: The backend's operations.
        storage: The backend's place for rows.

    Attributes:
        watched: The recorded variables and statistics; None until the model is built.
        optimizer_of: For each heard column, the number of its optimizer.
    """

    def __init__(self, target: Target, watch: Watch, arrays: Arrays, storage: Storage) -> None:
        self.watched: Watched | None = None
        self.optimizer_of: dict[int, int] = {}
        self._target = target
        self._watch = watch
        self._arrays = arrays
        self._storage = storage
        self._columns: dict[int, int] = {}
        self._plans: dict[Any, Plan] = {}
        self._losses = (loss_sums(target.model) or ()) if storage.has_loss else ()

    def meet_variables(self) -> None:
        """Prepare for the variables; a model without an input shape has them in its first step."""
        if self.watched is not None or not self._target.model.trainable_variables:
            return
        storage = self._storage
        watched = watch_model(self._target, self._watch, storage.replicas, storage.has_loss)
        for column, variable in enumerate(watched.variables):
            self._columns[id(variable)] = column
            self._columns[id(self._arrays.handle(variable))] = column
        storage.allocate(watched.row, watched.capacity)
        self.watched = watched

    def begin(self) -> list[Any]:
        """Return values of the weights before an update; none if they are not wanted."""
        self.meet_variables()
        if {"weight_norm", "update_norm"} & set(self._known().row.statistics):
            return list(map(self._arrays.kept_weight, self._known().variables))
        return []

    def measure(self, leaf: int, gradients: Gradients, variables: Sequence[Any]) -> Measured:
        """Measure the gradients of an update."""
        watched, arrays = self._known(), self._arrays
        plan = self._plan(leaf, gradients.applied, variables)
        if not plan.columns:
            return Measured()
        statistics = measure_gradients(gradients, plan, watched, arrays)
        samples: list[Any] = []
        if self._watch.sample_size:
            samples = sample_gradients(gradients.applied, plan, watched.row.samples, arrays)
        return Measured(plan, statistics, samples)

    def finish(self, leaf: int, before: list[Any], measured: Measured, learning_rate: Any) -> None:
        """Store the row of a finished update."""
        watched, plan, statistics = self._known(), measured.plan, measured.statistics
        if self._target.several and not plan.columns:
            return
        if before and plan.columns:
            after: list[Any] = []
            if "update_norm" in watched.row.statistics:
                after = list(map(self._arrays.weight, watched.variables))
            statistics = statistics | measure_weights(before, after, plan, self._arrays)
        totals = [learning_rate, self._storage.loss_scale(self._target.leaves[leaf])]
        totals += [variable.value for variable in self._losses]
        row = self._assemble(leaf, measured._replace(statistics=statistics), totals)
        mine = watched.row.mask(plan.columns, leaf) if self._target.several else None
        self._storage.store(row, mine, self._target.leaves[leaf].optimizer.iterations)

    def _known(self) -> Watched:
        assert self.watched is not None
        return self.watched

    def _plan(self, leaf: int, gradients: Sequence[Any], variables: Sequence[Any]) -> Plan:
        key = leaf, tuple(map(id, variables)), tuple(map(type, gradients))
        if key not in self._plans:
            columns = {
                place: self._columns[id(variable)]
                for place, variable in enumerate(variables)
                if id(variable) in self._columns
            }
            self._plans[key] = plan = make_plan(gradients, columns, self._arrays)
            self.optimizer_of |= dict.fromkeys(plan.columns, leaf)
        return self._plans[key]

    def _assemble(self, leaf: int, measured: Measured, totals: Sequence[Any]) -> Any:
        """Bring an update's numbers into the order of a row."""
        row, columns = self._known().row, measured.plan.columns
        last = [*totals, np.float32("nan")]
        numbers = [measured.statistics[name] for name in row.statistics if columns]
        numbers.append(ops.stack([ops.cast(number, "float32") for number in last]))
        ordered = self._arrays.elements(ops.concatenate(numbers, axis=0), row.order(columns, leaf))
        if not sum(row.samples):
            return ordered
        samples = measured.samples or [np.full(sum(row.samples), np.nan, np.float32)]
        return ops.concatenate([ordered, *(array for array in samples if array.shape[0])], axis=0)
