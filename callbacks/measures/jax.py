"""Measuring on JAX's accelerators: sums without a branch, which the compiler makes in one pass.

A branch costs there more than it saves: the device waits for the host to choose, and what both
ways read is kept until then. Squares are summed in three ranges instead, each with a factor with
which none is lost: J. L. Blue, "A Portable Fortran Program to Find the Euclidean Norm of a Vector",
ACM TOMS 4(1), 1978. The reductions are separate ones: the compiler joins those of one array, while
a single reduction of several results takes it twice as long.
"""

import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Magnitudes below and above are squared times a factor: of 2³⁰ elements nothing overflows, and what
# underflows is below float32's least normal number.
_LOW, _HIGH = 2.0**-30, 2.0**40
_LOW_FACTOR, _HIGH_FACTOR = 2.0**60, 2.0**-80


class _Part(NamedTuple):
    """A number of all elements: of each element, and of several along an axis."""

    of_element: Callable[[jax.Array], jax.Array]
    reduce: Callable[[jax.Array, int], jax.Array] = jnp.sum


def _square_low(x: jax.Array) -> jax.Array:
    return jnp.square(jnp.where(jnp.abs(x) < _LOW, x * _LOW_FACTOR, 0))


def _square_middle(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    # NaN is neither low nor high.
    return jnp.square(jnp.where((size < _LOW) | (size > _HIGH), 0, x))


def _square_high(x: jax.Array) -> jax.Array:
    return jnp.square(jnp.where(jnp.abs(x) > _HIGH, x * _HIGH_FACTOR, 0))


_SQUARES = (_Part(_square_low), _Part(_square_middle), _Part(_square_high))
_PARTS = {
    # The sum of a billion magnitudes overflows where their mean is above 3e29.
    "mean_abs": _Part(lambda x: jnp.abs(x)),
    "max_abs": _Part(lambda x: jnp.abs(x), jnp.max),
    "zeros": _Part(lambda x: (x != 0).astype(jnp.float32)),  # nonzeros
    "nonfinite": _Part(lambda x: (~jnp.isfinite(x)).astype(jnp.float32)),
}


def measure_at_once(stacks: Sequence[jax.Array], wanted: Collection[str]) -> dict[str, jax.Array]:
    """Measure each tensor of all stacks, float32 (k, size), as `gradient_statistics` does."""
    names = [name for name in _PARTS if name in wanted]
    parts = [*_SQUARES, *(_PARTS[name] for name in names)]
    rows = [_reduce(stack, parts) for stack in stacks]
    low, middle, high, *others = (jnp.concatenate(column) for column in zip(*rows, strict=True))
    sizes = jnp.concatenate([jnp.full(len(stack), stack.shape[1]) for stack in stacks])
    norm = _combine_norms(
        jnp.sqrt(low) / _LOW_FACTOR, jnp.sqrt(middle), jnp.sqrt(high) / _HIGH_FACTOR
    )
    measured = dict(zip(names, others, strict=True))
    if "mean_abs" in measured:
        measured["mean_abs"] = measured["mean_abs"] / sizes
    if "zeros" in measured:
        measured["zeros"] = (sizes - measured["zeros"]) / sizes
    if "max_abs" in measured:  # a maximum may pass over NaN
        measured["max_abs"] = jnp.where(jnp.isnan(norm), norm, measured["max_abs"])
    return measured | ({"norm": norm} if "norm" in wanted else {})


def _reduce(stack: jax.Array, parts: Sequence[_Part]) -> Sequence[jax.Array]:
    """Reduce a stack (k, size) to all parts, (k,) each; zeros change none of them."""
    # In two steps, a long sum is exact however it is made.
    count, size = stack.shape
    width = 2 ** math.ceil(math.log2(size) / 2)
    rows = jnp.pad(stack, ((0, 0), (0, -size % width))).reshape(count, -1, width)
    return [part.reduce(part.reduce(part.of_element(rows), -1), -1) for part in parts]


def _combine_norms(*norms: jax.Array) -> jax.Array:
    """Return the norm of the parts' norms, without squaring what is too large or too small."""
    largest = functools.reduce(jnp.maximum, norms)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * jnp.sqrt(sum(jnp.square(norm / scale) for norm in norms))
