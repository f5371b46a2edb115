"""Facts of models and data that are made up: a chain of layers, one output, arrays of a batch."""

from typing import Any

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS, Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout, Port
from tensorboard_plugin_initkit.record.port_statistics import (
    TargetStatistics,
    count_classes,
    measure_array,
)
from tensorboard_plugin_initkit.record.setup import HeadSetup, LayerSetup, Setup

RNG = np.random.default_rng(0)
BATCH = 32
X = RNG.normal(size=(BATCH, 8))


def layer(kind: str, units: Any = (), activation: str = "", **fields: Any) -> LayerSetup:
    """Make a layer; `units` is the shape of a sample, or its only size."""
    shape = (-1, *(units if isinstance(units, tuple) else (units,)))
    weights = 2 * (kind.startswith(("Dense", "Conv")) or kind.endswith("Normalization"))
    own = {name: fields.pop(name) for name in ("path", "takes", "trainable") if name in fields}
    weights = fields.pop("weights", weights)
    return LayerSetup(
        own.pop("path", ""), kind, activation, shape=shape, weights=weights, arguments=fields, **own
    )


def dense(units: Any, activation: str = "", **fields: Any) -> LayerSetup:
    """Make a dense layer."""
    return layer("Dense", units, activation, **fields)


def chain(*layers: LayerSetup, loss: str = "", **fields: Any) -> Setup:
    """Make a model of layers in a row, the loss's arguments in `fields`."""
    named = [
        item._replace(path=item.path or f"{item.type.lower()}_{i}", takes=item.takes or (i - 1,))
        for i, item in enumerate(layers)
    ]
    last = next((item for item in reversed(named) if item.activation or item.weights), named[-1])
    activation = fields.pop("head", last.activation or "linear")
    metrics = fields.pop("metrics", ())
    head = HeadSetup("", len(named) - 1, activation, named[-1].shape, loss, fields, metrics)
    return Setup(tuple(named), (head,), "Adam", {"learning_rate": 1e-3}, has_graph=True)


def facts_of(
    setup: Setup,
    y: Any = None,
    x: Any = X,
    steps: Any = (0,),
    y_pred: Any = None,
    sample_weight: Any = None,
    **totals: float | list[float],
) -> Facts:
    """Make facts of the same batch at all steps; None for what is not known."""
    heads = [head.shape[1:] for head in setup.heads]
    if y_pred is None and heads and len(heads[0]):
        y_pred = RNG.uniform(0.1, 0.9, (BATCH, *heads[0]))
    batches = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
    ports, columns = [], []
    for role, batch in batches.items():
        arrays = batch if isinstance(batch, list) else [] if batch is None else [batch]
        for i, array in enumerate(map(np.asarray, arrays)):
            name = str(i) if len(arrays) > 1 else ""
            ports.append(Port(role, name, array.shape[1:], array.dtype.name))
            measured = measure_array(array)
            if role == "y":
                classes = count_classes(array.shape[1:], heads[0] if heads else ())
                measured |= TargetStatistics().add(array, classes)
            columns.append(measured)
    rows = np.ones((len(steps), 1), np.float32)
    values = {
        name: rows * np.array([column.get(name, np.nan) for column in columns], np.float32)
        for name in PORT_STATISTICS
    }
    known = {"loss": 2.3, "penalty": 0.0} | totals
    numbers = {name: rows * np.reshape(value, (-1, 1)) for name, value in known.items()}
    history = GradientHistory(None)
    layout = Layout((), ports=tuple(ports))
    history.append(Chunk(layout, np.asarray(steps, np.int64), {}, numbers, values))
    history.setup = setup
    return Facts(history)
