"""The variables and statistics of a capture: as requested, and of a built model."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras_initkit.callbacks.capture.model_parts import Target, frozen_layers, unit_kernels
from keras_initkit.callbacks.capture.row import RowLayout
from keras_initkit.callbacks.columns import unit_sources, variables_of
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


class Watched(NamedTuple):
    """The recorded variables and statistics of a model."""

    variables: list[Any]  # trainable `keras.Variable`s, in the model's order
    unit_sources: list[str]  # where the dead units of each show: see `columns.unit_sources`
    row: RowLayout
    replicas: int
    capacity: int  # greatest number of updates between two reads
    frozen: tuple[str, ...]  # paths of the frozen layers


def watch_model(target: Target, watch: Watch, replicas: int, has_loss: bool) -> Watched:
    """Find the variables and statistics to measure in a built model."""
    model = target.model
    variables = watch.select(model.trainable_variables)
    sources = unit_sources(variables, unit_kernels(model))
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
        len(target.leaves),
        has_loss,
        tuple(min(watch.sample_size, math.prod(variable.shape)) for variable in variables),
    )
    rows = max(1, min(_MOST_ROWS, _MOST_NUMBERS // max(1, row.size)))
    capacity = max(rows, model.steps_per_execution)
    return Watched(variables, sources, row, replicas, capacity, frozen_layers(model))


def make_layout(
    target: Target, watched: Watched, per: str, optimizer_of: dict[int, int]
) -> tuple[list[int], Layout]:
    """Return the numbers of the heard optimizers, and the layout of a record.

    `optimizer_of` tells for each heard column the number of its optimizer.
    """
    heard = sorted(set(optimizer_of.values())) or [0]
    names = {i: target.leaves[i].name if len(heard) > 1 else "" for i in heard}
    columns = range(len(watched.variables))
    owners = [names[optimizer_of.get(column, heard[0])] for column in columns]
    layout = Layout(
        variables_of(target.model, watched.variables, owners, per),
        tuple(names.values()),
        watched.frozen,
        watched.replicas,
    )
    return heard, layout
