"""The base of every backend: operations on arrays inside the step, and where rows are kept."""

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_initkit.callbacks.capture.batches import BATCH_SIZE
from keras_initkit.callbacks.capture.model_parts import Leaf, Target
from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.capture.row import RowLayout
from keras_initkit.callbacks.measures.gradients import (
    Measure,
    Measured,
    gradient_statistics,
    measure_scaled,
)
from keras_initkit.statistics.batch import measure_port


class Arrays:
    """Operations on the gradients and weights of a step."""

    # Tensors of one shape are measured together up to this size, so that many small layers cost
    # few operations, and big ones are not copied.
    small = 4096

    def __init__(
        self, way: Measure = measure_scaled, measure_port: Callable[[Any], Any] = measure_port
    ) -> None:
        self._way, self.measure_port = way, measure_port

    def handle(self, variable: Any) -> Any:
        """Return the object in an optimizer's update that stands for a variable."""
        return variable

    def weights(self, variables: Sequence[Any], keep: bool = False) -> list[Any]:
        """Return the values of weights now; with `keep`, safe from later updates."""
        return [variable.value for variable in variables]

    def is_dense(self, gradient: Any) -> bool:
        """Check for a gradient with all the elements of its variable."""
        return True

    def shares(self, gradients: Sequence[Any]) -> Any:
        """Return the share of its variable's elements in each gradient; None if all are dense."""
        return None

    def stack(self, tensors: Sequence[Any]) -> Any:
        """Flatten k tensors of one size into an array (k, size)."""
        whole = tensors[0] if len(tensors) == 1 else ops.stack(tensors)
        return ops.reshape(whole, (len(tensors), -1))

    def measure(self, stacks: Sequence[Any], wanted: Collection[str]) -> Measured:
        """Measure each tensor of all stacks, as `gradient_statistics` does."""
        return gradient_statistics(stacks, wanted, self._way)

    def subtract(self, stacks: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        """Return the differences of two lists of stacks."""
        return [stack - other for stack, other in zip(stacks, others, strict=True)]

    def elements(self, array: Any, places: np.ndarray) -> Any:
        """Take elements out of an array, flattened: (places,)."""
        return ops.take(ops.reshape(array, (-1,)), places, axis=0)

    def over_workers(self, values: Any) -> Any:
        """Take the root mean square over the workers."""
        return values


class Stored(NamedTuple):
    """Rows and numbers of batches, moved to the host.

    Attributes:
        steps: int64 (n,).
        tables: Of each optimizer rows, float32 (n, row size), NaN where it made no update.
        batches: Numbers of batches, float32 (n, BATCH_SIZE), NaN where none were heard.
    """

    steps: np.ndarray
    tables: dict[int, np.ndarray]
    batches: np.ndarray


NOTHING_STORED = Stored(np.zeros(0, np.int64), {}, np.zeros((0, BATCH_SIZE), np.float32))


class Storage:
    """Keeps the rows of updates on the device until they are read."""

    replicas = 1
    writes = True  # whether this process is to write logs
    hears_batches = True  # whether the batch can be measured where the loss is computed
    hears_own_steps = True  # whether it can be in a step of the model's own, too
    has_loss = False  # whether the sums of losses are up to date when the optimizer is called

    def __init__(self, target: Target, arrays: Arrays | None = None) -> None:
        self.arrays = arrays or Arrays()
        self.capacity = 0  # greatest number of rows between two reads; 0 until it is known
        self._target = target
        self._layouts: dict[int, RowLayout] = {}

    def allocate(self, optimizer: int, row: RowLayout) -> None:
        """Make room for the rows of an optimizer, known by its `id`."""
        self._layouts[optimizer] = row

    def store(self, optimizer: int, row: Any, step: Any) -> None:
        """Keep the row of an optimizer's update, float32 (row size,), at its iteration `step`.

        Where there are several, it becomes part of the call's record.
        """
        raise NotImplementedError

    def store_batch(self, numbers: Any) -> None:
        """Keep the numbers of the batch of the update to come, float32 (BATCH_SIZE,)."""
        raise NotImplementedError

    def take(self) -> Stored:
        """Return what was stored since the last call."""
        raise NotImplementedError

    def iterations(self, optimizer: Any) -> int:
        """Count the batches with gradients given to an optimizer."""
        return int(ops.convert_to_numpy(optimizer._iterations))

    def loss_scale(self, leaf: Leaf) -> Any:
        """Return the factor of the loss; it is taken off the gradients before they are heard."""
        if leaf.loss_scale is not None:
            return leaf.loss_scale.dynamic_scale
        return leaf.optimizer.loss_scale_factor or 1.0

    def metric(self, variable: Any) -> Any:
        """Return the value of a metric's variable now, on the device."""
        return variable.value * 1  # a reading could share the memory that is written later

    def to_host(self, arrays: Sequence[Any]) -> np.ndarray:
        """Move arrays of one shape to the host, stacked."""
        return np.asarray(ops.convert_to_numpy(ops.stack(arrays)))

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""

    def end_call(self, result: Any) -> Any:
        """Return the logs in a result of the instrumented training function."""
        return result

    def build(self, *args: Any) -> None:
        """Build what the training function would build when it is called with `args`."""

    def instrumenting(self) -> contextlib.AbstractContextManager[None]:
        """Prepare the training function made inside the context."""
        return contextlib.nullcontext()

    def carrying(self) -> contextlib.AbstractContextManager[None]:
        """Have the model's state take rows along inside the context."""
        return contextlib.nullcontext()

    def find_trace(self) -> Any:
        """Return the graph of the operations made now; `None` if they are carried out."""
        return None

    def untraced(self, function: Callable[..., None]) -> Callable[..., None]:
        """Keep a function of the step out of compiled code."""
        return function
