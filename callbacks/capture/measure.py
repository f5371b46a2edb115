"""Measuring an update: pure functions of its gradients and of the weights before and after it.

A plan's statistics are float32 arrays (columns,) by name, in the order of its columns.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_initkit.callbacks.capture.backend import Arrays
from keras_initkit.callbacks.capture.model_parts import Leaf
from keras_initkit.callbacks.capture.watch import Watched
from keras_initkit.callbacks.measures.gradients import as_float32


class Plan(NamedTuple):
    """The measured gradients of an update, in groups; each group is measured as one stack."""

    stacks: Sequence[list[int]] = ()  # groups of places in the optimizer's list of gradients
    column_stacks: Sequence[list[int]] = ()  # the same as columns
    places: tuple[int, ...] = ()  # all, in order
    columns: tuple[int, ...] = ()


@dataclasses.dataclass
class Update:
    """An update under way, on one replica; lists of gradients are in the optimizer's order."""

    leaf: Leaf
    watched: Watched
    given: Sequence[Any]  # gradients before clipping
    before: Sequence[Any]  # recorded weights before the update; empty if they are not wanted
    clipped: Sequence[Any] = ()  # gradients after clipping
    applied: Sequence[Any] = ()  # gradients summed over replicas
    plan: Plan = dataclasses.field(default_factory=Plan)
    statistics: dict[str, Any] = dataclasses.field(default_factory=dict)
    samples: Sequence[Any] = ()  # elements of each variable's gradient; empty if none are kept


def make_plan(gradients: Sequence[Any], columns: dict[int, int], arrays: Arrays) -> Plan:
    """Group gradients: small ones of one shape and type; those measured alone come last.

    Only those are in it that have a column and are not None.
    """
    groups: dict[Any, list[int]] = {}
    for i in columns:
        gradient = gradients[i]
        if gradient is not None:
            shape = tuple(gradient.shape)
            alone = (
                not arrays.is_dense(gradient) or None in shape or math.prod(shape) > arrays.small
            )
            groups.setdefault(i if alone else (shape, gradient.dtype), []).append(i)
    stacks = sorted(groups.values(), key=lambda group: len(group) == 1)
    places = tuple(itertools.chain.from_iterable(stacks))
    column_stacks = [[columns[i] for i in group] for group in stacks]
    return Plan(stacks, column_stacks, places, tuple(columns[i] for i in places))


def measure_gradients(update: Update, arrays: Arrays) -> dict[str, Any]:
    """Measure the gradients of an update."""
    watched, stacks = update.watched, update.plan.stacks
    wanted = watched.row.statistics
    applied = [update.applied[i] for i in update.plan.places]
    measured = arrays.measure(_stacks(update.applied, stacks, arrays), wanted)
    share = arrays.shares(applied)
    if share is not None:
        # What a sparse gradient does not have is zero.
        if "mean_abs" in wanted:
            measured["mean_abs"] = measured["mean_abs"] * share
        if "zeros" in wanted:
            measured["zeros"] = 1 - (1 - measured["zeros"]) * share
    if "dead_units" in wanted:  # of layers without a bias
        unseen = ops.zeros((), "float32") + math.nan  # units do not show there
        sources = [watched.unit_sources[column] for column in update.plan.columns]
        shares = [
            _zero_columns(gradient) if source == "kernel" else unseen
            for gradient, source in zip(applied, sources, strict=True)
        ]
        measured["dead_units"] = ops.stack(shares)
    if {"clip_ratio", "local_norm"} & set(wanted):
        raw = _norms(_stacks(update.given, stacks, arrays), arrays)
    if "clip_ratio" in wanted:
        clipped = measured["norm"]
        if watched.replicas > 1:
            clipped = _norms(_stacks(update.clipped, stacks, arrays), arrays)
        ratio = ops.where(raw == 0, ops.ones_like(raw), clipped / raw)
        measured["clip_ratio"] = arrays.over_workers(ratio)
    if "local_norm" in wanted:
        measured["local_norm"] = arrays.over_workers(watched.replicas * raw)
    return measured


def measure_weights(update: Update, after: Sequence[Any], arrays: Arrays) -> dict[str, Any]:
    """Measure weights, and their change if the weights after the update are given."""
    groups, count = update.plan.column_stacks, len(update.plan.columns)
    former = _stacks(update.before, groups, arrays)
    now = _stacks(after, groups, arrays) if after else []
    changes = arrays.subtract(now, former) if after else []
    both = _norms([*former, *changes], arrays)
    measured = {"weight_norm": both[:count]}
    return measured | {"update_norm": both[count:]} if after else measured


def sample_gradients(
    gradients: Sequence[Any], plan: Plan, sizes: Sequence[int], arrays: Arrays
) -> list[Any]:
    """Take elements of gradients at equal distances: for each recorded variable, float32 (size,).

    They are NaN without a gradient, or if it is sparse: its elements are others each time.
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


def _norms(stacks: Sequence[Any], arrays: Arrays) -> Any:
    return arrays.measure(stacks, ("norm",))["norm"]


def _stacks(tensors: Sequence[Any], groups: Sequence[list[int]], arrays: Arrays) -> list[Any]:
    return [arrays.stack([tensors[i] for i in group]) for group in groups]


def _zero_columns(gradient: Any) -> Any:
    """Return the share of zero columns in a gradient."""
    columns = ops.reshape(gradient, (-1, gradient.shape[-1]))
    return ops.mean(ops.cast(ops.all(columns == 0, axis=0), "float32"))
