"""Other forms of training than `fit` of a sequential model, on every backend."""

import pickle

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import GradientMonitor
from tests.callbacks.training import (
    BACKEND,
    BATCH,
    LOSS,
    QUICK,
    STEPS,
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
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        grads = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.trainable_variables, strict=True))
        return {"loss": loss}

    def _torch_step(self, data):
        import torch

        x, y = data
        self.zero_grad()
        loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        loss.backward()
        weights = list(self.trainable_weights)
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in weights], weights)
        return {"loss": loss}

    def _loss(self, trainable, others, x, y):
        y_pred, others = self.stateless_call(trainable, others, x, training=True)
        return self.compute_loss(x, y, y_pred), others

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


@pytest.mark.backends("tensorflow")
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


@pytest.mark.newest
@pytest.mark.backends("tensorflow")
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
