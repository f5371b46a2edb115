"""Trainings of other forms than one `fit` of one model: its batches, updates, steps and parts."""

import contextlib
import copy
import pickle

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import ActivationProbe, GradientMonitor
from tests.callbacks.capture.test_backends import small
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
    recorded,
)

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


class CustomStep(keras.Model):
    """The train_step that Keras documents for each backend."""

    def loss_of(self, y, y_pred):
        return self.compute_loss(y=y, y_pred=y_pred)

    def train_step(self, *args):
        if BACKEND == "jax":
            return self._jax_step(*args)
        if BACKEND == "torch":
            return self._torch_step(*args)
        return self._tensorflow_step(*args)

    def _tensorflow_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.loss_of(y, self(x, training=True))
        grads = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.trainable_variables, strict=True))
        return {"loss": loss}

    def _torch_step(self, data):
        import torch

        x, y = data
        self.zero_grad()
        loss = self.loss_of(y, self(x, training=True))
        loss.backward()
        weights = list(self.trainable_weights)
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in weights], weights)
        return {"loss": loss}

    def _loss(self, trainable, others, x, y):
        y_pred, others = self.stateless_call(trainable, others, x, training=True)
        return self.loss_of(y, y_pred), others

    def _jax_step(self, state, data):
        import jax

        trainable, others, optimizer, metrics = state
        x, y = data
        gradient = jax.value_and_grad(self._loss, has_aux=True)
        (loss, others), grads = gradient(trainable, others, x, y)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, grads, trainable)
        return {"loss": loss}, (trainable, others, optimizer, metrics)


def custom():
    plain = mlp()
    return CustomStep(plain.inputs, plain.outputs)


@pytest.fixture(scope="module")
def reference():
    return recorded()


def test_a_custom_train_step(reference):
    history = recorded(custom)
    np.testing.assert_array_equal(history.steps, np.arange(STEPS))
    for statistic in ("norm", "mean_abs", "max_abs", "update_ratio"):
        np.testing.assert_allclose(history[statistic], reference[statistic], rtol=1e-5)


def test_train_on_batch(reference):
    model, (x, y) = compiled(mlp), data()
    monitor = GradientMonitor(every_n_steps=1)
    callbacks = keras.callbacks.CallbackList([monitor], model=model)
    callbacks.on_train_begin()
    for step in range(STEPS):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        callbacks.on_train_batch_begin(step)
        logs = model.train_on_batch(x[batch], y[batch], return_dict=True)
        callbacks.on_train_batch_end(step, logs)
    callbacks.on_train_end()
    np.testing.assert_array_equal(monitor.history.steps, np.arange(STEPS))
    np.testing.assert_allclose(monitor.history["norm"], reference["norm"], rtol=1e-5)


@pytest.mark.backends("torch")
def test_several_outputs_and_losses():
    def two_outputs():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8,))
        x = layers.Dense(16, "tanh")(inputs)
        model = keras.Model(inputs, [layers.Dense(4)(x), layers.Dense(1)(x)])
        model.compile(keras.optimizers.SGD(0.1), [LOSS, "mse"], loss_weights=[1.0, 0.5])
        return model

    (x, y), monitor = data(), GradientMonitor(every_n_steps=1)
    z = x[:, :1]
    two_outputs().fit(x, [y, z], BATCH, shuffle=False, verbose=0, callbacks=[monitor])
    # Plain gradient descent: a gradient is the change of the weights, by the learning rate.
    model, want = two_outputs(), []
    for step in range(STEPS):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        before = model.get_weights()
        model.train_on_batch(x[batch], [y[batch], z[batch]])
        want.append(
            norms([(b - a) / 0.1 for a, b in zip(model.get_weights(), before, strict=True)])
        )
    np.testing.assert_allclose(monitor.history.per_variable("norm"), want, rtol=1e-4)


@pytest.mark.backends("tensorflow", "torch")
def test_a_training_resumed_from_a_file_goes_on_in_the_log(tmp_path):
    monitors = [GradientMonitor(log, every_n_steps=4) for log in (None, tmp_path, tmp_path)]
    fit(compiled(mlp, **QUICK), monitors[0], epochs=2)
    first = compiled(mlp, **QUICK)
    fit(first, monitors[1])
    first.save(tmp_path / "model.keras")
    fit(keras.saving.load_model(tmp_path / "model.keras"), monitors[2])
    want, history = monitors[0].history, keras_initkit.read_log(tmp_path)
    np.testing.assert_array_equal(history.steps, want.steps)
    np.testing.assert_allclose(history["norm"], want["norm"], rtol=1e-5)


def test_a_model_can_be_cloned_and_pickled_while_it_is_recorded():
    class Copy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            copies.append(keras.models.clone_model(self.model))
            copies.append(pickle.loads(pickle.dumps(self.model)))

    copies: list[keras.Model] = []
    model, monitor = compiled(mlp), GradientMonitor(every_n_steps=1)
    fit(model, monitor, Copy())
    assert len(monitor.history) == STEPS
    x, _ = data()
    for copied in copies:
        assert copied.predict(x, verbose=0).shape == (len(x), 4)
    np.testing.assert_array_equal(copies[1].predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.newest
def test_the_device_is_read_once_a_chunk(monkeypatch):
    from keras_initkit.callbacks import gradient_monitor
    from keras_initkit.callbacks.capture import Capture

    monkeypatch.setattr(gradient_monitor, "_SECONDS", float("inf"))  # on a busy machine
    reads = []
    read = Capture.read

    def counted(self):
        reads.append(self)
        return read(self)

    monkeypatch.setattr(Capture, "read", counted)
    monitor = GradientMonitor(every_n_steps=1)
    x, y = data()
    x, y = np.tile(x, (25, 1)), np.tile(y, 25)
    compiled(mlp).fit(x, y, BATCH, verbose=0, callbacks=[monitor])
    assert len(reads) <= 25 * STEPS // 64 + 2
    np.testing.assert_array_equal(monitor.history.steps, np.arange(25 * STEPS))
    assert np.isfinite(monitor.history["norm"]).all()


@pytest.mark.newest
@pytest.mark.backends("tensorflow", "jax")
def test_each_training_records_what_it_trains():
    inputs = keras.Input((8,), name="inputs")
    code = layers.Dense(4, "tanh", name="encoder")(inputs)
    outputs = layers.Dense(8, name="decoder")(code)
    encoder, whole = keras.Model(inputs, code), keras.Model(inputs, outputs)
    decoder = keras.Model(code, outputs)
    x = data()[0]
    one, own = GradientMonitor(every_n_steps=1), []
    for model, given, target in ((encoder, x, x[:, :4] / 4), (decoder, x[:, :4], x), (whole, x, x)):
        model.compile(keras.optimizers.SGD(0.1), "mse", **QUICK)
        own.append(GradientMonitor(every_n_steps=1))
        model.fit(given, target, BATCH, verbose=0, shuffle=False, callbacks=[one, own[-1]])
    np.testing.assert_array_equal(one.history.steps, np.arange(3 * STEPS))
    assert set(one.history.layers) == {"encoder", "decoder"}
    trained = np.isfinite(one.history["norm"]).reshape(3, STEPS, 2).all(1)
    order = [one.history.layers.index(name) for name in ("encoder", "decoder")]
    np.testing.assert_array_equal(trained[:, order], [[1, 0], [0, 1], [1, 1]])
    parts = [["encoder"], ["decoder"], ["encoder", "decoder"]]
    assert [monitor.history.layers for monitor in own] == parts
    assert all(np.isfinite(monitor.history["norm"]).all() for monitor in own)


def losses_before(x, y):
    """Keep the loss of each batch, computed by itself before the step."""

    def loss(model, batch):
        part = slice(batch * BATCH, (batch + 1) * BATCH)
        return float(keras.ops.convert_to_numpy(LOSS(y[part], model(x[part], training=False))))

    return BeforeEachBatch(loss)


@pytest.mark.backends("torch")
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


@pytest.mark.backends("jax", "torch")
def test_two_updates_of_every_batch():
    plain, epochs = small(), 6  # more updates than the buffer holds
    model = compiled(lambda: Twice(plain.inputs, plain.outputs), **QUICK)
    every, tenth = GradientMonitor(every_n_steps=1), GradientMonitor(every_n_steps=10)
    fit(model, every, tenth, epochs=epochs)
    made = 2 * epochs * STEPS
    # On JAX the first of each step.
    np.testing.assert_array_equal(every.history.steps, range(0, made, 1 + (BACKEND == "jax")))
    np.testing.assert_array_equal(tenth.history.steps, range(0, made, 10))


@pytest.mark.backends("tensorflow", "torch")
def test_one_monitor_and_its_copies_for_two_models():
    model, monitor = compiled(small, **QUICK), GradientMonitor(every_n_steps=1)
    fit(model, monitor)
    for copied in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        np.testing.assert_array_equal(copied.history["norm"], monitor.history["norm"])
        fit(model, copied)
        assert len(copied.history) == 2 * STEPS
    fit(compiled(small, **QUICK), monitor)
    assert len(monitor.history) == 2 * STEPS
    assert [f for f in monitor.findings if f.severity != "note"] == []


@pytest.mark.backends("torch")
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


@pytest.mark.backends("torch")
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


@pytest.mark.backends("torch")
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
