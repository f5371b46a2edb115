"""Records reach the user's function and Keras's logs."""

import csv
import threading

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def train(monitor, kernel_initializer="zeros", more=()):
    layers = [
        keras.layers.Dense(4, "relu", kernel_initializer=kernel_initializer, name=name)
        for name in "abc"
    ]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1, name="d")])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(40, 4))
    return model.fit(x, x[:, :1], 8, epochs=3, verbose=0, callbacks=[monitor, *more])


@pytest.mark.newest
def test_each_record_comes_once_on_the_thread_of_fit_with_what_was_found():
    records, threads = [], set()

    def take(record):
        records.append(record)
        threads.add(threading.get_ident())

    monitor = GradientMonitor(
        every_n_steps=2, on_record=take, scalars=["norm", "loss"], on_finding=lambda finding: None
    )
    train(monitor)
    history = monitor.history
    steps = [record.step for record in records if record.scalars]
    assert list(dict.fromkeys(steps)) == history.steps.tolist() == list(range(0, 15, 2))
    assert threads == {threading.get_ident()}
    assert [record.epoch for record in records[:3]] == [0, 0, 0]
    assert records[-1].epoch == 2
    for record, norms, loss in zip(records, history["norm"], history["loss"], strict=False):
        layers = {f"gradient_norm/{x}": v for x, v in zip(history.layers, norms, strict=True)}
        assert layers.items() <= record.scalars.items()
        assert record.scalars["gradients/loss"] == loss[0]
    found = [finding for record in records for finding in record.findings]
    assert found == [f for f in monitor.findings if f.severity != "note"] != []


@pytest.mark.backends("torch")
def test_an_error_in_the_function_is_one_warning_and_training_goes_on():
    calls = []

    def fail(record):
        calls.append(record)
        raise KeyError("no network")

    with pytest.warns(UserWarning, match=r"`on_record` .* failed at step 0: .*no network") as said:
        train(GradientMonitor(on_record=fail), "he_normal")
    assert len([w for w in said if "on_record" in str(w.message)]) == 1
    assert len(calls) == 15


@pytest.mark.backends("torch")
def test_totals_are_in_keras_logs_if_asked_for(tmp_path):
    assert list(train(GradientMonitor(), "he_normal").history) == ["loss"]
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    monitor = GradientMonitor(logs=True, scalars=False)
    logged = train(monitor, "he_normal", more=[logger]).history
    last_of_epochs = monitor.history["global_norm"][[4, 9, 14], 0]
    assert logged["gradients/global_norm"] == pytest.approx(last_of_epochs, rel=1e-6)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["gradients/global_norm"]) == pytest.approx(last_of_epochs[2], rel=1e-6)
    names = ("global_norm", "first_to_last", "largest_share", "nonfinite")
    assert logged.keys() == {"loss", *(f"gradients/{name}" for name in names)}


def test_what_is_no_function_is_refused():
    with pytest.raises(ValueError, match=r"`on_record` must be a function .*: on_record=3"):
        GradientMonitor(on_record=3)  # type: ignore[arg-type]
