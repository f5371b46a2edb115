"""Measuring on JAX: on a CPU by plain sums, and again if need be; on accelerators at once.

On accelerators the compiler joins plain sums with the step's own passes. A branch costs there more
than it saves: the device waits for the host to choose, and what both ways read is kept until then.
Masks are stored, and keep the weights from being updated in place. So squares are summed three
times, of all elements times a factor each, and one of the sums is taken; as J. L. Blue, "A Portable
Fortran Program to Find the Euclidean Norm of a Vector", ACM TOMS 4(1), 1978, but with factors for
whole tensors.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from keras_initkit.callbacks.measures.gradients import (
    MEASURE_IN_ROWS,
    PLAIN,
    Measured,
    measure_twice,
)

# Where the sum of squares is below or above, elements are taken times a factor: then of 2³⁰
# elements nothing overflows, and what underflows is below 1e-9 of the sum.
_LEAST, _MOST = 1e-20, 1e30
_FACTORS = 2.0**80, 1.0, 2.0**-80
# Each tensor is reduced to so many numbers, and then all tensors together: in two steps a long sum
# is exact however it is made, and the second takes a few kernels, not some for each tensor.
_PARTIAL = 1024


class _Part(NamedTuple):
    """A number of all elements: of each element, and of several along an axis."""

    of_element: Callable[[jax.Array], jax.Array]
    reduce: Callable[[jax.Array, int], jax.Array] = jnp.sum


def _square_times(factor: float) -> _Part:
    return _Part(lambda x: jnp.square(x * factor))


_SQUARES = tuple(map(_square_times, _FACTORS))
_PARTS = {
    # The sum of a billion magnitudes overflows where their mean is above 3e29.
    "mean_abs": _Part(lambda x: jnp.abs(x)),
    "max_abs": _Part(lambda x: jnp.abs(x), jnp.max),
    "zeros": _Part(lambda x: (x != 0).astype(jnp.float32)),  # nonzeros
    "nonfinite": _Part(lambda x: (~jnp.isfinite(x)).astype(jnp.float32)),
}


def measure_on_cpu(stacks: Sequence[jax.Array], wanted: Collection[str]) -> Measured:
    """Measure each tensor of all stacks, float32 (k, size), as `gradient_statistics` does."""

    def choose(
        is_ordinary: jax.Array,
        plain: tuple[jax.Array, ...],
        careful: Callable[..., tuple[jax.Array, ...]],
        stacks: Sequence[jax.Array],
    ) -> tuple[jax.Array, ...]:
        if not isinstance(is_ordinary, jax.core.Tracer):  # a step that is not compiled
            return plain if is_ordinary else careful(stacks)
        return jax.lax.cond(is_ordinary, lambda stacks: plain, careful, stacks)

    return measure_twice(stacks, wanted, PLAIN, choose, MEASURE_IN_ROWS)


def measure_at_once(stacks: Sequence[jax.Array], wanted: Collection[str]) -> Measured:
    """Measure each tensor of all stacks, float32 (k, size), as `gradient_statistics` does."""
    names = [name for name in _PARTS if name in wanted]
    parts = [*_SQUARES, *(_PARTS[name] for name in names)]
    rows = [_reduce_partly(stack, parts) for stack in stacks]
    low, middle, high, *others = (
        part.reduce(jnp.concatenate(column), -1)
        for part, column in zip(parts, zip(*rows, strict=True), strict=True)
    )
    sizes = jnp.concatenate([jnp.full(len(stack), stack.shape[1]) for stack in stacks])
    # Of NaN neither holds.
    norms = [jnp.sqrt(s) / factor for s, factor in zip((low, middle, high), _FACTORS, strict=True)]
    norm = jnp.where(middle < _LEAST, norms[0], jnp.where(middle > _MOST, norms[2], norms[1]))
    measured = dict(zip(names, others, strict=True))
    if "mean_abs" in measured:
        measured["mean_abs"] = measured["mean_abs"] / sizes
    if "zeros" in measured:
        measured["zeros"] = (sizes - measured["zeros"]) / sizes
    if "max_abs" in measured:  # a maximum may pass over NaN
        measured["max_abs"] = jnp.where(jnp.isnan(norm), norm, measured["max_abs"])
    return measured | ({"norm": norm} if "norm" in wanted else {})


def _reduce_partly(stack: jax.Array, parts: Sequence[_Part]) -> Sequence[jax.Array]:
    """Reduce a stack (k, size) to some numbers of each part, (k, _PARTIAL); zeros change none."""
    count, size = stack.shape
    rows = jnp.pad(stack, ((0, 0), (0, -size % _PARTIAL))).reshape(count, _PARTIAL, -1)
    return [part.reduce(part.of_element(rows), -1) for part in parts]
