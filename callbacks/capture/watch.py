"""The variables and statistics of a capture: as requested, and of a built optimizer."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.row import RowLayout
from keras_initkit.models.columns import unit_sources, variables_of
from tensorboard_plugin_initkit.record.chunk import MEASURED
from tensorboard_plugin_initkit.record.layout import Layout

# Limits of the rows that wait on the device: rows, and their numbers in all.
_MOST_ROWS, _MOST_NUMBERS = 64, 2**22


class Watch(NamedTuple):
    """A request: the variables and statistics to measure."""

    select: Callable[[Sequence[Any]], list[Any]]  # picks the variables out of `keras.Variable`s
    statistics: frozenset[str]  # names out of `MEASURED`
    sample_size: int = 0  # number of elements of each gradient to keep
    per: str = "layer"  # or "variable", to count every variable as a layer
    is_due: Callable[[int], bool] = lambda step: True  # tells whether to record a step
    hears_batch: bool = True  # whether to measure the batch and its loss, too


class Watched(NamedTuple):
    """The recorded variables and statistics of an optimizer."""

    variables: list[Any]  # those that it was built for, in its order
    unit_sources: list[str]  # where the dead units of each show: see `columns.unit_sources`
    row: RowLayout
    replicas: int


def watch_optimizer(
    target: Target, optimizer: Any, watch: Watch, replicas: int, has_loss: bool
) -> Watched:
    """Find the variables and statistics to measure of a built optimizer."""
    # What float8 layers call the gradient of a scale is its next value.
    trained = optimizer._trainable_variables
    by_gradient = [v for v in trained if not getattr(v, "overwrite_with_gradient", False)]
    variables = watch.select(by_gradient)
    sources = unit_sources(target.model, variables)
    names = set(watch.statistics)
    if "kernel" not in sources:
        names -= {"dead_units"}
    optimizers = [leaf.optimizer for leaf in target.leaves]
    if not any(o.clipnorm or o.clipvalue or o.global_clipnorm for o in optimizers):
        names -= {"clip_ratio"}
    if replicas == 1:
        names -= {"local_norm"}
    row = RowLayout(
        len(variables),
        tuple(name for name in MEASURED if name in names),
        has_loss,
        tuple(min(watch.sample_size, math.prod(variable.shape)) for variable in variables),
    )
    return Watched(variables, sources, row, replicas)


def choose_capacity(target: Target, row: RowLayout) -> int:
    """Return the greatest number of updates between two reads, from the first row's layout."""
    rows = _MOST_NUMBERS // (max(1, row.size) * len(target.leaves))
    return max(1, min(_MOST_ROWS, rows), target.model.steps_per_execution)


def make_layout(
    target: Target,
    heard: dict[int, Watched],
    given: dict[int, list[int]],
    per: str,
    frozen: tuple[str, ...],
) -> tuple[Layout, list[int]]:
    """Return the layout of a record, and the place of each column in the optimizers' rows.

    `heard` tells for the `id` of an optimizer what is recorded of it, `given` its columns that it
    was given. Places count through one optimizer's variables after the other's.
    """
    names = {id(leaf.optimizer): leaf.name for leaf in target.leaves}
    owners = {key: names[key] if len(heard) > 1 else "" for key in heard}
    rank = {id(variable): i for i, variable in enumerate(target.model.variables)}
    columns, begin = [], 0
    for key, watched in heard.items():
        for column in given[key]:
            variable = watched.variables[column]
            rank_of_it = rank.get(id(variable), len(rank))
            columns.append((rank_of_it, begin + column, variable, owners[key]))
        begin += len(watched.variables)
    columns.sort(key=lambda column: column[:2])
    layout = Layout(
        variables_of(target.model, [c[2] for c in columns], [c[3] for c in columns], per),
        tuple(owners.values()),
        frozen,
        max(watched.replicas for watched in heard.values()),
    )
    return layout, [column[1] for column in columns]
