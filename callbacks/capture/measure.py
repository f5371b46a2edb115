"""Measuring an update: pure functions of its gradients and of the weights before and after it."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_initkit.callbacks.capture.backend import Arrays
from keras_initkit.callbacks.capture.watch import Watched
from keras_initkit.callbacks.measures.gradients import as_float32, gradient_statistics, norms

# Tensors of one shape are measured together up to this size, so that many small layers cost few
# operations, and big ones are not copied.
_SMALL = 4096


class Gradients(NamedTuple):
    """The gradients of an update, on one replica: lists in the order of the optimizer.

    Attributes:
        given: Before clipping.
        clipped: After clipping.
        applied: Summed over replicas.
    """

    given: Sequence[Any]
    clipped: Sequence[Any]
    applied: Sequence[Any]


class Plan(NamedTuple):
    """The measured gradients of an update, in groups; each group is measured as one stack.

    Attributes:
        stacks: Groups of places in the optimizer's list of gradients.
        column_stacks: The same as columns.
    """

    stacks: Sequence[list[int]] = ()
    column_stacks: Sequence[list[int]] = ()

    @property
    def places(self) -> tuple[int, ...]:
        """All places, in order."""
        return tuple(itertools.chain.from_iterable(self.stacks))

    @property
    def columns(self) -> tuple[int, ...]:
        """All columns, in order."""
        return tuple(itertools.chain.from_iterable(self.column_stacks))


class Measured(NamedTuple):
    """The measurements of an update.

    Attributes:
        plan: The measured gradients.
        statistics: Arrays of shape (columns,) by name, in the order of the plan's columns.
        samples: Elements of each variable's gradient; empty if none are kept.
    """

    plan: Plan = Plan()
    statistics: dict[str, Any] = {}  # noqa: RUF012 (never written)
    samples: Sequence[Any] = ()


def make_plan(gradients: Sequence[Any], columns: dict[int, int], arrays: Arrays) -> Plan:
    """Group gradients: small ones of one shape and type; those measured alone come last.

    Args:
        gradients: As the optimizer was given them.
        columns: Column of each recorded place.
        arrays: The backend's operations.
    """
    groups: dict[Any, list[int]] = {}
    for i in columns:
        gradient = gradients[i]
        if gradient is not None:
            shape = tuple(gradient.shape)
            alone = not arrays.is_dense(gradient) or math.prod(shape) > _SMALL
            groups.setdefault(i if alone else (shape, gradient.dtype), []).append(i)
    stacks = sorted(groups.values(), key=lambda group: len(group) == 1)
    return Plan(stacks, [[columns[i] for i in group] for group in stacks])


def measure_gradients(
    gradients: Gradients, plan: Plan, watched: Watched, arrays: Arrays
) -> dict[str, Any]:
    """Measure the gradients of an update.

    Args:
        gradients: The gradients.
        plan: The measured ones.
        watched: The recorded variables and statistics.
        arrays: The backend's operations.

    Returns:
        Statistics by name: float32 arrays (columns,), in the order of `plan.columns`.
    """
    wanted = watched.row.statistics
    stacks = _stacks(gradients.applied, plan.stacks, arrays)
    measured = gradient_statistics(stacks, wanted, arrays.reductions)
    share = arrays.shares([gradients.applied[i] for i in plan.places])
    if share is not None:
        # What a sparse gradient does not have is zero.
        if "mean_abs" in wanted:
            measured["mean_abs"] = measured["mean_abs"] * share
        if "zeros" in wanted:
            measured["zeros"] = 1 - (1 - measured["zeros"]) * share
    if "dead_units" in wanted:
        measured["dead_units"] = _dead_units(gradients.applied, plan, watched.unit_sources)
    if {"clip_ratio", "local_norm"} & set(wanted):
        raw = norms(_stacks(gradients.given, plan.stacks, arrays), arrays.reductions)
    if "clip_ratio" in wanted:
        clipped = measured["norm"]
        if watched.replicas > 1:
            clipped = norms(_stacks(gradients.clipped, plan.stacks, arrays), arrays.reductions)
        ratio = ops.where(raw == 0, ops.ones_like(raw), clipped / raw)
        measured["clip_ratio"] = arrays.over_workers(ratio)
    if "local_norm" in wanted:
        measured["local_norm"] = arrays.over_workers(watched.replicas * raw)
    return measured


def measure_weights(
    before: Sequence[Any], after: Sequence[Any], plan: Plan, arrays: Arrays
) -> dict[str, Any]:
    """Measure weights and their update.

    Args:
        before: Values of all recorded variables before the update.
        after: The same after it; empty if the update is not to be measured.
        plan: The updated ones.
        arrays: The backend's operations.

    Returns:
        Statistics by name, as of `measure_gradients`.
    """
    former = _stacks(before, plan.column_stacks, arrays)
    changes = []
    if after:
        now = _stacks(after, plan.column_stacks, arrays)
        changes = [a - b for a, b in zip(now, former, strict=True)]
    both = norms([*former, *changes], arrays.reductions)
    count = len(plan.columns)
    measured = {"weight_norm": both[:count]}
    return measured | {"update_norm": both[count:]} if after else measured


def sample_gradients(
    gradients: Sequence[Any], plan: Plan, sizes: Sequence[int], arrays: Arrays
) -> list[Any]:
    """Take elements of gradients at equal distances.

    Args:
        gradients: The gradients.
        plan: The measured ones.
        sizes: Number of elements to take of each recorded variable.
        arrays: The backend's operations.

    Returns:
        For each recorded variable a float32 array (size,). It is NaN if the variable received no
        gradient, or a sparse one: its elements are others each time.
    """
    samples: list[Any] = [np.full(size, np.nan, np.float32) for size in sizes]
    for i, column in zip(plan.places, plan.columns, strict=True):
        gradient, size = gradients[i], sizes[column]
        if arrays.is_dense(gradient):
            count = math.prod(gradient.shape)
            if size == count:
                elements = ops.reshape(gradient, (-1,))
            else:
                elements = arrays.elements(gradient, spread_places(size, count))
            samples[column] = as_float32(elements)
    return samples


@functools.lru_cache
def spread_places(size: int, count: int) -> np.ndarray:
    """Return places of `size` among `count` elements, at equal distances."""
    return np.linspace(0, count - 1, size).astype("int32")


def _stacks(tensors: Sequence[Any], groups: Sequence[list[int]], arrays: Arrays) -> list[Any]:
    return [arrays.stack([tensors[i] for i in group]) for group in groups]


def _dead_units(gradients: Sequence[Any], plan: Plan, unit_sources: Sequence[str]) -> Any:
    """Return the share of zero columns in kernels of layers without a bias."""
    return ops.stack(
        [
            _share_of_zero_columns(gradients[i])
            if unit_sources[column] == "kernel"
            else ops.convert_to_tensor(np.float32("nan"))
            for i, column in zip(plan.places, plan.columns, strict=True)
        ]
    )


def _share_of_zero_columns(kernel: Any) -> Any:
    columns = ops.reshape(kernel, (-1, kernel.shape[-1]))
    are_zero = ops.all(columns == 0, axis=0)
    return ops.mean(ops.cast(are_zero, "float32"))
