"""Facts of models and data that are made up: a chain of layers, one output, arrays of a batch."""

from typing import Any

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS, Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout, Port
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
        several = dict(enumerate(batch)) if isinstance(batch, list) else batch
        named = several if isinstance(several, dict) else {} if batch is None else {"": batch}
        for name, array in ((str(name), np.asarray(array)) for name, array in named.items()):
            ports.append(Port(role, name, array.shape[1:], array.dtype.name))
            columns.append(measure(array))
    rows = np.ones((len(steps), 1), np.float32)
    values = {
        name: rows * np.array([column.get(name, np.nan) for column in columns], np.float32)
        for name in PORT_STATISTICS
    }
    known = {"loss": 2.3, "penalty": 0.0} | totals
    known |= {"batch_loss": known["loss"]}
    numbers = {name: rows * np.reshape(value, (-1, 1)) for name, value in known.items()}
    history = GradientHistory(None)
    layout = Layout((), ports=tuple(ports))
    history.append(Chunk(layout, np.asarray(steps, np.int64), {}, numbers, values))
    history.setup = setup
    return Facts(history)


def measure(batch: Any) -> dict[str, float]:
    """Measure a batch as a record has it."""
    rows = np.asarray(batch, np.float64).reshape(-1, batch.shape[-1] if batch.ndim > 1 else 1)
    finite = rows[np.isfinite(rows)]
    measured = {"nonfinite": float(rows.size - finite.size)}
    if not finite.size:
        return measured
    with np.errstate(invalid="ignore"):
        of_features = rows.std(axis=0)
    is_one_hot = np.sum(rows == 1, axis=1) * np.sum(rows != 0, axis=1) == 1
    shares = rows.mean(axis=0)
    if rows.shape[1] == 1:
        shares = np.unique(finite, return_counts=True)[1] / finite.size
    measured |= {
        "mean": finite.mean(),
        "std": finite.std(),
        "min": finite.min(),
        "max": finite.max(),
        "integers": np.mean(finite == np.rint(finite)),
        "low_std": of_features.min(),
        "high_std": of_features.max(),
        "batch_std": np.sqrt(np.mean(np.square(of_features))),
        "variance": np.mean(np.square(of_features)),
    }
    mean = rows.mean(axis=0)
    if (mean >= 0).all() and (mean <= 1).all():
        halves = np.stack([mean, 1 - mean])
        terms = -halves * np.log(np.where(halves > 0, halves, 1))
        measured["binary_entropy"] = np.mean(terms.sum(axis=0))
    if rows.shape[1] > 1:
        measured["one_hot"] = is_one_hot.mean()
    if rows.shape[1] == 1 or measured["one_hot"] == 1:
        shares = shares[shares > 0]
        measured |= {"classes": len(shares), "entropy": -np.sum(shares * np.log(shares))}
    return measured
