"""Recurrent layers: a wide layer's units are independent paths with Gaussian sums as input.

Each sum of a gate at a step is normal with a known covariance over steps and over two examples: of
the inputs, times the kernel's power, and of the states before, times the recurrent kernel's. Paths
of many units are drawn step by step with it, by the layer's own equations. On the way back the
gradients at the states are drawn in the same way, and follow the equations' derivatives.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.models.propagate.kernel import to_array
from keras_initkit.models.propagate.rules.merging import concatenate
from keras_initkit.models.propagate.rules.registry import Call, Effect, find_rule, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, window
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
        units: Number of units.
        columns: Numbers of a unit at one step: of two examples, or one.
        rng: The generator.
    """

    def __init__(self, units: int, columns: int, rng: np.random.Generator) -> None:
        self._columns, self._rng = columns, rng
        self._factor = np.zeros((0, 0))
        self._noise = np.zeros((units, 0))

    def draw(self, covariance: Array) -> Array:
        """Return (units, columns), given their covariance with all columns so far."""
        known, new = len(self._factor), len(self._factor) + self._columns
        noise = self._rng.normal(size=(len(self._noise), self._columns))
        noise /= np.sqrt((noise**2).mean(axis=0))
        self._noise = np.concatenate([self._noise, noise], axis=1)
        factor = np.zeros((new, new))
        factor[:known, :known] = self._factor
        if known:
            solved = np.linalg.lstsq(self._factor, covariance[:, :known].T, rcond=1e-9)[0].T
            factor[known:, :known] = solved
        rest = covariance[:, known:] - factor[known:, :known] @ factor[known:, :known].T
        values, vectors = np.linalg.eigh((rest + rest.T) / 2.0)
        factor[known:, known:] = vectors * np.sqrt(np.maximum(values, 0.0))
        self._factor = factor
        return np.asarray(self._noise @ factor[known:].T)


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


class _Paths:
    """Paths of units through the steps of a layer, forth and back."""

    def __init__(self, cell: Any, signal: Signal, dropouts: tuple[float, float]) -> None:
        gates, parts, step = _CELLS[type(cell)]
        tables = [_Table(cell.activation)]
        tables.append(_Table(getattr(cell, "recurrent_activation", cell.activation)))
        self._parts = parts
        self._step: Any = functools.partial(step, *tables)
        self._steps = signal.shape[0]
        kernel, recurrent = (
            to_array(weight).reshape(weight.shape[0], gates, -1)
            for weight in (cell.kernel, cell.recurrent_kernel)
        )
        units = kernel.shape[-1]
        self._kernel = (kernel**2).mean(axis=(0, 2))
        self._recurrent = (recurrent**2).mean(axis=(0, 2)) * units
        self._inputs, self._width = kernel.shape[0], units
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
        self._run(signal)

    def _run(self, signal: Signal) -> None:
        """Draw the paths of all units, for two examples."""
        rng = np.random.default_rng(0)
        parts = self._parts
        given = _covariance(signal) * self._inputs
        sums = [_Sums(self._drawn, 2, rng) for _ in parts]
        bias = self._biases[:, rng.integers(0, self._biases.shape[1], self._drawn), np.newaxis]
        outputs = np.zeros((0, self._drawn, 2))
        state, self._kept = np.zeros((self._drawn, 2)), []
        for step in range(self._steps):
            states = self._state_covariance(outputs, step)
            drawn = np.stack(
                [
                    one.draw(
                        has_inputs * self._kernel[gate] * _rows(given, step, self._input_dropout)
                        + has_states * self._recurrent[gate] * states
                    )
                    for one, (gate, has_inputs, has_states) in zip(sums, parts, strict=True)
                ]
            )
            self._kept.append((drawn + bias, state))
            output, state = self._step(drawn + bias, state)
            outputs = np.concatenate([outputs, output[np.newaxis]])
        self.outputs = outputs

    def _state_covariance(self, outputs: Array, step: int) -> Array:
        """Return E h h' of the states before a step with those before all steps so far."""
        found = np.zeros((2, (step + 1) * 2))
        if step:
            products = np.einsum("nc,snd->csd", outputs[step - 1], outputs) / self._drawn
            for example in (0, 1):
                products[example, :, example] *= self._state_dropout
            found[:, 2:] = products.reshape(2, -1)
        return found

    def signal(self, shape: tuple[int, ...]) -> Signal:
        """Return the outputs of all steps, or of the last."""
        outputs = self.outputs
        if len(shape) == 1:
            last = outputs[-1]
            power = (last**2).mean()
            pairs = np.array([1.0, (last[:, 0] * last[:, 1]).mean() / max(power, 1e-300)])
            return Signal(shape, float(last.mean()), np.array(power), pairs)
        power = (outputs**2).mean(axis=(1, 2))
        products = np.einsum("snc,tnd->cdst", outputs, outputs) / self._drawn
        same, other = products[0, 0] + products[1, 1], products[0, 1] + products[1, 0]
        pairs = np.stack([_by_offset(x / 2.0, power, shape) for x in (same, other)])
        return Signal(shape, float(outputs.mean()), power, pairs)

    def back(self, gradient: Gradient, is_whole: bool) -> Gradient:
        """Return the gradient at the inputs, of that at all outputs or at the last."""
        rng = np.random.default_rng(1)
        steps, parts = self._steps, self._parts
        arriving = np.zeros((steps, steps))
        if is_whole:
            power = np.broadcast_to(gradient.power, steps)
            arriving = _from_offsets(gradient.pairs, power)
        else:
            arriving[-1, -1] = float(gradient.power)
        count = 2 * self._drawn
        drawn = _Sums(count, 1, rng)
        found = np.zeros((0, len(parts), count))
        at_state = np.zeros(count)
        for step in reversed(range(steps)):
            later = np.arange(steps - 1, step - 1, -1)
            covariance = arriving[step, later]
            for place, (gate, _, has_states) in enumerate(parts):
                if has_states and len(found):
                    products = (found[-1, place] * found[:, place]).mean(axis=1)
                    covariance[1:] += self._recurrent[gate] * products
            at_output = drawn.draw(covariance[np.newaxis])[:, 0]
            at_sums, at_state = self._step_back(step, at_output, at_state)
            found = np.concatenate([found, at_sums[np.newaxis]])
        products = sum(
            self._kernel[gate] * self._width * (found[:, place] @ found[:, place].T) / count
            for place, (gate, has_inputs, _) in enumerate(parts)
            if has_inputs
        )
        products = np.asarray(products)[::-1, ::-1] * self._input_dropout
        power = np.diag(products).copy()
        return Gradient(power, _by_offset(products, power, (steps, 1)))

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
    layer, signal, cell = call.operation, call.signal, call.operation.cell
    is_plain = len(call.signals) == len(call.shapes) == 1 and type(cell) in _CELLS
    if not is_plain or (type(cell) is layers.GRUCell and not cell.reset_after):
        return None
    dropouts = (0.0, 0.0)
    if call.is_training:
        dropouts = (float(cell.dropout), float(cell.recurrent_dropout))
    steps = layer.go_backwards
    signal = _reverse(signal) if steps else signal
    paths = _Paths(cell, signal, dropouts)
    is_whole = len(call.shape) == 2

    def back(gradients: Sequence[Gradient]) -> list[Gradient]:
        found = paths.back(gradients[0], is_whole)
        return [found._replace(power=found.power[::-1]) if steps else found]

    return Effect((paths.signal(call.shape),), back)


@rule(layers.Bidirectional)
def _bidirectional(call: Call) -> Effect | None:
    layer = call.operation
    if layer.merge_mode != "concat" or len(call.signals) != 1 or len(call.shapes) != 1:
        return None
    units = call.shape[-1] // 2
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
    joined = concatenate(call._replace(signals=tuple(outputs)), -1)
    assert joined is not None

    def back(gradients: Sequence[Gradient]) -> list[Gradient]:
        (gradient,) = gradients
        flipped = (
            gradient._replace(power=gradient.power[::-1]) if outputs[1].shape[1:] else gradient
        )
        parts = [effect.back([g])[0] for effect, g in zip(done, (gradient, flipped), strict=True)]
        power = sum(part.power for part in parts if part)
        pairs = sum(part.pairs for part in parts if part) / 2.0
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


def _covariance(signal: Signal) -> Array:
    """Return E x x' of two steps of one example (0) or two (1): (2, steps, steps)."""
    power = np.broadcast_to(signal.power, signal.shape[0])
    return np.stack([_from_offsets(pairs, power) for pairs in signal.pairs])


def _rows(given: Array, step: int, dropout: float) -> Array:
    """Return the covariance of a step's inputs of two examples with those of all steps so far."""
    same, other = given[0, step, : step + 1] * dropout, given[1, step, : step + 1]
    rows = [np.stack([same, other], axis=1), np.stack([other, same], axis=1)]
    return np.stack([row.ravel() for row in rows])


def _from_offsets(pairs: Array, power: Array) -> Array:
    """Return a matrix of products of two steps, of their correlations by offset."""
    steps, reach = len(power), len(pairs) // 2
    offsets = np.clip(np.subtract.outer(np.arange(steps), np.arange(steps)), -reach, reach)
    return np.sqrt(np.outer(power, power)) * pairs[offsets + reach]


def _by_offset(products: Array, power: Array, shape: Sequence[int]) -> Array:
    """Return mean correlations by offset, of a matrix of products of two steps."""
    (count,) = window(shape)
    scale = np.sqrt(np.outer(power, power))
    return np.array(
        [
            np.trace(products, offset) / max(np.trace(scale, offset), 1e-300)
            for offset in range(-(count // 2), count // 2 + 1)
        ]
    )
