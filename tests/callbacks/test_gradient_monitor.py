"""The monitor in trainings, most with TensorFlow: what it records, changes, and what fails."""

import copy
import sys
import warnings

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import ActivationProbe, GradientMonitor, GradientWarning
from tensorboard_plugin_initkit.record.statistics import STATISTICS
from tests.callbacks.capture.test_backends import assert_same_record, interrupt, small
from tests.callbacks.training import (
    BACKEND,
    BATCH,
    QUICK,
    STEPS,
    Beside,
    compiled,
    data,
    fit,
    layers,
    mlp,
    recorded,
)

if BACKEND == "tensorflow":
    import tensorflow as tf


def functional():
    inputs = keras.Input((8,))
    images = layers.SeparableConv2D(3, 2, use_bias=False)(layers.Reshape((4, 2, 1))(inputs))
    images = layers.Flatten()(layers.BatchNormalization()(images))
    series = layers.LSTM(5)(layers.Reshape((4, 2))(inputs))
    shared = layers.Dense(8, "tanh")
    both = layers.Concatenate()([images, series, shared(shared(inputs))])
    return keras.Model(inputs, layers.Dense(4)(both))


class Block(keras.Layer):
    def __init__(self):
        super().__init__(name="block")
        self.dense = layers.Dense(8, "tanh", name="dense")

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return x + self.dense(x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Block(), Block()]  # two layers of one path
        self.head = layers.Dense(4)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.mark.parametrize("make", [functional, Subclassed], ids=lambda make: make.__name__)
def test_every_kind_of_model_is_recorded_rightly_under_a_moving_average_too(make):
    optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.1, use_ema=True)
    monitor, beside = GradientMonitor(every_n_steps=1), Beside()
    fit(compiled(make, optimizer), beside, monitor)
    assert_same_record(monitor.history, beside.seen)


@pytest.mark.newest
@pytest.mark.parametrize("steps_per_execution", [4, 100])
def test_a_schedule_goes_on_from_epoch_to_epoch_and_fit_to_fit(steps_per_execution):
    eager = QUICK if steps_per_execution > STEPS else {}
    model = compiled(small, steps_per_execution=steps_per_execution, **eager)
    monitor = GradientMonitor(every_n_steps=lambda step: step in (1, 2, 9, 12, 20, 27))
    fit(model, monitor, epochs=2)
    fit(model)
    fit(model, monitor, epochs=2)
    np.testing.assert_array_equal(monitor.history.steps, [1, 2, 9, 20, 27])


@pytest.mark.backends("torch")
def test_phases_of_a_training_are_one_record_and_no_finding(tmp_path):
    model = compiled(mlp, **QUICK)
    monitor = GradientMonitor(tmp_path, every_n_steps=1)
    names = [layer.name for layer in model.layers]
    for trainable in (False, True):
        for layer in model.layers[:3]:
            layer.trainable = trainable
        model.compile(keras.optimizers.Adam(1e-3), model.loss, **QUICK)
        fit(model, monitor)
    for history in (monitor.history, keras_initkit.read_log(tmp_path)):
        np.testing.assert_array_equal(history.steps, np.arange(2 * STEPS))
        assert [path.split("/")[-1] for path in history.layers] == names
        frozen = np.isnan(history["norm"])
        assert frozen[:STEPS, :3].all()
        assert frozen.sum() == 3 * STEPS
    assert [f for f in monitor.findings if f.severity != "note"] == []


@pytest.mark.parametrize("is_built", [True, False])
def test_a_model_with_nothing_to_train_is_told_and_no_failure(is_built):
    model = compiled(mlp)
    loss = model.loss
    if not is_built:  # before its first step
        model = keras.Sequential([type(x).from_config(x.get_config()) for x in model.layers])
    model.trainable = False
    model.compile("sgd", loss)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="GradientMonitor")
        warnings.filterwarnings("ignore", message="The model does not have any trainable weights")
        warnings.filterwarnings("ignore", message="None of the 4 layers with weights is trained")
        monitor = GradientMonitor()
        fit(model, monitor)
    assert len(monitor.history) == 0
    (finding,) = keras_initkit.diagnose(monitor)
    assert (finding.kind, finding.severity) == ("frozen", "error")


def test_a_variable_without_gradient_is_nan_and_a_frozen_one_is_not_listed():
    class Detached(keras.Model):
        def __init__(self):
            super().__init__()
            self.frozen = layers.Dense(8, name="frozen", trainable=False)
            self.unused = layers.Dense(8, name="unused")
            self.head = layers.Dense(4, name="head")

        def call(self, x):
            return self.head(self.frozen(x)) + tf.stop_gradient(self.unused(x)[:, :4])

    with (
        pytest.warns(GradientWarning, match="`unused` has received no gradient"),
        pytest.warns(UserWarning, match="Gradients do not exist"),
    ):
        history = recorded(Detached)
    assert history.layers == ["unused", "head"]
    assert history.frozen == ["frozen"]
    unrecorded = {"local_norm", "cosine", "snr"}  # these take replicas, or samples
    for statistic in STATISTICS:
        assert np.isnan(history[statistic][:, 0]).all()
        assert np.isnan(history[statistic][:, 1]).all() == (statistic in unrecorded)


# What the monitor must not change.


def test_the_monitor_costs_one_trace_and_a_second_fit_none():
    def traced(traces):
        class Traced(keras.Model):
            def call(self, x):
                if isinstance(x, tf.Tensor):
                    traces.append(x)
                return self.layers[-1](x)

        inputs = keras.Input((8,))
        return compiled(lambda: Traced(inputs, layers.Dense(4)(inputs)))

    plain: list[object] = []
    traces: list[object] = []
    fit(traced(plain))
    model, monitor = traced(traces), GradientMonitor(every_n_steps=2)
    for callbacks in ([monitor], [monitor], []):
        fit(model, *callbacks)
        assert len(traces) == len(plain) + 1


@pytest.mark.newest
def test_what_measures_is_traced_once_for_models_that_are_alike(monkeypatch):
    from keras_initkit.callbacks.measures import tensorflow as measures
    from keras_initkit.statistics import batch

    traced: list[object] = []

    def noting(function):
        def note(*args):
            traced.append(function)
            return function(*args)

        return note

    for room, name in ((measures, "measure_twice"), (batch, "measure_port")):
        monkeypatch.setattr(room, name, noting(getattr(room, name)))

    def count(units, **how):
        traced.clear()
        make = lambda: keras.Sequential([keras.Input((8,)), layers.Dense(units)])  # noqa: E731
        assert len(recorded(make, **how)) == STEPS
        return len(traced)

    count(21)
    assert count(21) == 0
    assert count(22) == 3  # its prediction, its gradients, its weights
    count(21, **QUICK)
    assert count(22, **QUICK) == 0  # where batches may have many shapes


@pytest.mark.backends("torch")
def test_a_training_set_back_after_an_interruption_replaces_what_was_recorded(tmp_path):
    model, (x, y) = compiled(mlp), data()
    monitor = GradientMonitor(tmp_path, every_n_steps=1)
    fit(model, monitor)
    model.save(tmp_path / "checkpoint.keras")
    with pytest.raises(KeyboardInterrupt):
        fit(model, monitor, keras.callbacks.LambdaCallback(on_epoch_end=interrupt), epochs=2)
    model.load_weights(tmp_path / "checkpoint.keras")
    assert int(model.optimizer.iterations) == STEPS
    model.fit(x[: 2 * BATCH], y[: 2 * BATCH], BATCH, verbose=0, callbacks=[monitor])
    for history in (monitor.history, keras_initkit.read_log(tmp_path)):
        np.testing.assert_array_equal(history.steps, np.arange(STEPS + 2))


@pytest.mark.backends("torch")
def test_every_training_in_one_directory_has_its_run_and_a_resumed_one_goes_on(tmp_path):
    def train(model, callback, *more):
        fit(model, callback, ActivationProbe(x, tmp_path), *more)

    def lengths():
        folders = sorted(tmp_path.glob("gradients*"))
        return [len(keras_initkit.read_log(folder)) for folder in folders]

    x, model, first = data()[0][:4], compiled(small, **QUICK), GradientMonitor(tmp_path, 1)
    unused = copy.deepcopy(first)  # as a tuner does, for each of its trials
    train(model, first)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    train(compiled(small, **QUICK), unused, backup)
    assert lengths() == [STEPS, STEPS]
    x2, y2 = data()
    again = compiled(small, **QUICK)  # restored only after the monitor's `on_train_begin`
    callbacks = [GradientMonitor(tmp_path, 1), ActivationProbe(x, tmp_path), backup]
    again.fit(x2, y2, BATCH, epochs=3, verbose=0, callbacks=callbacks)
    assert lengths() == [STEPS, 3 * STEPS]
    assert len(keras_initkit.read_log(tmp_path)) == 3 * STEPS
    assert len(list(tmp_path.glob("activations*"))) == 2
    train(model, copy.deepcopy(unused))  # it has made steps, but the copy has no log yet
    fit(compiled(small, **QUICK), first)  # the next fold of a cross-validation
    assert lengths() == [2 * STEPS, 3 * STEPS, STEPS]


def test_an_error_in_the_users_train_step_is_the_users_error():
    class Faulty(keras.Model):
        def train_step(self, data):
            raise RuntimeError("the user's own")

    inputs = keras.Input((8,))
    model = compiled(lambda: Faulty(inputs, layers.Dense(4)(inputs)))
    monitor = GradientMonitor()
    with pytest.raises(RuntimeError, match="the user's own"):
        fit(model, monitor)
    assert not len(monitor.history)  # which ends the training on this thread
    assert not isinstance(model.train_function, type(None))
    assert set(vars(model.optimizer)).isdisjoint({"_clip_gradients", "_backend_update_step"})


# Failures.


def test_an_optimizer_that_updates_in_its_own_way_is_named():
    class Own(keras.optimizers.SGD):
        def apply(self, grads, trainable_variables=None):
            if not self.built:
                self.build(trainable_variables)
            for g, v in zip(grads, trainable_variables or self._trainable_variables, strict=True):
                v.assign_sub(1e-3 * g)

    with pytest.warns(UserWarning, match=r"recorded no step.*\(Own\)"):
        recorded(mlp, Own())


@pytest.mark.backends("torch")
def test_what_fails_inside_is_a_warning_at_the_line_of_fit_and_what_was_recorded_is_kept(tmp_path):
    (tmp_path / "file").write_text("")
    model, (x, y) = compiled(small, **QUICK), data()

    def schedule(step):
        return step != 4 or 1 / 0

    monitor = GradientMonitor(tmp_path, every_n_steps=schedule)
    callbacks = [
        monitor,
        GradientMonitor(tmp_path / "file" / "log", every_n_steps=1),
        ActivationProbe(x[:, :3]),
        ActivationProbe(x, tmp_path / "file" / "log"),
    ]
    line = sys._getframe().f_lineno + 2
    with pytest.warns(UserWarning, match="raining goes on") as caught:
        model.fit(x, y, BATCH, verbose=0, callbacks=callbacks)
    ours = [(w.filename, w.lineno) for w in caught if w.category is UserWarning]
    assert ours == [(__file__, line)] * len(callbacks)
    assert sum("ZeroDivisionError" in str(w.message) for w in caught) == 1
    for history in (monitor.history, keras_initkit.read_log(tmp_path)):
        np.testing.assert_array_equal(history.steps, np.arange(4))
    fit(model, monitor)
    assert len(monitor.history) == 4 + STEPS
