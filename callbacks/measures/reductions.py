"""Reductions of stacks of tensors to a number a tensor, where the time of a statistic goes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

Array = Any
Reduction = Callable[[Sequence[Array]], Array]

# Compilers turn sums over fewer elements than 32 into plain vector loops.
_FOLD = 16


def each(reduce: Callable[[Array], Array]) -> Reduction:
    """Make a reduction of stacks, (k, size) -> (Σk,), of one of a stack, (k, size) -> (k,)."""

    def reduce_stacks(stacks: Sequence[Array]) -> Array:
        parts = [reduce(stack) for stack in stacks]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)

    return reduce_stacks


class Reductions(NamedTuple):
    """Reductions of stacks; of elements that are not finite only `squares` must show it."""

    squares: Reduction  # sums of squares; relative error at most 1e-6 for any size
    largest: Reduction  # largest magnitudes
    magnitudes: Reduction  # sums of magnitudes
    nonzeros: Reduction  # numbers of nonzero elements, float32: exact up to 2²⁴, where it counts


# For any Keras backend.
PLAIN = Reductions(
    each(lambda x: ops.sum(ops.square(x), axis=1)),
    each(lambda x: ops.max(ops.abs(x), axis=1)),
    each(lambda x: ops.sum(ops.abs(x), axis=1)),
    each(lambda x: ops.sum(ops.cast(x != 0, "float32"), axis=1)),
)


def _folded(elements: Callable[[Array], Array], reduce: Callable[..., Array]) -> Reduction:
    """Reduce each tensor as (16, size/16), rows first, element by element."""

    def fold(x: Array) -> Array:
        size = x.shape[1]
        if size is None or size < 2 * _FOLD:
            return reduce(elements(x), axis=1)
        if size % _FOLD:
            # Zeros add nothing to any of these.
            x = ops.pad(x, [[0, 0], [0, -size % _FOLD]])
        rows = reduce(elements(ops.reshape(x, (x.shape[0], _FOLD, -1))), axis=1)
        # `abs` changes nothing, but keeps the compiler from merging the two steps; a maximum
        # with 0 would too, but loses NaN outside XLA.
        return reduce(ops.abs(rows), axis=1)

    return each(fold)


# For TensorFlow's XLA: on its CPU backend a long sum is a slow chain of scalars; this is a vector
# loop, and more exact.
FOLDED = Reductions(
    _folded(ops.square, ops.sum),
    _folded(ops.abs, ops.max),
    _folded(ops.abs, ops.sum),
    _folded(lambda x: ops.cast(x != 0, "float32"), ops.sum),
)
