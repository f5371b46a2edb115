"""Listening to an optimizer while it updates a model: what all backends have in common.

Keras internals, all methods of `keras.optimizers.Optimizer`, which every backend's optimizers call
once an update:

- `_clip_gradients(grads)`: an update begins; the weights are as yet untouched;
- `_backend_update_step(grads, variables, learning_rate)`: is given the gradients that are
  applied (unscaled, accumulated, clipped), and returns when the update is done.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_initkit.callbacks.capture.recorded_step import TrainFunction, replaced_methods
from keras_initkit.gradient_statistics import (
    GradientStatistics,
    gradient_statistics,
    norms,
    sum_of_squares,
)

# Tensors of one shape are measured together up to this size, so that many small layers cost few
# operations, and big ones are not copied.
_SMALL = 4096


class _Heard(NamedTuple):
    """Columns of variables, in groups that are measured together, and their gradients' figures."""

    columns: list[list[int]]
    statistics: GradientStatistics


class OptimizerListener:
    """Measures each update that is traced or run. The base of every `recorded_step.Capture`.

    Args:
        model: A compiled `keras.Model`.
    """

    # Whether the arguments of `_backend_update_step` are what is applied.
    _hears_arguments = True

    def __init__(self, model: Any) -> None:
        self.functions: dict[tuple[Any, ...], TrainFunction] = {}
        self.error: Exception | None = None
        self.variables: list[Any] = []
        # A LossScaleOptimizer hands unscaled gradients to its inner optimizer, or skips the step.
        self._optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        self.batches_per_update: int = self._optimizer.gradient_accumulation_steps or 1
        # A loss scale skips updates, and a custom step may make several of a batch, or none.
        own_step = type(model).train_step is not keras.Model.train_step
        self.steady = self._optimizer is model.optimizer and not own_step
        self._model = model
        self._columns: dict[int, int] = {}
        self._before: list[Any] = []
        self._heard: _Heard | None = None
        self._meet_variables()

    def batches_done(self) -> int:
        """Number of batches whose gradients the optimizer has been given so far."""
        return int(ops.convert_to_numpy(self._optimizer._iterations))

    def instrumenting(self) -> contextlib.AbstractContextManager[None]:
        """Prepare the training function that is made inside the context."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the updates that are traced or run inside the context."""
        clip, update = self._optimizer._clip_gradients, self._optimizer._backend_update_step

        def clip_gradients(grads: Any) -> Any:
            self._try(self._begin)
            return clip(grads)

        def backend_update_step(grads: Any, variables: Any, *args: Any) -> Any:
            if self._hears_arguments:
                self._try(self._hear, grads, variables)
            result = update(grads, variables, *args)
            self._try(self._finish)
            return result

        with replaced_methods(
            self._optimizer,
            _clip_gradients=clip_gradients,
            _backend_update_step=backend_update_step,
        ):
            yield

    # What a backend adds.

    def _make_buffer(self) -> None:
        """Make what rows are kept in, for `self.variables`."""

    def _value(self, variable: Any) -> Any:
        """Value of a weight now, which a later update leaves as it is."""
        return variable.value

    def _is_dense(self, gradient: Any) -> bool:
        """Whether a gradient has all the elements of its variable."""
        return True

    def _dense(self, gradient: Any) -> tuple[Any, Any]:
        """A gradient as an array, and the share of the variable's elements that it has."""
        return gradient, 1.0

    def _squares(self, stack: Any) -> Any:
        """Sum of squares of each tensor of a stack."""
        return sum_of_squares(stack)

    def _keep(self, columns: list[int], measured: Any) -> None:
        """Keep the row of an update: float32 (columns, len(RECORDED)) for these columns."""
        raise NotImplementedError

    # An update.

    def _try(self, action: Callable[..., None], *args: Any) -> None:
        """Never let what fails in here reach the training."""
        if self.error is None:
            try:
                action(*args)
            except Exception as error:
                self.error = error

    def _meet_variables(self) -> None:
        """A model without an input shape has its variables only in its first step."""
        if not self.variables and self._model.trainable_variables:
            self.variables = list(self._model.trainable_variables)
            self._columns = {id(variable): i for i, variable in enumerate(self.variables)}
            self._make_buffer()

    def _begin(self) -> None:
        self._meet_variables()
        self._before = [self._value(variable) for variable in self.variables]

    def _hear(self, grads: Sequence[Any], variables: Sequence[Any]) -> None:
        known = [
            (gradient, self._columns[id(variable)])
            for gradient, variable in zip(grads, variables, strict=True)
            if gradient is not None and id(variable) in self._columns
        ]
        groups: dict[Any, list[tuple[Any, int]]] = {}
        for gradient, column in known:
            groups.setdefault(self._group(gradient, column), []).append((gradient, column))
        stacks, shares = [], []
        for group in groups.values():
            arrays = [self._dense(gradient) for gradient, _ in group]
            stacks.append(_stack([array for array, _ in arrays]))
            shares.extend([ops.cast(share, "float32") for _, share in arrays])
        self._heard = None
        if known:
            statistics, share = gradient_statistics(stacks, self._squares), ops.stack(shares)
            # What a sparse gradient does not have is zero.
            statistics = statistics._replace(
                mean_abs=statistics.mean_abs * share,
                zeros=1 - (1 - statistics.zeros) * share,
            )
            columns = [[column for _, column in group] for group in groups.values()]
            self._heard = _Heard(columns, statistics)

    def _group(self, gradient: Any, column: int) -> Any:
        """Small gradients of the same shape are measured together, others alone."""
        shape = tuple(self.variables[column].shape)
        if math.prod(shape) > _SMALL or not self._is_dense(gradient):
            return column
        return shape, str(gradient.dtype)

    def _finish(self) -> None:
        if self._heard is None:
            self._keep([], None)
            return
        columns, statistics = self._heard
        before = [_stack([self._before[c] for c in group]) for group in columns]
        after = [_stack([self._value(self.variables[c]) for c in group]) for group in columns]
        updates = [b - a for a, b in zip(before, after, strict=True)]
        measured = [*statistics, norms(before, self._squares), norms(updates, self._squares)]
        self._before, self._heard = [], None
        self._keep([c for group in columns for c in group], ops.stack(measured, axis=1))


def _stack(tensors: Sequence[Any]) -> Any:
    """Flatten tensors of one size into an array (k, size)."""
    if len(tensors) == 1:
        return ops.reshape(tensors[0], (1, -1))
    return ops.stack([ops.reshape(tensor, (-1,)) for tensor in tensors])
