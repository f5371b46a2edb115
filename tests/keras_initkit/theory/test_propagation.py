"""Mean-field predictions against simulated networks, closed forms and known figures."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from scipy import special

from keras_initkit.theory.propagation import propagate

pytestmark = pytest.mark.numpy_alone

WIDTH, DEPTH, NETWORKS = 200, 6, 40
INPUT_SECOND_MOMENT = 0.6

NUMPY: dict[str, Any] = {
    "relu": (lambda h: np.maximum(h, 0), lambda h: (h > 0).astype(float)),
    "tanh": (np.tanh, lambda h: 1 - np.tanh(h) ** 2),
    "gelu": (
        lambda h: h * special.ndtr(h),
        lambda h: special.ndtr(h) + h * np.exp(-h * h / 2) / math.sqrt(2 * math.pi),
    ),
}


@pytest.fixture(scope="module")
def numbers():
    """Standard normal weights, biases, inputs and gradients of many networks."""
    generator = np.random.default_rng(0)
    shapes = {
        "weights": (DEPTH, NETWORKS, WIDTH, WIDTH),
        "biases": (DEPTH, NETWORKS, 1, WIDTH),
        "inputs": (NETWORKS, 16, WIDTH),
        "gradients": (NETWORKS, 16, WIDTH),
    }
    return {
        name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
    }


def _simulate(numbers, name, weight_variance, bias_variance):
    """Return the variances and the backward factors of each network, (networks, layers)."""
    activation, slope = NUMPY[name]
    weights = numbers["weights"] * np.float32(math.sqrt(weight_variance / WIDTH))
    outputs, preactivations = numbers["inputs"] * math.sqrt(INPUT_SECOND_MOMENT), []
    for weight, bias in zip(weights, numbers["biases"], strict=True):
        preactivations.append(outputs @ weight + bias * math.sqrt(bias_variance))
        outputs = activation(preactivations[-1]).astype(np.float32)

    gradient, factors = numbers["gradients"], []
    for layer in range(DEPTH - 1, 0, -1):
        back = (gradient @ weights[layer].swapaxes(1, 2)) * slope(preactivations[layer - 1])
        back = back.astype(np.float32)
        factors.append((back**2).sum(axis=(1, 2)) / (gradient**2).sum(axis=(1, 2)))
        gradient = back
    variances = [(preactivation**2).mean(axis=(1, 2)) for preactivation in preactivations]
    return np.stack(variances, axis=1), np.stack(factors[::-1], axis=1)


@pytest.mark.parametrize(
    ("name", "weight_variance", "bias_variance"),
    [
        ("relu", 1.2, 0.1),
        ("tanh", 4.0, 0.05),
        ("gelu", 2.35, 0.0),
    ],
)
def test_predictions_hold_in_simulated_networks(numbers, name, weight_variance, bias_variance):
    prediction = propagate(name, DEPTH, weight_variance, bias_variance, INPUT_SECOND_MOMENT)
    variances, factors = _simulate(numbers, name, weight_variance, bias_variance)
    for predicted, simulated in [(prediction.q, variances), (prediction.chi[:-1], factors)]:
        # Five standard errors, and the bias of a finite width: a few units in 1/width.
        error = 5 * simulated.std(axis=0, ddof=1) / math.sqrt(NETWORKS) + 5 / WIDTH * predicted
        assert (np.abs(simulated.mean(axis=0) - predicted) <= error).all()
        # The bound is narrow enough to tell a wrong formula, before noise adds up.
        assert (error[:3] <= 0.18 * predicted[:3]).all()


def test_a_relu_network_has_its_closed_form():
    prediction = propagate("relu", 30, 1.5, 0.2, 3.0)
    expected = [1.5 * 3.0 + 0.2]
    for _ in range(29):
        expected.append(0.75 * expected[-1] + 0.2)
    assert prediction.q == pytest.approx(np.array(expected), rel=1e-9)
    assert prediction.chi == pytest.approx(np.full(30, 0.75), rel=1e-9)
    assert prediction.gradient_norm_ratio == pytest.approx(0.75 ** (29 / 2), rel=1e-9)


def test_gradients_pass_every_layer_but_the_last():
    prediction = propagate("tanh", 3, 4.0, input_second_moment=0.01)
    first, second, last = prediction.chi
    assert prediction.gradient_norm_ratio == pytest.approx(math.sqrt(first * second))
    assert last < 0.9 * first
    assert propagate("tanh", 1, 3.0).gradient_norm_ratio == 1.0


def test_gradients_of_hundreds_of_layers_do_not_overflow_on_the_way():
    prediction = propagate("linear", 300, 16.0, input_second_moment=1e-200)
    assert math.log(prediction.gradient_norm_ratio) == pytest.approx(299 * math.log(4), rel=1e-9)


def test_a_dead_layer_kills_gradients():
    prediction = propagate(lambda x: keras.ops.sign(x), 5, 1.0)
    assert prediction.chi == pytest.approx(np.zeros(5), abs=1e-12)
    assert prediction.gradient_norm_ratio == 0.0


def test_an_explosion_is_reported_at_its_layer():
    with pytest.raises(ValueError, match=r"finite: it overflows at layer 52 of 60.*=1000000.0"):
        propagate("linear", 60, 1e6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "`depth` must be a positive integer. Received: depth=0"),
        ({"weight_variance": 0.0}, "`weight_variance` must be a finite number above 0"),
        ({"bias_variance": -1e-9}, "`bias_variance` must be a finite number of 0 or more"),
        ({"input_second_moment": math.nan}, "`input_second_moment` must be a finite number"),
        ({"activation": "rleu"}, "`activation` must be a callable or the name of"),
    ],
)
def test_arguments_are_checked(arguments, message):
    valid = {"activation": "relu", "depth": 3, "weight_variance": 2.0}
    with pytest.raises(ValueError, match=message):
        propagate(**{**valid, **arguments})
