"""The monitor against an independent eager training, and against training without it."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import warnings
from typing import Any

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import ActivationProbe, GradientMonitor, GradientWarning
from keras_initkit.initializers import HeNormal
from tensorboard_plugin_initkit.record.schema import STATISTICS
from tests.callbacks.training import label

tf = pytest.importorskip("tensorflow")

BATCH, STEPS = 16, 6
layers = keras.layers


def mlp():
    return keras.Sequential(
        [keras.Input((8,)), *(layers.Dense(16, "relu") for _ in range(3)), layers.Dense(4)]
    )


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Reshape((4, 2, 1)),
            layers.Conv2D(4, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.SeparableConv2D(3, 2),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )


def recurrent():
    return keras.Sequential(
        [keras.Input((8,)), layers.Reshape((4, 2)), layers.LSTM(5), layers.Dense(4)]
    )


def shared_layer():
    inputs = keras.Input((8,))
    twice = layers.Dense(8, "tanh")
    return keras.Model(inputs, layers.Dense(4)(twice(twice(inputs))))


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


def with_embedding():
    return keras.Sequential(
        [keras.Input((8,)), layers.Embedding(30, 3), layers.Flatten(), layers.Dense(4)]
    )


def without_input_shape():
    return keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(4)])


MODELS = [
    without_input_shape,
    mlp,
    convolutional,
    recurrent,
    shared_layer,
    Subclassed,
    with_embedding,
]


def data(make):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(BATCH * STEPS, 8)).astype("float32")
    if make is with_embedding:
        x = rng.integers(0, 9, x.shape)  # every index many times in a batch
    return x, rng.integers(0, 4, len(x))


def compiled(make, optimizer=None, **compile_args):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(
        optimizer or keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compile_args,
    )
    return model


def fit(model, x, y, *callbacks, epochs=1):
    return model.fit(
        x, y, BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


def recorded(make, optimizer=None, every_n_steps=1, epochs=1, **compile_args):
    monitor = GradientMonitor(every_n_steps=every_n_steps)
    model = compiled(make, optimizer, **compile_args)
    fit(model, *data(make), monitor, epochs=epochs)
    return monitor.history


def eager_training(make, optimizer=None, clip=lambda gradients: gradients):
    """Norms of gradients, weights and updates, (steps, variables), by the framework's autodiff."""
    model, (x, y) = compiled(make, optimizer), data(make)
    model(x[:1])
    norms, weight_norms, update_norms = [], [], []
    for start in range(0, len(x), BATCH):
        with tf.GradientTape() as tape:
            outputs = model(x[start : start + BATCH], training=True)
            loss = model.compute_loss(y=y[start : start + BATCH], y_pred=outputs)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        before = [v.numpy().astype(np.float64) for v in model.trainable_variables]
        norms.append([_norm(tf.convert_to_tensor(g)) for g in clip(gradients)])
        weight_norms.append([_norm(w) for w in before])
        model.optimizer.apply(gradients, model.trainable_variables)
        after = [v.numpy().astype(np.float64) for v in model.trainable_variables]
        update_norms.append([_norm(b - a) for a, b in zip(after, before, strict=True)])
    return np.array(norms), np.array(weight_norms), np.array(update_norms)


def _norm(array):
    return np.linalg.norm(np.asarray(array, np.float64))


def assert_same_record(history, reference):
    norms, weight_norms, update_norms = reference
    np.testing.assert_array_equal(history.steps, np.arange(STEPS))
    # A ReLU's gradient can be a difference of close numbers; below 1e-6 only its size matters.
    np.testing.assert_allclose(history.per_variable("norm"), norms, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(history.per_variable("weight_norm"), weight_norms, rtol=1e-5)
    np.testing.assert_allclose(
        history.per_variable("update_ratio") * np.where(weight_norms, weight_norms, np.nan),
        np.where(weight_norms, update_norms, np.nan),
        rtol=1e-4,  # an update is a difference of weights, rounded in float32
    )


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_every_kind_of_model_is_recorded_rightly(make):
    assert_same_record(recorded(make), eager_training(make))


@pytest.mark.parametrize("make", [mlp, with_embedding], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "compile_args",
    [
        {"jit_compile": True},
        {"run_eagerly": True},
        {"steps_per_execution": 4},
        {"steps_per_execution": 4, "jit_compile": True},
    ],
    ids=label,
)
def test_every_way_of_execution_is_recorded_rightly(make, compile_args):
    assert_same_record(recorded(make, **compile_args), eager_training(make))


@pytest.mark.parametrize(
    ("argument", "clip"),
    [
        ({"clipnorm": 0.05}, lambda gs: [tf.clip_by_norm(g, 0.05) for g in gs]),
        ({"clipvalue": 0.01}, lambda gs: [tf.clip_by_value(g, -0.01, 0.01) for g in gs]),
        ({"global_clipnorm": 0.1}, lambda gs: tf.clip_by_global_norm(gs, 0.1)[0]),
        ({"weight_decay": 0.1}, lambda gs: gs),
        ({"use_ema": True}, lambda gs: gs),
    ],
    ids=label,
)
def test_gradients_are_those_applied_and_updates_those_made(argument, clip):
    def optimizer():
        return keras.optimizers.AdamW(1e-2, **{"weight_decay": 0.0, **argument})

    assert_same_record(recorded(mlp, optimizer()), eager_training(mlp, optimizer(), clip))


def test_mixed_precision_records_unscaled_gradients_in_float32():
    reference = eager_training(mlp)
    keras.config.set_dtype_policy("mixed_float16")
    history = recorded(mlp)
    # float16 carries 11 bits: what matters is that the loss scale of 2^15 is gone.
    np.testing.assert_allclose(history.per_variable("norm"), reference[0], rtol=0.02)


def test_steps_that_a_loss_scale_skips_are_not_recorded():
    keras.config.set_dtype_policy("mixed_float16")
    scale = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3), initial_scale=2.0**40)
    history = recorded(mlp, scale, epochs=20)
    assert 0 < len(history) < 20 * STEPS
    np.testing.assert_array_equal(history.steps, np.arange(len(history)))
    assert not history["nonfinite"].any()


@pytest.mark.parametrize("every_n_steps", [3, 10])
def test_skipped_steps_do_not_put_the_schedule_out_of_step(every_n_steps):
    keras.config.set_dtype_policy("mixed_float16")
    scale = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3), initial_scale=2.0**24)
    model, (x, y) = compiled(mlp, scale), data(mlp)
    monitor = GradientMonitor(every_n_steps=every_n_steps)
    model.fit(np.tile(x, (10, 1)), np.tile(y, 10), BATCH, verbose=0, callbacks=[monitor])
    updates = int(model.optimizer.iterations)
    assert updates < 10 * STEPS
    np.testing.assert_array_equal(monitor.history.steps, np.arange(0, updates, every_n_steps))


def test_a_train_step_that_updates_at_some_batches_keeps_the_schedule():
    class EveryFourth(keras.Model):
        batches = 0

        def train_step(self, data):
            self.batches += 1
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            if self.batches % 4 == 0:
                self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    def custom():
        plain = mlp()
        return EveryFourth(plain.inputs, plain.outputs)

    model, monitor = compiled(custom, run_eagerly=True), GradientMonitor(every_n_steps=3)
    fit(model, *data(mlp), monitor, epochs=7)
    np.testing.assert_array_equal(monitor.history.steps, [0, 3, 6, 9])


def test_accumulated_gradients_are_recorded_once_an_update():
    history = recorded(mlp, keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    model, (x, y) = compiled(mlp, keras.optimizers.SGD(0.1)), data(mlp)
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(x, y, 2 * BATCH, shuffle=False, verbose=0, callbacks=[monitor])
    np.testing.assert_array_equal(history.steps, np.arange(STEPS // 2))
    np.testing.assert_allclose(history["norm"], monitor.history["norm"], rtol=1e-5)


def test_statistics_of_a_layer_are_those_of_all_its_variables_together():
    model, (x, y) = compiled(mlp, keras.optimizers.SGD(0.1)), data(mlp)
    monitor = GradientMonitor(every_n_steps=1)
    before = [w.astype("float64") for w in model.get_weights()]
    model.fit(x[:BATCH], y[:BATCH], BATCH, verbose=0, callbacks=[monitor])
    update = [a - b for a, b in zip(model.get_weights(), before, strict=True)]
    for i in range(4):
        kernel_and_bias = slice(2 * i, 2 * i + 2)
        weights = np.concatenate([w.ravel() for w in before[kernel_and_bias]])
        change = np.concatenate([w.ravel() for w in update[kernel_and_bias]])
        history = {name: monitor.history[name][0, i] for name in STATISTICS}
        assert history["weight_norm"] == pytest.approx(np.linalg.norm(weights), rel=1e-6)
        assert history["norm"] == pytest.approx(np.linalg.norm(change / 0.1), rel=1e-4)
        assert history["mean_abs"] == pytest.approx(np.mean(abs(change / 0.1)), rel=1e-4)
        assert history["max_abs"] == pytest.approx(np.max(abs(change / 0.1)), rel=1e-4)
        ratio = np.linalg.norm(change) / np.linalg.norm(weights)
        assert history["update_ratio"] == pytest.approx(ratio, rel=1e-4)


def test_layers_and_variables_are_listed_in_the_models_order():
    history = recorded(Subclassed)
    assert history.layers == [
        "block/dense",
        "block/dense#2",
        "dense",
    ]
    assert history.variables[:3] == [
        "block/dense/kernel",
        "block/dense/bias",
        "block/dense#2/kernel",
    ]
    assert history["norm"].shape == (STEPS, 3)
    assert history["norm"].dtype == float
    assert history.per_variable("norm").shape == (STEPS, 6)


def test_steps_go_on_from_fit_to_fit_and_epoch_to_epoch():
    model, (x, y) = compiled(mlp), data(mlp)
    monitor = GradientMonitor(every_n_steps=4)
    fit(model, x, y, monitor)
    fit(model, x, y)
    fit(model, x, y, monitor, epochs=2)
    np.testing.assert_array_equal(monitor.history.steps, [0, 4, 12, 16, 20])


@pytest.mark.parametrize("steps_per_execution", [1, 4, 100])
def test_any_schedule_is_kept(steps_per_execution):
    model, (x, y) = compiled(mlp, steps_per_execution=steps_per_execution), data(mlp)
    monitor = GradientMonitor(every_n_steps=lambda step: step in (1, 2, 9))
    fit(model, x, y, monitor, epochs=2)
    np.testing.assert_array_equal(monitor.history.steps, [1, 2, 9])


def test_phases_of_a_training_are_one_record(tmp_path):
    model, (x, y) = compiled(mlp), data(mlp)
    monitor = GradientMonitor(tmp_path, every_n_steps=1)
    names = [layer.name for layer in model.layers]
    model.layers[0].trainable = False
    for trainable in (False, True):
        model.layers[0].trainable = trainable
        model.compile("sgd", model.loss)
        fit(model, x, y, monitor)
    for history in (monitor.history, keras_initkit.read_log(tmp_path)):
        np.testing.assert_array_equal(history.steps, np.arange(2 * STEPS))
        assert [path.split("/")[-1] for path in history.layers] == names
        frozen = np.isnan(history["norm"][:, 0])
        np.testing.assert_array_equal(frozen, [True] * STEPS + [False] * STEPS)


def test_a_model_with_nothing_to_train_is_no_failure():
    model, (x, y) = compiled(mlp), data(mlp)
    model.trainable = False
    model.compile("sgd", model.loss)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="GradientMonitor")
        warnings.filterwarnings("ignore", message="The model does not have any trainable weights")
        monitor = GradientMonitor()
        fit(model, x, y, monitor)
    assert len(monitor.history) == 0


def test_the_history_can_be_read_at_any_time():
    class Reader(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            lengths.append(len(monitor.history))

        def on_train_batch_end(self, batch, logs=None):
            lengths.append(len(monitor.history))

    lengths: list[int] = []
    monitor = GradientMonitor(every_n_steps=1)
    fit(compiled(mlp), *data(mlp), monitor, Reader())
    assert lengths == [n for step in range(STEPS) for n in (step, step + 1)]
    assert len(monitor.history) == STEPS


def test_a_failing_schedule_keeps_what_was_recorded_and_the_next_fit_records_again(tmp_path):
    def schedule(step):
        if step == 4:
            raise ZeroDivisionError
        return True

    model, (x, y) = compiled(mlp), data(mlp)
    monitor = GradientMonitor(tmp_path, every_n_steps=schedule)
    with pytest.warns(UserWarning, match="stops recording, training goes on.*ZeroDivisionError"):
        fit(model, x, y, monitor)
    for history in (monitor.history, keras_initkit.read_log(tmp_path)):
        np.testing.assert_array_equal(history.steps, np.arange(4))
    fit(model, x, y, monitor)
    assert len(monitor.history) == 4 + STEPS


def test_a_monitor_can_be_copied_and_pickled():
    for monitor in (
        copy.deepcopy(GradientMonitor()),
        pickle.loads(pickle.dumps(GradientMonitor())),
    ):
        fit(compiled(mlp), *data(mlp), monitor)
        assert len(monitor.history) == 1


def test_more_steps_than_the_buffer_holds():
    history = recorded(mlp, epochs=25)
    np.testing.assert_array_equal(history.steps, np.arange(25 * STEPS))
    assert np.isfinite(history["norm"]).all()


def test_a_custom_train_step_and_train_on_batch():
    class Custom(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    def custom():
        plain = mlp()
        return Custom(plain.inputs, plain.outputs)

    reference = eager_training(mlp)
    assert_same_record(recorded(custom), reference)

    model, (x, y) = compiled(mlp), data(mlp)
    monitor = GradientMonitor(every_n_steps=1)
    callbacks = keras.callbacks.CallbackList([monitor], model=model)
    callbacks.on_train_begin()
    for step in range(STEPS):
        callbacks.on_train_batch_begin(step)
        model.train_on_batch(*(array[BATCH * step : BATCH * (step + 1)] for array in (x, y)))
        callbacks.on_train_batch_end(step)
    callbacks.on_train_end()
    assert_same_record(monitor.history, reference)


def test_a_variable_without_gradient_is_nan_and_a_frozen_one_is_not_listed():
    class Detached(keras.Model):
        def __init__(self):
            super().__init__()
            self.frozen = layers.Dense(8, name="frozen", trainable=False)
            self.unused = layers.Dense(8, name="unused")
            self.head = layers.Dense(4, name="head")

        def call(self, x):
            return self.head(self.frozen(x)) + tf.stop_gradient(self.unused(x)[:, :4])

    with pytest.warns(UserWarning, match="Gradients do not exist"):
        history = recorded(Detached)
    assert history.layers == ["unused", "head"]
    assert history.frozen == ["frozen"]
    unrecorded = {"local_norm", "cosine", "snr"}  # these take replicas, or samples
    for statistic in STATISTICS:
        assert np.isnan(history[statistic][:, 0]).all()
        assert np.isnan(history[statistic][:, 1]).all() == (statistic in unrecorded)


def test_non_finite_gradients_are_counted_and_seen():
    model, (x, y) = compiled(mlp), data(mlp)
    x[3 * BATCH] = np.inf
    monitor = GradientMonitor(every_n_steps=1)
    with pytest.warns(GradientWarning, match="Non-finite numbers: at step 3"):
        fit(model, x, y, monitor)
    assert not monitor.history["nonfinite"][:3].any()
    assert monitor.history["nonfinite"][3, 0] > 0
    assert np.isnan(monitor.history["norm"][3, 0])


# What the monitor must not change.


@pytest.mark.parametrize(
    "compile_args", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=label
)
def test_training_is_bit_identical_with_and_without_the_monitor(compile_args):
    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        model = compiled(
            lambda: keras.Sequential([convolutional(), layers.Dropout(0.3), layers.Dense(4)]),
            metrics=["accuracy"],
            **compile_args,
        )
        history = fit(model, *data(mlp), *callbacks, epochs=3)
        return [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables)], history

    weights, history = trained()
    monitored, monitored_history = trained(GradientMonitor(every_n_steps=3))
    for a, b in zip(weights, monitored, strict=True):
        np.testing.assert_array_equal(a, b)
    assert history.history == monitored_history.history
    assert list(history.history) == list(monitored_history.history)


def test_two_monitors_record_what_each_would_alone(tmp_path):
    model, (x, y) = compiled(mlp), data(mlp)
    alone = {n: recorded(mlp, every_n_steps=n) for n in (1, 2)}
    monitors = {n: GradientMonitor(tmp_path / str(n), every_n_steps=n) for n in (1, 2)}
    fit(model, x, y, *monitors.values())
    for n, monitor in monitors.items():
        np.testing.assert_array_equal(monitor.history.steps, alone[n].steps)
        for statistic in STATISTICS:
            np.testing.assert_array_equal(monitor.history[statistic], alone[n][statistic])


def test_the_monitor_costs_one_trace_and_a_second_fit_none():
    def traced(traces):
        class Traced(keras.Model):
            def call(self, x):
                if isinstance(x, tf.Tensor):
                    traces.append(x)
                return self.layers[-1](x)

        inputs = keras.Input((8,))
        return compiled(lambda: Traced(inputs, layers.Dense(4)(inputs)))

    plain: list[Any] = []
    traces: list[Any] = []
    fit(traced(plain), *data(mlp))
    model, monitor = traced(traces), GradientMonitor(every_n_steps=2)
    for callbacks in ([monitor], [monitor], []):
        fit(model, *data(mlp), *callbacks)
        assert len(traces) == len(plain) + 1


class Interrupt(keras.callbacks.Callback):
    def __init__(self, hook, error):
        super().__init__()

        def interrupt(*args, **kwargs):
            raise error

        setattr(self, hook, interrupt)


@pytest.mark.parametrize("error", [ValueError("user's own"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end", "on_test_begin"])
def test_an_interrupted_training_leaves_the_model_as_it_was(hook, error, tmp_path):
    model, (x, y) = compiled(mlp), data(mlp)
    fit(model, x, y)
    plain, optimizer_state = model.train_function, set(vars(model.optimizer))
    with pytest.raises(type(error)):
        model.fit(
            x,
            y,
            validation_data=(x, y),
            verbose=0,
            callbacks=[GradientMonitor(tmp_path), Interrupt(hook, error)],
        )
    assert model.train_function is plain
    assert set(vars(model.optimizer)) == optimizer_state
    fit(model, x, y)


def test_a_training_set_back_after_an_interruption_replaces_what_was_recorded(tmp_path):
    model, (x, y) = compiled(mlp), data(mlp)
    monitor = GradientMonitor(tmp_path, every_n_steps=1)
    fit(model, x, y, monitor)
    model.save(tmp_path / "checkpoint.keras")
    with pytest.raises(KeyboardInterrupt):
        fit(model, x, y, monitor, Interrupt("on_epoch_end", KeyboardInterrupt()), epochs=2)
    model.load_weights(tmp_path / "checkpoint.keras")
    assert int(model.optimizer.iterations) == STEPS
    fit(model, x[: 2 * BATCH], y[: 2 * BATCH], monitor)
    for history in (monitor.history, keras_initkit.read_log(tmp_path)):
        np.testing.assert_array_equal(history.steps, np.arange(STEPS + 2))


def test_an_error_in_the_users_train_step_is_the_users_error():
    class Faulty(keras.Model):
        def train_step(self, data):
            raise RuntimeError("the user's own")

    inputs = keras.Input((8,))
    model = compiled(lambda: Faulty(inputs, layers.Dense(4)(inputs)))
    with pytest.raises(RuntimeError, match="the user's own"):
        fit(model, *data(mlp), GradientMonitor())
    assert not isinstance(model.train_function, type(None))
    assert set(vars(model.optimizer)).isdisjoint({"_clip_gradients", "_backend_update_step"})


def test_saved_files_load_without_keras_initkit_and_without_warnings(tmp_path):
    model, (x, y) = compiled(mlp), data(mlp)
    fit(
        model,
        x,
        y,
        GradientMonitor(tmp_path / "log", every_n_steps=1),
        keras.callbacks.ModelCheckpoint(tmp_path / "during.keras", save_freq=3),
        keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False),
    )
    model.save(tmp_path / "after.keras")
    script = """
        import sys, warnings
        warnings.simplefilter("error", UserWarning)
        import keras
        for name in ("during", "after"):
            model = keras.saving.load_model(f"{sys.argv[1]}/{name}.keras")
            print(int(model.optimizer.iterations), len(model.optimizer.variables))
        model.load_weights(f"{sys.argv[1]}/backup/latest.weights.h5")
        assert "keras_initkit" not in sys.modules
    """
    output = run_python(script, tmp_path)
    variables = len(model.optimizer.variables)
    assert output.splitlines() == [f"6 {variables}", f"6 {variables}"]


def run_python(script, *args, check=True):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not check or result.returncode == 0, result.stderr
    return result.stdout


# Failures.


@pytest.mark.parametrize("n", [0, -1, 2.5, "10", True])
def test_every_n_steps_is_checked(n):
    with pytest.raises(ValueError, match=r"`every_n_steps` must be a positive integer, a function"):
        GradientMonitor(every_n_steps=n)


def test_by_default_the_first_steps_are_recorded_more_often():
    monitor = GradientMonitor()
    fit(compiled(mlp), *data(mlp), monitor, epochs=60)
    want = [*range(0, 200, 10), *range(200, 60 * STEPS, 50)]
    np.testing.assert_array_equal(monitor.history.steps, want)


@pytest.mark.parametrize("log_dir", [7, "", b"runs"])
def test_log_dir_is_checked(log_dir):
    with pytest.raises(ValueError, match=r"`log_dir` must be the path of a directory, or None"):
        GradientMonitor(log_dir)


def test_log_dir_must_not_be_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"which is a file\. Name another directory"):
        GradientMonitor(tmp_path / "file")


def test_other_backends_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(NotImplementedError, match=r'Received: backend "openvino"\. Set KERAS_BACK'):
        GradientMonitor()


def test_a_log_that_cannot_be_written_is_one_warning_and_training_goes_on(tmp_path):
    model, (x, y) = compiled(mlp), data(mlp)
    monitor = GradientMonitor(tmp_path / "log", every_n_steps=1)
    fit(model, x, y, monitor)
    subprocess.run(["rm", "-r", tmp_path / "log"], check=True)
    with pytest.warns(
        UserWarning, match="can no longer write to .*log.* Training goes on"
    ) as caught:
        fit(model, x, y, monitor, epochs=3)
    assert len([w for w in caught if "GradientMonitor" in str(w.message)]) == 1
    assert len(monitor.history) == 4 * STEPS


@pytest.mark.parametrize("method", ["_begin", "_hear", "_finish", "read"])
def test_a_failure_inside_the_monitor_is_one_warning_and_training_goes_on(method, monkeypatch):
    from keras_initkit.callbacks.capture.tensorflow import TensorFlowCapture

    def fail(*args):
        raise RuntimeError("inside")

    monkeypatch.setattr(TensorFlowCapture, method, fail)
    model, (x, y) = compiled(mlp), data(mlp)
    with pytest.warns(UserWarning, match="stops recording, training goes on.*inside") as caught:
        history = fit(model, x, y, GradientMonitor(every_n_steps=1), epochs=2)
    assert len([w for w in caught if "GradientMonitor" in str(w.message)]) == 1
    assert len(history.history["loss"]) == 2
    plain = fit(compiled(mlp), x, y, epochs=2)
    assert history.history == plain.history


def test_an_optimizer_that_updates_in_its_own_way_is_named():
    class Own(keras.optimizers.SGD):
        def apply(self, grads, trainable_variables=None):
            if not self.built:
                self.build(trainable_variables)
            for g, v in zip(grads, trainable_variables or self._trainable_variables, strict=True):
                v.assign_sub(1e-3 * g)

    with pytest.warns(UserWarning, match=r"recorded no step.*\(Own\)"):
        recorded(mlp, Own())


def test_a_killed_training_keeps_its_record(tmp_path):
    script = """
        import os, signal, sys, time
        import keras, numpy as np
        from keras_initkit.callbacks import GradientMonitor

        class Kill(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                time.sleep(1.1)  # at most so much may be lost
                if epoch == 3:
                    os.kill(os.getpid(), signal.SIGKILL)

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        model.compile("sgd", "mse")
        x, y = np.ones((64, 8)), np.ones((64, 4))
        monitor = GradientMonitor(sys.argv[1], every_n_steps=1)
        model.fit(x, y, 16, epochs=5, verbose=0, callbacks=[monitor, Kill()])
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        timeout=120,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert result.returncode == -signal.SIGKILL
    steps = keras_initkit.read_log(tmp_path).steps
    # The last epoch's chunk may have been with the writing thread.
    np.testing.assert_array_equal(steps, np.arange(len(steps)))
    assert len(steps) >= 8


def test_no_warning_where_there_is_nothing_to_warn_of(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(compiled(mlp), *data(mlp), GradientMonitor(tmp_path))


def test_the_record_says_what_each_layer_is_and_how_it_was_drawn():
    class Odd(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return keras.ops.ones(shape, dtype)

        def get_config(self):
            raise NotImplementedError

    encoder = keras.Sequential([keras.layers.Dense(4, kernel_initializer=HeNormal(gain=2.0))])
    model = keras.Sequential(
        [
            keras.Input((6, 3)),
            encoder,
            keras.layers.LSTM(4, name="rnn"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.Dense(2, kernel_initializer=Odd(), name="head"),
        ]
    )
    model.compile("sgd", "mse")
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(np.ones((4, 6, 3)), np.ones((4, 2)), verbose=0, callbacks=[monitor])
    history = monitor.history
    assert history.layer_types == ["Dense", "LSTMCell", "BatchNormalization", "Dense"]
    names = (v.rpartition("/")[2] for v in history.variables)
    said = dict(zip(names, history.initializers, strict=True))
    assert history.initializers[0] == "HeNormal(gain=2)"
    assert said["recurrent_kernel"] == "Orthogonal"
    assert said["gamma"] == "Ones"
    assert history.initializers[-2:] == ["", "Zeros"]


# Warnings name the line of `fit`.


@pytest.mark.parametrize("compile_args", [{}, {"run_eagerly": True}], ids=label)
def test_a_finding_is_a_warning_at_the_line_of_fit(compile_args):
    model, (x, y) = compiled(mlp, **compile_args), data(mlp)
    x[3 * BATCH] = np.inf
    monitor = GradientMonitor(every_n_steps=1)
    line = sys._getframe().f_lineno + 2
    with pytest.warns(GradientWarning, match="Non-finite numbers") as caught:
        model.fit(x, y, BATCH, verbose=0, callbacks=[monitor])
    assert {(w.filename, w.lineno) for w in caught} == {(__file__, line)}


def test_what_fails_inside_is_a_warning_at_the_line_of_fit(tmp_path):
    (tmp_path / "file").write_text("")
    model, (x, y) = compiled(mlp), data(mlp)

    def fail(step):
        raise ZeroDivisionError

    callbacks = [
        GradientMonitor(every_n_steps=fail),
        GradientMonitor(tmp_path / "file" / "log", every_n_steps=1),
        ActivationProbe(x, layers="nowhere"),
        ActivationProbe(x, tmp_path / "file" / "log"),
    ]
    line = sys._getframe().f_lineno + 2
    with pytest.warns(UserWarning, match="raining goes on") as caught:
        model.fit(x, y, BATCH, verbose=0, callbacks=callbacks)
    ours = [(w.filename, w.lineno) for w in caught if w.category is UserWarning]
    assert ours == [(__file__, line)] * len(callbacks)
