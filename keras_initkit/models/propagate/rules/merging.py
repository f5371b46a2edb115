"""Sums, products and concatenations of several tensors."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.models.propagate.rules.activations import activate
from keras_initkit.models.propagate.rules.registry import Call, Effect, Gradients
from keras_initkit.models.propagate.signal import (
    Base,
    Gradient,
    Signal,
    centre,
    overlap,
    pair_weights,
    window,
)
from keras_initkit.theory.combined import sum_as_function
from keras_initkit.theory.gains import evaluate
from keras_initkit.theory.maps import activation_map


def add(call: Call, factors: Sequence[float]) -> Effect | None:
    """Add tensors times numbers; those that are not the same have independent fluctuations."""
    same = _of_one_base(
        call, lambda values: sum(f * x for f, x in zip(factors, values, strict=True))
    )
    if same is not None:
        return same
    signals = [
        broadcast(signal.scale(factor), call.shape)
        for signal, factor in zip(call.signals, factors, strict=True)
    ]
    mean = sum(signal.mean for signal in signals)
    moments = [signal.second_moment for signal in signals]
    cross = mean**2 - sum(signal.mean**2 for signal in signals)
    power = np.asarray(sum(signal.power for signal in signals) + cross)
    total = max(sum(moments) + cross, 1e-300)
    products = sum(signal.pairs * moment for signal, moment in zip(signals, moments, strict=True))
    output = Signal(call.shape, mean, np.maximum(power, 0.0), np.asarray(products + cross) / total)
    is_plain = all(factor == 1.0 for factor in factors)
    if is_plain and all(signal.shape == call.shape for signal in call.signals):
        output = output._replace(base=_find_base(call.signals, output))

    def back(gradients: Sequence[Gradient]) -> Gradients:
        found: list[Gradient | None] = []
        for factor, signal in zip(factors, call.signals, strict=True):
            reduced = reduce_gradient(gradients[0].scale(factor**2), call.shape, signal.shape)
            gate = _blur(gradients[0].gate, signal, output) if is_plain else None
            found.append(reduced._replace(gate=gate))
        return found

    return Effect((output,), back)


def multiply(call: Call) -> Effect | None:
    """Multiply independent tensors, or functions of one."""
    same = _of_one_base(call, lambda values: _product(values))
    if same is not None:
        return same
    signals = [broadcast(signal, call.shape) for signal in call.signals]
    output = signals[0]
    for signal in signals[1:]:
        power, pairs = output.power * signal.power, output.pairs * signal.pairs
        output = Signal(call.shape, output.mean * signal.mean, power, pairs)

    def back(gradients: Sequence[Gradient]) -> Gradients:
        found: list[Gradient | None] = []
        for place, signal in enumerate(call.signals):
            others = [other for i, other in enumerate(signals) if i != place]
            power = _product([gradients[0].power, *(other.power for other in others)])
            pairs = _product([gradients[0].pairs, *(other.pairs[0] for other in others)])
            found.append(reduce_gradient(Gradient(power, pairs), call.shape, signal.shape))
        return found

    return Effect((output,), back)


def choose_largest(call: Call, sign: float) -> Effect | None:
    """Return the larger of two tensors, with the sign -1 the smaller one.

    For independent Gaussian x and y, with d = x - y and the rest r of x + y that does not depend
    on d, max(x, y) = r/2 + g(d), where g(d) = (βd + |d|)/2. Others are not covered.
    """
    choose = keras.ops.maximum if sign > 0 else keras.ops.minimum
    same = _of_one_base(call, lambda values: choose(*values))
    signals = call.signals
    if same is not None:
        return same
    if len(signals) != 2 or any(x.base or x.shape != call.shape for x in signals):
        return None
    first, second = signals
    total = max(first.variance + second.variance, 1e-300)
    slope = (first.variance - second.variance) / total
    difference = add(call, (1.0, -1.0))
    assert difference is not None
    d = difference.outputs[0]._replace(base=None)
    chosen = activate(d, lambda x: 0.5 * (slope * x + sign * keras.ops.abs(x)))
    # The rest: its variance, and its products of pairs.
    mean = 0.5 * (first.mean + second.mean - slope * d.mean)
    products = 0.25 * (first.variance + second.variance) * (1.0 - slope**2) * d.centred + mean**2
    moment = float(products[(0, *centre(products.shape[1:]))])
    rest = Signal(
        call.shape, mean, d.power / d.second_moment * moment, products / max(moment, 1e-300)
    )
    output = add(call._replace(signals=(chosen.outputs[0]._replace(base=None), rest)), (1.0, 1.0))
    assert output is not None
    share = 0.5 + 0.5 * math.erf(sign * d.mean / math.sqrt(2.0 * total))

    def back(gradients: Sequence[Gradient]) -> Gradients:
        return [gradients[0].scale(share), gradients[0].scale(1.0 - share)]

    return Effect((output.outputs[0]._replace(base=None),), back)


def concatenate(call: Call, axis: int) -> Effect | None:
    """Join tensors along the units, or along positions."""
    rank = len(call.shape)
    sizes = [signal.shape[axis] for signal in call.signals]
    weights = np.array(sizes) / sum(sizes)
    moments = np.array([signal.second_moment for signal in call.signals])
    mean = float(sum(w * signal.mean for w, signal in zip(weights, call.signals, strict=True)))
    total = max(float(weights @ moments), 1e-300)
    if axis == rank - 1:
        parts = zip(weights, call.signals, strict=True)
        power = np.asarray(sum(w * signal.power for w, signal in parts))
        signals = call.signals
    else:
        full = [np.broadcast_to(signal.power, signal.shape[:-1]) for signal in call.signals]
        power = np.concatenate(full, axis=axis)
        signals = tuple(signal.spread(call.shape) for signal in call.signals)
    pairs = sum(
        w * m * signal.pairs for w, m, signal in zip(weights, moments, signals, strict=True)
    )
    output = Signal(call.shape, mean, power, np.asarray(pairs) / total)

    def back(gradients: Sequence[Gradient]) -> Gradients:
        if axis == rank - 1:
            return [gradients[0]] * len(sizes)
        full = np.broadcast_to(gradients[0].power, call.shape[:-1])
        cuts = np.split(full, np.cumsum(sizes)[:-1], axis=axis)
        return [
            Gradient(cut, resize_pairs(gradients[0].pairs, window(signal.shape)))
            for cut, signal in zip(cuts, call.signals, strict=True)
        ]

    return Effect((output,), back)


def broadcast(signal: Signal, shape: tuple[int, ...]) -> Signal:
    """Return a signal with the positions of a larger shape, equal where it is repeated."""
    if signal.shape == shape:
        return signal
    missing = len(shape) - len(signal.shape)
    power = signal.power.reshape(
        [1] * (len(shape) - 1 - signal.power.ndim) + list(signal.power.shape)
    )
    small = (1,) * missing + signal.shape
    pairs = signal.pairs.reshape(2, *window(small))
    pairs = np.broadcast_to(pairs, (2, *window(shape)))
    return Signal(shape, signal.mean, power, pairs.copy(), signal.base if small == shape else None)


def reduce_gradient(gradient: Gradient, shape: Sequence[int], wanted: Sequence[int]) -> Gradient:
    """Sum a gradient over the positions, and units, along which a tensor was repeated.

    Args:
        gradient: The gradient at the repeated tensor.
        shape: Its shape.
        wanted: Shape of the tensor itself.
    """
    if tuple(shape) == tuple(wanted):
        return gradient
    small = (*[1] * (len(shape) - len(wanted)), *wanted)
    power, pairs = gradient.power, gradient.pairs
    if small[-1] < shape[-1]:
        power = power * shape[-1]
    for axis, (size, left) in enumerate(zip(shape[:-1], small[:-1], strict=True)):
        if left < size:
            weights = pair_weights((size, 1)).reshape(-1, *[1] * (pairs.ndim - 1 - axis))
            pairs = (pairs * weights).sum(axis=axis, keepdims=True)
            own = float(pairs[centre(pairs.shape)])
            power = power.mean(axis=axis, keepdims=True) * size**2 * own
            pairs = pairs / (own or 1.0)
    missing = len(shape) - len(wanted)
    return Gradient(power.reshape(power.shape[missing:]), pairs.reshape(pairs.shape[missing:]))


def resize_pairs(pairs: Any, shape: Sequence[int]) -> Any:
    """Cut an array of offsets around its middle."""
    for axis, size in enumerate(shape):
        extra = (pairs.shape[axis] - size) // 2
        if extra > 0:
            pairs = np.take(pairs, np.arange(extra, extra + size), axis=axis)
    return pairs


def _find_base(signals: Sequence[Signal], output: Signal) -> Base | None:
    """Return a sum as a function of one Gaussian number, if a term is not Gaussian.

    The other terms are taken for Gaussian.
    """
    term = max(signals, key=lambda signal: signal.variance if signal.base else -1.0)
    rest = output.variance - term.variance
    if term.base is None or rest <= 1e-3 * output.variance:
        return None
    base, function = term.base.signal, term.base.function
    points = np.linspace(-5.0, 5.0, 200)
    weights = np.exp(-0.5 * points**2)
    values = evaluate(function, base.mean + np.sqrt(base.variance) * points)
    table = sum_as_function(
        values, weights / weights.sum(), output.mean - term.mean, float(np.sqrt(rest))
    )

    def whole(x: Any) -> Any:
        return keras.ops.convert_to_tensor(table(keras.ops.convert_to_numpy(x)))

    mapped, levels = activation_map(whole), np.linspace(-1.0, 1.0, 401)
    profile = output.power / max(output.second_moment, 1e-300)
    shared = overlap(profile, output.shape)
    products = output.pairs * output.second_moment / shared
    pairs = np.interp(products, mapped.product(levels), levels) * shared
    pairs[(0, *centre(pairs.shape[1:]))] = 1.0
    return Base(Signal(output.shape, 0.0, profile, pairs), whole)


def _blur(gate: Any, signal: Signal, total: Signal) -> Any:
    """Return the gate of a sum as one of an activation's output in it; `None` for other terms."""
    if gate is None or signal.base is None or signal.base.slope is None:
        return None
    points = np.linspace(-4.0, 4.0, 81)
    weights = np.exp(-0.5 * points**2)
    mean, stddev = total.mean - signal.mean, np.sqrt(max(total.variance - signal.variance, 0.0))

    def blurred(values: Any) -> Any:
        return gate(values[..., np.newaxis] + mean + stddev * points) @ weights / weights.sum()

    return blurred


def _product(values: Sequence[Any]) -> Any:
    result = values[0]
    for value in values[1:]:
        result = result * value
    return result


def _of_one_base(call: Call, function: Callable[[Sequence[Any]], Any]) -> Effect | None:
    """Return the effect of a function of tensors that are all made from one; `None` if not."""
    bases = [signal.base or Base(signal, lambda x: x) for signal in call.signals]
    base = bases[0].signal
    if any(other.signal is not base for other in bases) or len(bases) < 2:
        return None
    functions = [other.function for other in bases]
    done = activate(base, lambda x: function([inner(x) for inner in functions]))

    def back(gradients: Sequence[Gradient]) -> Gradients:
        (whole,) = done.back(gradients)
        assert whole is not None
        shares: list[Gradient | None] = []
        for signal in call.signals:
            # Through each tensor goes an equal part of the gradient at their base.
            slope = 1.0
            if signal.base is not None:
                slope = max(_slope(signal), 1e-300)
            shares.append(whole.scale(1.0 / (len(call.signals) * slope)))
        return shares

    return Effect(done.outputs, back)


def _slope(signal: Signal) -> float:
    assert signal.base is not None
    base, function = signal.base.signal, signal.base.function
    return activation_map(function, base.mean, base.variance).slope
