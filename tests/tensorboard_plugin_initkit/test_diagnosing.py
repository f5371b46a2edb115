"""`diagnose`, of a real training: its monitor, its history and its log say the same."""

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import GradientMonitor

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
    assert not keras_initkit.diagnose(monitor, ignore=[f.kind for f in diagnosis])


def test_sources_that_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"`source` must be .* Received: source=3\. .*check\("):
        keras_initkit.diagnose(3)
    with pytest.raises(FileNotFoundError):
        keras_initkit.diagnose(tmp_path)
