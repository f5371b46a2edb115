"""Losses that steps of one's own compute, on the backend that KERAS_BACKEND names."""

import threading

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor, GradientWarning
from keras_initkit.callbacks.capture.own_loss import LossCall, hearing_losses
from tests.callbacks.test_training_forms import CustomStep
from tests.callbacks.training import BACKEND, LOSS, compiled, fit, mlp, recorded

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")
WITHOUT_LOGITS = keras.losses.SparseCategoricalCrossentropy()


class OneFunction(CustomStep):
    def loss_of(self, y, y_pred):
        losses = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        return keras.ops.mean(losses)


class OneLoss(CustomStep):
    def loss_of(self, y, y_pred):
        return LOSS(y, y_pred)


class OfPlainOperations(CustomStep):
    def loss_of(self, y, y_pred):
        return keras.ops.mean(keras.ops.square(y_pred - keras.ops.one_hot(y, 4)))


class WithPenalty(CustomStep):
    def loss_of(self, y, y_pred):
        return LOSS(y, y_pred) + 0.1 * keras.ops.mean(keras.ops.abs(y_pred))


class TwoLosses(CustomStep):
    def loss_of(self, y, y_pred):
        return LOSS(y, y_pred) + 0.5 * LOSS(y, -y_pred)


class OfSomethingElse(CustomStep):
    def loss_of(self, y, y_pred):
        return WITHOUT_LOGITS(y, keras.ops.softmax(y_pred))


class ForgetsLogits(CustomStep):
    def loss_of(self, y, y_pred):
        return WITHOUT_LOGITS(y, y_pred)


class OwnComputeLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return LOSS(y, y_pred)


def made(kind, **compile_args):
    def make():
        plain = mlp()
        return kind(plain.inputs, plain.outputs)

    return compiled(make, **compile_args)


def trained(kind, **compile_args):
    model, monitor = made(kind, **compile_args), GradientMonitor(every_n_steps=1)
    if kind is not CustomStep:
        model.loss = None  # what `compile` is given is not used
    fit(model, monitor)
    return model, monitor


@pytest.fixture(scope="module")
def reference():
    return recorded()


@pytest.mark.parametrize("kind", [CustomStep, OneLoss, OneFunction, OwnComputeLoss])
def test_the_batch_is_measured_as_in_the_step_of_keras(kind, reference):
    model, monitor = trained(kind)
    history = monitor.history
    assert history.ports == reference.ports
    for statistic in ("min", "max", "mean", "std", "entropy"):
        measured = history.per_port(statistic)
        np.testing.assert_allclose(measured, reference.per_port(statistic), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history["batch_loss"], reference["batch_loss"], rtol=1e-5)
    (head,) = history.setup.heads
    assert head.loss == "sparse_categorical_crossentropy"
    assert head.arguments["from_logits"]
    assert head.shape == (-1, 4)
    fit(alone := made(kind))
    # JAX's compiler may round otherwise where a result is read a second time.
    rtol = 1e-5 if BACKEND == "jax" else 0
    for with_monitor, without in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(with_monitor, without, rtol=rtol)


def test_a_loss_that_does_not_fit_the_output_is_told():
    with pytest.warns(GradientWarning, match="has no activation"):
        _, monitor = trained(ForgetsLogits)
    assert [(finding.kind, finding.step) for finding in monitor.findings] == [("logits", 0)]


def test_a_loss_of_something_else_is_not_held_against_the_output():
    _, monitor = trained(OfSomethingElse)
    (head,) = monitor.history.setup.heads
    assert (head.loss, head.layer) == ("sparse_categorical_crossentropy", -1)
    assert [port.role for port in monitor.history.ports] == ["y", "y_pred"]
    assert {finding.severity for finding in monitor.findings} <= {"note"}


@pytest.mark.parametrize(
    ("kind", "ports"), [(WithPenalty, 3), (TwoLosses, 0), (OfPlainOperations, 3)]
)
def test_of_a_loss_that_is_not_known_no_verdict_is_given(kind, ports):
    if BACKEND == "jax" and kind is OfPlainOperations:
        ports = 0  # what a differentiated function computes is known inside it alone
    _, monitor = trained(kind)
    assert len(monitor.history.ports) == ports
    assert not any(head.loss for head in monitor.history.setup.heads)


def test_a_custom_step_is_heard_under_xla():
    if BACKEND != "tensorflow":
        pytest.skip("its own way to compile")
    _, monitor = trained(OneLoss, jit_compile=True)
    assert len(monitor.history.ports) == 3


def test_losses_of_other_threads_and_inside_of_others_are_not_heard():
    class Both(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return LOSS(y_true, y_pred) + LOSS(y_true, y_pred)

    heard: list[LossCall] = []
    plain, both = keras.losses.Loss.__call__, Both()
    y, outputs = np.zeros(2, "int32"), np.ones((2, 3), "float32")
    with hearing_losses(heard.append):
        thread = threading.Thread(target=LOSS, args=(y, outputs))
        thread.start()
        thread.join()
        both(y, outputs)
        with hearing_losses(lambda call: None):
            LOSS(y, outputs)
    assert [call.loss for call in heard] == [both]
    assert keras.losses.Loss.__call__ is plain
