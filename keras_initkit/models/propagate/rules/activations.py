"""Elementwise functions: activation layers, functions of one tensor in `keras.ops`."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.rules.registry import (
    ELEMENTWISE,
    Call,
    Effect,
    chain,
    effect,
    rule,
)
from keras_initkit.models.propagate.sampling import sample_function
from keras_initkit.models.propagate.signal import Base, Gradient, Signal, centre, overlap
from keras_initkit.theory.gains import evaluate
from keras_initkit.theory.maps import ActivationMap, activation_map

layers = keras.layers
Function = Callable[[Any], Any]
Array = npt.NDArray[np.float64]

# Between so many second moments a position's own is interpolated.
_LEVELS = 7
# Of a normal number; none is on a kink in the middle.
_POINTS = np.linspace(-5.0, 5.0, 400)
_WEIGHTS = np.exp(-0.5 * _POINTS**2) / np.exp(-0.5 * _POINTS**2).sum()


def activate(signal: Signal, function: Function) -> Effect:
    """Apply an elementwise function to a signal; any other function is sampled."""
    base, whole, inner = signal, function, None
    if signal.base is not None:
        base, inner = signal.base.signal, signal.base.function
        whole = _compose(function, inner)
    squared = _squared_slope(function)

    def own(u: Array) -> Array:
        return squared(u if inner is None else evaluate(inner, u))

    points = base.mean + np.sqrt(base.variance) * _POINTS
    try:
        mapped = activation_map(whole, base.mean, base.variance)
        slopes = own(points)  # of a constant, the map is the value of any function
    except (ValueError, TypeError):
        return sample_function(signal, function)
    power, slope = _map_positions(base, whole, mapped)
    if inner is not None:
        slope = np.ones_like(slope) * (_WEIGHTS @ slopes)
    pairs = mapped.product(base.correlations) / max(mapped.second_moment, 1e-300)
    pairs *= overlap(power, signal.shape)
    pairs[(0, *centre(pairs.shape[1:]))] = 1.0
    output = Signal(signal.shape, mapped.mean, power, pairs, Base(base, whole, own))
    alike = mapped.slope_product(base.correlations[0]) / max(mapped.slope, 1e-300)

    def back(gradient: Gradient) -> Gradient:
        factor = slope * gradient.alignment
        usual = max(float(_WEIGHTS @ slopes), 1e-300)
        if gradient.gate is not None:
            passing = gradient.gate(evaluate(whole, points))
            expected = usual * float(_WEIGHTS @ passing)
            factor = factor * (_WEIGHTS @ (slopes * passing) / max(expected, 1e-300))
        gate = lambda values: squared(values) / usual  # noqa: E731
        return Gradient(gradient.power * factor, gradient.pairs * alike, gate=gate)

    return effect(output, back)


def with_activation(layer: Any, before: Effect) -> Effect:
    """Return the effect of a layer with its own activation behind it."""
    function = getattr(layer, "activation", None)
    if function is None or function is keras.activations.linear:
        return before
    after = activate(before.outputs[0], function)

    def to_units(gradient: Gradient) -> Gradient:
        (found,) = after.back([gradient])
        assert found is not None
        return found

    return chain(before, lambda _: after)._replace(to_units=to_units)


def align_squares(signal: Signal) -> float:
    """Return E f² f'²/(E f² E f'²) of an activation's output f; 1 of another signal."""
    base, function, slope = signal.base or Base(signal, np.asarray)
    if slope is None:
        return 1.0
    points = base.mean + np.sqrt(base.variance) * _POINTS
    squares, slopes = evaluate(function, points) ** 2, slope(points)
    expected = (_WEIGHTS @ squares) * (_WEIGHTS @ slopes)
    return float(_WEIGHTS @ (squares * slopes) / max(expected, 1e-300))


def align_slopes(signal: Signal) -> Array:
    """Return E f'(u) f'(w)/E f'² of pairs of positions of an activation's output, by offset."""
    if signal.base is None or signal.base.slope is None:
        return np.ones_like(signal.pairs[0])
    base, function, _ = signal.base
    mapped = activation_map(function, base.mean, base.variance)
    return mapped.slope_product(base.correlations[0]) / max(mapped.slope, 1e-300)


def _compose(outer: Function, inner: Function) -> Function:
    return lambda x: outer(inner(x))


def _squared_slope(function: Function) -> Callable[[Array], Array]:
    """Return the squared derivative of a function, of arrays of any shape."""

    def squared(values: Array) -> Array:
        flat = values.ravel()
        step = 1e-4 * max(float(np.std(flat)), 1e-6)
        above, below = np.split(evaluate(function, np.concatenate([flat + step, flat - step])), 2)
        return np.asarray(((above - below) / (2.0 * step)).reshape(values.shape) ** 2)

    return squared


def _map_positions(base: Signal, function: Function, mapped: ActivationMap) -> tuple[Any, Any]:
    """Return E f² and E f'² at each position."""
    low, high = float(base.power.min()), float(base.power.max())
    if high - low <= 1e-3 * high:
        same = np.ones_like(base.power)
        return same * mapped.second_moment, same * mapped.slope
    levels = np.unique(np.quantile(base.power, np.linspace(0.0, 1.0, _LEVELS)))
    # The exact numbers are those of the mean level; how they change is read off a plain sum.
    stddevs = np.sqrt(np.maximum([base.variance, *levels - base.mean**2], 1e-24))[:, np.newaxis]
    points = base.mean + stddevs * _POINTS
    values = evaluate(function, points.ravel()).reshape(points.shape)
    slopes = np.gradient(values, _POINTS, axis=1) / stddevs
    found = []
    for squares, exact in ((values**2, mapped.second_moment), (slopes**2, mapped.slope)):
        sums = squares @ _WEIGHTS
        found.append(np.interp(base.power, levels, sums[1:]) * (exact / max(sums[0], 1e-300)))
    return found[0], found[1]


@rule(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, is_free=True)
def _activation(call: Call) -> Effect:
    return activate(call.signal, call.operation.call)


@rule(layers.PReLU, is_free=True)
def _prelu(call: Call) -> Effect:
    alpha = float(np.mean(keras.ops.convert_to_numpy(call.operation.alpha)))
    return activate(call.signal, lambda x: keras.ops.leaky_relu(x, alpha))


@rule(ELEMENTWISE, is_free=True)
def _function(call: Call) -> Effect | None:
    """Apply an operation on one tensor that is of the same shape behind it, if elementwise."""
    if len(call.signals) != 1 or call.shape != call.signal.shape or len(call.shapes) > 1:
        return None

    def function(x: Any) -> Any:
        filled = keras.tree.map_structure(
            lambda value: x if isinstance(value, keras.KerasTensor) else value,
            (call.args, call.kwargs),
        )
        return call.operation.call(*filled[0], **filled[1])

    return activate(call.signal, function)


@rule(layers.Softmax)
def _softmax(call: Call) -> Effect | None:
    return sample_function(call.signal, call.operation.call) if len(call.signals) == 1 else None


@rule(layers.Rescaling, is_free=True)
def _rescaling(call: Call) -> Effect | None:
    layer = call.operation
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        return None
    return activate(call.signal, lambda x: x * layer.scale + layer.offset)
