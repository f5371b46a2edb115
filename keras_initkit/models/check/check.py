"""`check`: the faults of a model and its data that show before training."""

import itertools
import warnings
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.setup import read_setup
from keras_initkit.checks import check_count
from keras_initkit.models.check.dependence import ask_model
from keras_initkit.models.check.own_loss import ask_loss
from keras_initkit.models.check.sample import Sample, draw_sample
from keras_initkit.models.check.step import Outcome, compiled, run_step
from keras_initkit.models.columns import unit_sources, variables_of
from keras_initkit.statistics.batch import (
    MEASURED_OF_PORTS,
    ROLES,
    Profile,
    list_ports,
    measure_port,
)
from tensorboard_plugin_initkit.diagnosis.diagnosis import Diagnosis, diagnose_history
from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS, Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout
from tensorboard_plugin_initkit.record.port_statistics import TARGET_STATISTICS, TargetStatistics
from tensorboard_plugin_initkit.record.setup import Setup


def check(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int = 32,
    *,
    ignore: Collection[str] = (),
) -> Diagnosis:
    """Look for what keeps a model from learning, before it is trained.

    The output must fit the loss, and both must fit the targets; the data, and the loss and
    gradients of one batch, must be finite. Weights, states, seeds, metrics and optimizer stay as
    they are. A model that is not built is built, as by `fit`; one that is not compiled has no loss
    to look at, and one with a `train_step` of its own may use another loss.

    Example:
    ```python
    def test_the_model_can_learn():
        keras_initkit.check(model, x, y).raise_for_errors()
    ```

    Args:
        model: A `keras.Model`.
        x: Data as for `fit`: arrays, tensors, tables, or dicts and lists of these, from which
            evenly spaced rows are taken; or a `tf.data.Dataset`, `PyDataset`, `DataLoader` or
            generator of batches, from which the first ones are taken.
        y: Targets, if `x` is arrays.
        sample_weight: Weights of the samples, if `x` is arrays.
        batch_size: Number of samples of one step, if `x` is arrays.
        ignore: Kinds of findings to leave out, by name.

    Returns:
        A `Diagnosis`. `raise_for_errors()` makes it a test.

    Raises:
        TypeError: If `model` is no `keras.Model`.
        ValueError: If data have no rows, or there is no such kind of finding. Exceptions of the
            model or its loss pass through, unless a finding explains them.
    """
    check_model(model)
    check_count("batch_size", batch_size, "the number of samples of one step")
    start = look_at_start(model, (x, y, sample_weight), batch_size)
    history = GradientHistory(None)
    history.setup, history.notes = start.setup, start.notes
    history.append(start.record)
    diagnosis = diagnose_history(history, ignore, is_start=True)
    has_own_step = type(model).train_step is not keras.Model.train_step
    is_explained = has_own_step or any(finding.severity == "error" for finding in diagnosis)
    if start.error is not None and not is_explained:
        raise start.error
    return diagnosis


def check_model(model: Any) -> None:
    """Raise a TypeError unless an argument `model` is a `keras.Model`."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model={model!r}. Load a saved model first: "
            "`keras.models.load_model(path)`."
        )


class Start(NamedTuple):
    """A model before its training.

    Attributes:
        setup: The model as it is built and compiled.
        record: A record at step 0: the data, and the gradients of one batch.
        notes: Sentences on what could not be looked at.
        error: The exception raised where the loss was computed.
        is_cut: Whether the loss depends on no weight.
    """

    setup: Setup
    record: Chunk
    notes: list[str]
    error: Exception | None
    is_cut: bool


def look_at_start(model: Any, data: tuple[Any, Any, Any], batch_size: int = 32) -> Start:
    """Record one forward and one backward pass of a model, as `check` does.

    Args:
        model: A `keras.Model`.
        data: `(x, y, sample_weight)`, as for `check`.
        batch_size: Number of samples of one step.
    """
    sample = draw_sample(*data, batch_size)
    with warnings.catch_warnings():  # findings say the same, and more
        warnings.simplefilter("ignore")
        outcome = run_step(model, sample.batch)
    notes = []
    if outcome.y_pred is None and outcome.error is None:
        notes.append("The model has no `call`: only its layers and inputs were looked at.")
    elif not model.compiled:
        notes.append("The model is not compiled: its loss could not be looked at.")
    if outcome.error is not None:
        kind = type(outcome.error).__name__
        notes.append(f"The loss could not be computed: {kind}: {outcome.error}")
    setup = ask_loss(model, read_setup(model), *sample.rows[:2])
    if outcome.error is None:
        setup = ask_model(model, setup, sample.rows[0])
    is_cut = bool(outcome.gradients) and all(gradient is None for gradient in outcome.gradients)
    return Start(setup, _record(model, setup, sample, outcome), notes, outcome.error, is_cut)


def _record(model: Any, setup: Setup, sample: Sample, outcome: Outcome) -> Chunk:
    """Make a record at step 0."""
    variables = list(model.trainable_variables) if outcome.gradients else []
    x, y, sample_weight = sample.rows
    structures = zip(ROLES, (x, y, outcome.y_pred, sample_weight), strict=True)
    tensors = [list_ports(role, structure) for role, structure in structures]
    ports = list(itertools.chain(*tensors))
    table = np.full((len(ports), len(PORT_STATISTICS)), np.nan, np.float32)
    measure = compiled(measure_port)
    for row, (_, array) in zip(table, ports, strict=True):
        row[:MEASURED_OF_PORTS] = ops.convert_to_numpy(measure(ops.convert_to_tensor(array)))
    pairs = zip(tensors[1], tensors[2], strict=False)
    for place, ((_, target), (_, prediction)) in enumerate(pairs, len(tensors[0])):
        table[place, MEASURED_OF_PORTS:] = _describe_target(target, prediction)
    totals = {
        "loss": outcome.loss,
        "batch_loss": outcome.loss,
        "penalty": outcome.penalty,
    }
    totals["learning_rate"] = setup.optimizer_arguments.get("learning_rate", np.nan)
    columns = variables_of(model, variables, [""] * len(variables), "layer")
    return Chunk(
        Layout(columns, ports=tuple(port for port, _ in ports)),
        np.zeros(1, np.int64),
        _measure_gradients(model, variables, outcome.gradients),
        {name: np.full((1, 1), number, np.float32) for name, number in totals.items()},
        {name: table[None, :, place] for place, name in enumerate(PORT_STATISTICS)},
    )


def _describe_target(target: Any, prediction: Any) -> Sequence[float]:
    """Return `TARGET_STATISTICS` of a target."""
    unknown = [np.nan] * len(TARGET_STATISTICS)
    profile = Profile.of(tuple(target.shape), tuple(prediction.shape))
    if profile is None:
        return unknown
    measure = compiled(profile.measure)
    numbers = ops.convert_to_numpy(measure(ops.convert_to_tensor(target)))
    return unknown if np.isnan(numbers).any() else TargetStatistics().add(profile.read(numbers))


def _measure_gradients(
    model: Any, variables: Sequence[Any], gradients: Sequence[np.ndarray | None]
) -> dict[str, np.ndarray]:
    """Return statistics of gradients by name, (1, variables); NaN without a gradient."""
    names = ("norm", "mean_abs", "max_abs", "zeros", "nonfinite", "dead_units", "weight_norm")
    values = {name: np.full((1, len(variables)), np.nan, np.float32) for name in names}
    sources = unit_sources(model, variables)
    for place, (variable, gradient) in enumerate(zip(variables, gradients, strict=False)):
        weights = ops.convert_to_numpy(variable.value).astype(np.float64)
        values["weight_norm"][0, place] = np.linalg.norm(weights)
        if gradient is None:
            continue
        size = np.abs(gradient.astype(np.float64))
        found = {
            "norm": np.linalg.norm(size),
            "mean_abs": size.mean(),
            "max_abs": size.max(),
            "zeros": np.mean(size == 0),
            "nonfinite": np.sum(~np.isfinite(size)),
        }
        if sources[place]:
            units = size.reshape(-1, size.shape[-1] if size.ndim else 1).max(axis=0)
            found["dead_units"] = np.mean(units == 0)
        for name, number in found.items():
            values[name][0, place] = number
    return values
