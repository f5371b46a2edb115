"""PyTorch's own: the step that it compiles, and gradients that are not in the host's memory."""

import functools

import keras
import numpy as np
import pytest
import torch

from keras_initkit.callbacks import GradientMonitor
from keras_initkit.callbacks.capture import Watch, open_capture
from keras_initkit.callbacks.capture import torch as capture
from tensorboard_plugin_initkit.record.statistics import STATISTICS
from tests.callbacks.training import (
    STEPS,
    compiled,
    convolutional,
    fit,
    layers,
    norms,
    trained_beside,
)

pytestmark = pytest.mark.backends("torch")


def small():
    return keras.Sequential([keras.Input((8,)), layers.Dense(6, "tanh"), layers.Dense(4)])


@pytest.fixture
def _without_a_cpp_compiler(monkeypatch):
    # What is traced and how it is cut into graphs is the same; only no C++ is compiled.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()


def trained(*callbacks, optimizer=None, **how):
    model = compiled(small, optimizer or keras.optimizers.Adam(1e-2), jit_compile=True, **how)
    fit(model, *callbacks)
    return model.get_weights()


@pytest.mark.usefixtures("_without_a_cpp_compiler")
def test_a_compiled_step_is_recorded_rightly_and_left_as_it_is():
    monitor = GradientMonitor(every_n_steps=2)
    for plain, monitored in zip(trained(), trained(monitor), strict=True):
        np.testing.assert_array_equal(plain, monitored)
    np.testing.assert_array_equal(monitor.history.steps, np.arange(0, STEPS, 2))
    gradients, weights = zip(*trained_beside(small), strict=True)
    for statistic, arrays in (("norm", gradients), ("weight_norm", weights)):
        np.testing.assert_allclose(
            monitor.history.per_variable(statistic),
            [norms(step) for step in arrays[::2]],
            rtol=1e-5,
            err_msg=statistic,
        )


@pytest.mark.parametrize("loss_scale", [1.0, 1e-25], ids=["ordinary", "squares underflow"])
@pytest.mark.parametrize("make", [small, convolutional])
def test_pytorch_measures_what_numpy_measures(make, loss_scale, monkeypatch):
    """Of a model on the CPU: another device is not needed for that, nor is there one."""

    def history():
        model = compiled(make, keras.optimizers.SGD(0.1, clipnorm=0.1), loss_weights=loss_scale)
        monitor = GradientMonitor(every_n_steps=1, sample_size=16)
        fit(model, monitor)
        return monitor.history

    by_numpy = history()
    monkeypatch.setattr(capture, "_is_on_host", lambda variable: False)
    by_pytorch = history()
    there = set()
    for statistic in STATISTICS:
        one, other = (h.per_variable(statistic) for h in (by_numpy, by_pytorch))
        np.testing.assert_allclose(one, other, rtol=1e-5, err_msg=statistic)
        there |= {statistic} if np.isfinite(one).any() else set()
    assert there == set(STATISTICS) - {"local_norm", "snr"}  # of replicas; of more steps


def test_a_transposed_gradient_is_not_copied():
    kernel = torch.randn(3, 3, 8, 16).permute(3, 2, 0, 1)  # as a convolution's is
    stack = open_capture(compiled(small), Watch(list, frozenset()))._stack([kernel])
    assert stack.shape == (1, kernel.numel())
    assert np.shares_memory(stack, kernel.numpy())
