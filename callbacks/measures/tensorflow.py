"""Reductions of TensorFlow's own, for graphs not compiled by XLA."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_initkit.callbacks.measures.reductions import Reductions


class GraphReductions(Reductions):
    """Without XLA each operation is a pass of its own: as few, and with as few copies, as can be.

    `l2_loss` squares and sums in one operation. Many tensors are alone in their stack.
    """

    def squares(self, stacks: Sequence[Any]) -> Any:
        """Return sums of squares."""
        halves = _each(stacks, tf.nn.l2_loss, lambda x: tf.reduce_sum(tf.square(x), axis=1) / 2)
        return 2 * halves

    def largest(self, stacks: Sequence[Any]) -> Any:
        """Return largest magnitudes."""
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
