"""Measurement of a layer without a rule: it alone is run on random inputs with known statistics."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.anatomy.seeds import random_state_kept
from keras_initkit.models.propagate.rules.registry import Call, Effect
from keras_initkit.models.propagate.signal import (
    Gradient,
    Signal,
    centre,
    gaussian,
    offset_products,
    white_gradient,
    window,
)

Array = npt.NDArray[np.float64]
Function = Callable[..., Any]

# Numbers of one input, about; examples at least and at most.
_NUMBERS, _FEWEST, _MOST = 200_000, 8, 256
_STEP = 1e-3


def measure(values: Any) -> Signal:
    """Return the statistics of an array of examples, of shape (examples, positions, units)."""
    values = np.asarray(values, np.float64)
    values = values.reshape(len(values), -1) if values.ndim < 2 else values
    examples, shape = len(values), values.shape[1:]
    axes = tuple(range(1, values.ndim - 1))
    moment = max(float((values**2).mean()), 1e-300)
    power = (values**2).mean(axis=(0, -1))
    pairs = np.empty((2, *window(shape)))
    own = offset_products(values, axes).sum(axis=0)
    mixed = offset_products(values.sum(axis=0, keepdims=True), axes)[0]
    pairs[0] = own / examples
    pairs[1] = (mixed - own) / max(examples * (examples - 1), 1)
    pairs /= shape[-1] * moment
    pairs[0] /= max(pairs[(0, *centre(pairs.shape[1:]))], 1e-300)
    return Signal(shape, float(values.mean()), power, pairs)


def run(operation: Any, args: Any, kwargs: Any, values: Sequence[Any]) -> list[Any]:
    """Run a layer or operation on values in place of the symbolic tensors in its arguments."""
    remaining = iter(values)

    def fill(x: Any) -> Any:
        return keras.ops.convert_to_tensor(next(remaining), x.dtype) if _is_symbolic(x) else x

    args, kwargs = keras.tree.map_structure(fill, (args, kwargs))
    with keras.StatelessScope(), random_state_kept():
        outputs = operation(*args, **kwargs)
    return [keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)]


def sample(call: Call, data: Sequence[Any] | None = None) -> Effect:
    """Measure the effect of a call on data, or random inputs; gradients by differences."""
    tensors = [x for x in keras.tree.flatten((call.args, call.kwargs)) if _is_symbolic(x)]
    floats = ["float" in str(tensor.dtype) for tensor in tensors]
    return _measure_effect(
        lambda *values: run(call.operation, call.args, call.kwargs, values),
        call.signals,
        floats,
        data,
    )


def sample_function(signal: Signal, function: Function) -> Effect:
    """Measure the effect of a function of one tensor, such as softmax."""

    def run(values: Any) -> list[Any]:
        tensor = keras.ops.convert_to_tensor(values.astype("float32"))
        return [keras.ops.convert_to_numpy(function(tensor))]

    return _measure_effect(run, [signal], [True])


def draw(signal: Signal, examples: int, rng: np.random.Generator) -> Array:
    """Draw examples of a signal, of shape (examples, *shape)."""
    moment, mean = signal.second_moment, signal.mean
    # Parts that all examples and positions have in common, all examples, all positions, none.
    far = signal.average(1)
    examples_too = max(signal.correlation * moment - far, 0.0)
    positions_too = max(signal.average(0) - far, 0.0) if len(signal.shape) > 1 else 0.0
    common = max(far - mean**2, 0.0)
    rest = max(moment - mean**2 - common - examples_too - positions_too, 0.0)
    ones = (1,) * (len(signal.shape) - 1)
    units = signal.shape[-1:] if signal.shape else ()
    values = mean + np.sqrt(common) * rng.normal(size=(1, *ones, *units))
    values = values + np.sqrt(examples_too) * rng.normal(size=(1, *signal.shape))
    values = values + np.sqrt(positions_too) * rng.normal(size=(examples, *ones, *units))
    values = values + np.sqrt(rest) * rng.normal(size=(examples, *signal.shape))
    profile = np.sqrt(signal.power / max(moment, 1e-300))
    values = values * (profile[..., np.newaxis] if signal.shape else profile)
    if signal.base is not None:
        base, function = signal.base.signal, signal.base.function
        drawn = draw(base, examples, rng).astype("float32")
        return np.asarray(keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(drawn))))
    return values


def _measure_effect(
    run: Function,
    signals: Sequence[Signal],
    floats: Sequence[bool],
    data: Sequence[Any] | None = None,
) -> Effect:
    rng = np.random.default_rng(0)
    largest = max([math.prod(signal.shape) for signal in signals], default=1)
    examples = min(max(_NUMBERS // max(largest, 1), _FEWEST), _MOST)
    values = data or [
        # Integers are indices.
        drawn if is_float else np.abs(drawn)
        for drawn, is_float in zip((draw(x, examples, rng) for x in signals), floats, strict=True)
    ]
    examples = len(values[0]) if values else examples
    outputs = [np.asarray(output, np.float64) for output in run(*values)]
    measured = tuple(
        measure(x) if np.ndim(x) and len(x) == examples else gaussian(np.shape(x)) for x in outputs
    )
    # Of the Jacobian J at an input, the mean square of its product with random numbers.
    factors = [
        _jacobian_power(run, values, place, len(outputs), rng) if is_float else None
        for place, is_float in enumerate(floats)
    ]

    def back(gradients: Sequence[Gradient]) -> list[Gradient | None]:
        found: list[Gradient | None] = []
        for signal, factor in zip(signals, factors, strict=True):
            moment = 0.0
            for part, output, gradient in zip(factor or (), measured, gradients, strict=False):
                sizes = math.prod(output.shape) / max(math.prod(signal.shape), 1)
                moment += gradient.second_moment * part * sizes
            found.append(white_gradient(signal.shape, moment) if factor else None)
        return found

    return Effect(measured, back)


def _jacobian_power(
    run: Function, values: Sequence[Array], place: int, count: int, rng: np.random.Generator
) -> list[float] | None:
    """Return for each output the mean square of its derivative along random numbers."""
    scale = float(np.sqrt((values[place] ** 2).mean())) or 1.0
    direction = rng.normal(size=values[place].shape)
    ends = []
    for sign in (-1.0, 1.0):
        moved = [*values]
        moved[place] = values[place] + sign * _STEP * scale * direction
        with contextlib.suppress(Exception):
            ends.append(run(*moved))
    if len(ends) < 2:
        return None
    return [
        float((((after - before) / (2.0 * _STEP * scale)) ** 2).mean())
        for before, after in zip(*ends, strict=True)
    ][:count]


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)
