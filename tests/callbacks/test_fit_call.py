"""However a training ends, its log is whole and what it found is said."""

import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import (
    ActivationProbe,
    GradientMonitor,
    GradientWarning,
    fit_call,
    gradient_monitor,
)
from keras_initkit.models.check.check import look_at_start
from tests import ROOT
from tests.callbacks.training import (
    BACKEND,
    BATCH,
    QUICK,
    STEPS,
    compiled,
    data,
    fit,
    mlp,
    wait_until,
)

if BACKEND == "tensorflow":
    import tensorflow as tf

SCRIPT = """
    import gc, json, os, signal, sys, threading, time
    import keras, numpy as np
    from keras_initkit.callbacks import GradientMonitor

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    def stop():
        done.set()
        time.sleep(60)

    endings = {
        "error": lambda: 1 / 0, "exit": lambda: sys.exit(3), "interrupt": interrupt,
        "terminate": terminate, "thread": stop, "nan": lambda: None,
    }
    endings = {name: endings[name] for name in sys.argv[2:]}
    done = threading.Event()

    class End(keras.callbacks.Callback):
        def __init__(self, end):
            super().__init__()
            self.end = end

        def on_train_batch_end(self, batch, logs=None):
            if batch == 7:
                self.end()

    def train(name):
        x = np.random.default_rng(0).normal(size=(160, 8)).astype("float32")
        x[5 * 16 :] *= 1e30
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "relu"),
                                  keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=keras.backend.backend() != "torch")
        callbacks = [GradientMonitor(f"{sys.argv[1]}/{name}", 1), End(endings[name])]
        if name == "nan":
            callbacks[1] = keras.callbacks.TerminateOnNaN(raise_error=True)
        model.fit(x, x[:, :1], 16, shuffle=False, verbose=0, callbacks=callbacks)

    gc.freeze()  # a process that ends looks through less
    children = {}
    for name in endings:
        children[name] = os.fork()  # nothing has run yet: there are no threads
        if not children[name]:
            os.dup2(os.open(f"{sys.argv[1]}/{name}.txt", os.O_CREAT | os.O_WRONLY), 2)
            if name == "thread":
                threading.Thread(target=train, args=[name], daemon=True).start()
                done.wait(60)
            else:
                train(name)
            break
    else:
        status = {name: os.waitpid(child, 0)[1] for name, child in children.items()}
        print(json.dumps({k: os.waitstatus_to_exitcode(s) for k, s in status.items()}))
"""


def run_python(script, *args):
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, args)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


STATUS = {"error": 1, "exit": 3, "interrupt": -2, "terminate": -15, "thread": 0, "nan": 1}
# On TensorFlow where a device is read from inside another function than the last step's.
ENDINGS = {"tensorflow": ("exit", "terminate", "thread"), "torch": ("error", "interrupt", "nan")}


@pytest.mark.slow
@pytest.mark.backends("tensorflow", "torch")
def test_a_process_that_ends_leaves_a_whole_log_and_says_what_was_found(tmp_path):
    status = {name: STATUS[name] for name in ENDINGS[BACKEND]}
    result = run_python(SCRIPT, tmp_path, *status)
    assert json.loads(result.stdout) == status, result.stderr
    for name in status:
        history = keras_initkit.read_log(tmp_path / name)
        last = 5 if name == "nan" else 7
        np.testing.assert_array_equal(history.steps, np.arange(last + 1), err_msg=name)
        assert [f.kind for f in history.findings] == ["nonfinite"]
        (file,) = (tmp_path / name / "gradients").iterdir()
        assert b"initkit/end" in file.read_bytes()
        assert (
            "GradientWarning: Non-finite numbers: at step 5"
            in (tmp_path / f"{name}.txt").read_text()
        )


class Hook(keras.callbacks.Callback):
    """Does something at one moment of a training."""

    def __init__(self, hook, action):
        super().__init__()
        setattr(self, hook, lambda *args, **kwargs: action())


def test_a_training_that_raises_is_ended_soon_and_can_go_on(tmp_path):
    model, (x, y) = compiled(mlp), data()
    x[2 * BATCH :] = np.inf
    monitor = GradientMonitor(tmp_path, every_n_steps=1)

    def batches():
        for i in range(4):
            yield x[i * BATCH : (i + 1) * BATCH], y[i * BATCH : (i + 1) * BATCH]
        raise RuntimeError("the data's own")

    def train_and_wait():
        with pytest.raises(tf.errors.UnknownError, match="the data's own"):
            model.fit(batches(), shuffle=False, verbose=0, callbacks=[monitor])
        wait_until(lambda: monitor._fit is None)

    with pytest.warns(GradientWarning, match="Non-finite numbers: at step 2") as caught:
        train_and_wait()
    assert [w.filename for w in caught if w.category is GradientWarning] == [__file__]
    np.testing.assert_array_equal(keras_initkit.read_log(tmp_path).steps, np.arange(4))
    wait_until(lambda: "keras-initkit-watch" not in [t.name for t in threading.enumerate()])
    fit(model, monitor)
    np.testing.assert_array_equal(keras_initkit.read_log(tmp_path).steps, np.arange(4 + STEPS))


@pytest.mark.newest
def test_records_are_written_while_a_callback_takes_long(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_call, "_SECONDS", 0.05)
    monkeypatch.setattr(gradient_monitor, "_SECONDS", 0.1)

    def wait():
        wait_until((tmp_path / "gradients").exists)
        wait_until(lambda: len(keras_initkit.read_log(tmp_path)) == STEPS)

    fit(compiled(mlp), GradientMonitor(tmp_path, 1), Hook("on_epoch_end", wait))


@pytest.mark.backends("torch")
def test_other_threads_read_the_history_and_no_record_is_lost():
    monitor, done, lengths = GradientMonitor(every_n_steps=1), threading.Event(), set()

    def read():
        while not done.wait(0.001):
            lengths.add(len(monitor.history["norm"]))

    reader = threading.Thread(target=read)
    reader.start()
    fit(compiled(mlp, **QUICK), monitor, epochs=2)
    done.set()
    reader.join()
    assert len(monitor.history) == 2 * STEPS
    assert max(lengths) <= 2 * STEPS


def test_what_a_checkpoint_holds_is_in_the_log(tmp_path):
    model = compiled(mlp, **QUICK)
    read: list[list[int]] = []
    saves = [
        lambda: model.save_weights(tmp_path / "a.weights.h5"),
        lambda: keras.saving.save_model(model, tmp_path / "a.keras"),
        lambda: model.save(tmp_path / "a.h5"),
        lambda: tf.train.Checkpoint(model=model).save(str(tmp_path / "a")),
        lambda: model.get_state_tree(),
        lambda: model.save(tmp_path / "a.keras"),
    ]

    def save_and_read():
        saves[len(read)]()
        read.append(keras_initkit.read_log(tmp_path).steps.tolist())

    hook = Hook("on_train_batch_end", save_and_read)
    fit(model, GradientMonitor(tmp_path, 1), hook, GradientMonitor(every_n_steps=1))
    assert read == [list(range(step + 1)) for step in range(STEPS)]
    assert not {"save_own_variables", "get_config"} & set(vars(model.optimizer))
    assert "get_state_tree" not in vars(model)


def test_a_save_is_heard_once_also_when_the_model_was_compiled_again():
    model = compiled(mlp, run_eagerly=True)
    heard: list[int] = []

    def compile_again():
        if len(heard) == 1:
            model.compile("sgd", model.loss, run_eagerly=True)
        heard.append(len(vars(model)["get_state_tree"].actions))

    fit(model, GradientMonitor(every_n_steps=1), Hook("on_train_batch_end", compile_again))
    assert heard == [1] * STEPS


@pytest.mark.slow
def test_a_training_that_is_killed_and_resumed_has_a_record_without_a_gap():
    """`python -m benchmarks.kill_and_resume` does it again and again."""
    command = [sys.executable, "-m", "benchmarks.kill_and_resume", "--rounds", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("1 rounds, missing: 0\n")


@pytest.mark.newest
@pytest.mark.backends("torch")
def test_one_callback_twice_in_a_list_or_in_two_trainings_at_once():
    model, x = compiled(mlp, **QUICK), data()[0]
    monitor, probe = GradientMonitor(every_n_steps=1), ActivationProbe(x)
    fit(model, monitor, probe, monitor, probe, epochs=2)
    np.testing.assert_array_equal(monitor.history.steps, np.arange(2 * STEPS))
    np.testing.assert_array_equal(probe.history.epochs, [0, 1, 2])

    def train_another():
        fit(compiled(mlp, **QUICK), monitor, probe)

    def train_on_another_thread():
        thread = threading.Thread(target=train_another)
        thread.start()
        thread.join()

    for train in (train_another, train_on_another_thread):
        with pytest.warns(UserWarning, match="records one training at a time") as caught:
            fit(model, monitor, probe, Hook("on_epoch_begin", train))
        said = {str(w.message).split()[1] for w in caught}
        assert said >= {"GradientMonitor", "ActivationProbe"}
    np.testing.assert_array_equal(monitor.history.steps, np.arange(4 * STEPS))
    np.testing.assert_array_equal(probe.history.epochs, [0, 1, 2, 0, 1, 0, 1])


@pytest.mark.newest
def test_without_threads_all_is_recorded(tmp_path, monkeypatch):
    model = compiled(mlp, **QUICK)
    fit(model)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monitor = GradientMonitor(tmp_path, 1)
    monitor.set_model(model)
    monitor.on_train_begin()
    for batch in range(3):
        monitor.on_train_batch_begin(batch)
        model.train_function(iter([data()]))
        monitor.on_train_batch_end(batch)
    monitor.on_train_end()
    np.testing.assert_array_equal(keras_initkit.read_log(tmp_path).steps, STEPS + np.arange(3))


def test_a_model_of_tf_keras_is_refused_in_words():
    other = type("Sequential", (), {"__module__": "tf_keras.src.models"})()
    for callback in (GradientMonitor(), ActivationProbe(data()[0])):
        with pytest.raises(TypeError, match=r"a model of Keras 3\. Received: a model of tf_keras"):
            callback.set_model(other)


@pytest.mark.parametrize(
    ("stack", "loss", "fix"),
    [
        ([keras.Input((8,)), keras.layers.Dense(2, "softmax")], "sparse_categorical_crossentropy",
         'Dense(4, activation="softmax")'),
        ([keras.layers.Dense(4, "softmax")], "categorical_crossentropy", "sparse_categorical"),
    ],
)  # fmt: skip
def test_an_exception_before_the_first_record_is_explained_by_model_and_data(stack, loss, fix):
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    model = keras.Sequential(stack)
    model.compile("sgd", loss)
    monitor = GradientMonitor()
    with pytest.warns(GradientWarning, match="output") as caught:  # noqa: PT031
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            model.fit(x, np.arange(32) % 4, verbose=0, callbacks=[monitor])
        (found,) = keras_initkit.diagnose(monitor)
    assert [warning.category for warning in caught].count(GradientWarning) == 1
    assert found.kind == "label_form"
    assert fix in str(found.fix)
    assert monitor.findings[0].message == found.message


class Mix(keras.layers.Layer):
    def call(self, x):
        return keras.layers.Dense(3)(x)


def test_layers_made_in_a_call_are_told_where_tensorflow_refuses_their_weights():
    model = keras.Sequential([Mix(name="mix"), keras.layers.Dense(3)])
    monitor = GradientMonitor(on_finding=print)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="singleton"):
        model.fit(np.ones((64, 3)), np.ones((64, 3)), verbose=0, callbacks=[monitor])
    assert [(f.kind, f.layer) for f in keras_initkit.diagnose(monitor)] == [("frozen", "mix")]


@pytest.mark.parametrize("is_enabled", [True, False])
def test_no_garbage_is_collected_while_frames_of_another_thread_are_looked_at(
    monkeypatch, is_enabled
):
    seen = []

    def look():
        seen.append(gc.isenabled())
        return {}

    monkeypatch.setattr(sys, "_current_frames", look)
    call = fit_call.FitCall(GradientMonitor())
    (gc.enable if is_enabled else gc.disable)()
    try:
        assert not call.is_running()
        assert seen == [False]
        assert gc.isenabled() == is_enabled
    finally:
        gc.enable()


def test_a_refused_training_is_looked_at_on_its_own_thread(monkeypatch):
    monkeypatch.setattr(fit_call, "_SECONDS", 0.02)
    threads = []

    def look(*args):
        threads.append(threading.current_thread())
        return look_at_start(*args)

    monkeypatch.setattr(gradient_monitor, "look_at_start", look)
    model, monitor = keras.Sequential([keras.layers.Dense(4, "softmax")]), GradientMonitor()
    model.compile("sgd", "categorical_crossentropy")
    with pytest.raises(ValueError, match="shape"):
        model.fit(np.ones((32, 8)), np.arange(32) % 4, verbose=0, callbacks=[monitor])
    time.sleep(0.2)  # the thread that looks after it has seen its end
    assert not threads
    with pytest.warns(GradientWarning, match="output"):
        assert keras_initkit.diagnose(monitor)
    assert threads == [threading.current_thread()]


def test_an_exception_of_another_reason_is_the_users_alone():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    monitor = GradientMonitor()
    with pytest.raises(ValueError, match="shape"):
        model.fit(np.ones((8, 2)), np.ones(8), verbose=0, callbacks=[monitor])
    assert not keras_initkit.diagnose(monitor)
