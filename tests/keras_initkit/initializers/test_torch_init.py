"""Standard deviations beside those of torch.nn.init: the same to the last bit."""

import itertools
import math

import pytest
import torch

from keras_initkit.initializers import KaimingNormal, KaimingUniform

pytestmark = pytest.mark.backends("torch")

NONLINEARITIES = ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
SHAPES = [(300, 500), (3, 3, 16, 24), (5, 7, 9)]


def test_the_same_standard_deviation(monkeypatch):
    drawn = []
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, mean, std, **_: drawn.append(std))
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high, **_: drawn.append(high))
    for a, mode, nonlinearity, shape in itertools.product(
        [0.0, 0.01, 0.2, math.sqrt(5)], ["fan_in", "fan_out"], NONLINEARITIES, SHAPES
    ):
        *taps, inputs, outputs = shape
        weight = torch.empty(outputs, inputs, *taps)
        torch.nn.init.kaiming_normal_(weight, a, mode, nonlinearity)
        torch.nn.init.kaiming_uniform_(weight, a, mode, nonlinearity)
        arguments = a, mode, nonlinearity
        normal, uniform = KaimingNormal(*arguments), KaimingUniform(*arguments)
        assert [normal.stddev(shape), math.sqrt(3.0) * uniform.stddev(shape)] == drawn, arguments
        drawn.clear()
