"""Magnitude of gradients and weights: pure functions on arrays, for any Keras backend.

Every function takes *stacks*: arrays of shape (k, size), each k tensors of one size, flattened.
One set of operations then serves all the small tensors of a shape, whatever their number.

Gradients of deep networks reach 1e-30 and 1e+30, whose squares are not float32 numbers. Sums are
taken plainly where that is exact, and otherwise relative to the largest magnitude:
‖x‖ = m · sqrt(Σ (x/m)²), m = max|x|. Ordinary gradients take the plain way, in fewer passes.

Only what is wanted is computed: next to the training step, a pass over the gradients is what a
statistic costs. A count of non-finite elements is free: an ordinary sum of squares has none.
The elements are read in `reductions.Reductions` alone, and all is computed with its `ops`.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.callbacks.measures.reductions import Array, Reductions

GRADIENT_STATISTICS = ("norm", "mean_abs", "max_abs", "zeros", "nonfinite")

# A sum of squares in between lost no square to underflow that matters, and none to overflow.
_ORDINARY = (1e-20, 1e30)
# The reductions that statistics are made of, besides the squares.
_NEEDED = {"mean_abs": "magnitudes", "max_abs": "largest", "zeros": "nonzeros"}


def gradient_statistics(
    stacks: Sequence[Array],
    wanted: Collection[str] = GRADIENT_STATISTICS,
    reductions: Reductions | None = None,
) -> dict[str, Array]:
    """Measure gradients.

    Args:
        stacks: Arrays of shape (k, size), any float dtype; computed in float32.
        wanted: Names out of `GRADIENT_STATISTICS`: `norm`, the L2 norm; `mean_abs` and `max_abs`,
            mean and maximum of |g|; `zeros`, the fraction of exact zeros, in [0, 1]; `nonfinite`,
            the number of NaN and infinities. A NaN makes the first three NaN; an infinity makes
            them infinite.
        reductions: The backend's way to reduce.

    Returns:
        The wanted statistics of each tensor of all stacks, in order: float32 arrays, shape (Σk,).
    """
    reductions = reductions or Reductions()
    ops = reductions.ops
    stacks = [as_float32(stack) for stack in stacks]
    names = [name for name in GRADIENT_STATISTICS if name in wanted]

    sizes = _sizes(stacks, ops)
    needed = [_NEEDED[name] for name in names if name in _NEEDED]
    reduced = reductions.reduce(stacks, ["squares", *needed])
    squared = reduced["squares"]
    low, high = _ORDINARY
    ordinary, plain = ops.logical_and(squared > low, squared < high), {}
    for name in names:
        if name == "norm":
            plain[name] = ops.sqrt(squared)
        elif name == "mean_abs":
            plain[name] = reduced["magnitudes"] / sizes
        elif name == "max_abs":
            plain[name] = reduced["largest"]
        elif name == "zeros":
            # Counts are exact up to 2²⁴: no gradient has 3e-8 zeros.
            plain[name] = ops.maximum(sizes - reduced["nonzeros"], 0) / sizes
        else:
            plain[name] = ops.zeros_like(squared)
    # Gradients that are all zero, as a dead layer's, are ordinary.
    if "max_abs" in plain:
        zero = plain["max_abs"] == 0
    elif "zeros" in plain:
        zero = plain["zeros"] == 1
    else:
        zero = ops.zeros_like(ordinary)
    ordinary = ops.logical_or(ordinary, ops.logical_and(squared == 0, zero))

    def careful(stacks: Sequence[Array]) -> tuple[Array, ...]:
        parts = [_careful_statistics(stack, names, reductions) for stack in stacks]
        return tuple(ops.concatenate(column, axis=0) for column in zip(*parts, strict=True))

    columns = reductions.choose(
        ops.all(ordinary), tuple(plain[name] for name in names), careful, stacks
    )
    return dict(zip(names, columns, strict=True))


def norms(stacks: Sequence[Array], reductions: Reductions | None = None) -> Array:
    """L2 norm of each tensor of all stacks, in order.

    Args:
        stacks: Arrays of shape (k, size), any float dtype; computed in float32.
        reductions: The backend's way to reduce.

    Returns:
        float32 array of shape (Σk,).
    """
    return gradient_statistics(stacks, ("norm",), reductions)["norm"]


def as_float32(array: Array) -> Array:
    """Cast, if it is not float32: not even that is free in eager steps."""
    if array.dtype == np.float32 or keras.backend.standardize_dtype(array.dtype) == "float32":
        return array
    return keras.ops.cast(array, "float32")


def _sizes(stacks: Sequence[Array], ops: Any) -> Array:
    """Size of each tensor of all stacks; those of sparse gradients are known only in the step."""
    counts = [stack.shape[0] for stack in stacks]
    sizes = [stack.shape[1] for stack in stacks]
    if None not in sizes:
        return ops.convert_to_tensor(np.repeat(np.array(sizes, np.float32), counts))
    sizes = [ops.cast(ops.shape(stack)[1], "float32") for stack in stacks]
    return ops.repeat(ops.stack(sizes), counts)


def _careful_statistics(stack: Array, names: Sequence[str], reductions: Reductions) -> list[Array]:
    ops = reductions.ops
    scaled, scale, largest = _scaled(stack, ops)
    mean = scale * reductions.magnitudes([scaled]) / _sizes([stack], ops)
    careful: dict[str, Callable[[], Array]] = {
        "norm": lambda: scale * ops.sqrt(reductions.squares([scaled])),
        "mean_abs": lambda: mean,
        # XLA's max passes over NaN, a mean never does.
        "max_abs": lambda: ops.where(ops.isnan(mean), mean, largest),
        "zeros": lambda: ops.mean(ops.cast(stack == 0, "float32"), axis=1),
        "nonfinite": lambda: ops.sum(
            ops.cast(ops.logical_not(ops.isfinite(scaled)), "float32"), axis=1
        ),
    }
    return [careful[name]() for name in names]


def _scaled(stack: Array, ops: Any) -> tuple[Array, Array, Array]:
    """Return |x| / m, shape (k, size), m, shape (k,): max |x|, or 1 if no scale; and max |x|."""
    magnitudes = ops.abs(stack)
    largest = ops.max(magnitudes, axis=1)
    usable = ops.logical_and(largest > 0, ops.isfinite(largest))
    scale = ops.where(usable, largest, ops.ones_like(largest))
    return magnitudes / ops.expand_dims(scale, 1), scale, largest
