"""Fault injection: whatever raises inside the callbacks, training goes on as without them."""

import contextlib
import sys
import threading
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import tensorboard_plugin_initkit
from keras_initkit import callbacks
from keras_initkit.callbacks import ActivationProbe, GradientMonitor, GradientWarning

CALLBACKS, WING = (
    str(Path(str(m.__file__)).parent) for m in (callbacks, tensorboard_plugin_initkit)
)
OURS = (CALLBACKS, *(f"{WING}/{room}" for room in ("record", "log", "diagnosis")))
# What keeps exceptions from the training cannot keep its own.
GUARDS = {"_attempt", "__enter__", "__exit__", "__call__"}


def is_ours(frame):
    return frame.f_code.co_filename.startswith(OURS) and frame.f_code.co_name[0] != "<"


def caller(frame):
    frame = frame.f_back
    while frame and "contextlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame


def is_guarded(frame):
    """Keras calls some of our functions itself: nobody stands between."""
    above = caller(frame)
    return frame.f_code.co_name not in GUARDS and above is not None and is_ours(above)


class Faults(keras.callbacks.Callback):
    """Finds the functions that a training calls, or has one of them raise whenever it is called."""

    def __init__(self, code=None):
        super().__init__()
        self.code, self.found, self.started = code, {}, []

    def profile(self, frame, event, arg):
        if event != "call" or not is_ours(frame):
            return
        if self.code is None:
            if is_guarded(frame):
                in_step = self.found.get(frame.f_code, False)
                above = frame
                while above and not in_step:
                    in_step = above.f_code.co_filename.endswith("recorded_step.py")
                    above = above.f_back
                self.found[frame.f_code] = in_step
        elif frame.f_code is self.code and is_guarded(frame) and frame not in self.started:
            self.started.append(frame)  # generators are called again when they go on
            raise RuntimeError("injected")  # which ends the profiling of this thread, until `arm`

    def arm(self, *args, **kwargs):
        sys.setprofile(self.profile)

    on_epoch_begin = on_epoch_end = on_train_batch_begin = on_train_batch_end = on_train_end = arm

    @contextlib.contextmanager
    def injected(self):
        threading.setprofile(self.profile)
        sys.setprofile(self.profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(logs["loss"]))


@pytest.mark.slow
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "graph"])
def test_whatever_raises_is_at_most_one_warning_and_training_goes_on(eager, tmp_path):
    x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
    x[24:] = np.inf
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "relu")])
    model.compile("sgd", "mse", run_eagerly=eager)
    losses = Losses()
    model.fit(x, x[:, :2], 8, shuffle=False, verbose=0, callbacks=[losses])
    start = [np.zeros_like(v) for v in model.optimizer.variables]
    weights = [np.full_like(w, 0.1) for w in model.get_weights()]

    def train(*faults):
        model.set_weights(weights)
        for variable, value in zip(model.optimizer.variables, start, strict=True):
            variable.assign(value)
        model.optimizer.learning_rate = 0.01
        losses.seen = []
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        monitor = GradientMonitor(place, lambda step: step != 1, sample_size=2, histograms=1)
        both = [monitor, ActivationProbe(x[:4], place)] if faults else []
        save = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: model.save_weights(f"{place}.weights.h5")
        )
        with contextlib.ExitStack() as stack:
            for fault in faults:
                stack.enter_context(fault.injected())
            model.fit(
                x, x[:, :2], 8, shuffle=False, verbose=0, callbacks=[*faults, *both, save, losses]
            )
        return monitor, losses.seen, model.get_weights()

    finder = Faults()
    _, seen, after = train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)
        monitor, *_ = train(finder)
    assert len(monitor.history) == 3
    assert [finding.kind for finding in monitor.findings] == ["nonfinite"]
    codes = [code for code, in_step in finder.found.items() if eager or in_step]
    assert len(codes) > (130 if eager else 40)
    wrong: list[tuple[object, object]] = []
    for code in codes:
        fault = Faults(code)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                monitor, *trained = train(fault)
                np.testing.assert_equal(trained, [seen, after])
            except Exception as error:
                wrong.append((code, repr(error)))
        said = [str(w.message) for w in caught if w.category is UserWarning]
        said = [text for text in said if "raining goes on" in text]
        once = len({text.split()[0] for text in said}) == len(said)
        if not (fault.started and once and (said or len(monitor.history) == 3)):
            wrong.append((code, said))
    assert not wrong, "\n".join(map(str, wrong))
