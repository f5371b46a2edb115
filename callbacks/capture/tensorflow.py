"""Capture on the TensorFlow backend: a ring buffer of variables, written inside the step.

Variables can be written from inside any control flow that an optimizer's update may stand in
(the loop of `steps_per_execution`, the branch of a loss scale or of accumulated gradients), with
XLA and without, and stay on the device until they are read.

Keras internals, besides those of `listener`: the optimizer's `_all_reduce_sum_gradients`, which
returns the gradients that are applied where there are several replicas.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_initkit.callbacks.capture.listener import OptimizerListener
from keras_initkit.callbacks.capture.recorded_step import Recorded, replaced_methods
from tensorboard_plugin_initkit.schema import RECORDED


class TensorFlowCapture(OptimizerListener):
    """Listens to the optimizer of a model. See `recorded_step.Capture`."""

    _hears_arguments = False

    def __init__(self, model: Any, capacity: int) -> None:
        self._strategy = model.distribute_strategy
        self._capacity = capacity
        self._read_count = 0
        super().__init__(model)

    def batches_done(self) -> int:
        """Number of batches whose gradients the optimizer has been given so far."""
        return int(self._local(self._optimizer._iterations.value))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the updates that are traced or run inside the context."""
        reduce = self._optimizer._all_reduce_sum_gradients

        def all_reduce_sum_gradients(grads_and_vars: Any) -> Any:
            reduced = reduce(grads_and_vars)
            self._try(self._hear, *zip(*reduced, strict=True))
            return reduced

        with (
            super().listening(),
            replaced_methods(self._optimizer, _all_reduce_sum_gradients=all_reduce_sum_gradients),
        ):
            yield

    def read(self) -> Recorded:
        """Take the updates heard since the last read from the device."""
        if not self.variables:
            return Recorded(np.zeros(0, np.int64), {})
        count = int(self._local(self._count))
        rows = np.arange(self._read_count, count) % self._capacity
        self._read_count = count
        table, steps = self._local(self._table)[rows], self._local(self._steps)[rows]
        return Recorded(steps, {name: table[:, :, i] for i, name in enumerate(RECORDED)})

    def _local(self, variable: Any) -> Any:
        """Value on this process's first device."""
        return self._strategy.experimental_local_results(variable)[0].numpy()

    def _make_buffer(self) -> None:
        # Here the optimizer goes on with the backend's variables.
        self._columns |= {id(v.value): i for i, v in enumerate(self.variables)}
        shape = (self._capacity, len(self.variables), len(RECORDED))
        with tf.init_scope(), self._strategy.scope():
            self._table = _replica_variable(np.zeros(shape, np.float32))
            self._steps = _replica_variable(np.zeros(self._capacity, np.int64))
            self._count = _replica_variable(np.zeros((), np.int64))

    def _value(self, variable: Any) -> Any:
        return tf.identity(variable.value)

    def _is_dense(self, gradient: Any) -> bool:
        return not isinstance(gradient, tf.IndexedSlices)

    def _dense(self, gradient: Any) -> tuple[Any, Any]:
        if self._is_dense(gradient):
            return gradient, 1.0
        rows = _sum_duplicate_rows(gradient)
        size = tf.reduce_prod(tf.cast(gradient.dense_shape, tf.float32))
        return rows, tf.cast(tf.size(rows), tf.float32) / size

    def _squares(self, stack: Any) -> Any:
        if stack.shape[0] == 1:  # in one operation, without a copy
            return 2 * tf.nn.l2_loss(stack)[None]
        return super()._squares(stack)

    def _keep(self, columns: list[int], measured: Any) -> None:
        rows = tf.fill((len(self.variables), len(RECORDED)), np.float32("nan"))
        if columns:
            rows = tf.tensor_scatter_nd_update(rows, [[column] for column in columns], measured)
        index = self._count % self._capacity
        _write_row(self._table, index, rows)
        _write_row(self._steps, index, tf.cast(self._optimizer.iterations, tf.int64))
        self._count.assign_add(1)


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


def _sum_duplicate_rows(gradient: Any) -> Any:
    """Rows of a sparse gradient, those of one index summed; as many zero rows take their place."""
    order = tf.argsort(gradient.indices)
    indices = tf.gather(gradient.indices, order)
    starts = tf.cast(indices[1:] != indices[:-1], tf.int32)
    segments = tf.concat([[0], tf.cumsum(starts)], axis=0)
    rows = tf.gather(tf.cast(gradient.values, tf.float32), order)
    return tf.math.unsorted_segment_sum(rows, segments, tf.shape(indices)[0])
