"""How stacks of tensors are reduced to a number a tensor, where the time of a statistic goes.

`Reductions` is for any Keras backend, `FoldedReductions` for a compiler that vectorizes no long
sums.
"""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

Array = Any

# Compilers turn sums over fewer elements than 32 into plain vector loops.
_FOLD = 16


class Reductions:
    """What the statistics read the elements with: stacks (k, size) -> (Σk,).

    A backend may know better. A reduction need not be right where squares are out of range or
    elements are not finite, except that `squares` must be out of range or NaN there, and
    `nonzeros` right for finite elements.
    """

    def squares(self, stacks: Sequence[Array]) -> Array:
        """Sums of squares. Relative error at most 1e-6 for any size."""
        return each_stack(lambda stack: ops.sum(ops.square(stack), axis=1), stacks)

    def largest(self, stacks: Sequence[Array]) -> Array:
        """Largest magnitudes."""
        return each_stack(lambda stack: ops.max(ops.abs(stack), axis=1), stacks)

    def magnitudes(self, stacks: Sequence[Array]) -> Array:
        """Sums of magnitudes."""
        return each_stack(lambda stack: ops.sum(ops.abs(stack), axis=1), stacks)

    def nonzeros(self, stacks: Sequence[Array]) -> Array:
        """Numbers of elements that are not zero, as float32: exact up to 2²⁴, where it counts."""
        # Nearly everywhere the squares are the sum that vectorizes best.
        return self.squares([ops.sign(stack) for stack in stacks])

    def choose(
        self,
        ordinary: Array,
        plain: tuple[Array, ...],
        careful: Callable[[Sequence[Array]], tuple[Array, ...]],
        stacks: Sequence[Array],
    ) -> tuple[Array, ...]:
        """Return `plain` if `ordinary`, which it nearly always is; else `careful(stacks)`."""
        # Separately, not as a table: a branch that hands its inputs through copies nothing.
        return ops.cond(ordinary, lambda: plain, lambda: careful(stacks))


class FoldedReductions(Reductions):
    """For TensorFlow's XLA, on whose CPU backend a long sum is a slow chain of scalars.

    Each tensor is folded to (16, size/16) and its rows are reduced first, element by element: a
    vector loop, and more exact. The `abs` between the two steps, which changes nothing, keeps the
    compiler from merging them; a maximum with 0 would too, but loses NaN outside XLA.
    """

    def squares(self, stacks: Sequence[Array]) -> Array:
        """Sums of squares."""
        return self._fold(ops.square, ops.sum, stacks)

    def largest(self, stacks: Sequence[Array]) -> Array:
        """Largest magnitudes."""
        return self._fold(ops.abs, ops.max, stacks)

    def magnitudes(self, stacks: Sequence[Array]) -> Array:
        """Sums of magnitudes."""
        return self._fold(ops.abs, ops.sum, stacks)

    def nonzeros(self, stacks: Sequence[Array]) -> Array:
        """Numbers of elements that are not zero."""
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
