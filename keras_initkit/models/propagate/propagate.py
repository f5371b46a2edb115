"""`propagate`: the signals and gradients of a model, predicted from its weights' statistics."""

import math
from typing import Any

import keras
import numpy as np

from keras_initkit.anatomy.tracing import model_inputs
from keras_initkit.anatomy.weights import check_built
from keras_initkit.models.propagate.result import Propagation
from keras_initkit.models.propagate.sampling import measure
from keras_initkit.models.propagate.signal import Signal, gaussian
from keras_initkit.models.propagate.walk import GaveUp, Walk

# Of a batch of data, so many are looked at one by one: for masks, and by layers without a rule.
_EXAMPLES = 256


def propagate(model: Any, input_stats: Any = None, training: bool = False) -> Propagation:
    """Predict signals and gradients at every layer of a built model, without running it.

    The statistics of the inputs go forward through rules for each class of layers, and those of the
    gradient back: closed forms and quadratures for random weights, from which only the mean, the
    mean square and the like are read. They hold for wide layers before training. A layer without a
    rule is run alone on random inputs with the predicted statistics.

    Examples:
    >>> model = keras.Sequential([keras.Input((256,)), keras.layers.Dense(512, "relu")])
    >>> prediction = keras_initkit.propagate(model)
    >>> row = prediction["dense"]
    >>> row.how
    'rule'

    Args:
        model: A built `keras.Model`: Functional, Sequential or subclassed.
        input_stats: The statistics of the inputs: `None` for independent numbers of mean 0 and
            variance 1; `(mean, second_moment, correlation)`, where the last is E x x' / E x² of two
            examples; or a batch of data, from which masks of padding are computed, too. For several
            inputs a list or dict in the structure of the model's inputs.
        training: Whether layers run in training mode: dropout is active, and batch normalization
            uses the batch's statistics.

    Returns:
        A `Propagation` with a row for each tensor: `mean`, `second_moment`, `correlation`,
        `gradient_second_moment`. Printed, it is a table.

    Raises:
        ValueError: If the model is not built, does not know the shape of its inputs, or
            `input_stats` does not fit.
    """
    return Propagation(model.name, _walk(model, input_stats, Walk(model, training)).rows())


def predict_signals(model: Any, seconds: float) -> dict[str, tuple[float, float]]:
    """Predict what is measured at the first step of a training on normal inputs.

    No layer is run: nothing is predicted of a model with one that has no rule.

    Args:
        model: A built `keras.Model`.
        seconds: Time that it may take.

    Returns:
        For the path of each layer with a bias or kernel the second moment of its outputs, and the
        RMS gradient of its bias or kernel, up to one factor for all layers. Empty if the time is
        up.

    Raises:
        ValueError: As `propagate`.
    """
    try:
        walk = _walk(model, None, Walk(model, True, seconds))
    except GaveUp:
        return {}
    found: dict[int, tuple[str, float, float]] = {}
    for step in walk.steps:
        if (signal := step.signal()) is not None:
            path, moment = step.path, step.outputs[0].signal.second_moment
            # Of a layer that is called again, gradients add up.
            path, moment, before = found.get(id(step.operation), (path, moment, 0.0))
            found[id(step.operation)] = path, moment, math.hypot(before, signal)
    return {path: (moment, signal) for path, moment, signal in found.values()}


def _walk(model: Any, input_stats: Any, walk: Walk) -> Walk:
    """Walk through a model and back."""
    if getattr(model, "weights", True) or not model.built:
        check_built(model)
    inputs = model_inputs(model)
    flat = keras.tree.flatten(inputs)
    stats = _match_stats(input_stats, inputs, len(flat))
    tensors = [
        walk.begin(tensor.name, *_read_stats(stat, tuple(tensor.shape[1:])))
        for tensor, stat in zip(flat, stats, strict=True)
    ]
    walk.go_back(walk.go_in(model, (inputs,), {}, tensors))
    return walk


def _match_stats(input_stats: Any, inputs: Any, count: int) -> list[Any]:
    """List the statistics of each input, in the order of the model's."""
    if input_stats is None:
        return [None] * count
    if count == 1 and not isinstance(inputs, dict):
        is_listed = isinstance(input_stats, list) and len(input_stats) == 1
        return [input_stats[0] if is_listed else input_stats]
    if (
        isinstance(inputs, dict)
        and isinstance(input_stats, dict)
        and set(inputs) == set(input_stats)
    ):
        return [input_stats[name] for name in sorted(inputs)]
    if isinstance(input_stats, list | tuple) and len(input_stats) == count:
        return list(input_stats)
    raise ValueError(
        f"`input_stats` must have the structure of the model's inputs, of which there are {count}. "
        f"Received: {type(input_stats).__name__}. Give statistics or data for each of them."
    )


def _read_stats(stat: Any, shape: tuple[int, ...]) -> tuple[Signal, Any]:
    """Return the statistics of an input, and the data that they are of, if any."""
    if stat is None:
        return gaussian(shape), None
    if isinstance(stat, tuple) and len(stat) == 3:
        mean, second_moment, correlation = map(float, stat)
        if second_moment < mean**2 or not -1.0 <= correlation <= 1.0:
            raise ValueError(
                "`input_stats` must be (mean, second_moment, correlation) with a second moment of "
                f"mean² or more and a correlation from -1 to 1. Received: {stat}"
            )
        return gaussian(shape, mean, second_moment, correlation), None
    values = np.asarray(keras.ops.convert_to_numpy(stat))
    if values.shape[1:] != shape or len(values) < 2:
        raise ValueError(
            f"`input_stats` must be data of shape (examples, {', '.join(map(str, shape))}), of two "
            f"examples or more. Received: an array of shape {values.shape}"
        )
    return measure(values), values[:_EXAMPLES]
