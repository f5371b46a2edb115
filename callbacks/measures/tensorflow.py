"""Reductions of TensorFlow's own, for graphs not compiled by XLA.

There each operation is a pass of its own: as few, and with as few copies, as can be.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_initkit.callbacks.measures.reductions import PLAIN, choose


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


def _choose(
    ordinary: Any,
    plain: tuple[Any, ...],
    careful: Callable[[Sequence[Any]], tuple[Any, ...]],
    stacks: Sequence[Any],
) -> tuple[Any, ...]:
    if tf.executing_eagerly():
        return choose(ordinary, plain, careful, stacks)
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
        cond=ordinary, input=inputs, Tout=types, then_branch=branches[0], else_branch=branches[1]
    )
    return tuple(tf.ensure_shape(x, like.shape) for x, like in zip(chosen, plain, strict=True))


GRAPH = PLAIN._replace(
    squares=_squares,
    largest=_largest,
    nonzeros=lambda stacks: _squares([tf.sign(stack) for stack in stacks]),
    choose=_choose,
)
