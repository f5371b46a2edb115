"""The check before training."""

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.models.check import check as module
from keras_initkit.models.check.sample import draw_sample
from keras_initkit.models.check.step import run_step
from tensorboard_plugin_initkit.diagnosis.diagnosis import Diagnosis

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers


def classifier(loss="sparse_categorical_crossentropy", units=3):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "relu", name="first", kernel_regularizer="l2"),
            layers.Dense(units, "softmax", name="head"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"])
    return model


def test_a_record_has_setup_ports_and_gradients(rng):
    model = classifier()
    x, y = rng.normal(3, 1, (50, 4)).astype("float32"), np.arange(50) % 2
    outcome = run_step(model, draw_sample(x, y, None, 8).batch)
    start = module.look_at_start(model, (x, y, None), 8)
    history = keras_initkit.GradientHistory(None)
    history.append(start.record)
    history.setup = start.setup
    assert history.steps.tolist() == [0]
    assert history.setup is not None
    assert history.setup.heads[0].loss == "sparse_categorical_crossentropy"
    assert [(p.role, p.name, p.shape, p.dtype) for p in history.ports] == [
        ("x", "", (4,), "float32"),
        ("y", "", (), "int64"),
        ("y_pred", "", (3,), "float32"),
    ]
    mean, std, entropy, classes = (
        history.per_port(name)[0] for name in ("mean", "std", "entropy", "classes")
    )
    assert mean == pytest.approx([x.mean(), 0.5, 1 / 3], rel=1e-5)
    assert std[0] == pytest.approx(x.std(), rel=1e-5)
    assert entropy == pytest.approx([np.nan, np.log(2), np.nan], nan_ok=True)
    assert classes[1] == 2
    assert history.variables == ["first/kernel", "first/bias", "head/kernel", "head/bias"]
    gradients = [np.array(gradient) for gradient in outcome.gradients]
    norms = [np.linalg.norm(gradient) for gradient in gradients]
    assert history.per_variable("norm")[0] == pytest.approx(norms, rel=1e-5)
    dead = np.mean(gradients[1] == 0)
    assert history.per_variable("dead_units")[0] == pytest.approx(
        [np.nan, dead, np.nan, 0], nan_ok=True
    )
    assert history["loss"][0, 0] == pytest.approx(outcome.loss)
    assert history["penalty"][0, 0] == pytest.approx(outcome.penalty)
    assert history["learning_rate"][0, 0] == 0.5


def test_a_healthy_model(rng):
    diagnosis = keras_initkit.check(classifier(), rng.normal(size=(50, 4)), np.arange(50) % 3)
    assert isinstance(diagnosis, Diagnosis)
    assert not diagnosis
    assert diagnosis.raise_for_errors().verdict == "Nothing wrong found before training."


def test_numbers_that_are_not_finite(rng):
    x, y = rng.normal(size=(50, 4)), np.arange(50) % 3
    x[17, 0] = np.nan  # not in the batch of every other row
    diagnosis = keras_initkit.check(classifier(), x, y, batch_size=2)
    assert diagnosis[0].severity == "error"
    assert diagnosis.verdict.startswith("Will not learn. ")
    with pytest.raises(ValueError, match="NaN"):
        diagnosis.raise_for_errors()
    kinds = {finding.kind for finding in diagnosis}
    assert not keras_initkit.check(classifier(), x, y, batch_size=2, ignore=kinds)


def test_a_model_that_is_not_compiled(rng):
    model = keras.Sequential([layers.Dense(1)])
    diagnosis = keras_initkit.check(model, rng.normal(size=(50, 4)))
    assert diagnosis.notes == ("The model is not compiled: its loss could not be looked at.",)


class OwnStep(keras.Model):
    def __init__(self):
        super().__init__()
        self.net = keras.Sequential([keras.Input((4,)), layers.Dense(2)])

    def train_step(self, *args):
        raise NotImplementedError


def test_a_model_without_a_call(rng):
    model = OwnStep()
    model.compile("sgd")
    diagnosis = keras_initkit.check(model, rng.normal(size=(50, 4)))
    assert not diagnosis
    assert "no `call`" in diagnosis.notes[0]
    model = type("WithCall", (OwnStep,), {"call": lambda self, x: self.net(x)})()
    model.compile("sgd")  # the loss is that of its step
    assert not keras_initkit.check(model, rng.normal(size=(50, 4)))


def test_an_exception_of_the_loss_passes_unless_an_error_explains_it(rng, monkeypatch):
    model = classifier("categorical_crossentropy")
    x, y = rng.normal(size=(50, 4)), np.zeros((50, 7))
    error = keras_initkit.Finding("label_form", "head", None, "Width.", severity="error")
    for found in ([], [error]):
        told = Diagnosis(found)
        monkeypatch.setattr(module, "diagnose_history", lambda *args, told=told, **kwargs: told)
        if found:
            assert keras_initkit.check(model, x, y) is told
        else:
            with pytest.raises(Exception, match="shape"):
                keras_initkit.check(model, x, y)


def test_a_loss_that_no_weight_has_a_part_in(rng):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.compile("sgd", lambda y, y_pred: keras.ops.stop_gradient(keras.ops.mean(y_pred)))
    x = rng.normal(size=(50, 4))
    found = keras_initkit.check(model, x, np.zeros(50))
    if keras.backend.backend() != "jax":  # which has a gradient of zeros
        assert [(f.kind, f.severity) for f in found] == [("no_gradient", "error")]
    layer = layers.Lambda(lambda x: 2 * x)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile("sgd", "mse")
    assert [f.kind for f in keras_initkit.check(model, x, x)] == ["frozen"]
    x[3] = np.nan
    model = classifier(lambda y, y_pred: 1 / 0)  # as a loss that refuses NaN
    assert [f.kind for f in keras_initkit.check(model, x, np.zeros(50))] == ["nonfinite"]


def test_numbers_that_no_embedding_has_are_told_though_the_model_refuses_them(rng):
    model = keras.Sequential([layers.Embedding(4, 2), layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    # JAX does not refuse them, but takes NaN, which follows from it.
    (found,) = keras_initkit.check(model, np.arange(12).reshape(6, 2), np.ones(6))
    assert (found.kind, found.fix.text) == ("embedding_indices", "Use `Embedding(12, 2)`.")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="shape"):
        keras_initkit.check(model, rng.normal(size=(6, 2)), np.ones(6))


def test_arguments_that_are_refused():
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model\. Received: model='m'"):
        keras_initkit.check("m", np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"`batch_size` must be a positive integer"):
        keras_initkit.check(classifier(), np.ones((2, 3)), batch_size=0)
    with pytest.raises(ValueError, match=r"`ignore` must be"):
        keras_initkit.check(classifier(), np.ones((2, 4)), np.zeros(2), ignore=["dead"])


def test_a_broken_contract_is_told_with_its_fix(rng):
    x, y = rng.normal(size=(50, 4)), np.arange(50) % 2
    diagnosis = keras_initkit.check(classifier("binary_crossentropy", units=1), x, y)
    assert [finding.kind for finding in diagnosis] == ["single_unit_softmax"]
    assert 'Dense(1, activation="sigmoid")' in str(diagnosis)
    right = classifier("sparse_categorical_crossentropy", units=2)
    assert not keras_initkit.check(right, x, y)
