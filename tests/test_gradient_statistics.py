"""Against float64 NumPy, over the whole range of float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_initkit.gradient_statistics import GradientStatistics, gradient_statistics, norms

TINY, HUGE = 1e-30, 1e30


def measure(stack, compiled=False):
    function = tf.function(gradient_statistics, jit_compile=compiled)
    return GradientStatistics(*(np.asarray(x, np.float64) for x in function([tf.constant(stack)])))


def expected(stack):
    g = np.abs(np.asarray(stack, np.float64))
    return GradientStatistics(
        norm=np.sqrt(np.sum(g**2, axis=1)),
        mean_abs=np.mean(g, axis=1),
        max_abs=np.max(g, axis=1),
        zeros=np.mean(g == 0, axis=1),
        nonfinite=np.sum(~np.isfinite(g), axis=1),
    )


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("scale", [TINY, 1e-20, 1.0, 1e20, HUGE])
def test_every_statistic_at_every_scale(rng, scale, compiled):
    stack = (rng.normal(size=(3, 1000)) * scale).astype("float32")
    stack[:, ::7] = 0
    for got, want in zip(measure(stack, compiled), expected(stack), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(exponent=st.integers(-90, 90), seed=st.integers(0, 2**31))
def test_scaling_a_gradient_scales_its_norm_mean_and_maximum_exactly(exponent, seed):
    stack = np.random.default_rng(seed).normal(size=(2, 50)).astype("float32")
    plain, scaled = measure(stack), measure(stack * np.float32(2.0**exponent))
    for name in ("norm", "mean_abs", "max_abs"):
        np.testing.assert_allclose(
            getattr(scaled, name), getattr(plain, name) * 2.0**exponent, rtol=3e-7
        )
    np.testing.assert_array_equal(scaled.zeros, plain.zeros)


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
def test_nan_infinity_and_all_zeros(compiled):
    nan, inf = np.nan, np.inf
    stack = np.array([[1, nan, 3, inf], [nan, 1, 2, 0], [1, 2, -inf, 0], [0, 0, 0, 0]], "float32")
    got = measure(stack, compiled)
    np.testing.assert_array_equal(got.nonfinite, [2, 1, 1, 0])
    np.testing.assert_array_equal(got.zeros, [0, 0.25, 0.25, 1])
    for statistic in (got.norm, got.mean_abs, got.max_abs):
        np.testing.assert_array_equal(statistic, [nan, nan, inf, 0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_is_summed_in_float32(rng, dtype):
    stack = keras.ops.cast(rng.normal(size=(1, 5000)) * 300, dtype)  # squares exceed float16
    want = np.linalg.norm(np.asarray(keras.ops.cast(stack, "float64")))
    np.testing.assert_allclose(gradient_statistics([stack]).norm[0], want, rtol=1e-6)
    np.testing.assert_allclose(norms([stack])[0], want, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
def test_a_small_number_beside_a_large_one_is_not_zero(compiled):
    stack = np.array([[1e-20, 1e25, 1e-19, 2.0], [1e-30, 1e30, 0, 0]], "float32")
    np.testing.assert_array_equal(measure(stack, compiled).zeros, [0, 0.5])


def test_stacks_of_several_sizes_are_measured_in_order(rng):
    stacks = [rng.normal(size=shape).astype("float32") for shape in ((2, 3), (1, 50), (4, 1))]
    for scales in ((1, 1, 1), (1, TINY, 1)):  # one extraordinary stack makes all careful
        scaled = [stack * np.float32(scale) for stack, scale in zip(stacks, scales, strict=True)]
        got = gradient_statistics([tf.constant(stack) for stack in scaled])
        want = [np.concatenate(parts) for parts in zip(*map(expected, scaled), strict=True)]
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_allclose(norms([tf.constant(s) for s in scaled]), want[0], rtol=1e-6)
