"""The monitor in low precision and with loss scales, on the backend that KERAS_BACKEND names."""

import functools

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.diagnosis.kinds import KINDS
from tests.callbacks.capture.test_backends import small
from tests.callbacks.training import (
    BACKEND,
    BATCH,
    QUICK,
    STEPS,
    BeforeEachBatch,
    compiled,
    data,
    layers,
    recorded,
)

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def kernel(model, batch=None):
    return np.asarray(keras.ops.convert_to_numpy(model.weights[0])).astype("float64").copy()


# Gradients that are exact in any precision, and whose squares float16 cannot hold.
@pytest.mark.parametrize(
    ("policy", "size"),
    [("mixed_bfloat16", 2.0**-13), ("bfloat16", 2.0**11), ("float16", 2.0**-13)]
    + [("mixed_float16", size) for size in (2.0**11, 2.0**-13)],
)
def test_squares_are_summed_in_float32(policy, size, rng):
    keras.config.set_dtype_policy(policy)
    x = rng.integers(0, 4, (3, 4, 5)).astype("float32")
    y = size * rng.choice([-1, 1, 2], (3, 4, 2)).astype("float32")
    constant = keras.initializers.Constant(512)
    dense = layers.Dense(2, use_bias=False, kernel_initializer=constant)
    model = keras.Sequential([keras.Input((5,)), dense])
    # The gradient for outputs is y / y.size.
    model.compile(keras.optimizers.SGD(2.0**-8), lambda y, outputs: y * outputs, **QUICK)
    # Its loss is smaller for -y, and its weights are of no usual size.
    monitor = GradientMonitor(every_n_steps=1, ignore=tuple(KINDS))
    weights = BeforeEachBatch(kernel)
    if policy == "mixed_float16":
        scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(2.0**-8), 4.0)
        model.compile(scaled, model.loss)
    flat = x.reshape(12, 5), y.reshape(12, 2)
    model.fit(*flat, 4, shuffle=False, verbose=0, callbacks=[monitor, weights])
    gradients = np.einsum("sni,snj->sij", x.astype("float64"), y.astype("float64")) / 8
    before = np.array([*weights.seen, kernel(model)])
    want = {
        "norm": np.linalg.norm(gradients, axis=(1, 2)),
        "mean_abs": abs(gradients).mean((1, 2)),
        "max_abs": abs(gradients).max((1, 2)),
        "zeros": (gradients == 0).mean((1, 2)),
        "weight_norm": np.linalg.norm(before[:-1], axis=(1, 2)),
        "update_ratio": np.linalg.norm(np.diff(before, axis=0), axis=(1, 2))
        / np.linalg.norm(before[:-1], axis=(1, 2)),
    }
    squares, float16 = want["max_abs"] ** 2, np.finfo("float16")
    assert ((squares > float16.max) if size > 1 else (squares < float16.tiny)).all()
    for statistic, values in want.items():
        np.testing.assert_allclose(
            monitor.history[statistic][:, 0], values, rtol=1e-5, err_msg=statistic
        )


def test_a_loss_scale_is_taken_off_the_users_or_kerass_own():
    def scaled(factor=None):
        return recorded(small, keras.optimizers.SGD(0.1, loss_scale_factor=factor), **QUICK)

    plain, of_user = scaled(), scaled(1024)
    keras.config.set_dtype_policy("mixed_float16")
    of_keras = scaled()  # Keras wraps a loss scale around the optimizer
    for history, scale, rtol in ((plain, 1, 0), (of_user, 1024, 1e-5), (of_keras, 2**15, 0.02)):
        np.testing.assert_array_equal(history["loss_scale"], np.full((STEPS, 1), scale))
        norm = history.per_variable("norm")
        np.testing.assert_allclose(norm, plain.per_variable("norm"), rtol=rtol)


def scaling(*callbacks, **how):
    """Train 60 batches with a loss scale that goes up until it is too large, again and again."""
    keras.config.set_dtype_policy("mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1e-2), initial_scale=2.0**24, dynamic_growth_steps=2
    )
    model, (x, y) = compiled(small, optimizer, **how), data()
    x, y = np.tile(x, (5, 1)), np.tile(y, 5)
    model.fit(x, y, BATCH, epochs=2, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def scale_and_iterations(model, batch=None):
    optimizer = model.optimizer
    scale = optimizer.dynamic_scale if optimizer.built else optimizer.initial_scale
    return float(scale), int(optimizer.iterations)


@functools.cache
def scaled():
    """Monitors of every and of every fifth step, and what the optimizer said before each batch."""
    every, fifth = GradientMonitor(every_n_steps=1), GradientMonitor(every_n_steps=5)
    state = BeforeEachBatch(scale_and_iterations)
    model = scaling(every, fifth, state)
    return every, fifth, np.array([*state.seen, scale_and_iterations(model)])


@pytest.mark.newest
def test_the_loss_scale_is_that_of_each_step_and_skipped_steps_are_counted():
    monitor, fifth, states = scaled()
    scales, iterations = states.T
    updates = np.diff(iterations) == 1
    skipped_before = np.cumsum(~updates) - ~updates
    assert 3 < np.sum(~updates) < 40
    assert len(np.unique(scales)) > 2
    np.testing.assert_array_equal(monitor.history.steps, np.arange(int(iterations[-1])))
    np.testing.assert_array_equal(fifth.history.steps, np.arange(0, int(iterations[-1]), 5))
    assert not monitor.history["nonfinite"].any()
    np.testing.assert_array_equal(monitor.history["loss_scale"][:, 0], scales[:-1][updates])
    np.testing.assert_array_equal(monitor.history["skipped"][:, 0], skipped_before[updates])


@pytest.mark.newest
@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution on torch")
def test_the_loss_scale_of_steps_in_blocks_is_that_of_each_step():
    single, blocks = scaled()[0], GradientMonitor(every_n_steps=1)
    scaling(blocks, steps_per_execution=2)
    for statistic in ("loss_scale", "norm"):
        np.testing.assert_allclose(
            blocks.history[statistic], single.history[statistic], rtol=1e-3, err_msg=statistic
        )
    # Those skipped are known at the beginning of each block.
    behind = single.history["skipped"] - blocks.history["skipped"]
    assert set(np.unique(behind)) <= {0, 1}
    assert (behind == 0).mean() > 0.5
