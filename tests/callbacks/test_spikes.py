"""Spikes of steps that are not recorded: found, kept, and without a trace in the training."""

import functools

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import GradientMonitor
from keras_initkit.callbacks.capture.capture import Capture
from tests.callbacks.training import BACKEND, compiled, label, layers

pytestmark = [pytest.mark.backends("tensorflow", "jax", "torch"), pytest.mark.newest]

STEPS, SPIKE, EVERY = 90, 77, 25


def net():
    dense = [layers.Dense(6, "tanh", name="first"), layers.Dense(4, name="second")]
    return keras.Sequential([keras.Input((8,)), *dense])


def batches(factor):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS, 4, 8)).astype("float32")
    y = rng.integers(0, 4, (STEPS, 4)).astype("int32")
    weight = np.ones((STEPS, 4), "float32")
    weight[SPIKE] = factor
    return (array.reshape(-1, *array.shape[2:]) for array in (x, y, weight))


def train(monitors, factor=1000.0, **compile_args):
    model = compiled(net, keras.optimizers.SGD(1e-3), **compile_args)
    x, y, weight = batches(factor)
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0, "callbacks": monitors}
    losses = model.fit(x, y, sample_weight=weight, **fit).history["loss"]
    return model.get_weights(), losses


@functools.cache
def norms_of_all_steps():
    train([monitor := GradientMonitor(every_n_steps=1)])
    return monitor.history["norm"]


WAYS: list[dict[str, object]] = [{}]
if BACKEND == "tensorflow":
    WAYS += [{"jit_compile": True}, {"steps_per_execution": 10}]


@pytest.mark.usefixtures("usual_emitters")
@pytest.mark.parametrize("way", WAYS, ids=label)
def test_a_spike_between_records_is_found_with_its_step_and_layers(way, tmp_path):
    plain = train([], **way)
    watched = train([monitor := GradientMonitor(tmp_path, EVERY, spikes=True)], **way)
    for got, want in zip(watched[0], plain[0], strict=True):
        assert (got == want).all()
    assert watched[1] == plain[1]
    history, steps = monitor.history, monitor.history.steps.tolist()
    assert steps == [*range(0, SPIKE, EVERY), SPIKE]
    np.testing.assert_allclose(history["norm"], norms_of_all_steps()[steps], rtol=1e-5)
    assert history["spike"][-1] > 100
    assert np.isnan(history["spike"][:-1]).all()
    if "steps_per_execution" not in way:  # where a block with a step that is due is recorded whole
        assert np.isnan(history["loss"]).ravel().tolist() == [False, False, False, False, True]
    (finding,) = (f for f in monitor.findings if f.kind == "spike")
    assert (finding.step, finding.severity) == (SPIKE, "note")
    assert "in `first`, `second`." in finding.message or "in `second`, `first`." in finding.message
    again = keras_initkit.read_log(tmp_path)
    np.testing.assert_array_equal(again["spike"], history["spike"])
    assert again.findings == monitor.findings


def test_steps_before_the_first_record_are_read_together(monkeypatch):
    """Each read waits for the device."""
    reads, read = [], Capture.read

    def count(capture):
        reads.append(1)
        return read(capture)

    monkeypatch.setattr(Capture, "read", count)
    train([monitor := GradientMonitor(every_n_steps=lambda step: step == 60, spikes=True)])
    assert monitor.history.steps.tolist() == [60, SPIKE]
    assert len(reads) < 10


def test_the_first_record_is_read_at_once_in_epochs_of_one_batch():
    """Broken contracts are told by it."""
    lengths, model = [], compiled(net, keras.optimizers.SGD(1e-3))
    monitor = GradientMonitor()
    look = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: lengths.append(monitor._recorded)
    )
    x, y, _ = batches(1.0)
    model.fit(x[:4], y[:4], epochs=3, verbose=0, callbacks=[monitor, look])
    assert lengths[:2] == [0, 1]
