"""Measuring on TensorFlow: in graphs, where each operation is a pass of its own, and by XLA.

What measures is itself a graph, traced once for tensors of given shapes and types: the steps of
other models with such tensors call it, and a step that is run eagerly does so as one operation.
"""

import functools
import itertools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf

from keras_initkit.callbacks.measures.gradients import (
    FOLDED,
    MEASURE_IN_ROWS,
    OF_SPIKES,
    Measured,
    Reductions,
    each,
    measure_twice,
    measure_wide,
)
from keras_initkit.statistics import batch


def _each(stacks: Sequence[Any], one: Callable[[Any], Any], many: Callable[..., Any]) -> Any:
    """Reduce stacks of one tensor, which are many, to a number each, and others to an array."""
    parts: list[Any] = []
    for is_one, group in itertools.groupby(stacks, lambda stack: stack.shape[0] == 1):
        results = [one(stack) if is_one else many(stack, axis=1) for stack in group]
        parts += [tf.stack(results)] if is_one else results
    return tf.concat(parts, axis=0)


def _squares(stacks: Sequence[Any]) -> Any:
    # `l2_loss` squares, sums and halves in one operation.
    return 2 * _each(stacks, tf.nn.l2_loss, lambda x, axis: tf.reduce_sum(tf.square(x), axis) / 2)


def _largest(stacks: Sequence[Any]) -> Any:
    highest = _each(stacks, tf.reduce_max, tf.reduce_max)
    return tf.maximum(highest, -_each(stacks, tf.reduce_min, tf.reduce_min))


# As few operations, and as few copies, as can be.
_GRAPH = Reductions(
    _squares,
    _largest,
    each(lambda x: tf.reduce_sum(tf.abs(x), axis=1)),
    lambda stacks: _squares([tf.sign(stack) for stack in stacks]),
)

_measure_wide = functools.partial(measure_wide, reductions=_GRAPH)


def _choose(
    is_ordinary: Any,
    plain: tuple[Any, ...],
    careful: Callable[..., tuple[Any, ...]],
    stacks: Sequence[Any],
) -> tuple[Any, ...]:
    if tf.executing_eagerly():
        return plain if is_ordinary else careful(stacks)
    # `tf.cond` becomes part of the graph, all of whose nodes are visited in every step, be
    # they of the branch that is taken or not; this operation calls the one or the other.
    count, inputs = len(plain), [*plain, *stacks]
    signature = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
    branches = [
        tf.function(branch, autograph=False).get_concrete_function(*signature)
        for branch in (lambda *x: x[:count], lambda *x: careful(x[count:]))
    ]
    types = [tensor.dtype for tensor in plain]
    chosen = tf.raw_ops.StatelessIf(
        cond=is_ordinary, input=inputs, Tout=types, then_branch=branches[0], else_branch=branches[1]
    )
    return tuple(tf.ensure_shape(x, like.shape) for x, like in zip(chosen, plain, strict=True))


@functools.lru_cache(256)
def _trace(measure: Callable[..., Any], specs: tuple[Any, ...], *arguments: Any) -> Any:
    """Make the graph of a way to measure tensors of given kinds, with more arguments."""
    return tf.function(
        lambda *tensors: measure(tensors, *arguments), input_signature=specs, autograph=False
    )


def _spec(tensor: Any, eager: Sequence[int | None], shape: Sequence[int | None]) -> Any:
    """Describe a tensor: run eagerly by less, as there each text may have a length of its own."""
    return tf.TensorSpec(eager if tf.executing_eagerly() else shape, tensor.dtype)


def _traced_once(measure: Callable[..., Measured]) -> Callable[..., Measured]:
    @functools.wraps(measure)
    def call(stacks: Sequence[Any], wanted: Collection[str]) -> Measured:
        specs = tuple(_spec(stack, (stack.shape[0], None), stack.shape) for stack in stacks)
        return _trace(measure, specs, frozenset(wanted))(*stacks)

    return call


@_traced_once
def measure_in_graph(stacks: Sequence[Any], wanted: Collection[str]) -> Measured:
    """Measure each tensor of all stacks, float32 (k, size), as `gradient_statistics` does."""
    return measure_twice(stacks, wanted, _GRAPH, _choose, _measure_wide)


@_traced_once
def measure_by_xla(stacks: Sequence[Any], wanted: Collection[str]) -> Measured:
    """Measure the same by operations that XLA compiles together."""
    # Rows of all tensors are the soonest compiled; each tensor by itself takes less time in a step,
    # if few statistics are measured. On a GPU a branch would wait for the host.
    if set(wanted) == OF_SPIKES and not tf.config.list_physical_devices("GPU"):
        return measure_twice(stacks, wanted, FOLDED, _choose, MEASURE_IN_ROWS)
    return MEASURE_IN_ROWS(stacks, wanted)


def measure_port(tensor: Any) -> Any:
    """Measure a batch of inputs, targets or predictions: see `statistics.batch.measure_port`."""
    shape = (None, *tensor.shape[1:])
    is_small = None not in shape[1:] and math.prod(tensor.shape[1:]) < batch.MOST_ELEMENTS
    spec = _spec(tensor, [None] * len(shape) if is_small else shape, shape)
    return _trace(_measure_one, (spec,))(tensor)


def _measure_one(tensors: Sequence[Any]) -> Any:
    return batch.measure_port(*tensors)
