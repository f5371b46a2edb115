"""Against float64 NumPy, over the whole range of float32, on the backend in use."""

import functools
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_initkit.callbacks.measures.gradients import (
    GRADIENT_STATISTICS,
    OF_SPIKES,
    Measure,
    gradient_statistics,
    measure_scaled,
)

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

BACKEND = keras.backend.backend()
TINY, HUGE = 1e-30, 1e30
CASES: dict[str, tuple[Any, Measure]]

if BACKEND == "tensorflow":
    import tensorflow as tf

    from keras_initkit.callbacks.measures.tensorflow import measure_by_xla, measure_in_graph

    CASES = {
        "graph": (tf.function, measure_in_graph),
        "xla": (tf.function(jit_compile=True), measure_by_xla),
        "scaled": (tf.function, measure_scaled),
        "folded": (tf.function, measure_by_xla),
    }
elif BACKEND == "jax":
    import jax

    from keras_initkit.callbacks.measures.jax import measure_at_once, measure_on_cpu

    on_jax = (measure_on_cpu, measure_at_once, measure_scaled)
    CASES = {way.__name__: (jax.jit, way) for way in on_jax}
else:
    from keras_initkit.callbacks.measures.torch import measure_on_cpu, measure_together

    CASES = {
        way.__name__: (lambda function: function, way) for way in (measure_on_cpu, measure_together)
    }

ways = pytest.mark.parametrize("way", CASES)


@functools.cache  # traced and compiled once for all stacks of the same shapes
def compiled(way, wanted=GRADIENT_STATISTICS):
    compile_function, measure = CASES[way]
    return compile_function(lambda stacks: gradient_statistics(stacks, wanted, measure))


def measure(way, *stacks, wanted=GRADIENT_STATISTICS):
    results = compiled(way, wanted)([keras.ops.convert_to_tensor(stack) for stack in stacks])
    return {name: keras.ops.convert_to_numpy(x).astype("float64") for name, x in results.items()}


ANY_WAY = next(iter(CASES))


def expected(*stacks):
    magnitudes = [np.abs(np.asarray(stack, np.float64)) for stack in stacks]
    of = {
        "norm": lambda g: np.sqrt(np.sum(g**2, axis=1)),
        "mean_abs": lambda g: np.mean(g, axis=1),
        "max_abs": lambda g: np.max(g, axis=1),
        "zeros": lambda g: np.mean(g == 0, axis=1),
        "nonfinite": lambda g: np.sum(~np.isfinite(g), axis=1),
    }
    return {name: np.concatenate(list(map(way, magnitudes))) for name, way in of.items()}


def assert_right(way, *stacks):
    measured, want = measure(way, *stacks), expected(*stacks)
    assert set(measured) == set(want) == set(GRADIENT_STATISTICS)  # JAX sorts the names
    for name in want:
        np.testing.assert_allclose(measured[name], want[name], rtol=1e-6, err_msg=name)


@ways
def test_every_statistic_at_every_scale(rng, way):
    for scale in (TINY, 1e-20, 1.0, 1e20, HUGE):
        stack = (rng.normal(size=(3, 1000)) * scale).astype("float32")
        stack[:, ::7] = 0
        assert_right(way, stack)


@ways
def test_stacks_of_one_and_of_several_keep_their_order(rng, way):
    shapes = [(1, 40), (1, 7), (3, 50), (1, 2000), (2, 5)]
    normal = [rng.normal(size=shape) for shape in shapes]
    for scales in ((1, 1, 1, 1, 1), (TINY,) * 5, (1, TINY, 1, 1, 1)):
        pairs = zip(normal, scales, strict=True)
        stacks = [(x * scale).astype("float32") for x, scale in pairs]
        assert_right(way, *stacks)
        between_records = measure(way, *stacks, wanted=tuple(OF_SPIKES))
        for name in OF_SPIKES:
            want = expected(*stacks)[name]
            np.testing.assert_allclose(between_records[name], want, rtol=1e-6, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(exponent=st.integers(-90, 90), seed=st.integers(0, 2**31))
def test_scaling_a_gradient_scales_its_norm_mean_and_maximum_exactly(exponent, seed):
    stack = np.random.default_rng(seed).normal(size=(2, 50)).astype("float32")
    plain, scaled = measure(ANY_WAY, stack), measure(ANY_WAY, stack * np.float32(2.0**exponent))
    for name in ("norm", "mean_abs", "max_abs"):
        np.testing.assert_allclose(scaled[name], plain[name] * 2.0**exponent, rtol=1e-6)
    np.testing.assert_array_equal(scaled["zeros"], plain["zeros"])


@ways
def test_nan_infinity_and_all_zeros(way):
    nan, inf = np.nan, np.inf
    stack = np.array([[1, nan, 3, inf], [nan, 1, 2, 0], [1, 2, -inf, 0], [0, 0, 0, 0]], "float32")
    got = measure(way, stack)
    np.testing.assert_array_equal(got["nonfinite"], [2, 1, 1, 0])
    between_records = measure(way, stack, stack[3:], wanted=tuple(OF_SPIKES))
    np.testing.assert_array_equal(between_records["nonfinite"], [2, 1, 1, 0, 0])
    np.testing.assert_array_equal(between_records["norm"], [nan, nan, inf, 0, 0])
    np.testing.assert_array_equal(got["zeros"], [0, 0.25, 0.25, 1])
    for statistic in (got["norm"], got["mean_abs"], got["max_abs"]):
        np.testing.assert_array_equal(statistic, [nan, nan, inf, 0])


@ways
def test_squares_that_are_lost_are_noticed_whatever_the_number_of_elements(rng, way):
    for size in (64, 2**16):
        for scale in (1e-16, 1e-18, 1e-19, 3e-20):
            assert_right(way, (rng.normal(size=(1, size)) * scale).astype("float32"))


@pytest.mark.backends("jax")
def test_what_is_not_compiled_as_a_whole_is_compiled_once(rng, caplog):
    import jax

    stack = keras.ops.convert_to_tensor(rng.normal(size=(2, 77)).astype("float32"))
    counts = []
    for _ in range(2):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            gradient_statistics([stack], OF_SPIKES, CASES["measure_on_cpu"][1])
        counts.append(len(caplog.records))
    assert counts[0] > counts[1] == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_is_summed_in_float32(rng, dtype):
    stack = keras.ops.cast(rng.normal(size=(1, 5000)) * 300, dtype)  # squares exceed float16
    values = keras.ops.convert_to_numpy(keras.ops.cast(stack, "float32")).astype("float64")
    for wanted in (GRADIENT_STATISTICS, ("norm",)):
        norm = gradient_statistics([stack], wanted)["norm"]
        np.testing.assert_allclose(norm[0], np.linalg.norm(values), rtol=1e-6)


@ways
def test_zeros(way):
    # A small number beside a large one is none, a negative zero is one.
    magnitudes = np.array([[1e-20, 1e25, 1e-19, 2.0], [1e-30, 1e30, 0, 0]], "float32")
    signs = np.array([[-0.0, 0.0, 1.0, -1.0]] * 2, "float32")
    np.testing.assert_array_equal(measure(way, magnitudes)["zeros"], [0, 0.5])
    for stack in (signs, signs[:1]):
        np.testing.assert_array_equal(measure(way, stack)["zeros"], 0.5)


@pytest.mark.parametrize("wanted", [("norm",), ("zeros", "norm"), ("max_abs", "nonfinite")])
def test_what_is_wanted_is_the_same_alone(rng, wanted):
    for scale in (1, TINY):
        stack = (rng.normal(size=(3, 100)) * scale).astype("float32")
        everything, some = measure(ANY_WAY, stack), measure(ANY_WAY, stack, wanted=wanted)
        assert set(some) == set(wanted)
        for name in wanted:
            np.testing.assert_array_equal(some[name], everything[name])


@ways
def test_any_size_is_exact(rng, way):
    sizes = (1, 15, 31, 32, 33, 1000, 2**16, 2**20 + 7)
    assert_right(way, *(rng.normal(size=(1, size)).astype("float32") for size in sizes))


@ways
def test_zeros_are_counted_exactly(way):
    counts = np.array([0, 7, 10, 11, 255, 256])
    stack = (np.arange(256) < counts[:, None]).astype("float32") * 3
    measured = measure(way, stack, *np.split(stack, len(stack)))
    np.testing.assert_allclose(measured["zeros"], 1 - np.tile(counts, 2) / 256, atol=1e-6)
