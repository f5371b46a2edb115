"""Losses that steps of one's own compute, on the backend that KERAS_BACKEND names."""

import threading

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor, GradientWarning
from keras_initkit.callbacks.capture.batches import BatchListener
from keras_initkit.callbacks.capture.own_loss import LossCall, hearing_losses
from tests.callbacks.test_training_forms import CustomStep
from tests.callbacks.training import (
    BACKEND,
    BATCH,
    LOSS,
    QUICK,
    STEPS,
    compiled,
    data,
    fit,
    mlp,
    recorded,
)

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")
WITHOUT_LOGITS = keras.losses.SparseCategoricalCrossentropy()
PLAIN = keras.losses.Loss.__call__


class OneLoss(CustomStep):
    def loss_of(self, y, y_pred):
        return LOSS(y, y_pred)


class CalledByName(OneLoss):
    def train_step(self, data):
        return self._torch_step(data)


class OfPlainOperations(CustomStep):
    def loss_of(self, y, y_pred):
        return keras.ops.mean(keras.ops.square(y_pred - keras.ops.one_hot(y, 4)))


class WithPenalty(CustomStep):
    def loss_of(self, y, y_pred):
        return LOSS(y, y_pred) + 0.1 * keras.ops.mean(keras.ops.abs(y_pred))


class WithPenaltyLater(CustomStep):
    def loss_of(self, y, y_pred):
        self.weight = getattr(self, "weight", -0.1) + 0.1
        return LOSS(y, y_pred) + self.weight * keras.ops.mean(keras.ops.abs(y_pred))


class TwoLosses(CustomStep):
    def loss_of(self, y, y_pred):
        return LOSS(y, y_pred) + 0.5 * LOSS(y, -y_pred)


class OfSomethingElse(CustomStep):
    def loss_of(self, y, y_pred):
        return WITHOUT_LOGITS(y, keras.ops.softmax(y_pred))


class ForgetsLogits(CustomStep):
    def loss_of(self, y, y_pred):
        return WITHOUT_LOGITS(y, y_pred)


class CompiledByItself(CustomStep):
    def loss_of(self, y, y_pred):
        return own_trace(LOSS)(y, y_pred)


class OfFourArrays(OfPlainOperations):
    def train_step(self, data):
        return self._torch_step(data[:2])


class OfStructures(keras.Model):
    class Sum(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return sum(map(LOSS, y_true.values(), y_pred.values()))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.Sum(reduction=None)(y, y_pred)


class OwnComputeLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return LOSS(y, y_pred)


class ComputeLossWithPenalty(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return own_trace(LOSS)(y, y_pred) + 0.1 * LOSS(y, -y_pred)


def own_trace(function):
    """Have a function traced by itself, where the backend can."""
    if BACKEND == "jax":
        import jax

        return jax.checkpoint(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def made(kind, **compile_args):
    def make():
        plain = mlp()
        return kind(plain.inputs, plain.outputs)

    model = compiled(make, **compile_args)
    if kind is not CustomStep:
        model.loss = None  # what `compile` is given is not used
    return model


def trained(kind, **compile_args):
    model, monitor = made(kind, **compile_args), GradientMonitor(every_n_steps=1)
    fit(model, monitor)
    assert keras.losses.Loss.__call__ is PLAIN
    np.testing.assert_array_equal(monitor.history.steps, np.arange(STEPS))
    return model, monitor


def hear_step(model, *arrays):
    """Hear one step, called by name, in which nothing that fails is kept from the training."""
    listener = BatchListener(model, lambda numbers: None, lambda tensor: keras.ops.zeros((10,)))
    tensors = tuple(keras.ops.convert_to_tensor(array[:BATCH]) for array in arrays)
    with listener.listening(lambda action, *args: action(*args), in_own_step=True):
        model.train_step(data=tensors)
    return listener


def names_of_losses(monitor):
    return [head.loss for head in monitor.history.setup.heads]


@pytest.fixture(scope="module")
def reference():
    return recorded()


@pytest.mark.parametrize("kind", [CustomStep, OneLoss, OwnComputeLoss])
def test_the_batch_is_measured_as_in_the_step_of_keras(kind, reference):
    model, monitor = trained(kind)
    history, expected = monitor.history, slice(None)
    if BACKEND == "jax" and kind is CustomStep:
        expected = slice(1, None)  # its step does not hand `x` to `compute_loss`
    if BACKEND == "jax" and kind is OneLoss:
        expected = slice(0)
    assert history.ports == reference.ports[expected]
    if history.ports:
        for statistic in ("min", "max", "mean", "std", "entropy"):
            found, wanted = (h.per_port(statistic) for h in (history, reference))
            np.testing.assert_allclose(found, wanted[:, expected], rtol=1e-4, atol=1e-6)
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


@pytest.mark.backends("tensorflow", "torch")
def test_a_loss_that_does_not_fit_the_output_is_told():
    with pytest.warns(GradientWarning, match="has no activation"):
        _, monitor = trained(ForgetsLogits)
    assert [(finding.kind, finding.step) for finding in monitor.findings] == [("logits", 0)]


# Each with the ports that are known all the same, but for JAX's.
UNKNOWN = {
    WithPenalty: 3,
    TwoLosses: 0,
    OfSomethingElse: 0,
    OfPlainOperations: 3,
    CompiledByItself: 3 if BACKEND == "torch" else 0,
    ComputeLossWithPenalty: 3,
}


@pytest.mark.newest
@pytest.mark.parametrize("kind", UNKNOWN)
def test_of_a_loss_that_is_not_known_no_verdict_is_given(kind):
    if BACKEND == "jax" and kind not in (WithPenalty, ComputeLossWithPenalty):
        pytest.skip("of `compute_loss` alone is heard there")
    is_traced = kind in (TwoLosses, CompiledByItself, ComputeLossWithPenalty)
    _, monitor = trained(kind, **({} if is_traced else QUICK))
    is_heard = BACKEND != "jax" or kind is ComputeLossWithPenalty
    assert len(monitor.history.ports) == is_heard * UNKNOWN[kind]
    is_known = kind is CompiledByItself and BACKEND == "torch"
    assert any(names_of_losses(monitor)) == is_known
    assert {finding.severity for finding in monitor.findings} <= {"note"}


@pytest.mark.backends("torch")
def test_a_loss_is_forgotten_when_it_is_not_all_any_more():
    model, first, later = made(WithPenaltyLater), GradientMonitor(), GradientMonitor()
    model.fit(*data(), BATCH, epochs=1, steps_per_epoch=1, verbose=0, callbacks=[first])
    model.weight = -0.1
    model.fit(*data(), BATCH, verbose=0, callbacks=[later])
    assert names_of_losses(first) == ["sparse_categorical_crossentropy"]
    assert names_of_losses(later) == [""]


@pytest.mark.backends("torch")
def test_batches_of_other_sizes_and_steps_that_are_called_by_name():
    model, (x, y) = made(CalledByName), data()
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(x[:40], y[:40], BATCH, verbose=0, callbacks=[monitor])
    assert len(monitor.history) == 3
    listener = hear_step(model, x, y)
    assert [port.role for port in listener.plan.ports] == ["x", "y", "y_pred"]


@pytest.mark.backends("torch")
def test_data_and_outputs_of_any_form_are_no_reason_to_stop():
    plain, (x, y), monitor = mlp(), data(), GradientMonitor(every_n_steps=1)
    model = OfStructures(plain.inputs, {"a": plain.outputs[0]})
    model.compile("sgd")
    model.fit(x, {"a": y}, BATCH, verbose=0, callbacks=[monitor])
    assert len(monitor.history) == STEPS
    listener = hear_step(made(OfFourArrays), x, y, y, y)
    assert [port.role for port in listener.plan.ports] == ["x", "y_pred"]


@pytest.mark.newest
@pytest.mark.backends("tensorflow")
def test_a_custom_step_is_heard_under_xla():
    _, monitor = trained(OneLoss, jit_compile=True)
    assert len(monitor.history.ports) == 3


def test_losses_of_other_threads_and_inside_of_others_are_not_heard():
    class Both(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return LOSS(y_true, y_pred) + LOSS(y_true, y_pred)

    heard: list[LossCall] = []
    inside: list[LossCall] = []
    y, outputs, both = np.zeros(2, "int32"), np.ones((2, 3), "float32"), Both()
    with hearing_losses(heard.append):
        thread = threading.Thread(target=LOSS, args=(y, outputs))
        thread.start()
        thread.join()
        both(y, outputs)
        with hearing_losses(inside.append):  # as of a second monitor
            LOSS(y, outputs)
    assert [call.loss for call in heard] == [both, LOSS]
    assert inside == heard[1:]
    assert keras.losses.Loss.__call__ is PLAIN
