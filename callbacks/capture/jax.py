"""Capture on the JAX backend: two optimizer variables that exist for one call.

A JAX training step is a pure function: what is to come out of it must be part of its state. For
a recorded step the optimizer has two variables more, a row of statistics and its step. They are
handed in with the state, assigned where the update is made (inside any condition: Keras threads
optimizer variables through it), and taken off the state that comes out. The model's own state
never holds them, and the rows stay on the device until they are read.

Keras internals, besides those of `listener`: the optimizer's list `_variables`; the model's
`_make_function`, which is given the compiled step, and `_jax_state`, which holds the state during
an epoch.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initkit.callbacks.capture.listener import OptimizerListener
from keras_initkit.callbacks.capture.recorded_step import Recorded, replaced_methods
from tensorboard_plugin_initkit.schema import RECORDED

_NO_UPDATE = -1


class JaxCapture(OptimizerListener):
    """Listens to the optimizer of a model. See `recorded_step.Capture`."""

    def __init__(self, model: Any) -> None:
        self._rows: list[tuple[Any, Any]] = []
        super().__init__(model)

    def batches_done(self) -> int:
        """Number of batches whose gradients the optimizer has been given so far."""
        if self._model._jax_state_synced:
            return super().batches_done()
        # During an epoch the variables are empty, and the model holds their values.
        for variable, value in zip(
            self._model.optimizer.variables,
            self._model._jax_state["optimizer_variables"],
            strict=True,
        ):
            if variable is self._optimizer._iterations:
                return int(value)
        raise LookupError("The optimizer's variables must hold its iterations.")

    @contextlib.contextmanager
    def instrumenting(self) -> Iterator[None]:
        """Have the training function carry the row through its state."""
        make = self._model._make_function

        def make_function(step_function: Any, *args: Any, **kwargs: Any) -> Any:
            return make(self._carrying(step_function), *args, **kwargs)

        with self.listening(), replaced_methods(self._model, _make_function=make_function):
            yield

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the updates that are traced or run inside the context."""
        self._meet_variables()
        variables = self._optimizer._variables
        variables.extend(self._row)
        try:
            with super().listening():
                yield
        finally:
            own = {id(variable) for variable in self._row}
            variables[:] = [variable for variable in variables if id(variable) not in own]

    def read(self) -> Recorded:
        """Take the updates heard since the last read from the device."""
        rows, self._rows = self._rows, []
        steps = np.array([int(step) for _, step in rows], np.int64)
        shape = (len(rows), len(self.variables), len(RECORDED))
        table = np.array([np.asarray(row) for row, _ in rows], np.float32).reshape(shape)
        made = steps != _NO_UPDATE
        values = {name: table[made][:, :, i] for i, name in enumerate(RECORDED)}
        return Recorded(steps[made], values)

    def _make_buffer(self) -> None:
        empty = np.full((len(self.variables), len(RECORDED)), np.nan, np.float32)
        self._empty = (empty, np.array(_NO_UPDATE, np.int32))
        self._row = [
            keras.Variable(value, dtype=value.dtype.name, trainable=False) for value in self._empty
        ]

    def _keep(self, columns: list[int], measured: Any) -> None:
        row, step = self._row
        if columns:
            indices = np.array(columns)[:, None]
            row.assign(ops.scatter_update(ops.array(self._empty[0]), indices, measured))
        step.assign(ops.cast(self._optimizer.iterations, "int32"))

    def _carrying(self, step_function: Callable[..., Any]) -> Callable[..., Any]:
        def step(state: Any, data: Any) -> Any:
            trainable, other, optimizer, metrics = state
            state = (trainable, other, [*optimizer, *self._empty], metrics)
            logs, (trainable, other, optimizer, metrics) = step_function(state, data)
            *optimizer, row, index = optimizer
            self._rows.append((row, index))
            return logs, (trainable, other, optimizer, metrics)

        return step
