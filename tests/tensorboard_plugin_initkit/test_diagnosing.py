"""`diagnose`, of a real training: its monitor, its history and its log say the same."""

import json

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.command import main

pytestmark = [
    pytest.mark.newest,
    pytest.mark.backends("tensorflow", "torch"),
    pytest.mark.filterwarnings("ignore:You are using a softmax over axis:UserWarning"),
    pytest.mark.filterwarnings("ignore::keras_initkit.callbacks.GradientWarning"),
]


def test_monitor_history_and_log_say_the_same(tmp_path, rng):
    layers = [keras.Input((3,)), keras.layers.Dense(1, "softmax", name="head")]
    model = keras.Sequential(layers)
    model.compile("sgd", "binary_crossentropy")
    x, y = rng.normal(size=(64, 3)), np.arange(64) % 2
    monitor = GradientMonitor(tmp_path / "run", every_n_steps=1)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[monitor])
    for source in (monitor, monitor.history, tmp_path / "run", str(tmp_path / "run")):
        diagnosis = keras_initkit.diagnose(source)
        assert diagnosis[0].kind == "single_unit_softmax"
        assert diagnosis.verdict.startswith("Does not learn. ")
        assert diagnosis.notes == ()
    before = keras_initkit.check(model, x, y)
    assert (before[0].kind, before[0].fix) == (diagnosis[0].kind, diagnosis[0].fix)
    (follows,) = keras_initkit.diagnose(monitor, ignore=["single_unit_softmax"])
    assert follows.message in diagnosis[0].consequences


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize(("is_stopped", "kind"), [(True, "ended_early"), (False, "not_learning")])
def test_what_is_told_in_the_end_is_told_of_every_source(tmp_path, rng, capsys, is_stopped, kind):
    head = keras.layers.Dense(1, "sigmoid", kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), head])
    model.compile(keras.optimizers.SGD(1e-2), "binary_crossentropy")
    x, y = rng.normal(size=(480, 3)), rng.integers(0, 2, (480, 1))  # nothing can be learned
    monitor = GradientMonitor(tmp_path)
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1.0, patience=1)
    generated = ((x[i : i + 8], y[i : i + 8]) for i in range(0, 480, 8))  # of unknown length
    data = {"x": x, "y": y, "epochs": 9} if is_stopped else {"x": generated, "shuffle": False}
    model.fit(**data, verbose=0, callbacks=[monitor, stop])
    told = tuple(keras_initkit.diagnose(tmp_path))
    assert [finding.kind for finding in told] == [kind]
    assert tuple(keras_initkit.diagnose(monitor)) == tuple(monitor.findings) == told
    assert main(["findings", str(tmp_path), "--json"]) == int(told[0].severity != "note")
    (run,) = json.loads(capsys.readouterr().out).values()
    assert run["findings"] == keras_initkit.diagnose(monitor.history).to_dict()["findings"]
    monitor.history.ended = False
    assert not keras_initkit.diagnose(monitor)


def test_sources_that_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"`source` must be .* Received: source=3\. .*check\("):
        keras_initkit.diagnose(3)
    with pytest.raises(FileNotFoundError):
        keras_initkit.diagnose(tmp_path)
