"""The variables and statistics of a capture: as requested, and of a built model."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras_initkit.anatomy.layers_inside import path_inside
from keras_initkit.callbacks.capture.model_parts import Target, frozen_layers, unit_kernels
from keras_initkit.callbacks.capture.row import RowLayout
from keras_initkit.callbacks.columns import unit_sources, variables_of
from tensorboard_plugin_initkit.record.chunk import MEASURED
from tensorboard_plugin_initkit.record.layout import Layout

# Limits of the rows that wait on the device: rows, and their numbers in all.
_MOST_ROWS, _MOST_NUMBERS = 64, 2**22


class Watch(NamedTuple):
    """A request: the variables and statistics to measure.

    Attributes:
        select: Picks the variables to measure out of a list of `keras.Variable`s.
        statistics: Names out of `MEASURED`.
        sample_size: Number of elements of each gradient to keep.
        per: "layer", or "variable" to count every variable as a layer.
        is_due: Tells for a step whether it is to be recorded.
    """

    select: Callable[[Sequence[Any]], list[Any]]
    statistics: frozenset[str]
    sample_size: int = 0
    per: str = "layer"
    is_due: Callable[[int], bool] = lambda step: True


class Watched(NamedTuple):
    """The recorded variables and statistics of a model.

    Attributes:
        variables: The recorded trainable `keras.Variable`s, in the model's order.
        unit_sources: For each, where its dead units show: see `columns.unit_sources`.
        row: Layout of an update's numbers.
        replicas: Number of replicas.
        capacity: Greatest number of updates between two reads.
        frozen: Paths of the frozen layers.
    """

    variables: list[Any]
    unit_sources: list[str]
    row: RowLayout
    replicas: int
    capacity: int
    frozen: tuple[str, ...]


def watch_model(target: Target, watch: Watch, replicas: int, has_loss: bool) -> Watched:
    """Find the variables and statistics to measure in a built model.

    Args:
        target: The model and its optimizers.
        watch: The request.
        replicas: Number of replicas.
        has_loss: Whether rows hold the sums of losses.
    """
    model = target.model
    variables = watch.select(model.trainable_variables)
    sources = unit_sources(variables, unit_kernels(model))
    names = set(watch.statistics)
    if "kernel" not in sources:
        names -= {"dead_units"}
    if not target.clips:
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
    """Name the columns of a record.

    Args:
        target: The model and its optimizers.
        watched: Its recorded variables.
        per: "layer", or "variable" to count every variable as a layer.
        optimizer_of: For each heard column, the number of its optimizer.

    Returns:
        Numbers of the heard optimizers, and the layout.
    """
    heard = sorted(set(optimizer_of.values())) or [0]
    names = {i: target.leaves[i].name if len(heard) > 1 else "" for i in heard}
    columns = range(len(watched.variables))
    owners = [names[optimizer_of.get(column, heard[0])] for column in columns]
    layout = Layout(
        variables_of(target.model, watched.variables, owners, per),
        tuple(names.values()),
        tuple(path_inside(target.model, path) for path in watched.frozen),
        watched.replicas,
    )
    return heard, layout
