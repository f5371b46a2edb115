"""Trainings in the patterns of Keras's examples: the monitor changes nothing and misses nothing."""

import inspect
import itertools
import re
import warnings

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import GradientMonitor, GradientWarning
from tensorboard_plugin_initkit import command
from tests.pipelines import generative, structured, text, vision
from tests.pipelines.base import BACKEND, Pipeline

# A pattern is a function of these files that returns a `Pipeline`.
PATTERNS = [
    function
    for family in (generative, structured, text, vision)
    for function in vars(family).values()
    if inspect.isfunction(function) and function.__annotations__.get("return") is Pipeline
]
# These run in every `make test`; the others in `make examples-test` alone.
REPRESENTATIVE = ["diffusion"] if BACKEND == "torch" else ["actor_critic"]
# A FeatureSpace needs TensorFlow, a gradient penalty its tape; JAX's state has one optimizer.
NOT_ON = {"feature_space": ["jax", "torch"], "simclr": ["jax"], "wgan_gp": ["jax", "torch"]}
BACKENDS = ("tensorflow", "jax", "torch")


def cases():
    for make in PATTERNS:
        name = make.__name__
        marks = [pytest.mark.backends(*(n for n in BACKENDS if n not in NOT_ON.get(name, ())))]
        marks.append(pytest.mark.slow if name in REPRESENTATIVE else pytest.mark.pipelines)
        yield pytest.param(make, id=name, marks=marks)


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    """A directory for the runs of all patterns."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.usefixtures("usual_emitters")
@pytest.mark.parametrize("make", list(cases()))
def test_a_pattern(make, log_dir, monkeypatch):
    with monkeypatch.context() as patch:
        given = note_given(patch)
        model, losses = train_pattern(make)
    variables = [v for v in model.trainable_variables if id(v) in given]
    monitor = GradientMonitor(log_dir / make.__name__, every_n_steps=1)
    monitored_model, monitored_losses = train_pattern(make, monitor)

    assert monitored_losses == losses
    for a, b in zip(model.get_weights(), monitored_model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    norms = monitor.history.per_variable("norm")
    seen = np.isfinite(norms).all(axis=0)  # a copy that follows another network gets no gradient
    assert len(norms) >= 15
    assert seen[np.isfinite(norms).any(axis=0)].all()
    columns = itertools.compress(monitor.history.layout.variables, seen)
    recorded = [(column.path.rpartition("/")[2], column.shape) for column in columns]
    assert recorded == [(v.name, tuple(v.shape)) for v in variables]
    assert losses[-1] < 0.9 * losses[0]
    assert [finding.message for finding in monitor.findings] == []
    assert list(keras_initkit.audit(model))


def train_pattern(make, *callbacks):
    """Train a pattern from the same seed as ever; return the model and the losses."""
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    pipeline = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)  # findings are looked at afterwards
        return pipeline.model, pipeline.train(*callbacks)


def note_given(patch):
    """Return a set that gets the `id`s of the variables that an optimizer is given."""
    given: set[int] = set()
    apply = keras.Optimizer.apply

    def noted(self, grads, trainable_variables=None):
        given.update(map(id, trainable_variables or self._trainable_variables))
        return apply(self, grads, trainable_variables)

    patch.setattr(keras.Optimizer, "apply", noted)
    return given


@pytest.mark.backends(*BACKENDS)
def test_the_report_names_every_run(log_dir, tmp_path):
    runs = {run.name for run in log_dir.iterdir()}
    if not runs:
        pytest.skip("The runs are those of the tests before.")
    report = tmp_path / "report.html"
    assert command.main(["report", str(log_dir), "--output", str(report)]) == 0
    assert set(re.findall(r"<h2[^>]*>(\w+)</h2>", report.read_text())) >= runs
