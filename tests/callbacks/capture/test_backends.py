"""GradientMonitor on the backend that KERAS_BACKEND names, against its own autodiff."""

import functools
import itertools
import sys
import zipfile

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import GradientMonitor, GradientWarning
from tensorboard_plugin_initkit.record.statistics import STATISTICS
from tests.callbacks.training import (
    BACKEND,
    BATCH,
    QUICK,
    STEPS,
    Beside,
    compiled,
    convolutional,
    data,
    fit,
    label,
    layers,
    norms,
    recorded,
    trained_beside,
    varied,
    wait_until,
)

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def assert_same_record(history, reference):
    gradients, weights = zip(*reference, strict=True)
    np.testing.assert_array_equal(history.steps, np.arange(STEPS))
    want = {
        "norm": [norms(step) for step in gradients],
        "mean_abs": [[np.mean(abs(g)) for g in step] for step in gradients],
        "max_abs": [[np.max(abs(g)) for g in step] for step in gradients],
        "zeros": [[np.mean(g == 0) for g in step] for step in gradients],
        "weight_norm": [norms(step) for step in weights],
    }
    for statistic, values in want.items():
        np.testing.assert_allclose(
            history.per_variable(statistic), values, rtol=1e-5, atol=1e-7, err_msg=statistic
        )
    assert not history["nonfinite"].any()
    updates = [
        norms([b - a for a, b in zip(*pair, strict=True)]) for pair in itertools.pairwise(weights)
    ]
    moving = np.array(want["weight_norm"])[:-1] > 0  # biases start at zero
    np.testing.assert_allclose(
        history.per_variable("update_ratio")[:-1][moving],
        np.array(updates)[moving] / np.array(want["weight_norm"])[:-1][moving],
        rtol=1e-4,  # a difference of weights, rounded in float32
    )


WAYS: list[dict[str, object]] = [{}]  # on PyTorch all are eager
if BACKEND != "torch":
    WAYS += [{"run_eagerly": True}, {"steps_per_execution": 2}]
if BACKEND == "tensorflow":
    WAYS += [{"jit_compile": True}]

# On old versions graphs stand for the other ways.
WAYS_TO_TEST = [pytest.param(way, marks=[pytest.mark.newest] if way else []) for way in WAYS]


def small():
    return keras.Sequential([keras.Input((8,)), layers.Dense(6, "tanh"), layers.Dense(4)])


def model_for(way, make):
    """Choose a model that is compiled in a short time: JAX compiles each operation by itself."""
    return small if BACKEND == "jax" and "run_eagerly" in way else make


@functools.cache
def reference(make):
    return list(trained_beside(make))


@pytest.mark.parametrize("way", WAYS_TO_TEST, ids=label)
def test_what_is_recorded_is_what_autodiff_says(way):
    # Compiled by XLA are convolutions in the test of the same bits below.
    make = small if "jit_compile" in way else model_for(way, varied)
    assert_same_record(recorded(make, **way), reference(make))


# LossScaleOptimizer and MultiOptimizer hold others; the base class is none.
OPTIMIZERS = sorted(
    name
    for name, member in vars(keras.optimizers).items()
    if isinstance(member, type)
    and issubclass(member, keras.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
)


def is_updated_in_a_way_of_its_own(name):
    """On PyTorch most are; elsewhere Lamb and Muon stand for all that update as the base class."""
    own = getattr(keras.optimizers, name)._backend_update_step
    return BACKEND == "torch" or own is not keras.Optimizer._backend_update_step


@pytest.mark.parametrize(
    "name", [n for n in OPTIMIZERS if n in ("Lamb", "Muon") or is_updated_in_a_way_of_its_own(n)]
)
def test_every_optimizer_of_keras(name):
    monitor, beside = GradientMonitor(every_n_steps=1), Beside()
    optimizer = getattr(keras.optimizers, name)(1e-2)
    fit(compiled(small, optimizer, **QUICK), beside, monitor)
    assert_same_record(monitor.history, beside.seen)


def test_accumulated_gradients_are_recorded_once_an_update():
    history = recorded(small, keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    model, (x, y) = compiled(small, keras.optimizers.SGD(0.1)), data()
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(x, y, 2 * BATCH, shuffle=False, verbose=0, callbacks=[monitor])
    np.testing.assert_array_equal(history.steps, np.arange(STEPS // 2))
    np.testing.assert_allclose(history["norm"], monitor.history["norm"], rtol=1e-5)


def test_a_non_finite_gradient_is_counted_and_a_warning_at_the_line_of_fit():
    model, (x, y) = compiled(small), data()
    x[3 * BATCH] = np.inf
    monitor = GradientMonitor(every_n_steps=1)
    line = sys._getframe().f_lineno + 2
    with pytest.warns(GradientWarning, match="Non-finite numbers: at step 3") as caught:
        model.fit(x, y, BATCH, shuffle=False, verbose=0, callbacks=[monitor])
    said = [w for w in caught if w.category is GradientWarning]  # Keras has its own
    assert {(w.filename, w.lineno) for w in said} == {(__file__, line)}
    assert monitor.findings[0].step == 3
    assert not monitor.history["nonfinite"][:3].any()
    assert monitor.history["nonfinite"][3, 0] > 0
    assert np.isnan(monitor.history["max_abs"][3, 0])


@pytest.mark.usefixtures("usual_emitters")
@pytest.mark.parametrize("way", WAYS_TO_TEST, ids=label)
def test_training_is_bit_identical_with_and_without_the_monitor(way):
    """Also in a hundred steps, whose functions a compiler fuses as it likes."""
    make = model_for(way, convolutional)

    def trained(*callbacks):
        model = compiled(
            lambda: keras.Sequential([keras.Input((8,)), layers.Dropout(0.2), make()]),
            keras.optimizers.Adam(1e-2, clipnorm=0.1),
            metrics=["accuracy"],
            **way,
        )
        history = fit(model, *callbacks, epochs=2 if "run_eagerly" in way else 17)
        weights = [np.array(w) for w in model.get_weights()]
        state = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]
        return [*weights, *state], history.history

    plain, plain_history = trained()
    # Plain steps between recorded ones take one more compilation, another schedule one more.
    schedules = (3, 6) if way.keys() <= {"run_eagerly"} else (1,)
    monitors = (GradientMonitor(every_n_steps=n) for n in schedules)
    monitored, history = trained(*monitors)
    assert history == plain_history
    for a, b in zip(plain, monitored, strict=True):
        np.testing.assert_array_equal(a, b)


def test_checkpoints_logs_a_second_fit_and_a_history_that_is_read_at_any_time(tmp_path):
    model = compiled(small)
    monitor, lengths = GradientMonitor(tmp_path / "log", every_n_steps=1), []

    def read(*args, **kwargs):
        lengths.append(len(monitor.history))

    reader = keras.callbacks.LambdaCallback(on_train_batch_begin=read, on_train_batch_end=read)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "during.keras", save_freq=4)
    fit(model, monitor, reader, checkpoint)
    assert lengths == [n for step in range(STEPS) for n in (step, step + 1)]
    fit(model, monitor)
    with zipfile.ZipFile(tmp_path / "during.keras") as file:
        assert b"initkit" not in file.read("config.json")
    loaded = keras.saving.load_model(tmp_path / "during.keras")
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    logged = keras_initkit.read_log(tmp_path / "log")
    np.testing.assert_array_equal(logged.steps, np.arange(2 * STEPS))
    for statistic in STATISTICS:
        np.testing.assert_array_equal(logged[statistic], monitor.history[statistic])


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.newest
def test_an_interrupted_training_leaves_the_model_as_it_was(tmp_path):
    model, (x, y) = compiled(small, **QUICK), (part[:BATCH] for part in data())
    fit(model)
    plain, attributes = model.train_function, set(vars(model.optimizer))
    variables = list(map(id, model.optimizer.variables))
    for hook in ("on_train_batch_end", "on_epoch_end", "on_test_begin"):
        callbacks = [GradientMonitor(tmp_path), keras.callbacks.LambdaCallback(**{hook: interrupt})]
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=callbacks)
        assert model.train_function is plain
        wait_until(lambda: set(vars(model.optimizer)) == attributes)
        assert list(map(id, model.optimizer.variables)) == variables
    fit(model)
