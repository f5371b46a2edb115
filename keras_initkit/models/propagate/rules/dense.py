"""Layers of sums over units: dense, einsum, embeddings."""

import math

import keras
import numpy as np

from keras_initkit.connectivity.layer_fans import view_of_weight
from keras_initkit.models.propagate.kernel import Kernel, add_bias, kernel_of, mix, to_array
from keras_initkit.models.propagate.rules.activations import activate, with_activation
from keras_initkit.models.propagate.rules.registry import Call, Effect, chain, effect, rule
from keras_initkit.models.propagate.signal import Gradient, Signal, centre, white_gradient, window

layers = keras.layers


@rule(layers.Dense)
def _dense(call: Call) -> Effect:
    layer = call.operation
    kernel = kernel_of(to_array(layer.kernel))
    output = add_bias(mix(kernel, call.signal), layer.bias)._replace(shape=call.shape)
    return with_activation(layer, effect(output, lambda gradient: gradient.scale(kernel.back)))


@rule(layers.EinsumDense)
def _einsum_dense(call: Call) -> Effect:
    layer, signal = call.operation, call.signal
    values = to_array(layer.kernel)
    variable = next(w for w in layer.weights if w.name == "kernel")
    view = view_of_weight(layer, variable)
    assert view is not None
    order = (*view.inputs, *view.maps, *view.outputs)
    inputs = math.prod(values.shape[axis] for axis in view.inputs)
    kernel = kernel_of(
        np.transpose(values, order).reshape(inputs, -1), view.fans.fan_in, view.fans.fan_out
    )
    moved = signal.spread(call.shape)
    if len(signal.shape) == len(call.shape) and _keeps_positions(layer.equation):
        moved = signal._replace(shape=call.shape)
    output = add_bias(mix(kernel, signal, moved), layer.bias)

    def back(gradient: Gradient) -> Gradient:
        moment = gradient.second_moment * kernel.back
        if moved.pairs.shape == signal.pairs.shape:
            return gradient.scale(kernel.back)
        return white_gradient(signal.shape, moment)

    return with_activation(layer, effect(output, back))


def _keeps_positions(equation: str) -> bool:
    """Check if an einsum only replaces the last axis."""
    operands, _, outputs = equation.replace(" ", "").partition("->")
    inputs = operands.partition(",")[0]
    return inputs[:-1] == outputs[:-1]


@rule(layers.Embedding)
def _embedding(call: Call) -> Effect:
    layer = call.operation
    if call.kwargs.get("reverse") or True in call.args[1:]:
        return _look_up_tokens(call)
    values = to_array(layer.embeddings)
    kernel = Kernel(float((values**2).mean()), 0.0, float(values.mean()), 0.0)
    # Of two tokens, drawn independently, the products of the same unit.
    other = float((values.mean(axis=0) ** 2).mean()) / max(kernel.power, 1e-300)
    pairs = np.full((2, *window(call.shape)), other)
    pairs[(0, *centre(pairs.shape[1:]))] = 1.0
    power = np.full([1] * (len(call.shape) - 1), kernel.power)
    output = Signal(call.shape, kernel.mean, power, pairs)
    return Effect((output,), lambda gradients: [None])


if hasattr(layers, "ReversibleEmbedding"):  # from Keras 3.13 on
    rule(layers.ReversibleEmbedding)(_embedding)


def _look_up_tokens(call: Call) -> Effect:
    """Multiply units by the vectors of all tokens, as a layer does in reverse."""
    layer = call.operation
    table = (
        to_array(layer.embeddings).T if layer.tie_weights else to_array(layer.reverse_embeddings)
    )
    kernel = kernel_of(table)
    done = effect(
        mix(kernel, call.signal)._replace(shape=call.shape),
        lambda gradient: gradient.scale(kernel.back),
    )
    if (cap := layer.logit_soft_cap) is None:
        return done
    return chain(done, lambda signal: activate(signal, lambda x: keras.ops.tanh(x / cap) * cap))
