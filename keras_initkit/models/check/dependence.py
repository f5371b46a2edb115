"""`ask_model`: what the output of a model depends on: which inputs, which parts of them, others.

The model is called on rows that differ in one part alone, with weights drawn at random in place of
its own. So the answer is about how it is built: it holds for any weights.
"""

import contextlib
import dataclasses
import inspect
import itertools
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.effects import calls_may_write
from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.anatomy.own_calls import is_own
from keras_initkit.anatomy.seeds import random_state_kept
from keras_initkit.models.check.sample import draw_sample, is_stream
from keras_initkit.models.check.step import compiled
from keras_initkit.statistics.batch import list_ports
from tensorboard_plugin_initkit.record.setup import InputUse, Setup

# Factors of the usual weights, and if inputs are scaled: what is lost with some, as by saturated
# units or over many layers, is not with others. Many sigmoids in a row pass it on above 9 alone,
# where σ² E[φ'²] is more than 1 (Poole et al., 2016, with φ the sigmoid).
_DRAWS = (1.0, False), (1.0, True), *((gain, False) for gain in (4.0, 1.5, 0.2, 16.0, 12.0, 24.0))
# Rows of a call, which outputs hardly have as another size; at most so many parts of an axis; the
# seconds after which it is given up, and the most weights to draw.
_ROWS, _PARTS, _SECONDS, _MOST_WEIGHTS = 11, 16, 3.0, 10_000_000
# Layers that take whole numbers as names of things.
_NAMED = re.compile(r"\w*(Embedding|Lookup|Encoding|Hashing|Crossing|Discretization)")
# Of the largest output: what counts as a difference, and how exact outputs must be.
_EQUAL, _EXACT = 1e-6, 1e-3

Values = list[np.ndarray]


class _Part(NamedTuple):
    """A part of an input: some places along an axis; axis 0 stands for all of it."""

    port: int
    axis: int
    places: np.ndarray


class _GivenUpError(Exception):
    """The model takes too long, or its outputs cannot be compared."""


def ask_model(model: Any, setup: Setup, x: Any) -> Setup:
    """Ask a model what its outputs depend on.

    Weights, states and seeds stay as they are. A model is not asked whose own code, or that of a
    layer, writes or shows something when it is called; nor one that takes seconds for some rows, or
    has more than 10 million weights.

    Args:
        model: A built `keras.Model`.
        setup: The model as it is built and compiled.
        x: Inputs of at least two samples: arrays in the model's structure. A stream of batches is
            not read.

    Returns:
        The setup; if the model could be asked, with `uses` and `mixes_samples`.
    """
    if is_stream(x) or not _can_be_asked(model):
        return setup
    with contextlib.suppress(Exception), warnings.catch_warnings(), _attributes_kept(model):
        warnings.simplefilter("ignore")  # of the user's code, as its exceptions
        x = draw_sample(x, None, None, 2 * len(_DRAWS)).batch[0]
        ports = list_ports("x", x)
        arrays = [array for _, array in ports]
        if len(ports) != len(keras.tree.flatten(x)) or min(map(len, arrays)) < 2:
            return setup
        parts = [part for i, array in enumerate(arrays) for part in _list_parts(i, array.shape)]
        probe = _Probe(model, x)
        scaled = [_scale(model, array) for array in arrays]
        used, mixes = np.full(len(parts), -1), False
        for number, (gain, is_scaled) in enumerate(_DRAWS):
            weights = probe.draw(number, gain)
            answer = probe.compare(scaled if is_scaled else arrays, parts, weights, number)
            if answer is not None:
                used, mixes = np.maximum(used, answer[0]), mixes or answer[1]
            if mixes or (answer is not None and used.all()):
                break
        uses = tuple(
            InputUse(ports[port][0].name, axis, tuple(int(used[i]) for i in places))
            for (port, axis), places in _group(parts)
        )
        # Of mixed samples it is not known what a part alone would do.
        return dataclasses.replace(setup, uses=() if mixes else uses, mixes_samples=mixes)
    return setup


@contextlib.contextmanager
def _attributes_kept(model: Any) -> Iterator[None]:
    """Keep what users' layers hold, whatever their code does, and the state of random numbers."""
    own = list(filter(is_own, layers_inside(model)))
    before = [dict(vars(layer)) for layer in own]
    try:
        with random_state_kept():
            yield
    finally:
        for layer, attributes in zip(own, before, strict=True):
            vars(layer).clear()
            vars(layer).update(attributes)


def _can_be_asked(model: Any) -> bool:
    """Check for a built model with a `call` that changes nothing but its result."""
    inside = list(layers_inside(model))
    is_ready = type(model).call is not keras.Model.call and all(layer.built for layer in inside)
    size = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return is_ready and size <= _MOST_WEIGHTS and not calls_may_write(model)


def _scale(model: Any, array: np.ndarray) -> np.ndarray:
    """Return an input at a usual scale, unless its numbers are names: large ones saturate units."""
    is_whole = not np.issubdtype(array.dtype, np.floating) or not np.mod(array, 1).any()
    takes_names = any(_NAMED.fullmatch(type(layer).__name__) for layer in layers_inside(model))
    size = float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
    if size <= 1 or (is_whole and takes_names):
        return array
    return (array / size).astype(keras.config.floatx())


def _list_parts(port: int, shape: Sequence[int]) -> Iterator[_Part]:
    """List the whole of an input, and the parts along each of its axes."""
    yield _Part(port, 0, np.arange(0))
    for axis, size in enumerate(shape[1:], 1):
        if size > 1:
            parts = np.array_split(np.arange(size), min(size, _PARTS))
            yield from (_Part(port, axis, places) for places in parts)


def _group(parts: Sequence[_Part]) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Group the positions of parts by input and axis."""
    groups = itertools.groupby(range(len(parts)), lambda i: (parts[i].port, parts[i].axis))
    return ((key, list(positions)) for key, positions in groups)


class _Probe:
    """Calls of a model on a few rows, with weights of its own."""

    def __init__(self, model: Any, x: Any) -> None:
        self._model, self._like = model, x
        takes = inspect.signature(model.call).parameters
        self._arguments = {"training": False} if "training" in takes else {}
        self._call: Callable[..., Any] = compiled(self._compute)
        self._end = time.monotonic() + _SECONDS

    def compare(
        self, arrays: Values, parts: Sequence[_Part], weights: Values, number: int
    ) -> tuple[np.ndarray, bool] | None:
        """Compare the outputs of a row with those of rows that differ in one part from it.

        The rows are those of a pair of samples, of this number.

        Returns:
            For each part, 1 if outputs depend on it, 0 if they do not, and -1 if both samples have
            the same there; and whether outputs depend on other samples. `None` if outputs are not
            finite, or not the same for the same row.
        """
        base, other = (
            [a[place % len(a)] for a in arrays] for place in (2 * number, 2 * number + 1)
        )
        rows = [_exchange(base, other, part) for part in parts]
        used = np.full(len(parts), -1)
        alone, again = (self._run(weights, [base] + [other] * (_ROWS - 1)) for _ in range(2))
        scale = float(np.abs(alone).max())
        if not np.allclose(alone, again, atol=_EXACT * scale):
            return None  # by chance, or by weights that are made anew
        kept: list[np.ndarray] = []
        for begin in range(0, len(rows), _ROWS - 2):
            some = rows[begin : begin + _ROWS - 2]
            padded = [base, *some, *[base] * (_ROWS - 1 - len(some))]
            outputs = self._run(weights, padded)
            scale = max(scale, float(np.abs(outputs).max()))
            exact = float(np.abs(outputs[-1] - outputs[0]).max())
            if not np.isfinite(outputs).all() or exact > _EXACT * scale:
                return None
            kept.append(outputs[0])
            apart = np.abs(outputs[1 : 1 + len(some)] - outputs[0]).max(axis=1, initial=0.0)
            used[begin : begin + len(some)] = apart > 10 * exact + _EQUAL * scale
        same = [all(map(np.array_equal, row, base)) for row in rows]
        used[same] = -1
        return used, bool(np.abs(alone[0] - kept[0]).max() > _EXACT * scale)

    def draw(self, seed: int, gain: float) -> Values:
        """Draw weights of about the usual size, times a gain; none of them is 0."""
        rng, found = np.random.default_rng(seed), []
        for variable in self._model.trainable_variables:
            shape = tuple(variable.shape)
            noise = rng.standard_normal(shape)
            if len(shape) > 1:
                value = noise * gain / math.sqrt(math.prod(shape[:-1]))
            else:
                value = np.clip(ops.convert_to_numpy(variable.value), -1, 1) + 0.3 * noise
            found.append(value.astype(variable.dtype))
        return found

    def _run(self, weights: Values, rows: Sequence[Values]) -> np.ndarray:
        """Return the outputs of some rows, each flat: (rows, numbers)."""
        if time.monotonic() > self._end:
            raise _GivenUpError
        batch = [ops.convert_to_tensor(np.stack(column)) for column in zip(*rows, strict=True)]
        outputs = self._call([ops.convert_to_tensor(value) for value in weights], batch)
        flat = [np.asarray(ops.convert_to_numpy(y), np.float64) for y in outputs]
        if any(y.shape[:1] != (_ROWS,) or _ROWS in y.shape[1:] for y in flat):
            raise _GivenUpError  # such as the similarities of all pairs
        return np.concatenate([y.reshape(_ROWS, -1) for y in flat], axis=1)

    def _compute(self, weights: Sequence[Any], batch: Sequence[Any]) -> list[Any]:
        model = self._model
        mapping = list(zip(model.trainable_variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            outputs = model(keras.tree.pack_sequence_as(self._like, batch), **self._arguments)
        return [ops.stop_gradient(y) for y in keras.tree.flatten(outputs)]


def _exchange(base: Values, other: Values, part: _Part) -> Values:
    """Return a row with a part of another one."""
    found = list(base)
    if not part.axis:
        found[part.port] = other[part.port]
        return found
    place = (slice(None),) * (part.axis - 1) + (part.places,)
    changed = base[part.port].copy()
    changed[place] = other[part.port][place]
    found[part.port] = changed
    return found
