"""How stacks of tensors are reduced to a number a tensor, where the time of a statistic goes.

`Reductions` is for any Keras backend, `FoldedReductions` for a compiler that vectorizes no long
sums, and `HostReductions` for NumPy, where each step is run by Python.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

Array = Any

# Compilers turn sums over fewer elements than 32 into plain vector loops.
_FOLD = 16
# 256 KB: the second pass over it finds it in the cache of a core.
_CHUNK = 2**16


class Reductions:
    """What the statistics read the elements with: stacks (k, size) -> (Σk,).

    A backend may know better. A reduction need not be right where squares are out of range or
    elements are not finite, except that `squares` must be out of range or NaN there, and
    `nonzeros` right for finite elements.

    Attributes:
        ops: The functions that arrays are computed with: `keras.ops`, or some like them.
    """

    ops: Any = ops

    def reduce(self, stacks: Sequence[Array], names: Sequence[str]) -> dict[str, Array]:
        """The named reductions; names are those of the methods below."""
        return {name: getattr(self, name)(stacks) for name in names}

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


class EagerReductions(Reductions):
    """Where each operation is run by Python, which therefore can decide."""

    def choose(
        self,
        ordinary: Array,
        plain: tuple[Array, ...],
        careful: Callable[[Sequence[Array]], tuple[Array, ...]],
        stacks: Sequence[Array],
    ) -> tuple[Array, ...]:
        """Return `plain` if `ordinary`; else `careful(stacks)`."""
        return plain if ordinary else careful(stacks)


class HostReductions(EagerReductions):
    """For float32 arrays of NumPy: all that is wanted is read off a piece while it is in cache."""

    def __init__(self) -> None:
        self.ops = _NumpyOps()
        self._are_nonzero = np.empty(_CHUNK, bool)
        self._absolute = np.empty(_CHUNK, np.float32)
        self._of_chunk: dict[str, Callable[[np.ndarray], float]] = {
            "squares": _square,
            "largest": _largest,
            "magnitudes": self._magnitude,
            "nonzeros": self._nonzero,
        }

    def reduce(self, stacks: Sequence[Array], names: Sequence[str]) -> dict[str, Array]:
        """The named reductions."""
        columns: list[list[float]] = [[] for _ in names]
        readers = [self._of_chunk[name] for name in names]
        for stack in stacks:
            if len(stack) > 1:
                for column, name in zip(columns, names, strict=True):
                    column.extend(_OF_STACK[name](stack))
            elif stack.size <= _CHUNK:
                for column, reader in zip(columns, readers, strict=True):
                    column.append(reader(stack[0]))
            else:
                chunks = np.split(stack[0], range(_CHUNK, stack.size, _CHUNK))
                parts = zip(*([reader(x) for reader in readers] for x in chunks), strict=True)
                for column, name, numbers in zip(columns, names, parts, strict=True):
                    column.append(max(numbers) if name == "largest" else math.fsum(numbers))
        return dict(zip(names, np.array(columns, np.float32), strict=True))

    def squares(self, stacks: Sequence[Array]) -> Array:
        """Sums of squares."""
        return self.reduce(stacks, ["squares"])["squares"]

    def largest(self, stacks: Sequence[Array]) -> Array:
        """Largest magnitudes."""
        return self.reduce(stacks, ["largest"])["largest"]

    def magnitudes(self, stacks: Sequence[Array]) -> Array:
        """Sums of magnitudes."""
        return self.reduce(stacks, ["magnitudes"])["magnitudes"]

    def nonzeros(self, stacks: Sequence[Array]) -> Array:
        """Numbers of elements that are not zero."""
        return self.reduce(stacks, ["nonzeros"])["nonzeros"]

    def _magnitude(self, chunk: np.ndarray) -> float:
        return np.abs(chunk, out=self._absolute[: len(chunk)]).sum()

    def _nonzero(self, chunk: np.ndarray) -> float:
        are_nonzero = np.not_equal(chunk, 0, out=self._are_nonzero[: len(chunk)])
        return int(np.count_nonzero(are_nonzero))


def _square(chunk: np.ndarray) -> float:
    return np.dot(chunk, chunk)


def _largest(chunk: np.ndarray) -> float:
    return max(chunk.max(), -chunk.min())


def _dots(stack: np.ndarray) -> np.ndarray:
    return np.matmul(stack[:, None], stack[:, :, None])[:, 0, 0]


_OF_STACK: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "squares": _dots,
    "largest": lambda stack: np.maximum(stack.max(axis=1), -stack.min(axis=1)),
    "magnitudes": lambda stack: np.abs(stack).sum(axis=1),
    "nonzeros": lambda stack: _dots((stack != 0).astype(np.float32)),
}


class _NumpyOps:
    """Functions of NumPy under the names of `keras.ops`, of which each costs ten times as much."""

    convert_to_tensor = staticmethod(np.asarray)
    cast = staticmethod(np.asarray)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def each_stack(reduce: Callable[[Array], Array], stacks: Sequence[Array]) -> Array:
    """Reduce each stack, (k, size) -> (k,), and put the results one after the other."""
    parts = [reduce(stack) for stack in stacks]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)
