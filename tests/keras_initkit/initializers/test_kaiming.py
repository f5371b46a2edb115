"""PyTorch's initializers, beside what PyTorch documents."""

import math

import pytest

from keras_initkit.initializers import KaimingNormal, KaimingUniform
from tests.keras_initkit.initializers.helpers import array, assert_variance

pytestmark = pytest.mark.backends("tensorflow", "torch")


@pytest.mark.parametrize(
    ("initializer", "variance", "fourth"),
    [
        # PyTorch's Linear: uniform in ±1/sqrt(fan_in), of kurtosis 9/5.
        (KaimingUniform(math.sqrt(5), seed=1), 1 / 3 / 400, 9 / 5),
        (KaimingNormal(nonlinearity="selu", seed=1), 0.75**2 / 400, 3),
        (KaimingNormal(0.0, "fan_out", "tanh", seed=1), 25 / 9 / 600, 3),
    ],
)
def test_moments(initializer, variance, fourth):
    values = array(initializer((400, 600)))
    assert_variance(values, variance)
    assert (values**4).mean() / variance**2 == pytest.approx(fourth, rel=0.05)
    assert initializer.stddev((400, 600)) == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match='`nonlinearity` must be one of "linear", '):
        KaimingNormal(nonlinearity="gelu")
    with pytest.raises(ValueError, match="`a` must be a finite number, the slope of "):
        KaimingNormal(math.inf)
