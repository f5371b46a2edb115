"""Recurrent layers: a wide layer's units are independent paths with Gaussian sums as input.

Each sum of a gate at a step is normal with a known covariance over steps and over two examples: of
the inputs, times the kernel's power, and of the states before, times the recurrent kernel's. Paths
of many units are drawn step by step with it, by the layer's own equations. On the way back the
gradients at the states are drawn in the same way, and follow the equations' derivatives.

In a convolutional layer each position has its paths, and those of two positions are related as
those of two examples are; positions are taken alike. What a mask hides makes no step: paths go over
those before and behind it, and the last output is that of the last step.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.kernel import to_array
from keras_initkit.models.propagate.positions import (
    by_offset,
    from_offsets,
    move_gradient,
    move_signal,
    step_products,
    window_map,
)
from keras_initkit.models.propagate.rules.convolutions import tap_shares, window_maps
from keras_initkit.models.propagate.rules.merging import add, concatenate, multiply
from keras_initkit.models.propagate.rules.registry import Call, Effect, find_rule, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, centre, pair_weights, window
from keras_initkit.theory.gains import evaluate

layers = keras.layers
Array = npt.NDArray[np.float64]

# Units that are drawn, and numbers in all.
_MOST_UNITS, _NUMBERS = 4096, 8_000_000
# Activations are read from tables of values, with straight lines between and beyond.
_POINTS = np.linspace(-20.0, 20.0, 8001)
_STEP = 1e-2


class _Table:
    """An activation as a table of its values.

    Args:
        function: The activation.
    """

    def __init__(self, function: Any) -> None:
        self._values = evaluate(function, _POINTS)
        self._steps = np.diff(self._values)

    def __call__(self, x: Array) -> Array:
        places = (x - _POINTS[0]) / (_POINTS[1] - _POINTS[0])
        below = np.clip(places.astype(int), 0, len(_POINTS) - 2)
        return self._values[below] + (places - below) * self._steps[below]


class _Sums:
    """Normal numbers, one for each unit and column, drawn step by step with a given covariance.

    Args:
        steps: Number of steps.
        units: Number of units.
        columns: Numbers of a unit at one step: of examples and positions, or one.
        rng: The generator.
    """

    def __init__(self, steps: int, units: int, columns: int, rng: np.random.Generator) -> None:
        self._columns, self._rng = columns, rng
        self._inverse = np.zeros((0, 0))
        self._noise = np.zeros((steps * columns, units))

    def draw(self, covariance: Array) -> Array:
        """Return (units, columns), given their covariance with all columns so far."""
        known, new = len(self._inverse), len(self._inverse) + self._columns
        noise = self._rng.normal(size=(self._noise.shape[1], self._columns))
        self._noise[known:new] = (noise / np.sqrt((noise**2).mean(axis=0))).T
        # The next rows of a root of the covariance: what is given by earlier columns, and the rest.
        given = covariance[:, :known] @ self._inverse.T
        rest = covariance[:, known:] - given @ given.T
        values, vectors = np.linalg.eigh((rest + rest.T) / 2.0)
        roots = np.sqrt(np.maximum(values, 0.0))
        is_random = roots > 1e-6 * np.sqrt(np.abs(covariance[:, known:]).max())
        own = (
            vectors.T * np.divide(1.0, roots, np.zeros_like(roots), where=is_random)[:, np.newaxis]
        )
        inverse = np.zeros((new, new))
        inverse[:known, :known] = self._inverse
        inverse[known:, :known], inverse[known:, known:] = -own @ given @ self._inverse, own
        self._inverse = inverse
        return np.asarray((np.hstack([given, vectors * roots]) @ self._noise[:new]).T)


class _Cell(NamedTuple):
    """The equations of a cell.

    Attributes:
        gates: Number of gates, side by side in its kernels.
        parts: For each normal sum: the gate of its kernels, if inputs and if states are in it.
        step: From activation, gate's activation, sums (parts, ...) and state to output and state.
    """

    gates: int
    parts: Sequence[tuple[int, bool, bool]]
    step: Callable[..., tuple[Array, Array]]


def _step_simple(activation: _Table, gate: _Table, sums: Any, state: Any) -> tuple[Array, Array]:
    return activation(sums[0]), state


def _step_lstm(activation: _Table, gate: _Table, sums: Any, state: Any) -> tuple[Array, Array]:
    carry = gate(sums[1]) * state + gate(sums[0]) * activation(sums[2])
    return gate(sums[3]) * activation(carry), carry


def _step_gru(activation: _Table, gate: _Table, sums: Any, state: Any) -> tuple[Array, Array]:
    z, r = gate(sums[0]), gate(sums[1])
    output = z * state + (1.0 - z) * activation(sums[2] + r * sums[3])
    return output, output


_CELLS = {
    layers.SimpleRNNCell: _Cell(1, [(0, True, True)], _step_simple),
    layers.LSTMCell: _Cell(4, [(gate, True, True) for gate in range(4)], _step_lstm),
    # The candidate's sum of states is multiplied by the reset gate before it is added.
    layers.GRUCell: _Cell(
        3, [(0, True, True), (1, True, True), (2, True, False), (2, False, True)], _step_gru
    ),
}


_MERGES: dict[str, Callable[[Call], Effect | None]] = {
    "concat": lambda call: concatenate(call, len(call.shape) - 1),
    "sum": lambda call: add(call, (1.0, 1.0)),
    "ave": lambda call: add(call, (0.5, 0.5)),
    "mul": multiply,
}


class _Paths:
    """Paths of units through the steps of a layer, forth and back.

    Args:
        cell: The layer's cell.
        equations: Its equations.
        given: Products of inputs (kinds, steps, steps), summed over a unit's: of one example, of
            two; in a convolutional layer also those of two positions.
        dropouts: Rates of dropout of inputs and states.
        inside: Share of a window over the states that is no padding.
    """

    def __init__(
        self,
        cell: Any,
        equations: _Cell,
        given: Array,
        dropouts: tuple[float, float],
        inside: float = 1.0,
    ) -> None:
        gates, parts, step = equations
        tables = [_Table(cell.activation)]
        tables.append(_Table(getattr(cell, "recurrent_activation", cell.activation)))
        self._parts = parts
        self._step: Any = functools.partial(step, *tables)
        self._kinds, self._steps = given.shape[:2]
        units = cell.recurrent_kernel.shape[-2]
        kernel, recurrent = (
            to_array(weight).reshape(-1, gates, units)
            for weight in (cell.kernel, cell.recurrent_kernel)
        )
        self._kernel = (kernel**2).mean(axis=(0, 2))
        self._recurrent = (recurrent**2).mean(axis=(0, 2)) * len(recurrent) * inside
        self._input_dropout, self._state_dropout = (1.0 / (1.0 - rate) for rate in dropouts)
        self._drawn = int(np.clip(_NUMBERS // (4 * len(parts) * self._steps), 256, _MOST_UNITS))
        biases = np.zeros((2, gates, units))
        if cell.use_bias:
            values = to_array(cell.bias).reshape(-1, gates, units)
            biases[: len(values)] = values
        # The states' part has a bias of its own, if they are multiplied by a gate.
        self._biases = np.stack(
            [
                biases[0, gate] * has_inputs + biases[1, gate] * has_states
                for gate, has_inputs, has_states in parts
            ]
        )
        self._run(given)

    def _run(self, given: Array) -> None:
        """Draw the paths of all units, for each column: of two examples, at one or two positions.

        The products of two columns are of the kind that the bits say in which they differ.
        """
        rng = np.random.default_rng(0)
        parts, columns = self._parts, np.arange(self._kinds)
        given = given[columns[:, np.newaxis] ^ columns]
        given[columns, columns] *= self._input_dropout
        sums = [_Sums(self._steps, self._drawn, self._kinds, rng) for _ in parts]
        bias = self._biases[:, rng.integers(0, self._biases.shape[1], self._drawn), np.newaxis]
        self._outputs = np.zeros((self._steps * self._kinds, self._drawn))
        state, self._kept = np.zeros((self._drawn, self._kinds)), []
        for step in range(self._steps):
            states = self._state_covariance(step)
            inputs = given[:, :, step, : step + 1].swapaxes(1, 2).reshape(self._kinds, -1)
            drawn = np.stack(
                [
                    one.draw(
                        has_inputs * self._kernel[gate] * inputs
                        + has_states * self._recurrent[gate] * states
                    )
                    for one, (gate, has_inputs, has_states) in zip(sums, parts, strict=True)
                ]
            )
            self._kept.append((drawn + bias, state))
            output, state = self._step(drawn + bias, state)
            self._outputs[step * self._kinds : (step + 1) * self._kinds] = output.T

    def _state_covariance(self, step: int) -> Array:
        """Return E h h' of the states before a step with those before all steps so far."""
        kinds = self._kinds
        found = np.zeros((kinds, (step + 1) * kinds))
        if step:
            outputs = self._outputs[: step * kinds]
            products = (outputs[-kinds:] @ outputs.T / self._drawn).reshape(kinds, step, kinds)
            for column in range(kinds):
                products[column, :, column] *= self._state_dropout
            found[:, kinds:] = products.reshape(kinds, -1)
        return found

    def products(self) -> tuple[Array, Array]:
        """Return the means of the outputs (steps) and their products (kinds, steps, steps)."""
        outputs, columns = self._outputs, np.arange(self._kinds)
        shape = (self._steps, self._kinds)
        products = (outputs @ outputs.T / self._drawn).reshape(shape * 2)
        found = [products[:, columns, :, columns ^ kind].mean(axis=0) for kind in columns]
        return outputs.mean(axis=1).reshape(shape).mean(axis=1), np.stack(found)

    def back(self, arriving: Array) -> Array:
        """Return the products (steps, steps) of gradients at inputs, of those at outputs."""
        rng = np.random.default_rng(1)
        steps, parts = self._steps, self._parts
        count = self._kinds * self._drawn
        drawn = _Sums(steps, count, 1, rng)
        found = np.zeros((len(parts), steps, count))
        at_state = np.zeros(count)
        for done, step in enumerate(reversed(range(steps))):
            later = np.arange(steps - 1, step - 1, -1)
            covariance = arriving[step, later]
            for place, (gate, _, has_states) in enumerate(parts):
                if has_states and done:
                    products = found[place, :done] @ found[place, done - 1] / count
                    covariance[1:] += self._recurrent[gate] * products
            at_output = drawn.draw(covariance[np.newaxis])[:, 0]
            found[:, done], at_state = self._step_back(step, at_output, at_state)
        products = sum(
            self._kernel[gate] * self._biases.shape[1] * (found[place] @ found[place].T) / count
            for place, (gate, has_inputs, _) in enumerate(parts)
            if has_inputs
        )
        return np.asarray(products)[::-1, ::-1] * self._input_dropout

    def _step_back(self, step: int, at_output: Array, at_state: Array) -> tuple[Array, Array]:
        """Return the gradients at the sums of a step and at the state before, by differences."""
        sums, state = (array.reshape(*array.shape[:-2], -1) for array in self._kept[step])
        values = [*sums, state]
        found = []
        for place in range(len(values)):
            ends = []
            for sign in (-1.0, 1.0):
                moved = [x + sign * _STEP * (i == place) for i, x in enumerate(values)]
                output, after = self._step(moved[:-1], moved[-1])
                ends.append(output * at_output + after * at_state)
            found.append((ends[1] - ends[0]) / (2.0 * _STEP))
        return np.stack(found[:-1]), found[-1]


@rule(layers.RNN, layers.SimpleRNN, layers.LSTM, layers.GRU)
def _recurrent(call: Call) -> Effect | None:
    cell, equations = call.operation.cell, _CELLS.get(type(call.operation.cell))
    is_plain = len(call.signals) == len(call.shapes) == 1 and equations is not None
    if not is_plain or (type(cell) is layers.GRUCell and not cell.reset_after):
        return None
    assert equations is not None
    signal = _reverse(call.signal) if call.operation.go_backwards else call.signal
    done = _find_steps(call)
    given = _move_steps(step_products(signal), done.own.swapaxes(1, 2)) * cell.kernel.shape[0]
    return _follow(call, _Paths(cell, equations, given, _rates(call)), done, len(call.shape) == 2)


@rule(layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
def _convolutional(call: Call) -> Effect | None:
    if len(call.signals) > 1 or len(call.shapes) > 1:
        return None
    layer, cell = call.operation, call.operation.cell
    signal = _reverse(call.signal) if layer.go_backwards else call.signal
    values, rank = to_array(cell.kernel), len(call.signal.shape) - 2
    every = [None, *window_maps(cell, signal.shape[1:-1], tap_shares(values, rank))]
    shape = (signal.shape[0], *call.shape[-1 - rank :])
    moved = move_signal(every, signal, shape)
    alone, others = _split_positions(moved)
    given = np.concatenate([step_products(alone), step_products(others)])
    done = _find_steps(call)
    given = _move_steps(given, done.own.swapaxes(1, 2)) * math.prod(values.shape[:-1])
    inside = [
        float(window_map(size, taps, padding="same").power.sum(axis=1).mean())
        for size, taps in zip(shape[1:-1], cell.kernel_size, strict=True)
    ]
    paths = _Paths(cell, _CELLS[layers.LSTMCell], given, _rates(call), math.prod(inside))
    effect = _follow(call, paths, done, layer.return_sequences)

    def back(gradients: Sequence[Gradient]) -> list[Gradient | None]:
        (found,) = effect.back(gradients)
        assert found is not None
        return [move_gradient(every, found, math.prod(cell.kernel_size))]

    return effect._replace(back=back)


def _rates(call: Call) -> tuple[float, float]:
    cell = call.operation.cell
    return (cell.dropout * call.is_training, cell.recurrent_dropout * call.is_training)


def _split_positions(signal: Signal) -> tuple[Signal, Signal]:
    """Return the steps of one position of maps, and with products of two positions."""
    axes = tuple(range(1, len(signal.shape) - 1))
    weights = pair_weights((*signal.shape[1:-1], 1))
    middle: Any = centre(weights.shape)
    own = signal.pairs[(..., *middle)]
    weights[middle] = 0.0
    elsewhere = (signal.pairs * weights).sum(axis=tuple(axis + 1 for axis in axes))
    elsewhere /= max(float(weights.sum()), 1e-300)
    whole = Signal(
        (signal.shape[0], signal.shape[-1]), signal.mean, signal.power.mean(axis=axes), own
    )
    return whole, whole._replace(pairs=elsewhere)


class _Done(NamedTuple):
    """The steps that are done, by examples, positions in time and steps: arrays of zeros and ones.

    Attributes:
        last: Which step is done last at a position.
        own: Which step a position makes; what a mask hides makes none.
    """

    last: Array
    own: Array


def _find_steps(call: Call) -> _Done:
    steps = call.signal.shape[0]
    kept = np.asarray(call.masks.get("mask", np.ones((1, steps))), float)
    kept = kept[:: len(kept) * steps**2 // _NUMBERS + 1]
    kept = kept[:, ::-1] if call.operation.go_backwards else kept
    last = (np.cumsum(kept, axis=1)[..., np.newaxis] == np.arange(1, steps + 1)) * 1.0
    return _Done(last, last * kept[..., np.newaxis])


def _move_steps(products: Array, shown: Array) -> Array:
    """Return the mean products (kinds, outputs, outputs) of those of steps (kinds, steps, steps).

    Args:
        products: Of one example and two, by turns.
        shown: Array (examples, outputs, steps), one for the step that an output shows.
    """
    shows = shown.sum(axis=2)
    counts = np.maximum(shows.T @ shows, 1e-9)
    shares = shown.sum(axis=0) / np.maximum(shows.sum(axis=0), 1e-9)[:, np.newaxis]
    moved = [
        shares @ one @ shares.T if kind % 2 else _gather(one, shown) / counts
        for kind, one in enumerate(products)
    ]
    return np.stack(moved)


def _gather(products: Array, shown: Array) -> Array:
    """Return the sum over examples of the products of the steps that outputs show."""
    index = np.where(shown.any(axis=2), shown.argmax(axis=2) + 1, 0)
    padded = np.pad(products, ((1, 0), (1, 0)))
    return np.asarray(padded[index[:, :, np.newaxis], index[:, np.newaxis]].sum(axis=0))


def _follow(call: Call, paths: _Paths, done: _Done, is_whole: bool) -> Effect:
    """Return the effect of paths; a step that a mask hides is none, and its output left out."""
    steps, own = call.signal.shape[0], done.own
    shown = own if is_whole else done.last[:, -1:]
    spatial = call.shape[int(is_whole) : -1]
    middle: Any = centre(window((*spatial, 1)))

    def back(gradients: Sequence[Gradient]) -> list[Gradient | None]:
        (gradient,) = gradients
        arriving = np.full((1, 1), gradient.second_moment)
        if is_whole:
            power = gradient.power.mean(axis=tuple(range(1, gradient.power.ndim)))
            lags = gradient.pairs[(..., *middle)]
            arriving = from_offsets(lags, np.broadcast_to(power, steps))
        products = paths.back(_gather(arriving, shown.swapaxes(1, 2)) / len(shown))
        reached = np.maximum(own.sum(axis=(0, 1)), 1e-9) / len(own)
        shares = own.sum(axis=0) / np.maximum(own.sum(axis=(0, 2)), 1e-9)[:, np.newaxis]
        power = shares @ (np.diag(products) / reached)
        power = power[::-1] if call.operation.go_backwards else power
        pairs = np.zeros((*window((steps, 1)), *window((*spatial, 1))))
        pairs[(..., *middle)] = by_offset(products, np.diag(products), (steps, 1))
        return [Gradient(power.reshape(-1, *[1] * len(spatial)), pairs)]

    means, products = paths.products()
    moved = _move_steps(products, shown)
    power = np.diag(moved[0]).copy()
    lags = np.array([by_offset(one, power, (len(power), 1)) for one in moved])
    pairs = np.empty((2, lags.shape[1], *window((*spatial, 1))))
    pairs[:] = lags[-2:].reshape(*lags[-2:].shape, *[1] * len(spatial))
    pairs[(..., *middle)] = lags[:2]
    power = power.reshape(-1, *[1] * len(spatial))
    mean = float(np.average(means, weights=shown.sum(axis=(0, 1)) + 1e-9))
    if not is_whole:
        pairs, power = pairs[:, 0], power[0]
    return Effect((Signal(call.shape, mean, power, pairs),), back)


@rule(layers.Bidirectional)
def _bidirectional(call: Call) -> Effect | None:
    layer = call.operation
    if len(call.signals) != 1 or len(call.shapes) != 1:
        return None
    units = layer.forward_layer.units
    done = []
    for inner in (layer.forward_layer, layer.backward_layer):
        found = find_rule(inner)
        own = call._replace(operation=inner, shapes=((*call.shape[:-1], units),))
        effect = found(own) if found else None
        if effect is None:
            return None
        done.append(effect)
    outputs = [effect.outputs[0] for effect in done]
    if len(call.shape) == 2:
        outputs[1] = _reverse(outputs[1])
    parts = call._replace(signals=tuple(outputs))
    joined = _MERGES[layer.merge_mode](parts)
    assert joined is not None

    def back(gradients: Sequence[Gradient]) -> list[Gradient]:
        forth, back = joined.back(gradients)
        assert forth is not None
        assert back is not None
        back = back._replace(power=back.power[::-1]) if outputs[1].shape[1:] else back
        found = [one.back([g])[0] for one, g in zip(done, (forth, back), strict=True)]
        power = sum(part.power for part in found if part)
        pairs = sum(part.pairs for part in found if part) / 2.0
        return [Gradient(np.asarray(power), np.asarray(pairs))]

    return Effect(joined.outputs, back)


@rule(layers.TimeDistributed)
def _time_distributed(call: Call) -> Effect | None:
    """Apply the rule of a layer for the last axis, to which the steps are positions."""
    inner = call.operation.layer
    found = find_rule(inner)
    is_fit = isinstance(inner, layers.Dense | layers.Activation | layers.Dropout)
    return found(call._replace(operation=inner)) if found and is_fit else None


def _reverse(signal: Signal) -> Signal:
    return signal._replace(power=signal.power[::-1], base=None)
