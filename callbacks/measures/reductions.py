"""Reductions of stacks of tensors to a number a tensor, where the time of a statistic goes.

`Reductions` is for any Keras backend, `FoldedReductions` for a compiler without vectorized long
sums.
"""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

Array = Any

# Compilers turn sums over fewer elements than 32 into plain vector loops.
_FOLD = 16


class Reductions:
    """Reductions of stacks: (k, size) -> (Σk,). A backend may know better ones.

    Where squares leave float32's range or elements are not finite, only `squares` must show it
    (inf, 0 or NaN), and `nonzeros` be right for finite elements; the others may be wrong.
    """

    def squares(self, stacks: Sequence[Array]) -> Array:
        """Return sums of squares. Relative error at most 1e-6 for any size."""
        return each_stack(lambda stack: ops.sum(ops.square(stack), axis=1), stacks)

    def largest(self, stacks: Sequence[Array]) -> Array:
        """Return largest magnitudes."""
        return each_stack(lambda stack: ops.max(ops.abs(stack), axis=1), stacks)

    def magnitudes(self, stacks: Sequence[Array]) -> Array:
        """Return sums of magnitudes."""
        return each_stack(lambda stack: ops.sum(ops.abs(stack), axis=1), stacks)

    def nonzeros(self, stacks: Sequence[Array]) -> Array:
        """Return numbers of nonzero elements, as float32: exact up to 2²⁴, where it counts."""
        # Nearly everywhere the squares are the sum that vectorizes best.
        return self.squares([ops.sign(stack) for stack in stacks])

    def choose(
        self,
        ordinary: Array,
        plain: tuple[Array, ...],
        careful: Callable[[Sequence[Array]], tuple[Array, ...]],
        stacks: Sequence[Array],
    ) -> tuple[Array, ...]:
        """Return `plain` if `ordinary`, as nearly always; else `careful(stacks)`."""
        # Separately, not as a table: a branch that hands its inputs through copies nothing.
        return ops.cond(ordinary, lambda: plain, lambda: careful(stacks))


class FoldedReductions(Reductions):
    """For TensorFlow's XLA: on its CPU backend a long sum is a slow chain of scalars.

    Each tensor is folded to (16, size/16) and its rows are reduced first, element by element: a
    vector loop, and more exact. The `abs` between the two steps changes nothing, but keeps the
    compiler from merging them; a maximum with 0 would too, but loses NaN outside XLA.
    """

    def squares(self, stacks: Sequence[Array]) -> Array:
        """Return sums of squares."""
        return self._fold(ops.square, ops.sum, stacks)

    def largest(self, stacks: Sequence[Array]) -> Array:
        """Return largest magnitudes."""
        return self._fold(ops.abs, ops.max, stacks)

    def magnitudes(self, stacks: Sequence[Array]) -> Array:
        """Return sums of magnitudes."""
        return self._fold(ops.abs, ops.sum, stacks)

    def nonzeros(self, stacks: Sequence[Array]) -> Array:
        """Return numbers of nonzero elements."""
        return self._fold(lambda x: ops.cast(x != 0, "float32"), ops.sum, stacks)

    def _fold(
        self,
        elements: Callable[[Array], Array],
        reduce: Callable[..., Array],
        stacks: Sequence[Array],
    ) -> Array:
        def fold(x: Array) -> Array:
            size = x.shape[1]
            if size is None or size < 2 * _FOLD:
                return reduce(elements(x), axis=1)
            if size % _FOLD:
                # Zeros add nothing to any of these.
                x = ops.pad(x, [[0, 0], [0, -size % _FOLD]])
            folded = ops.reshape(x, (x.shape[0], _FOLD, -1))
            return reduce(ops.abs(reduce(elements(folded), axis=1)), axis=1)

        return each_stack(fold, stacks)


def each_stack(reduce: Callable[[Array], Array], stacks: Sequence[Array]) -> Array:
    """Reduce each stack, (k, size) -> (k,), and put the results one after the other."""
    parts = [reduce(stack) for stack in stacks]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)
