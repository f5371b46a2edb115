"""Capture on the JAX backend: two optimizer variables that exist for one call.

A JAX training step is a pure function: what is to come out of it must be part of its state. For
a recorded step the optimizer has two variables more, a row of statistics and its step. They are
handed in with the state, assigned where the update is made (inside any condition: Keras threads
optimizer variables through it), and taken off the state that comes out. The model's own state
never holds them, and the rows stay on the device until they are read.

Keras internals, besides those of `listener`: the optimizer's list `_variables`; the model's
`_make_function`, which is given the compiled step, `_get_state_sharding_spec`, which says on which
devices its state is to be, and `_jax_state`, which holds the state during an epoch.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np
from keras import ops

from keras_initkit.callbacks.capture.listener import Capture, Watch
from keras_initkit.callbacks.capture.model_parts import Leaf
from keras_initkit.callbacks.capture.recorded_step import Call, replaced_methods

_NO_UPDATE = -1


class JaxCapture(Capture):
    """Listens to the optimizers of a model. See `listener.Capture`."""

    def __init__(self, model: Any, watch: Watch) -> None:
        self._rows: list[tuple[Any, Any, int, Any]] = []
        self._next_step = 0
        self._shardings: Any = None
        super().__init__(model, watch)

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        self._next_step = call.first_step

    def end_call(self, call: Call, result: Any) -> None:
        """Take what the training function has returned."""
        logs, (_, _, _, metrics) = result
        self._metrics = metrics
        super().end_call(call, logs)

    @contextlib.contextmanager
    def instrumenting(self) -> Iterator[None]:
        """Have the training function carry the row through its state."""
        make = self.model._make_function

        def make_function(step_function: Any, *args: Any, **kwargs: Any) -> Any:
            return make(self._carrying(step_function), *args, **kwargs)

        methods: dict[str, Callable[..., Any]] = {"_make_function": make_function}
        if self._shardings is not None:
            methods["_get_state_sharding_spec"] = self._shardings_with_row()
        with self.listening(), replaced_methods(self.model, **methods):
            yield

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the updates that are traced or run inside the context."""
        self._try(self._meet_variables)
        variables = self._carrier._variables
        variables.extend(self._row_variables)
        try:
            with super().listening():
                yield
        finally:
            own = set(map(id, self._row_variables))
            variables[:] = [variable for variable in variables if id(variable) not in own]

    @property
    def _carrier(self) -> Any:
        """The optimizer whose state takes the row along."""
        return getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)

    def _take(self) -> tuple[np.ndarray, np.ndarray]:
        taken, self._rows = self._rows, []
        if not taken:
            return np.zeros(0, np.int64), np.zeros((0, self._row.size), np.float32)
        rows = self._to_host([row for row, *_ in taken])
        steps = self._to_host([step for _, step, *_ in taken]).astype(np.int64)
        made = steps != _NO_UPDATE
        if self.several:
            steps = np.array([step for *_, step, _ in taken], np.int64)
        for i, leaf in enumerate(self.leaves):
            if leaf.loss_scale is not None:
                scales_of_leaf = [scales[i] for *_, scales in taken]
                rows[:, self._row.loss_scale(i)] = self._to_host(scales_of_leaf)
        return steps[made], rows[made]

    def _to_host(self, arrays: Sequence[Any]) -> np.ndarray:
        # Stacked on the device, each number of arrays would be compiled for.
        return np.stack(jax.device_get(list(arrays)))

    def _iterations(self, optimizer: Any) -> int:
        if self.model._jax_state_synced:
            return super()._iterations(optimizer)
        # During an epoch the variables are empty, and the model holds their values.
        place = self._place(optimizer._iterations)
        return int(self.model._jax_state["optimizer_variables"][place])

    def _now(self, variable: Any) -> Any:
        places = [id(v) for v in self.model.metrics_variables]
        return jax.numpy.copy(self._metrics[places.index(id(variable))])

    def _loss_scale(self, leaf: Leaf) -> Any:
        if leaf.loss_scale is None:
            return super()._loss_scale(leaf)
        # It is no variable of the state that the inner optimizer is given: see `_carrying`.
        return np.float32("nan")

    def _make_buffer(self) -> None:
        empty = np.full(self._row.size, np.nan, np.float32)
        self._empty = (empty, np.array(_NO_UPDATE, np.int32))
        self._row_variables = [
            keras.Variable(value, dtype=value.dtype.name, trainable=False) for value in self._empty
        ]
        if keras.distribution.distribution() is not None:
            self._shardings = self.model._get_state_sharding_spec()

    def _shardings_with_row(self) -> Callable[[], Any]:
        """What says on which devices the state is to be; in an epoch the variables cannot tell."""
        others = vars(self.model).get("_get_state_sharding_spec", lambda: self._shardings)

        def shardings() -> Any:
            trainable, other, optimizer, metrics = others()
            place = self._place(self._row_variables[0])
            row = [variable.value.sharding for variable in self._row_variables]
            return trainable, other, [*optimizer[:place], *row, *optimizer[place:]], metrics

        return shardings

    def _store(self, row: Any, mine: np.ndarray | None, step: Any) -> None:
        kept, step_kept = self._row_variables
        step = ops.cast(step, "int32")
        if mine is not None:
            row = ops.where(mine, row, kept.value)
        elif self.own_step:  # which may make several updates: the first is kept
            is_first = step_kept.value == _NO_UPDATE
            row = ops.where(is_first, row, kept.value)
            step = ops.where(is_first, step, step_kept.value)
        kept.assign(row)
        step_kept.assign(step)

    def _carrying(self, step_function: Callable[..., Any]) -> Callable[..., Any]:
        def step(state: Any, data: Any) -> Any:
            trainable, other, optimizer, metrics = state
            place = self._place(self._row_variables[0])
            scales = [self._copied_scale(leaf, optimizer) for leaf in self.leaves]
            optimizer = [*optimizer[:place], *self._empty, *optimizer[place:]]
            logs, (trainable, other, optimizer, metrics) = step_function(
                (trainable, other, optimizer, metrics), data
            )
            row, index = optimizer[place : place + 2]
            self._rows.append((row, index, self._next_step, scales))
            self._next_step += 1
            optimizer = [*optimizer[:place], *optimizer[place + 2 :]]
            return logs, (trainable, other, optimizer, metrics)

        return step

    def _place(self, variable: Any) -> int:
        """Place of a variable in the state of the model's optimizer."""
        return [id(v) for v in self.model.optimizer.variables].index(id(variable))

    def _copied_scale(self, leaf: Leaf, optimizer: Any) -> Any:
        """The loss scale of a step, before the step is given its only copy."""
        if leaf.loss_scale is None:
            return None
        return jax.numpy.copy(optimizer[self._place(leaf.loss_scale.dynamic_scale)])
