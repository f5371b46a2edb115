"""Capture on the TensorFlow backend: a ring buffer of variables, written inside the step.

Variables can be written from inside any control flow that an optimizer's update may stand in
(the loop of `steps_per_execution`, the branch of a loss scale or of accumulated gradients), with
XLA and without, and stay on the device until they are read.

Keras internals listened to, all methods of `keras.optimizers.Optimizer`:

- `_clip_gradients(grads)`: an update begins; the weights are as yet untouched;
- `_all_reduce_sum_gradients(grads_and_vars)`: returns the gradients that are applied, after
  unscaling, accumulation, clipping and the sum over replicas;
- `_backend_update_step(grads, variables, learning_rate)`: returns when the update is done.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_initkit.callbacks.capture.recorded_step import (
    Recorded,
    TrainFunction,
    replaced_methods,
)
from keras_initkit.gradient_statistics import (
    GradientStatistics,
    gradient_statistics,
    norms,
    sum_of_squares,
)
from tensorboard_plugin_initkit.schema import RECORDED

_Gradient = tuple[Any, int]  # and its column

# Tensors of one shape are measured together up to this size, so that many small layers cost few
# operations, and big ones are not copied.
_SMALL = 4096


class TensorFlowCapture:
    """Listens to the optimizer of a model. See `recorded_step.Capture`."""

    def __init__(self, model: Any, capacity: int) -> None:
        self.functions: dict[tuple[Any, ...], TrainFunction] = {}
        self.error: Exception | None = None
        self.variables: list[Any] = []
        # A LossScaleOptimizer hands unscaled gradients to its inner optimizer, or skips the step.
        self._optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        self.batches_per_update: int = self._optimizer.gradient_accumulation_steps or 1
        self._model = model
        self._strategy = model.distribute_strategy
        self._capacity = capacity
        self._read_count = 0
        self._weights_before: list[Any] = []
        self._applied: list[_Gradient] = []
        if model.trainable_variables:
            self._make_buffer()

    def _make_buffer(self) -> None:
        self.variables = list(self._model.trainable_variables)
        self._values = [variable.value for variable in self.variables]
        self._columns = {id(value): i for i, value in enumerate(self._values)}
        with self._strategy.scope():
            shape = (self._capacity, len(RECORDED), len(self.variables))
            self._table = _replica_variable(np.zeros(shape, np.float32))
            self._steps = _replica_variable(np.zeros(self._capacity, np.int64))
            self._count = _replica_variable(np.zeros((), np.int64))

    def batches_done(self) -> int:
        """Number of batches whose gradients the optimizer has been given so far."""
        return int(self._local(self._optimizer._iterations.value))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the updates that are traced or run inside the context."""
        if self.error is not None:
            yield
            return
        clip = self._optimizer._clip_gradients
        reduce = self._optimizer._all_reduce_sum_gradients
        update = self._optimizer._backend_update_step

        def clip_gradients(grads: Any) -> Any:
            self._try(self._begin)
            return clip(grads)

        def all_reduce_sum_gradients(grads_and_vars: Any) -> Any:
            reduced = reduce(grads_and_vars)
            self._try(self._hear, reduced)
            return reduced

        def backend_update_step(*args: Any) -> Any:
            result = update(*args)
            self._try(self._finish)
            return result

        with replaced_methods(
            self._optimizer,
            _clip_gradients=clip_gradients,
            _all_reduce_sum_gradients=all_reduce_sum_gradients,
            _backend_update_step=backend_update_step,
        ):
            yield

    def _try(self, action: Callable[..., None], *args: Any) -> None:
        """Never let what fails in here reach the training."""
        if self.error is None:
            try:
                action(*args)
            except Exception as error:
                self.error = error

    def _begin(self) -> None:
        if not self.variables:
            # A model without an input shape is built in its first step.
            with tf.init_scope():
                self._make_buffer()
        self._weights_before = [tf.identity(value) for value in self._values]

    def _hear(self, grads_and_vars: Any) -> None:
        self._applied = [
            (gradient, self._columns[id(variable)])
            for gradient, variable in grads_and_vars
            if gradient is not None and id(variable) in self._columns
        ]

    def _finish(self) -> None:
        rows = tf.fill((len(self.variables), len(RECORDED)), np.float32("nan"))
        if self._applied:
            columns, measured = self._measure()
            rows = tf.tensor_scatter_nd_update(rows, [[column] for column in columns], measured)
        index = self._count % self._capacity
        _write_row(self._table, index, tf.transpose(rows))
        _write_row(self._steps, index, tf.cast(self._optimizer.iterations, tf.int64))
        self._count.assign_add(1)
        self._weights_before, self._applied = [], []

    def _measure(self) -> tuple[list[int], Any]:
        """Return columns, and their statistics, float32 (columns, len(RECORDED))."""
        groups = _grouped(self._applied)
        columns = [[column for _, column in group] for group in groups]
        before = [_stack([self._weights_before[c] for c in group]) for group in columns]
        after = [_stack([tf.identity(self._values[c]) for c in group]) for group in columns]
        updates = [b - a for a, b in zip(before, after, strict=True)]
        statistics = _statistics([[gradient for gradient, _ in group] for group in groups])
        measured = [*statistics, norms(before, _squares), norms(updates, _squares)]
        return [c for group in columns for c in group], tf.stack(measured, axis=1)

    def read(self) -> Recorded:
        """Take the updates heard since the last read from the device."""
        if not self.variables:
            return Recorded(np.zeros(0, np.int64), {})
        count = int(self._local(self._count))
        rows = np.arange(self._read_count, count) % self._capacity
        self._read_count = count
        table, steps = self._local(self._table)[rows], self._local(self._steps)[rows]
        return Recorded(steps, {name: table[:, i] for i, name in enumerate(RECORDED)})

    def _local(self, variable: Any) -> Any:
        """Value on this process's first device."""
        return self._strategy.experimental_local_results(variable)[0].numpy()


def _replica_variable(value: np.ndarray) -> Any:
    """A variable that each replica writes for itself."""
    return tf.Variable(
        value,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _write_row(variable: Any, index: Any, row: Any) -> None:
    # Variables of replicas have no scatter methods, but each replica's handle can be written.
    tf.raw_ops.ResourceScatterNdUpdate(ref=variable.handle, indices=[[index]], updates=row[None])


def _grouped(gradients: Sequence[_Gradient]) -> list[list[_Gradient]]:
    """Group gradients that are measured together: small ones of the same shape."""
    groups: dict[Any, list[_Gradient]] = {}
    for position, (gradient, column) in enumerate(gradients):
        key: Any = position
        if not isinstance(gradient, tf.IndexedSlices) and gradient.shape.is_fully_defined():
            size = gradient.shape.num_elements()
            if size <= _SMALL:
                key = (tuple(gradient.shape), gradient.dtype)
        groups.setdefault(key, []).append((gradient, column))
    return list(groups.values())


def _stack(tensors: Sequence[Any]) -> Any:
    """Flatten tensors of one size into an array (k, size)."""
    if len(tensors) == 1:
        return tf.reshape(tensors[0], (1, -1))
    return tf.stack([tf.reshape(tensor, (-1,)) for tensor in tensors])


def _squares(stack: Any) -> Any:
    """Sum of squares; of a single tensor in one operation, without a copy."""
    if stack.shape[0] == 1:
        return 2 * tf.nn.l2_loss(stack)[None]
    return sum_of_squares(stack)


def _statistics(groups: Sequence[Sequence[Any]]) -> GradientStatistics:
    stacks, shares = [], []
    for group in groups:
        share: Any = 1.0
        if not isinstance(group[0], tf.IndexedSlices):
            stack = _stack(group)
        else:
            stack = tf.reshape(_sum_duplicate_rows(group[0]), (1, -1))
            share = tf.size(stack) / tf.reduce_prod(group[0].dense_shape)
        stacks.append(stack)
        shares.extend([tf.cast(share, tf.float32)] * len(group))
    statistics = gradient_statistics(stacks, _squares)
    # All the rows that a sparse gradient does not have are zero.
    return statistics._replace(
        mean_abs=statistics.mean_abs * tf.stack(shares),
        zeros=1 - (1 - statistics.zeros) * tf.stack(shares),
    )


def _sum_duplicate_rows(gradient: Any) -> Any:
    """Rows of a sparse gradient, those of one index summed; as many zero rows take their place."""
    order = tf.argsort(gradient.indices)
    indices = tf.gather(gradient.indices, order)
    starts = tf.cast(indices[1:] != indices[:-1], tf.int32)
    segments = tf.concat([[0], tf.cumsum(starts)], axis=0)
    rows = tf.gather(tf.cast(gradient.values, tf.float32), order)
    return tf.math.unsorted_segment_sum(rows, segments, tf.shape(indices)[0])
