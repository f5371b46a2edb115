"""Against float64 NumPy, over the whole range of float32."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_initkit.callbacks.capture.tensorflow import GraphReductions
from keras_initkit.callbacks.measures.gradients import (
    GRADIENT_STATISTICS,
    gradient_statistics,
    norms,
)
from keras_initkit.callbacks.measures.reductions import FoldedReductions, HostReductions, Reductions

tf = pytest.importorskip("tensorflow")

TINY, HUGE = 1e-30, 1e30


WAYS = pytest.mark.parametrize(
    ("compiled", "reductions"),
    [
        (False, Reductions()),
        (True, Reductions()),
        (False, FoldedReductions()),
        (True, FoldedReductions()),
        (False, GraphReductions()),
        (False, HostReductions()),
    ],
    ids=["graph", "xla", "folded", "folded xla", "graph's own", "host"],
)


def measure(stack, compiled=False, reductions=None):
    measured = measure_stacks([stack], compiled, reductions)
    return {name: np.asarray(values, np.float64) for name, values in measured.items()}


def measure_stacks(stacks, compiled, reductions):
    def function(stacks):
        return gradient_statistics(stacks, reductions=reductions)

    if isinstance(reductions, HostReductions):
        with np.errstate(all="ignore"):
            return function(stacks)
    return tf.function(function, jit_compile=compiled)(list(map(tf.constant, stacks)))


def expected(stack):
    g = np.abs(np.asarray(stack, np.float64))
    return {
        "norm": np.sqrt(np.sum(g**2, axis=1)),
        "mean_abs": np.mean(g, axis=1),
        "max_abs": np.max(g, axis=1),
        "zeros": np.mean(g == 0, axis=1),
        "nonfinite": np.sum(~np.isfinite(g), axis=1),
    }


@WAYS
@pytest.mark.parametrize("scale", [TINY, 1e-20, 1.0, 1e20, HUGE])
def test_every_statistic_at_every_scale(rng, scale, compiled, reductions):
    stack = (rng.normal(size=(3, 1000)) * scale).astype("float32")
    stack[:, ::7] = 0
    measured, want = measure(stack, compiled, reductions), expected(stack)
    assert set(measured) == set(want) == set(GRADIENT_STATISTICS)
    for name in want:
        np.testing.assert_allclose(measured[name], want[name], rtol=1e-6, err_msg=name)


@WAYS
@pytest.mark.parametrize("scale", [TINY, 1.0])
def test_stacks_of_one_and_of_several_keep_their_order(rng, scale, compiled, reductions):
    shapes = [(1, 40), (1, 7), (3, 50), (1, 2000), (2, 5)]
    stacks = [(rng.normal(size=shape) * scale).astype("float32") for shape in shapes]
    measured = measure_stacks(stacks, compiled, reductions)
    wanted = list(map(expected, stacks))
    for name in GRADIENT_STATISTICS:
        want = np.concatenate([of_stack[name] for of_stack in wanted])
        np.testing.assert_allclose(measured[name], want, rtol=1e-6, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(exponent=st.integers(-90, 90), seed=st.integers(0, 2**31))
def test_scaling_a_gradient_scales_its_norm_mean_and_maximum_exactly(exponent, seed):
    stack = np.random.default_rng(seed).normal(size=(2, 50)).astype("float32")
    plain, scaled = measure(stack), measure(stack * np.float32(2.0**exponent))
    for name in ("norm", "mean_abs", "max_abs"):
        np.testing.assert_allclose(scaled[name], plain[name] * 2.0**exponent, rtol=3e-7)
    np.testing.assert_array_equal(scaled["zeros"], plain["zeros"])


@WAYS
def test_nan_infinity_and_all_zeros(compiled, reductions):
    nan, inf = np.nan, np.inf
    stack = np.array([[1, nan, 3, inf], [nan, 1, 2, 0], [1, 2, -inf, 0], [0, 0, 0, 0]], "float32")
    got = measure(stack, compiled, reductions)
    np.testing.assert_array_equal(got["nonfinite"], [2, 1, 1, 0])
    np.testing.assert_array_equal(got["zeros"], [0, 0.25, 0.25, 1])
    for statistic in (got["norm"], got["mean_abs"], got["max_abs"]):
        np.testing.assert_array_equal(statistic, [nan, nan, inf, 0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_is_summed_in_float32(rng, dtype):
    stack = keras.ops.cast(rng.normal(size=(1, 5000)) * 300, dtype)  # squares exceed float16
    want = np.linalg.norm(np.asarray(keras.ops.cast(stack, "float64")))
    np.testing.assert_allclose(gradient_statistics([stack])["norm"][0], want, rtol=1e-6)
    np.testing.assert_allclose(norms([stack])[0], want, rtol=1e-6)


@WAYS
def test_a_small_number_beside_a_large_one_is_not_zero(compiled, reductions):
    stack = np.array([[1e-20, 1e25, 1e-19, 2.0], [1e-30, 1e30, 0, 0]], "float32")
    np.testing.assert_array_equal(measure(stack, compiled, reductions)["zeros"], [0, 0.5])


@WAYS
@pytest.mark.parametrize("count", [1, 2])
def test_negative_zero_is_zero(compiled, reductions, count):
    stack = np.array([[-0.0, 0.0, 1.0, -1.0]] * count, "float32")
    np.testing.assert_array_equal(measure(stack, compiled, reductions)["zeros"], [0.5] * count)


def test_stacks_of_several_sizes_are_measured_in_order(rng):
    stacks = [rng.normal(size=shape).astype("float32") for shape in ((2, 3), (1, 50), (4, 1))]
    for scales in ((1, 1, 1), (1, TINY, 1)):  # one extraordinary stack makes all careful
        scaled = [stack * np.float32(scale) for stack, scale in zip(stacks, scales, strict=True)]
        tensors = [tf.constant(stack) for stack in scaled]
        got = gradient_statistics(tensors)
        parts = list(map(expected, scaled))
        for name in GRADIENT_STATISTICS:
            want = np.concatenate([part[name] for part in parts])
            np.testing.assert_allclose(got[name], want, rtol=1e-6)
        np.testing.assert_array_equal(norms(tensors), got["norm"])


@pytest.mark.parametrize("wanted", [("norm",), ("zeros", "norm"), ("max_abs", "nonfinite")])
def test_what_is_wanted_is_the_same_alone(rng, wanted):
    for scale in (1, TINY):
        stack = tf.constant((rng.normal(size=(3, 100)) * scale).astype("float32"))
        everything, some = gradient_statistics([stack]), gradient_statistics([stack], wanted)
        assert set(some) == set(wanted)
        for name in wanted:
            np.testing.assert_array_equal(some[name], everything[name])


@WAYS
@pytest.mark.parametrize("size", [1, 15, 31, 32, 33, 1000, 2**16, 2**20 + 7])
def test_any_size_is_exact(rng, compiled, reductions, size):
    stack = rng.normal(size=(1, size)).astype("float32")
    measured, want = measure(stack, compiled, reductions), expected(stack)
    for name in want:
        np.testing.assert_allclose(measured[name], want[name], rtol=1e-6, err_msg=name)


def test_each_reduction_on_the_host_is_right_alone(rng):
    stacks = [rng.normal(size=shape).astype("float32") for shape in ((1, 200_000), (3, 50))]
    for stack in stacks:
        stack[:, ::3] = 0
    wanted = {
        "squares": lambda x: np.sum(np.square(x, dtype=float), axis=1),
        "largest": lambda x: np.max(np.abs(x), axis=1),
        "magnitudes": lambda x: np.sum(np.abs(x), axis=1, dtype=float),
        "nonzeros": lambda x: np.sum(x != 0, axis=1),
    }
    for name, want in wanted.items():
        measured = getattr(HostReductions(), name)(stacks)
        assert measured.dtype == np.float32
        np.testing.assert_allclose(measured, np.concatenate(list(map(want, stacks))), rtol=1e-6)
