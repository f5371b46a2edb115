"""Capture on the TensorFlow backend: a ring buffer of variables, written inside the step.

Variables can be written from inside any control flow around an optimizer's update (the loop of
`steps_per_execution`, the branch of a loss scale or of accumulated gradients), with XLA and
without, and stay on the device until they are read.

Keras internals: `_symbolic_build` of a model, which on other backends each `fit` begins with.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.callbacks.capture.backend import NOTHING_STORED, Arrays, Storage, Stored
from keras_initkit.callbacks.capture.batches import BATCH_SIZE
from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.capture.row import RowLayout
from keras_initkit.callbacks.measures.tensorflow import (
    measure_by_xla,
    measure_in_graph,
    measure_port,
)

# Batches that wait on the device.
_MOST_BATCHES = 64
# What each replica measures of its part of the batch; the root mean square over them is recorded.
_OF_REPLICAS = ("clip_ratio", "local_norm")


class TensorFlowArrays(Arrays):
    """Operations on tensors and sparse gradients. See `backend.Arrays`."""

    def __init__(self, target: Target) -> None:
        measure = measure_by_xla if target.model.jit_compile else measure_in_graph
        super().__init__(measure, measure_port)
        strategy = target.model.distribute_strategy
        replicas = strategy.num_replicas_in_sync
        self._has_workers = replicas > 1 and replicas > len(strategy.extended.worker_devices)

    def handle(self, variable: Any) -> Any:
        """Return the object in an optimizer's update that stands for a variable."""
        return variable.value if isinstance(variable, keras.Variable) else variable

    def weights(self, variables: Sequence[Any], keep: bool = False) -> list[Any]:
        """Return the values of weights now, safe from later updates."""
        return [tf.identity(self.handle(variable)) for variable in variables]

    def is_dense(self, gradient: Any) -> bool:
        """Check for a gradient with all the elements of its variable."""
        return not isinstance(gradient, tf.IndexedSlices)

    def shares(self, gradients: Sequence[Any]) -> Any:
        """Return the share of its variable's elements in each gradient; None if all are dense."""
        if all(map(self.is_dense, gradients)):
            return None
        return tf.stack([1.0 if self.is_dense(g) else _share_of_rows(g) for g in gradients])

    def stack(self, tensors: Sequence[Any]) -> Any:
        """Flatten k tensors of one size into an array (k, size)."""
        if self.is_dense(tensors[0]):
            return super().stack(tensors)
        return super().stack(list(map(_sum_duplicate_rows, tensors)))

    def over_workers(self, values: Any) -> Any:
        """Take the root mean square over the workers."""
        if not self._has_workers:
            return values  # `TensorFlowStorage.take` sees all replicas
        squares = tf.square(tf.cast(values, tf.float64))
        mean = tf.distribute.get_replica_context().all_reduce("MEAN", squares)
        return tf.cast(tf.sqrt(mean), tf.float32)


class TensorFlowStorage(Storage):
    """A ring buffer of variables, one for each replica. See `backend.Storage`."""

    def __init__(self, target: Target) -> None:
        super().__init__(target, TensorFlowArrays(target))
        self._strategy = target.model.distribute_strategy
        self.replicas = self._strategy.num_replicas_in_sync
        self.hears_own_steps = self.replicas == 1  # each is a thread of its own
        # Of the processes that train together, the chief does.
        self.writes = self._strategy.extended.should_save_summary
        # Keras's own `train_step` adds to them before it calls the optimizer.
        self.has_loss = bool(target.loss_sums) and not target.own_step and self.replicas == 1
        self._tables: dict[int, Any] = {}  # of each optimizer
        self._rows_read = 0
        self._waiting: list[int] = []
        rows = max(_MOST_BATCHES, target.model.steps_per_execution)
        with self._strategy.scope():
            self._count = _replica_variable(np.array(0, np.int64))
            self._batches = _replica_variable(np.full((rows, BATCH_SIZE), np.nan, np.float32))

    def build(self, iterator: Any) -> None:
        """Build optimizer and metrics as Keras does on other backends: the step is traced once.

        A function that makes variables is traced anew without them. They are left to a step of
        one's own, which may train others, and to layers that are built in the first step.
        """
        model = self._target.model
        if self.replicas > 1 or self._target.own_step or model.run_eagerly:
            return
        if model.optimizer.built or not all(layer.built for layer in layers_inside(model)):
            return
        with contextlib.suppress(Exception):  # of data that Keras's symbols cannot stand for
            data = keras.tree.map_structure(
                lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name),
                iterator.element_spec,
            )
            model._symbolic_build(data_batch=data)

    def allocate(self, optimizer: int, row: RowLayout) -> None:
        """Make room for the rows of an optimizer."""
        super().allocate(optimizer, row)

        def make_variables(strategy: Any = None) -> None:
            table = np.full((self.capacity, row.size), np.nan, np.float32)
            with tf.init_scope(), self._strategy.scope():
                self._tables[optimizer] = _replica_variable(table)
                if not self._target.several:
                    self._steps = _replica_variable(np.zeros(self.capacity, np.int64))

        # Inside the step the replicas make them together.
        context = tf.distribute.get_replica_context()
        context.merge_call(make_variables) if context else make_variables()

    def begin_call(self, call: Call) -> None:
        """Begin a row, to be written by several optimizers."""
        if not self._target.several:
            return
        self._waiting.append(call.last_step)
        for optimizer, row in self._layouts.items():
            nothing = np.full(row.size, np.nan, np.float32)
            both = map(self._on_replicas, (self._count, self._tables[optimizer]))
            for count, table in zip(*both, strict=True):
                _write_row(table, count % self.capacity, nothing)
        for count in self._on_replicas(self._count):
            count.assign_add(1)

    def store(self, optimizer: int, row: Any, step: Any) -> None:
        """Keep the row of an update."""
        table = self._tables[optimizer]
        if self._target.several:
            _write_row(table, (self._count - 1) % self.capacity, row)
            return
        # At the end of the data the step runs as far as it does without them.
        with tf.control_dependencies([row]):
            index = self._count % self.capacity
            _write_row(self._steps, index, tf.cast(step, tf.int64))
            _write_row(table, index, row)
            self._count.assign_add(1)

    def store_batch(self, numbers: Any) -> None:
        """Keep the numbers of the batch of the update to come; each replica those of its part."""
        count = self._count - 1 if self._target.several else self._count
        _write_row(self._batches, count % self._batches.shape[0], numbers)

    def take(self) -> Stored:
        """Return what was stored since the last call."""
        count, first = int(self._on_replicas(self._count)[0]), self._rows_read
        self._rows_read = count
        waiting, self._waiting = self._waiting, []
        if not self._tables:
            return NOTHING_STORED
        # More updates than there were batches may have come round.
        numbers = np.arange(max(first, count - self.capacity), count)
        places = numbers % self.capacity
        if self._target.several:
            steps = np.array(waiting, np.int64)[numbers - first]
        else:
            steps = self._on_replicas(self._steps)[0].numpy()[places]
        tables = {optimizer: self._rows(optimizer, places) for optimizer in self._tables}
        batches = self._on_replicas(self._batches)[0].numpy()
        return Stored(steps, tables, batches[numbers % len(batches)])

    def _rows(self, optimizer: int, places: np.ndarray) -> np.ndarray:
        components = self._on_replicas(self._tables[optimizer])
        tables = np.array([table.numpy()[places] for table in components])
        rows, layout = tables[0], self._layouts[optimizer]
        for name in filter(layout.statistics.__contains__, _OF_REPLICAS):
            own = layout.places(name)
            rows[:, own] = np.sqrt(np.mean(np.square(tables[:, :, own], dtype=np.float64), axis=0))
        return rows

    def find_trace(self) -> Any:
        """Return the graph of the operations made now; `None` if they are carried out."""
        return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def iterations(self, optimizer: Any) -> int:
        """Count the batches with gradients given to an optimizer."""
        return int(self._on_replicas(optimizer._iterations.value)[0])

    def _on_replicas(self, variable: Any) -> Any:
        """Return a variable on each of this process's devices."""
        return self._strategy.experimental_local_results(variable)


def _replica_variable(value: np.ndarray) -> Any:
    """Make a variable, written by each replica for itself."""
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
