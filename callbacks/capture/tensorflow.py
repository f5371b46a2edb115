"""Capture on the TensorFlow backend: a ring buffer of variables, written inside the step.

Variables can be written from inside any control flow that an optimizer's update may stand in
(the loop of `steps_per_execution`, the branch of a loss scale or of accumulated gradients), with
XLA and without, and stay on the device until they are read.

Keras internals, besides those of `listener`: the optimizer's `_all_reduce_sum_gradients`, which
returns the gradients that are applied where there are several replicas.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_initkit.callbacks.capture.listener import Capture, Watch
from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.measures.reductions import FoldedReductions, Reductions

# What each replica measures of its part of the batch; the root mean square over them is recorded.
_OF_REPLICAS = ("clip_ratio", "local_norm")


class TensorFlowCapture(Capture):
    """Listens to the optimizers of a model. See `listener.Capture`."""

    _hears_arguments = False
    _reductions: Reductions = FoldedReductions()

    def __init__(self, model: Any, watch: Watch) -> None:
        self._strategy = model.distribute_strategy
        self.replicas = self._strategy.num_replicas_in_sync
        # Of the processes that train together, the chief does.
        self.writes = self._strategy.extended.should_save_summary
        self._rows_read = 0
        self._waiting: list[int] = []
        if not model.jit_compile:
            self._reductions = GraphReductions()
        super().__init__(model, watch)

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        if self.several:
            self._waiting.append(call.last_step)
            if self.variables:
                components = zip(*map(self._on_replicas, (self._count, self._table)), strict=True)
                for count, table in components:
                    nothing = np.full(self._row.size, np.nan, np.float32)
                    _write_row(table, count % self.capacity, nothing)
                    count.assign_add(1)

    def _take(self) -> tuple[np.ndarray, np.ndarray]:
        count = int(self._on_replicas(self._count)[0])
        # More updates than there were batches may have come round.
        places = np.arange(max(self._rows_read, count - self.capacity), count) % self.capacity
        self._rows_read = count
        tables = np.array([table.numpy()[places] for table in self._on_replicas(self._table)])
        steps, rows = self._on_replicas(self._steps)[0].numpy()[places], tables[0]
        for name in filter(self._row.statistics.__contains__, _OF_REPLICAS):
            own = self._row.places(name)
            rows[:, own] = np.sqrt(np.mean(np.square(tables[:, :, own], dtype=np.float64), axis=0))
        if not self.several:
            return steps, rows
        steps, self._waiting = np.array(self._waiting, np.int64), []
        heard = ~np.isnan(rows[:, self._row.places("nonfinite")]).all(axis=1)
        return steps[heard], rows[heard]

    def _iterations(self, optimizer: Any) -> int:
        return int(self._on_replicas(optimizer._iterations.value)[0])

    def _on_replicas(self, variable: Any) -> Any:
        """A variable on each of this process's devices."""
        return self._strategy.experimental_local_results(variable)

    def _make_buffer(self) -> None:
        # Here the optimizer goes on with the backend's variables.
        self._columns |= {id(v.value): i for i, v in enumerate(self.variables)}
        table = np.full((self.capacity, self._row.size), np.nan, np.float32)
        with tf.init_scope(), self._strategy.scope():
            self._table = _replica_variable(table)
            self._steps = _replica_variable(np.zeros(self.capacity, np.int64))
            self._count = _replica_variable(np.array(len(self._waiting), np.int64))

    def _methods(self, leaf: int) -> dict[str, Callable[..., Any]]:
        reduce = self.leaves[leaf].optimizer._all_reduce_sum_gradients

        def all_reduce_sum_gradients(grads_and_vars: Any) -> Any:
            reduced = reduce(grads_and_vars)
            self._try(self._hear, leaf, *zip(*reduced, strict=True))
            return reduced

        return {
            **super()._methods(leaf),
            "_all_reduce_sum_gradients": all_reduce_sum_gradients,
        }

    def _hear(self, leaf: int, grads: Sequence[Any], variables: Sequence[Any]) -> None:
        super()._hear(leaf, grads, variables)
        if self.replicas == len(self._on_replicas(self._count)):
            return  # `_take` sees them all
        measured = self._update(leaf).measured
        for name in filter(measured.__contains__, _OF_REPLICAS):
            squares = tf.square(tf.cast(measured[name], tf.float64))
            mean = tf.distribute.get_replica_context().all_reduce("MEAN", squares)
            measured[name] = tf.cast(tf.sqrt(mean), tf.float32)

    def _loss_is_known_in_step(self) -> bool:
        # Keras's own `train_step` adds to them before it calls the optimizer.
        return self._loss is not None and not self.own_step and self.replicas == 1

    def _value(self, variable: Any) -> Any:
        return tf.identity(variable.value)

    def _is_dense(self, gradient: Any) -> bool:
        return not isinstance(gradient, tf.IndexedSlices)

    def _stack(self, tensors: Sequence[Any]) -> Any:
        if self._is_dense(tensors[0]):
            return super()._stack(tensors)
        return super()._stack(list(map(_sum_duplicate_rows, tensors)))

    def _shares(self, gradients: Sequence[Any]) -> Any:
        if all(map(self._is_dense, gradients)):
            return None
        return tf.stack([1.0 if self._is_dense(g) else _share_of_rows(g) for g in gradients])

    def _store(self, row: Any, mine: np.ndarray | None, step: Any) -> None:
        if mine is None:
            # At the end of the data the step runs as far as it does without them.
            with tf.control_dependencies([row]):
                index = self._count % self.capacity
                _write_row(self._steps, index, tf.cast(step, tf.int64))
                _write_row(self._table, index, row)
                self._count.assign_add(1)
        else:
            index = (self._count - 1) % self.capacity
            _write_row(self._table, index, tf.where(mine, row, self._table[index]))


class GraphReductions(Reductions):
    """Without XLA each operation is a pass of its own: as few, and with as few copies, as can be.

    `l2_loss` squares and sums in one operation. Many tensors are alone in their stack.
    """

    def squares(self, stacks: Sequence[Any]) -> Any:
        """Sums of squares."""
        halves = _each(stacks, tf.nn.l2_loss, lambda x: tf.reduce_sum(tf.square(x), axis=1) / 2)
        return 2 * halves

    def largest(self, stacks: Sequence[Any]) -> Any:
        """Largest magnitudes."""
        highest = _each(stacks, tf.reduce_max, lambda x: tf.reduce_max(x, axis=1))
        lowest = _each(stacks, tf.reduce_min, lambda x: tf.reduce_min(x, axis=1))
        return tf.maximum(highest, -lowest)

    def choose(
        self,
        ordinary: Any,
        plain: tuple[Any, ...],
        careful: Callable[[Sequence[Any]], tuple[Any, ...]],
        stacks: Sequence[Any],
    ) -> tuple[Any, ...]:
        """Return `plain` if `ordinary`; else `careful(stacks)`."""
        if tf.executing_eagerly():
            return super().choose(ordinary, plain, careful, stacks)
        # `tf.cond` becomes part of the graph, all of whose nodes are visited in every step, be
        # they of the branch that is taken or not; this operation calls the one or the other.
        count, inputs = len(plain), [*plain, *stacks]
        signature = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
        branches = [
            tf.function(branch, autograph=False).get_concrete_function(*signature)
            for branch in (lambda *x: x[:count], lambda *x: careful(x[count:]))
        ]
        chosen = tf.raw_ops.StatelessIf(
            cond=ordinary,
            input=inputs,
            Tout=[tensor.dtype for tensor in plain],
            then_branch=branches[0],
            else_branch=branches[1],
        )
        return tuple(tf.ensure_shape(x, like.shape) for x, like in zip(chosen, plain, strict=True))


def _each(stacks: Sequence[Any], one: Callable[[Any], Any], many: Callable[[Any], Any]) -> Any:
    """Reduce stacks: those of one tensor to a number, others to an array; all in one array."""
    parts: list[Any] = []
    for is_one, group in itertools.groupby(stacks, lambda stack: stack.shape[0] == 1):
        results = [one(stack) if is_one else many(stack) for stack in group]
        parts += [tf.stack(results)] if is_one else results
    return tf.concat(parts, axis=0)


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
    updates = tf.expand_dims(row, 0)
    tf.raw_ops.ResourceScatterNdUpdate(ref=variable.handle, indices=[[index]], updates=updates)


def _share_of_rows(gradient: Any) -> Any:
    rows, all_rows = tf.shape(gradient.indices)[0], gradient.dense_shape[0]
    return tf.cast(rows, tf.float32) / tf.cast(all_rows, tf.float32)


def _sum_duplicate_rows(gradient: Any) -> Any:
    """Rows of a sparse gradient, those of one index summed; as many zero rows take their place."""
    order = tf.argsort(gradient.indices)
    indices = tf.gather(gradient.indices, order)
    starts = tf.cast(indices[1:] != indices[:-1], tf.int32)
    segments = tf.concat([[0], tf.cumsum(starts)], axis=0)
    rows = tf.gather(tf.cast(gradient.values, tf.float32), order)
    return tf.math.unsorted_segment_sum(rows, segments, tf.shape(indices)[0])
