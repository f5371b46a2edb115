"""Trainings whose updates, batches or models are not one after the other, on every backend."""

import contextlib
import copy
import pickle

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import ActivationProbe, GradientMonitor
from tests.callbacks.capture.test_backends import small
from tests.callbacks.test_training_forms import CustomStep
from tests.callbacks.training import (
    BACKEND,
    BATCH,
    LOSS,
    QUICK,
    STEPS,
    BeforeEachBatch,
    compiled,
    data,
    fit,
    layers,
    mlp,
    norms,
)

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def losses_before(x, y):
    """Keep the loss of each batch, computed by itself before the step."""

    def loss(model, batch):
        part = slice(batch * BATCH, (batch + 1) * BATCH)
        return float(keras.ops.convert_to_numpy(LOSS(y[part], model(x[part], training=False))))

    return BeforeEachBatch(loss)


@pytest.mark.newest
def test_losses_and_learning_rates_with_a_smaller_batch_over_several_fits():
    model, (x, y) = compiled(mlp, keras.optimizers.SGD(0.1), **QUICK), data()
    x, y = x[: 3 * BATCH + 2], y[: 3 * BATCH + 2]
    every, second, fifth = (GradientMonitor(every_n_steps=n) for n in (1, 2, 5))
    losses = losses_before(x, y)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    callbacks = [losses, every, second, fifth, scheduler]
    for _ in range(2):
        model.fit(x, y, BATCH, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(every.history["loss"][:, 0], losses.seen, rtol=1e-5)
    np.testing.assert_array_equal(second.history.steps, np.arange(0, 16, 2))
    # The mean of the batches since the record before, in the same epoch.
    want = [[batch[0], batch[1:3].mean()] for batch in np.reshape(losses.seen, (4, 4))]
    np.testing.assert_allclose(second.history["loss"][:, 0], np.ravel(want), rtol=1e-5)
    # Each in an epoch of its own, of which more batches have come than of the one before.
    sizes = [BATCH, BATCH, BATCH, 2]
    want = [np.average(losses.seen[4 * i : 5 * i + 1], weights=sizes[: i + 1]) for i in range(4)]
    np.testing.assert_allclose(fifth.history["loss"][:, 0], want, rtol=1e-5)
    rates = np.tile(np.repeat([0.1, 0.05], 4), 2)
    np.testing.assert_allclose(every.history["learning_rate"][:, 0], rates, rtol=1e-6)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no steps_per_execution")
def test_an_incomplete_block_of_steps():
    model, (x, y) = compiled(mlp, keras.optimizers.SGD(0.1), steps_per_execution=4), data()
    monitor = GradientMonitor(every_n_steps=1)
    for _ in range(2):
        fit(model, monitor)
    reference, losses = compiled(mlp, keras.optimizers.SGD(0.1)), losses_before(x, y)
    for _ in range(2):
        fit(reference, losses)
    np.testing.assert_array_equal(monitor.history.steps, np.arange(2 * STEPS))
    want = np.array(losses.seen).reshape(2, STEPS)
    if BACKEND != "tensorflow":  # which records each batch's own
        want[:, :4], want[:, 4:] = want[:, :4].mean(1)[:, None], want[:, 4:].mean(1)[:, None]
    np.testing.assert_allclose(monitor.history["loss"][:, 0], want.ravel(), rtol=1e-5)
    assert not monitor.history["skipped"].any()


# Keras's own, where it has asked for one batch more.
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_data_of_unknown_size_end_in_no_row():
    x, y = data()

    def batches():
        for i in range(20):
            part = slice(i % STEPS * BATCH, (i % STEPS + 1) * BATCH)
            yield x[part], y[part]

    monitor = GradientMonitor(every_n_steps=1)
    compiled(mlp).fit(batches(), shuffle=False, verbose=0, callbacks=[monitor])
    np.testing.assert_array_equal(monitor.history.steps, np.arange(20))
    assert np.isfinite(monitor.history["loss"]).all()


class Twice(CustomStep):
    """Makes two updates of every batch."""

    def _jax_step(self, state, data):
        _, state = super()._jax_step(state, data)
        return super()._jax_step(state, data)

    def train_step(self, *args):
        if BACKEND == "jax":
            return super().train_step(*args)
        super().train_step(*args)
        return super().train_step(*args)


@pytest.mark.newest
def test_two_updates_of_every_batch():
    plain, epochs = small(), 7  # more updates than the buffer holds
    model = compiled(lambda: Twice(plain.inputs, plain.outputs), **QUICK)
    every, tenth = GradientMonitor(every_n_steps=1), GradientMonitor(every_n_steps=10)
    fit(model, every, tenth, epochs=epochs)
    made = 2 * epochs * STEPS
    # On JAX the first of each step.
    np.testing.assert_array_equal(every.history.steps, range(0, made, 1 + (BACKEND == "jax")))
    np.testing.assert_array_equal(tenth.history.steps, range(0, made, 10))


@pytest.mark.newest
@pytest.mark.backends("tensorflow")
def test_one_monitor_and_its_copies_for_two_models():
    model, monitor = compiled(small, **QUICK), GradientMonitor(every_n_steps=1)
    fit(model, monitor, epochs=2)
    for copied in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        np.testing.assert_array_equal(copied.history["norm"], monitor.history["norm"])
        fit(model, copied)
        assert len(copied.history) == 3 * STEPS
    fit(compiled(small, **QUICK), monitor, epochs=2)
    assert len(monitor.history) == 4 * STEPS
    assert [f for f in monitor.findings if f.severity != "note"] == []


@pytest.mark.newest
def test_a_monitor_of_its_own_for_every_fit():
    monitors = [GradientMonitor(every_n_steps=1) for _ in range(2)]
    model = compiled(mlp, **QUICK)
    for monitor in monitors:
        fit(model, monitor)
    one, whole = GradientMonitor(every_n_steps=1), compiled(mlp, **QUICK)
    for _ in monitors:
        fit(whole, one)
    for place, monitor in enumerate(monitors):
        part = slice(place * STEPS, (place + 1) * STEPS)
        np.testing.assert_array_equal(monitor.history.steps, one.history.steps[part])
        np.testing.assert_allclose(monitor.history["norm"], one.history["norm"][part], rtol=1e-5)


@pytest.mark.newest
@pytest.mark.backends("tensorflow")
def test_copies_of_callbacks_for_every_trial_of_a_tuner(tmp_path):
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if len(tried) == 1 and batch == 3:
                raise MemoryError("the first trial does not fit")

    callbacks = GradientMonitor(None, 1), ActivationProbe(data()[0], tmp_path), Fail()
    tried: list[tuple] = []
    for trial in range(3):
        # As a tuner does; the last trial has copies of what took part in one, its log still open.
        tried.append(copy.deepcopy(callbacks if trial < 2 else tried[0]))
        with contextlib.suppress(MemoryError):
            fit(compiled(small, **QUICK), *tried[-1])
    monitors, probes, _ = zip(*tried, strict=True)
    assert [len(monitor.history) for monitor in monitors] == [4, STEPS, 4 + STEPS]
    assert [len(probe.history) for probe in probes] == [1, 2, 3]
    assert [len(callback.history) for callback in callbacks[:2]] == [0, 0]


@pytest.mark.newest
@pytest.mark.backends("tensorflow")
def test_a_compiled_teacher_is_not_listened_to():
    class Student(CustomStep):
        teacher = None

    teacher = compiled(mlp)
    fit(teacher)
    teacher.trainable = False
    plain = mlp()
    model, monitor = Student(plain.inputs, plain.outputs), GradientMonitor(every_n_steps=1)
    model.teacher = teacher
    model.compile("adam", LOSS)
    for _ in range(2):
        fit(model, monitor)
    np.testing.assert_array_equal(monitor.history.steps, np.arange(2 * STEPS))
    assert monitor.history.optimizers == [""]


def test_a_variable_without_elements_is_left_out():
    class Empty(layers.Layer):
        def build(self, shape):
            self.nothing = self.add_weight(shape=(0, 3), name="nothing")
            self.number = self.add_weight(shape=(), initializer="ones", name="number")

        def call(self, x):
            return x * self.number + keras.ops.sum(self.nothing)

    def model():
        return keras.Sequential([keras.Input((8,)), Empty(name="odd"), layers.Dense(4)])

    monitor = GradientMonitor(every_n_steps=1)
    fit(compiled(model), monitor)
    assert monitor.history.variables[0] == "odd/number"
    assert norms(monitor.history["norm"])[0] > 0
