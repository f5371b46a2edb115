"""The family of one formula: variances, distributions, gains, and layers that draw with it."""

import inspect
import math
import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_initkit.initializers import (
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
)
from tests.keras_initkit.initializers.helpers import array, assert_variance, attention_of, built

layers = keras.layers

# Keras hands the axes of an EinsumDense kernel to its initializer from 3.15 on.
KERAS_GIVES_AXES = "input_axes" in inspect.signature(keras.initializers.VarianceScaling).parameters
with_axes = pytest.mark.skipif(not KERAS_GIVES_AXES, reason="this Keras gives EinsumDense no axes")

DENSE, CONV = (300, 500), (3, 3, 64, 128)


@pytest.mark.parametrize(
    ("initializer", "shape", "variance"),
    [
        (XavierUniform(1), DENSE, 2 / 800),
        (XavierUniform(1, gain=3.0), CONV, 9 * 2 / (576 + 1152)),
        (XavierNormal(1, gain="relu", negative_slope=0.5), DENSE, 1.6 * 2 / 800),
        (HeUniform(1, negative_slope=0.1), CONV, 2 / 1.01 / 576),
        (HeNormal(1), DENSE, 2 / 300),
        (HeNormal(1, gain=keras.activations.gelu), DENSE, 2.351714 / 300),
        (LecunUniform(1, gain="selu"), CONV, 1 / 576),
        (LecunNormal(1, gain=2.0), DENSE, 4 / 300),
        (VarianceScaling(3.0, gain="tanh", seed=1), DENSE, 3 * 2.536178 / 300),
        (VarianceScaling(mode="fan_geo_avg", seed=1), DENSE, 1 / math.sqrt(150_000)),
        (VarianceScaling(2.0, distribution="untruncated_normal", seed=1), DENSE, 2 / 300),
        (VarianceScaling(input_axes=[1], output_axes=[0], seed=1), DENSE, 1 / 500),
        (VarianceScaling(seed=keras.random.SeedGenerator(1)), DENSE, 1 / 300),
    ],
    ids=lambda value: type(value).__name__ if callable(value) else None,
)
def test_weights_have_the_variance_of_the_formula(initializer, shape, variance):
    assert_variance(array(initializer(shape)), variance)
    assert initializer.stddev(shape) == pytest.approx(math.sqrt(variance), rel=1e-6)


TRUNCATION = 0.87962566103423978


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("initializer", "distribution", "limit"),
    [
        (VarianceScaling(distribution="uniform", seed=2), stats.uniform(-1, 2), math.sqrt(3)),
        (VarianceScaling(seed=2), stats.truncnorm(-2, 2, scale=0.5), 2 / TRUNCATION),
        (VarianceScaling(distribution="untruncated_normal", seed=2), stats.norm, 1.0),
    ],
)
def test_weights_have_the_shape_and_limits_of_their_distribution(
    initializer, distribution, limit, dtype
):
    values = array(initializer((400, 400), dtype=dtype)).ravel() * math.sqrt(400) / limit
    if distribution is stats.norm:
        assert np.abs(values).max() > 4
    else:
        assert 0.99 <= np.abs(values).max() <= 1 + 1e-6
    # Kolmogorov-Smirnov: a right distribution exceeds 2.2/sqrt(n) once in 8,000 draws.
    assert stats.kstest(values, distribution.cdf).statistic < 2.2 / math.sqrt(values.size)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]),
    st.sampled_from(["uniform", "truncated_normal", "untruncated_normal"]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(0.1, 10),
)
def test_gains_scales_and_fans_scale_the_same_numbers(mode, distribution, inputs, outputs, factor):
    def draw(scale=1.0, gain=1.0):
        initializer = VarianceScaling(scale, mode, distribution, 3, [0, 1], [0, 2], gain=gain)
        return array(initializer((1, inputs, outputs)))

    unit = draw()
    # Uniform numbers near zero are rounded as those near the limit are.
    for scaled in (draw(gain=factor), draw(scale=factor**2)):
        np.testing.assert_allclose(scaled, factor * unit, rtol=1e-5, atol=1e-6 * factor)
    fan = {
        "fan_in": inputs,
        "fan_out": outputs,
        "fan_avg": (inputs + outputs) / 2,
        "fan_geo_avg": math.sqrt(inputs * outputs),
    }[mode]
    reference = array(VarianceScaling(1.0, "fan_in", distribution, 3, [], [])((1, inputs, outputs)))
    np.testing.assert_allclose(unit * math.sqrt(fan), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", [HeNormal, LecunUniform, VarianceScaling, XavierNormal])
def test_a_default_config_has_the_default_arguments(cls):
    parameters = inspect.signature(cls).parameters
    assert cls().get_config() == {name: item.default for name, item in parameters.items()}


def kernels(layer):
    """Return the kernels of a layer."""
    return [array(weight) for weight in layer.weights if weight.name.endswith("kernel")]


@pytest.mark.skipif(KERAS_GIVES_AXES, reason="this Keras gives EinsumDense its axes")
def test_attention_without_axes_gets_the_variance_of_its_shapes():
    layer = layers.MultiHeadAttention(8, 32, kernel_initializer=LecunNormal())
    query, _, _, output = kernels(attention_of(layer, 5, 128))
    # The kernel of shape (inputs, heads, units) passes for a convolution over inputs.
    assert_variance(query, 1 / (128 * 8))
    assert_variance(output, 1 / (8 * 32))


@with_axes
@pytest.mark.parametrize(
    ("equation", "output_shape", "inputs", "fan_in", "fan_out"),
    [
        ("abc,cde->abde", (None, 8, 64), (3, 300), 300, 512),
        ("abcd,cde->abe", (None, 500), (3, 8, 64), 512, 500),
    ],
)
def test_einsum_kernels_get_the_variance_of_their_axes(
    equation, output_shape, inputs, fan_in, fan_out
):
    for initializer, variance in [
        (HeNormal(), 2 / fan_in),
        (HeUniform(mode="fan_out", gain="tanh"), 2.536178 / fan_out),
        (XavierNormal(gain=lambda x: keras.ops.sin(3.0 * x)), 2.0 * 2 / (fan_in + fan_out)),
        (VarianceScaling(mode="fan_geo_avg"), 1 / math.sqrt(fan_in * fan_out)),
    ]:
        layer = layers.EinsumDense(equation, output_shape, kernel_initializer=initializer)
        assert_variance(array(built(layer, *inputs).kernel), variance)


def test_kernels_of_one_layer_differ_without_a_seed():
    layer = layers.MultiHeadAttention(8, 32, kernel_initializer=HeUniform())
    query, key, value, _ = kernels(attention_of(layer, 5, 128))
    both = layers.Bidirectional(layers.LSTM(8, kernel_initializer=VarianceScaling()))
    forward, _, backward, _ = kernels(built(both, 5, 16))
    for one, other in [(query, key), (query, value), (key, value), (forward, backward)]:
        assert (one != other).mean() > 0.99


class Late(keras.layers.Layer):
    """Creates its initializer as late as a layer can."""

    def build(self, input_shape):
        initializer = HeNormal(gain=lambda x: keras.ops.tanh(x) * 2.0)
        self.kernel = self.add_weight(shape=(input_shape[-1], 200), initializer=initializer)

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)


@pytest.mark.backends("tensorflow", "jax", "torch")
def test_an_initializer_can_be_made_while_a_model_is_traced():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.late = Late()

        def call(self, inputs):
            return self.late(inputs)

    model = Model()
    model(keras.Input((200,)))
    assert_variance(array(model.late.kernel), 2.536178 / 4 / 200)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VarianceScaling(0), "`scale` must be a finite number above 0, the factor of the"),
        (lambda: VarianceScaling(mode="fan"), '`mode` must be one of "fan_in", "fan_out", "fan_a'),
        (lambda: HeUniform(mode="fan"), '`mode` must be one of "fan_in", "fan_out", "fan_a'),
        (lambda: VarianceScaling(distribution="gauss"), '`distribution` must be one of "uniform",'),
        (lambda: LecunNormal(gain=0), "`gain` must be positive and finite. Received: gain=0. For"),
        (lambda: XavierUniform(gain="tanh", negative_slope=0.1), "`negative_slope` must be None"),
        (lambda: VarianceScaling(seed="one"), "`seed` argument should be an instance of"),
        (lambda: LecunNormal(None, [0]), "must be given together, or not at all. Received: input"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
