"""Listening to optimizers while they update a model: what all backends have in common.

Keras internals, all methods of `keras.optimizers.Optimizer`, which every backend's optimizers call
once an update:

- `_clip_gradients(grads)`: an update begins; the weights are as yet untouched, the gradients
  unscaled and accumulated;
- `_backend_update_step(grads, variables, learning_rate)`: is given the clipped gradients, and
  returns when the update is done.
"""

import contextlib
import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.layers_inside import path_inside
from keras_initkit.callbacks.capture.model_parts import (
    Leaf,
    frozen_layers,
    leaf_optimizers,
    unit_kernels,
)
from keras_initkit.callbacks.capture.recorded_step import Call, TrainFunction, replaced_methods
from keras_initkit.callbacks.capture.row import RowLayout, unpack
from keras_initkit.callbacks.columns import unit_sources, variables_of
from keras_initkit.callbacks.measures.directions import DirectionTracker
from keras_initkit.callbacks.measures.gradients import as_float32, gradient_statistics, norms
from keras_initkit.callbacks.measures.reductions import Reductions
from tensorboard_plugin_initkit.record.chunk import MEASURED, Chunk
from tensorboard_plugin_initkit.record.layout import Layout

# Tensors of one shape are measured together up to this size, so that many small layers cost few
# operations, and big ones are not copied.
_SMALL = 4096
# Rows that wait on the device: at most so many, and so many numbers.
_MOST_ROWS, _MOST_NUMBERS = 64, 2**22


class Watch(NamedTuple):
    """What a capture is to measure.

    Attributes:
        select: Returns those to measure of a list of `keras.Variable`s.
        statistics: Names of `MEASURED` that are wanted.
        sample_size: Number of elements of each gradient to keep.
        per: "layer", or "variable" to count every variable as a layer.
        is_due: Tells for a step whether it is to be recorded.
    """

    select: Callable[[Sequence[Any]], list[Any]]
    statistics: frozenset[str]
    sample_size: int = 0
    per: str = "layer"
    is_due: Callable[[int], bool] = lambda step: True


class Recording(NamedTuple):
    """Recorded steps, as a capture is read.

    Attributes:
        chunk: The record.
        samples: For each variable, elements of its gradient: float32 arrays (n, elements), with 0
            elements if none are kept.
    """

    chunk: Chunk
    samples: list[np.ndarray]


class _Plan(NamedTuple):
    """Which gradients of an update are measured, and which of them together, in one stack.

    Attributes:
        stacks: Groups of places in the list that the optimizer was given.
        column_stacks: The same as columns.
        places: All of these places, in this order.
        columns: All of these columns, in this order.
    """

    stacks: list[list[int]]
    column_stacks: list[list[int]]
    places: tuple[int, ...]
    columns: tuple[int, ...]


class _Update:
    """An update that is being heard, on one replica.

    Args:
        before: Values of the watched variables before it; empty if they are not wanted.
        given: Gradients as they were given, before clipping.

    Attributes:
        clipped: The same after clipping.
        learning_rate: As the optimizer was given it.
        plan: What is measured; `measured` is in the order of its columns.
        measured: Statistics by name, each of shape (columns,).
        samples: Elements of each variable's gradient.
    """

    def __init__(self, before: list[Any], given: Sequence[Any]) -> None:
        self.before = before
        self.given = given
        self.clipped: Sequence[Any] = given
        self.learning_rate: Any = None
        self.plan = _Plan([], [], (), ())
        self.measured: dict[str, Any] = {}
        self.samples: list[Any] = []


class Capture:
    """Measures each update that is traced or run. The base of every backend's capture.

    Args:
        model: A compiled `keras.Model`.
        watch: What to measure.

    Attributes:
        variables: The trainable `keras.Variable`s that are recorded, in the model's order; empty
            until the model is built.
        frozen: Paths of the layers that are not trained.
        leaves: The optimizers that are listened to.
        model: The model.
        optimizer_of: For each column that was heard, the index of its optimizer in `leaves`.
        several: Whether there are several optimizers. Then a row is what all of them did in one
            call of the training function, the last update of each; its step is the monitor's.
        batches_per_update: Number of batches whose gradients make one update.
        steady: Whether the number of updates surely follows from that of batches.
        replicas: Number of replicas.
        writes: Whether this process is to write logs.
        capacity: Number of updates that can be recorded between two reads.
        own_step: Whether the model has a `train_step` of its own.
        skips: Whether a loss scale can skip updates.
        calls_made: Number of calls of the training function that returned.
        error: The first exception inside the capture; after it the capture is deaf.
        functions: Instrumented training functions, kept so that a second `fit` traces nothing.
    """

    # Whether the arguments of `_backend_update_step` are what is applied.
    _hears_arguments = True
    _reductions = Reductions()
    replicas = 1
    writes = True

    def __init__(self, model: Any, watch: Watch) -> None:
        self.functions: dict[tuple[Any, ...], TrainFunction] = {}
        self.error: Exception | None = None
        self.variables: list[Any] = []
        self.frozen: tuple[str, ...] = ()
        self.leaves: list[Leaf] = leaf_optimizers(model)
        self.optimizer_of: dict[int, int] = {}
        self.several = len(self.leaves) > 1
        self.batches_per_update: int = max(
            leaf.optimizer.gradient_accumulation_steps or 1 for leaf in self.leaves
        )
        # A loss scale skips updates, and a custom step may make several of a batch, or none.
        self.own_step = type(model).train_step is not keras.Model.train_step
        self.skips = any(leaf.loss_scale is not None for leaf in self.leaves)
        self.steady = self.several or not (self.skips or self.own_step)
        self.capacity = 0
        self.model = model
        self._watch = watch
        self._columns: dict[int, int] = {}
        self._plans: dict[Any, _Plan] = {}
        self._updates: dict[tuple[int, int], _Update] = {}
        self.calls_made = 0
        self._calls: list[tuple[Call, bool]] = []
        self._losses: list[Any] = []
        self._loss = _loss_sums(model)
        self._loss_in_step = self._loss_is_known_in_step()
        self._loss_since_last = _LossSinceLast()
        self._directions = DirectionTracker()
        self._known_layout: tuple[dict[int, int], Layout] | None = None
        self._meet_variables()

    def batches_done(self) -> int:
        """Number of batches whose gradients the optimizers have been given so far."""
        counts = [self._iterations(leaf.optimizer) for leaf in self.leaves]
        # Several need not be in step, and one that was never used does not count.
        return min([count for count in counts if count] or [0])

    def instrumenting(self) -> contextlib.AbstractContextManager[None]:
        """Prepare the training function that is made inside the context."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the updates that are traced or run inside the context."""
        with contextlib.ExitStack() as stack:
            for i, leaf in enumerate(self.leaves):
                stack.enter_context(replaced_methods(leaf.optimizer, **self._methods(i)))
            yield

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""

    def end_call(self, call: Call, result: Any) -> None:
        """Take what the training function has returned: means over the epoch up to now."""
        self.calls_made += 1
        self._try(self._end_call, call, result)

    def _end_call(self, call: Call, result: Any) -> None:
        if self._loss_in_step:
            self._calls.append((call, False))
            return
        loss = result.get("loss") if isinstance(result, dict) else None
        if loss is not None:
            sums = (np.nan, np.nan) if self._loss is None else map(self._now, self._loss)
            self._losses += [loss, *sums]
        self._calls.append((call, loss is not None))

    def read(self) -> Recording:
        """Take the updates heard since the last read from the device: those that are due."""
        calls, self._calls = self._calls, []
        losses, self._losses = self._losses, []
        if not self.variables:
            return Recording(Chunk(Layout(()), np.zeros(0, np.int64), {}), [])
        steps, rows = self._take()
        values, totals, loss, samples = unpack(self._row, rows)
        shape = (len(steps), len(self.leaves))
        totals |= {name: np.full(shape, np.nan, np.float32) for name in ("loss", "skipped")}
        losses = [as_float32(number) for number in losses]
        numbers = self._to_host(losses) if losses else np.zeros(0)
        sums = iter(numbers.astype(np.float64).reshape(-1, 3))
        for call, has_loss in calls:
            made = (call.first_step <= steps) & (steps <= call.last_step)
            totals["skipped"][made] = call.skipped
            if has_loss:
                totals["loss"][made] = self._loss_since_last(*next(sums))
        if self._loss_in_step:
            for i, (total, count) in enumerate(loss.astype(np.float64)):
                mean = total / count if count else np.nan
                totals["loss"][i] = self._loss_since_last(mean, total, count)
        if "dead_units" in self._watch.statistics:
            values |= {"dead_units": self._all_dead_units(values)}
        return self._due_recording(steps, values, totals, samples)

    def _due_recording(
        self,
        steps: np.ndarray,
        values: dict[str, np.ndarray],
        totals: dict[str, np.ndarray],
        samples: list[np.ndarray],
    ) -> Recording:
        heard = sorted(set(self.optimizer_of.values())) or [0]
        due = np.array([bool(self._watch.is_due(int(step))) for step in steps], bool)
        samples = [array[due] for array in samples]
        values = {name: array[due] for name, array in values.items()}
        if self._watch.sample_size and due.any():
            values |= self._directions.add(samples)._asdict()
        chunk = Chunk(
            self._layout(heard),
            steps[due],
            values,
            {name: array[due][:, heard] for name, array in totals.items()},
        )
        return Recording(chunk, samples)

    def _layout(self, heard: list[int]) -> Layout:
        # Which optimizers there are and whose the variables are shows when they are heard.
        if self._known_layout is None or self._known_layout[0] != self.optimizer_of:
            optimizers = {i: self.leaves[i].name if len(heard) > 1 else "" for i in heard}
            owners = [
                optimizers[self.optimizer_of.get(column, heard[0])]
                for column in range(len(self.variables))
            ]
            layout = Layout(
                variables_of(self.model, self.variables, owners, self._watch.per),
                tuple(optimizers.values()),
                tuple(path_inside(self.model, path) for path in self.frozen),
                self.replicas,
            )
            self._known_layout = dict(self.optimizer_of), layout
        return self._known_layout[1]

    @property
    def _ops(self) -> Any:
        """The functions that a row is computed with."""
        return self._reductions.ops

    def _all_dead_units(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """Dead units as their biases tell, and those that were measured on kernels."""
        dead = values.get("dead_units", np.full_like(values["norm"], np.nan))
        are_biases = np.array([source == "bias" for source in self._unit_sources])
        return np.where(are_biases, values["zeros"], dead)

    # What a backend adds.

    def _make_buffer(self) -> None:
        """Make what rows are kept in, for `self.variables`."""

    def _take(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps, int64 (n,), and rows, float32 (n, row size), heard since the last call."""
        raise NotImplementedError

    def _store(self, row: Any, mine: np.ndarray | None, step: Any) -> None:
        """Keep the row of an update.

        Args:
            row: float32 (row size,).
            mine: Which of its numbers were heard, if others hear the rest; bool (row size,).
            step: Iterations of the optimizer.
        """
        raise NotImplementedError

    def _iterations(self, optimizer: Any) -> int:
        """Number of batches whose gradients an optimizer has been given."""
        return int(ops.convert_to_numpy(optimizer._iterations))

    def _loss_scale(self, leaf: Leaf) -> Any:
        """What the loss was multiplied by, as the gradients that are heard no longer are."""
        if leaf.loss_scale is not None:
            return leaf.loss_scale.dynamic_scale
        return leaf.optimizer.loss_scale_factor or 1.0

    def _loss_is_known_in_step(self) -> bool:
        """Whether the sums of losses are up to date when the optimizer is called."""
        return False

    def _now(self, variable: Any) -> Any:
        """Value of a metric's variable now, on the device."""
        return ops.multiply(variable, 1)  # a reading could share the memory that is written later

    def _to_host(self, arrays: Sequence[Any]) -> np.ndarray:
        """Move arrays of one shape to the host, stacked."""
        return np.asarray(ops.convert_to_numpy(ops.stack(arrays)))

    def _array(self, gradient: Any) -> Any:
        """A dense gradient as what `_ops` computes with."""
        return gradient

    def _numbers(self, scalars: Sequence[Any]) -> Any:
        """Scalars as a float32 array."""
        return self._ops.stack([self._ops.cast(number, "float32") for number in scalars])

    def _value(self, variable: Any) -> Any:
        """Value of a weight now."""
        return variable.value

    def _kept(self, variable: Any) -> Any:
        """Value of a weight now, which a later update leaves as it is."""
        return self._value(variable)

    def _is_dense(self, gradient: Any) -> bool:
        """Whether a gradient has all the elements of its variable."""
        return True

    def _shares(self, gradients: Sequence[Any]) -> Any:
        """The share of a variable's elements that each gradient has; None if all have all."""
        return None

    def _stack(self, tensors: Sequence[Any]) -> Any:
        """Flatten tensors of one size into an array (k, size)."""
        whole = tensors[0] if len(tensors) == 1 else self._ops.stack(tensors)
        return self._ops.reshape(whole, (len(tensors), -1))

    def _elements(self, array: Any, places: np.ndarray) -> Any:
        """Elements of an array, flattened: (size,)."""
        return self._ops.take(self._ops.reshape(array, (-1,)), places, axis=0)

    # Hearing an update.

    def _methods(self, leaf: int) -> dict[str, Callable[..., Any]]:
        """Methods of an optimizer as they are while it is listened to."""
        optimizer = self.leaves[leaf].optimizer
        clip, update = optimizer._clip_gradients, optimizer._backend_update_step

        def clip_gradients(grads: Any) -> Any:
            self._try(self._begin, leaf, grads)
            return clip(grads)

        def backend_update_step(grads: Any, variables: Any, learning_rate: Any) -> Any:
            self._try(self._hear_clipped, leaf, grads, learning_rate)
            if self._hears_arguments:
                self._try(self._hear, leaf, grads, variables)
            result = update(grads, variables, learning_rate)
            self._try(self._finish, leaf)
            return result

        return {"_clip_gradients": clip_gradients, "_backend_update_step": backend_update_step}

    def _try(self, action: Callable[..., None], *args: Any) -> None:
        """Never let what fails in here reach the training."""
        if self.error is None:
            try:
                action(*args)
            except Exception as error:
                self.error = error

    def _meet_variables(self) -> None:
        """A model without an input shape has its variables only in its first step."""
        if self.variables or not self.model.trainable_variables:
            return
        self.variables = self._watch.select(self.model.trainable_variables)
        self.frozen = frozen_layers(self.model)
        self._columns = {id(variable): i for i, variable in enumerate(self.variables)}
        self._shapes = [tuple(variable.shape) for variable in self.variables]
        self._row = RowLayout(
            len(self.variables),
            tuple(name for name in MEASURED if name in self._statistics()),
            len(self.leaves),
            self._loss_in_step,
            tuple(min(self._watch.sample_size, math.prod(shape)) for shape in self._shapes),
        )
        rows = max(1, min(_MOST_ROWS, _MOST_NUMBERS // max(1, self._row.size)))
        self.capacity = max(rows, self.model.steps_per_execution)
        self._make_buffer()

    def _statistics(self) -> set[str]:
        """Names of what can be measured here, of what is wanted."""
        names = set(self._watch.statistics)
        self._unit_sources = unit_sources(self.variables, unit_kernels(self.model))
        if "kernel" not in self._unit_sources:
            names -= {"dead_units"}
        if not any(_clips(leaf.optimizer) for leaf in self.leaves):
            names -= {"clip_ratio"}
        if self.replicas == 1:
            names -= {"local_norm"}
        return names

    def _update(self, leaf: int) -> _Update:
        return self._updates[leaf, threading.get_ident()]

    def _begin(self, leaf: int, grads: Sequence[Any]) -> None:
        self._meet_variables()
        before = []
        if {"weight_norm", "update_norm"} & set(self._row.statistics):
            before = [self._kept(variable) for variable in self.variables]
        # Replicas on one machine are threads.
        self._updates[leaf, threading.get_ident()] = _Update(before, list(grads))

    def _hear_clipped(self, leaf: int, grads: Sequence[Any], learning_rate: Any) -> None:
        update = self._update(leaf)
        update.clipped, update.learning_rate = grads, learning_rate

    def _hear(self, leaf: int, grads: Sequence[Any], variables: Sequence[Any]) -> None:
        update = self._update(leaf)
        update.plan = plan = self._plan(leaf, grads, variables)
        if not plan.columns:
            return
        wanted, measured = self._row.statistics, update.measured
        stacks = self._stacks(grads, plan.stacks)
        measured |= gradient_statistics(stacks, wanted, self._reductions)
        share = self._shares([grads[i] for i in plan.places])
        if share is not None:
            # What a sparse gradient does not have is zero.
            if "mean_abs" in wanted:
                measured["mean_abs"] = measured["mean_abs"] * share
            if "zeros" in wanted:
                measured["zeros"] = 1 - (1 - measured["zeros"]) * share
        if "clip_ratio" in wanted:
            clipped = measured["norm"]
            if self.replicas > 1:
                clipped = self._norms(update.clipped, plan)
            raw = self._norms(update.given, plan)
            ones = self._ops.ones_like(raw)
            measured["clip_ratio"] = self._ops.where(raw == 0, ones, clipped / raw)
        if "local_norm" in wanted:
            measured["local_norm"] = self.replicas * self._norms(update.given, plan)
        if "dead_units" in wanted:
            measured["dead_units"] = self._dead_units(grads, plan)
        if self._watch.sample_size:
            update.samples = self._samples(grads, plan)

    def _plan(self, leaf: int, grads: Sequence[Any], variables: Sequence[Any]) -> _Plan:
        key = leaf, tuple(map(id, variables)), tuple(map(type, grads))
        if key not in self._plans:
            self._plans[key] = plan = self._make_plan(grads, variables)
            self.optimizer_of |= dict.fromkeys(plan.columns, leaf)
        return self._plans[key]

    def _make_plan(self, grads: Sequence[Any], variables: Sequence[Any]) -> _Plan:
        # Small ones of one shape and type together; those that are measured alone come last.
        groups: dict[Any, list[int]] = {}
        columns: dict[int, int] = {}
        for i, (gradient, variable) in enumerate(zip(grads, variables, strict=True)):
            if gradient is not None and id(variable) in self._columns:
                columns[i] = self._columns[id(variable)]
                shape = self._shapes[columns[i]]
                alone = math.prod(shape) > _SMALL or not self._is_dense(gradient)
                groups.setdefault(i if alone else (shape, gradient.dtype), []).append(i)
        stacks = sorted(groups.values(), key=lambda group: len(group) == 1)
        column_stacks = [[columns[i] for i in group] for group in stacks]
        chain = itertools.chain.from_iterable
        return _Plan(stacks, column_stacks, tuple(chain(stacks)), tuple(chain(column_stacks)))

    def _stacks(self, tensors: Sequence[Any], groups: list[list[int]]) -> list[Any]:
        return [self._stack([tensors[i] for i in group]) for group in groups]

    def _norms(self, gradients: Sequence[Any], plan: _Plan) -> Any:
        return norms(self._stacks(gradients, plan.stacks), self._reductions)

    def _dead_units(self, gradients: Sequence[Any], plan: _Plan) -> Any:
        """Share of the kernel's columns that are zero, for layers that have no bias."""
        return self._ops.stack(
            [
                self._share_of_zero_columns(self._array(gradients[i]))
                if self._unit_sources[column] == "kernel"
                else self._ops.convert_to_tensor(np.float32("nan"))
                for i, column in zip(plan.places, plan.columns, strict=True)
            ]
        )

    def _share_of_zero_columns(self, kernel: Any) -> Any:
        columns = self._ops.reshape(kernel, (-1, kernel.shape[-1]))
        are_zero = self._ops.all(columns == 0, axis=0)
        return self._ops.mean(self._ops.cast(are_zero, "float32"))

    def _samples(self, gradients: Sequence[Any], plan: _Plan) -> list[Any]:
        """Elements at equal distances; of a sparse gradient, which has others each time, none."""
        samples: list[Any] = [np.full(size, np.nan, np.float32) for size in self._row.samples]
        for i, column in zip(plan.places, plan.columns, strict=True):
            if not self._is_dense(gradients[i]):
                continue
            gradient = self._array(gradients[i])
            size, count = len(samples[column]), math.prod(self._shapes[column])
            if size == count:
                elements = self._ops.reshape(gradient, (-1,))
            else:
                elements = self._elements(gradient, _places(size, count))
            samples[column] = as_float32(elements)
        return samples

    def _finish(self, leaf: int) -> None:
        update = self._updates.pop((leaf, threading.get_ident()))
        plan, measured = update.plan, update.measured
        if self.several and not plan.columns:
            return
        if update.before and plan.columns:
            before = self._stacks(update.before, plan.column_stacks)
            changes = []
            if "update_norm" in self._row.statistics:
                now = self._stacks(list(map(self._value, self.variables)), plan.column_stacks)
                changes = [a - b for a, b in zip(now, before, strict=True)]
            both = norms([*before, *changes], self._reductions)
            measured["weight_norm"] = both[: len(plan.columns)]
            measured["update_norm"] = both[len(plan.columns) :]
        row = self._assemble(leaf, update)
        mine = self._row.mask(plan.columns, leaf) if self.several else None
        self._store(row, mine, self.leaves[leaf].optimizer.iterations)

    def _assemble(self, leaf: int, update: _Update) -> Any:
        """Bring an update's numbers into the order of a row."""
        totals = [update.learning_rate, self._loss_scale(self.leaves[leaf])]
        if self._loss_in_step and self._loss:
            totals += [variable.value for variable in self._loss]
        columns = update.plan.columns
        numbers = [update.measured[name] for name in self._row.statistics if columns]
        numbers.append(self._numbers([*totals, np.float32("nan")]))
        row = self._elements(self._ops.concatenate(numbers, axis=0), self._row.order(columns, leaf))
        if not self._watch.sample_size:
            return row
        samples = update.samples or [np.full(sum(self._row.samples), np.nan, np.float32)]
        return self._ops.concatenate([row, *(s for s in samples if s.shape[0])], axis=0)


class _LossSinceLast:
    """Takes a mean over the epoch up to now apart, into the mean since it was last asked for."""

    def __init__(self) -> None:
        self._total = self._count = 0.0

    def __call__(self, mean: float, total: float, count: float) -> float:
        """Return the mean since the last call.

        Args:
            mean: What was logged.
            total: Sum of which the mean is taken.
            count: Number that it is divided by.
        """
        first = self._total, self._count
        if count < first[1] or not np.isfinite(first[0]):  # a new epoch, or nothing to go on from
            first = 0.0, 0.0
        self._total, self._count = total, count
        is_kept = np.isclose(total, mean * count, rtol=1e-3) and count > first[1]
        return (total - first[0]) / (count - first[1]) if is_kept else mean


def _loss_sums(model: Any) -> tuple[Any, Any] | None:
    """Variables of the metric that a model keeps of its loss, if it has one."""
    for metric in model.metrics:
        if metric.name == "loss" and isinstance(metric, keras.metrics.Mean):
            return metric.total, metric.count
    return None


@functools.lru_cache
def _places(size: int, count: int) -> np.ndarray:
    """Places of `size` among `count` elements, at equal distances."""
    return np.linspace(0, count - 1, size).astype("int32")


def _clips(optimizer: Any) -> bool:
    return bool(optimizer.clipnorm or optimizer.clipvalue or optimizer.global_clipnorm)
