"""Measuring on TensorFlow: in graphs, where each operation is a pass of its own, and by XLA."""

import functools
import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf

from keras_initkit.callbacks.measures.gradients import (
    FOLDED,
    Measured,
    Reductions,
    each,
    measure_scaled,
    measure_twice,
)


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


def _choose(
    is_ordinary: Any,
    plain: tuple[Any, ...],
    careful: Callable[..., tuple[Any, ...]],
    stacks: Sequence[Any],
    largest: Any,
) -> tuple[Any, ...]:
    if tf.executing_eagerly():
        return plain if is_ordinary else careful(stacks, largest)
    # `tf.cond` becomes part of the graph, all of whose nodes are visited in every step, be
    # they of the branch that is taken or not; this operation calls the one or the other.
    count, inputs = len(plain), [*plain, largest, *stacks]
    signature = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
    branches = [
        tf.function(branch, autograph=False).get_concrete_function(*signature)
        for branch in (lambda *x: x[:count], lambda *x: careful(x[count + 1 :], x[count]))
    ]
    types = [tensor.dtype for tensor in plain]
    chosen = tf.raw_ops.StatelessIf(
        cond=is_ordinary, input=inputs, Tout=types, then_branch=branches[0], else_branch=branches[1]
    )
    return tuple(tf.ensure_shape(x, like.shape) for x, like in zip(chosen, plain, strict=True))


def measure_in_graph(stacks: Sequence[Any], wanted: Collection[str]) -> Measured:
    """Measure each tensor of all stacks, float32 (k, size), as `gradient_statistics` does."""
    return measure_twice(stacks, wanted, _GRAPH, _choose)


measure_by_xla = functools.partial(measure_scaled, reductions=FOLDED)
