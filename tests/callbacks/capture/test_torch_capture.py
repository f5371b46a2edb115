"""PyTorch's own: the step that it compiles, and gradients that are not in the host's memory."""

import functools

import keras
import numpy as np
import pytest
import torch

from keras_initkit.callbacks import GradientMonitor
from keras_initkit.callbacks.capture import torch as capture
from tests.callbacks.capture.test_backends import small
from tests.callbacks.training import STEPS, compiled, fit, norms, recorded, trained_beside, varied

pytestmark = pytest.mark.backends("torch")


@pytest.fixture
def _without_a_cpp_compiler(monkeypatch):
    # What is traced and how it is cut into graphs is the same; only no C++ is compiled.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()


def sgd():
    return keras.optimizers.SGD(0.1)  # of whose update the fewest operations are traced


def trained(*callbacks):
    model = compiled(small, sgd(), jit_compile=True)
    fit(model, *callbacks)
    return model.get_weights()


@pytest.mark.usefixtures("_without_a_cpp_compiler")
def test_a_compiled_step_is_recorded_rightly_and_left_as_it_is():
    monitor = GradientMonitor(every_n_steps=2)
    for plain, monitored in zip(trained(), trained(monitor), strict=True):
        np.testing.assert_array_equal(plain, monitored)
    np.testing.assert_array_equal(monitor.history.steps, np.arange(0, STEPS, 2))
    gradients, weights = zip(*trained_beside(small, sgd()), strict=True)
    for statistic, arrays in (("norm", gradients), ("weight_norm", weights)):
        np.testing.assert_allclose(
            monitor.history.per_variable(statistic),
            [norms(step) for step in arrays[::2]],
            rtol=1e-5,
            err_msg=statistic,
        )


def test_what_is_measured_on_a_gpu_is_what_is_measured_on_a_cpu(monkeypatch):
    on_cpu = recorded(varied)
    monkeypatch.setattr(capture, "TorchArrays", capture.CudaArrays)
    on_gpu = recorded(varied)
    for statistic in ("norm", "max_abs", "zeros", "nonfinite", "weight_norm", "update_ratio"):
        got, want = (history.per_variable(statistic) for history in (on_gpu, on_cpu))
        assert np.isfinite(want[1:]).all()  # of zeros, the first update is infinite
        np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=statistic)
