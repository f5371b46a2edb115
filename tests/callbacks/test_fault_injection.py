"""Whatever fails inside a monitor or a probe: training goes on, with one warning."""

import contextlib
import importlib
import itertools
import sys
import threading
import warnings
from pathlib import Path
from types import CodeType

import keras
import numpy as np
import pytest

import keras_initkit.callbacks
import tensorboard_plugin_initkit
from keras_initkit.callbacks import ActivationProbe, GradientMonitor

PACKAGES = (keras_initkit, keras_initkit.callbacks, tensorboard_plugin_initkit)
FOLDERS = tuple(f"{package.__path__[0]}/" for package in PACKAGES)
STEPS = 3
# What Keras calls, or a thread begins with, and does nothing but guard: nothing of ours is around.
GUARDS = {
    *("set_model", "on_train_begin", "on_train_batch_end", "guarded", "_attempt", "__enter__"),
    *("__call__", "apply_gradients", "clip_gradients", "backend_update_step"),
    *("all_reduce_sum_gradients", "compute_loss", "_watch"),
}


@contextlib.contextmanager
def seeing(see):
    """Call a function with the code of each function of the packages that is entered."""

    def hear(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(FOLDERS):
            see(frame.f_code)

    threading.setprofile(hear)
    sys.setprofile(hear)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def forget_traces():
    """Have TensorFlow trace anew what measures: only then it is called."""
    if keras.backend.backend() == "tensorflow":
        importlib.import_module("keras_initkit.callbacks.measures.tensorflow")._trace.cache_clear()


class Trainings:
    """Trainings of one small model, each from the same weights, in eager or graph mode."""

    def __init__(self, folder: Path, eager: bool) -> None:
        self.folder, self.numbers = folder, itertools.count()
        x = np.random.default_rng(0).normal(size=(4 * STEPS, 3)).astype("float32")
        self.batch, self.data = x[:4], (x, x[:, :1], 4)
        inputs, hidden = keras.Input((3,)), keras.layers.Dense(2, "tanh")
        self.model = keras.Sequential([inputs, hidden, keras.layers.Dense(1)])
        self.model.compile("sgd", "mse", run_eagerly=eager)
        self.state = self.model.get_weights()
        self.trained = self.fit()
        self.fit(*self.callbacks())  # imports what is imported late
        self.untouched = self.attributes()

    def callbacks(self) -> tuple[GradientMonitor, ActivationProbe]:
        log_dir = self.folder / str(next(self.numbers))
        monitor = GradientMonitor(log_dir, every_n_steps=2, sample_size=4, histograms=1)
        return monitor, ActivationProbe(self.batch, log_dir)

    def fit(self, *callbacks: keras.callbacks.Callback) -> list[np.ndarray]:
        self.model.set_weights(self.state)
        self.model.optimizer.iterations.assign(0)
        self.model.fit(*self.data, shuffle=False, verbose=0, callbacks=list(callbacks))
        return self.model.get_weights()

    def attributes(self) -> list[object]:
        """Return all that a recorded step replaces for its duration."""
        owners = (self.model, self.model.optimizer, *self.model.layers)
        return [self.model.train_function, *[set(vars(owner)) for owner in owners]]

    def functions(self) -> list[CodeType]:
        """Return the functions that are called, but for guards, by their first call."""
        seen: dict[CodeType, None] = {}
        forget_traces()
        with seeing(seen.setdefault):
            self.fit(*self.callbacks())
        own = [c for c in seen if c.co_name == "<lambda>" or not c.co_name.startswith("<")]
        # `untraced` chooses which of two forms of a guard is called.
        return [c for c in own if c.co_name not in GUARDS and "untraced" not in c.co_qualname]

    def find_faults(self, function: CodeType) -> str:
        """Train while a function raises when it is first called; return what is wrong then."""
        raised: list[CodeType] = []
        if "measures" in Path(function.co_filename).parts:
            forget_traces()

        def see(code: CodeType) -> None:
            if code is function and not raised:
                raised.append(code)
                raise RuntimeError("injected")

        monitor, probe = self.callbacks()
        wrong, trained = [], None
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                with seeing(see):
                    trained = self.fit(monitor, probe)
            except Exception as error:
                wrong.append(f"training raised {error!r}")
            records = len(monitor.history), len(probe.history)
        said = [str(w.message) for w in warned if "injected" in str(w.message)]
        if trained is not None and not all(map(np.array_equal, trained, self.trained)):
            wrong.append("other weights")
        if self.attributes() != self.untouched:
            wrong.append("model or optimizer left changed")
        # A log says that it fails, and that it works again; a callback that it stops.
        if len(said) > 1 + ("can again" in said[-1]) if said else records != (2, 2):
            wrong.append(f"{records} records, said: {said}")
        if 2 not in records:
            wrong.append("the other callback stopped too")
        return "; ".join(wrong)


def name(function: CodeType) -> str:
    return f"{Path(function.co_filename).name}:{function.co_firstlineno} {function.co_name}"


STEPS_OF_A_RECORD = ("UpdateRecorder.begin", "UpdateRecorder.measure", "Capture.read")
# On PyTorch, the quickest, the most; and on both all of the backend's own way to measure.
CASES = [(True, 60)] if keras.backend.backend() == "torch" else [(True, 1), (False, 3)]


@pytest.mark.slow
@pytest.mark.backends("tensorflow", "torch")
@pytest.mark.parametrize(("eager", "count"), CASES)
def test_any_function_may_raise(eager, count, tmp_path):
    trainings = Trainings(tmp_path, eager)
    functions = trainings.functions()
    assert len(functions) > 300
    own = str(Path("measures", f"{keras.backend.backend()}.py"))
    measuring = [function for function in functions if function.co_filename.endswith(own)]
    assert len(measuring) > 3
    steps = [function for function in functions if function.co_qualname in STEPS_OF_A_RECORD]
    assert len(steps) == len(STEPS_OF_A_RECORD)
    sample = [*functions[:: len(functions) // count], *(steps + measuring if eager else [])]
    faults = {name(function): trainings.find_faults(function) for function in sample}
    assert not {function: fault for function, fault in faults.items() if fault}
    monitor, probe = trainings.callbacks()  # and all is recorded by others
    trainings.fit(monitor, probe)
    assert (len(monitor.history), len(probe.history)) == (2, 2)
