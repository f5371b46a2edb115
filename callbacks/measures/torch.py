"""Measuring on PyTorch: vectorized operations, and Python to decide.

PyTorch internals: `torch._foreach_norm` and others of its kind, of which `torch.nn.utils` and
`torch.optim` are made: operations on many tensors in a few kernels.
"""

import functools
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch

from keras_initkit.callbacks.measures.gradients import (
    Measured,
    Reductions,
    each,
    measure_twice,
    measure_wide,
)

# Of so many elements `dot` is exact to 1e-7, and quicker than squares and their sum; of ten million
# at once it loses 1e-4.
_BLOCK = 2**16


def _sum_squares(stack: Any) -> Any:
    """Sum the squares of each tensor; of one, which is large, by blocks."""
    if len(stack) > 1:
        return stack.square().sum(dim=1)
    tensor = stack[0]
    if len(tensor) <= _BLOCK:
        return torch.dot(tensor, tensor).unsqueeze(0)
    blocks = [torch.dot(block, block) for block in tensor.split(_BLOCK)]
    return torch.stack(blocks).sum(dim=0, keepdim=True)


# On a CPU, `vector_norm` of order 2 loses 1e-5 of a million elements, and other orders are
# 4 to 20 times as slow as these.
_ON_CPU = Reductions(
    each(_sum_squares),
    each(lambda x: torch.maximum(x.amax(dim=1), -x.amin(dim=1))),
    each(lambda x: x.abs().sum(dim=1)),
    each(lambda x: _sum_squares(torch.sign(x))),
)


def measure_on_cpu(stacks: Sequence[Any], wanted: Collection[str]) -> Measured:
    """Measure each tensor of all stacks, float32 (k, size), as `gradient_statistics` does."""
    return measure_twice(
        stacks,
        wanted,
        _ON_CPU,
        lambda is_ordinary, plain, careful, stacks: plain if is_ordinary else careful(stacks),
        functools.partial(measure_wide, reductions=_ON_CPU),
    )


def measure_together(stacks: Sequence[Iterable[Any]], wanted: Collection[str]) -> Measured:
    """Measure each tensor of all stacks, of any shapes, as `gradient_statistics` does.

    On a GPU the time goes into the number of operations. In float64 no square is lost.
    """
    tensors = [tensor for stack in stacks for tensor in stack]

    def norm(order: float, tensors: list[Any] = tensors) -> Any:
        return torch.stack(torch._foreach_norm(tensors, order, dtype=torch.float64))

    norms = norm(2.0)
    measured = {"norm": norms}
    sizes = _hold(tuple(tensor.numel() for tensor in tensors), norms.device)
    if "mean_abs" in wanted:
        measured["mean_abs"] = norm(1.0) / sizes
    if "max_abs" in wanted:
        measured["max_abs"] = torch.where(torch.isnan(norms), norms, norm(float("inf")))
    if {"zeros", "nonfinite"} & set(wanted):
        if torch.isfinite(norms).all():
            measured["nonfinite"] = torch.zeros_like(norms)
            order, counted = 1.0, torch._foreach_sign(tensors) if "zeros" in wanted else ()
        else:  # NaN has no sign
            lost = [torch.count_nonzero(~torch.isfinite(tensor)) for tensor in tensors]
            measured["nonfinite"] = torch.stack(lost)
            order, counted = 0.0, tensors
        if "zeros" in wanted:
            measured["zeros"] = 1 - norm(order, list(counted)) / sizes
    return {name: array.float() for name, array in measured.items() if name in wanted}


def copy_together(tensors: Sequence[Any]) -> list[Any]:
    """Copy tensors in a few operations."""
    return list(torch._foreach_mul(list(tensors), 1.0))


def subtract_together(tensors: list[Any], others: list[Any]) -> list[Any]:
    """Return the differences of two lists of tensors, in a few operations."""
    return list(torch._foreach_sub(tensors, others))


@functools.lru_cache
def _hold(numbers: tuple[int, ...], device: Any) -> Any:
    """Return numbers on a device: copied once, as a copy waits for it."""
    return torch.tensor(numbers, dtype=torch.float64, device=device)
