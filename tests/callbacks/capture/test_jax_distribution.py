"""The monitor under `keras.distribution.DataParallel`, on two devices of this machine."""

import warnings

import jax
import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.record.statistics import STATISTICS
from tests.callbacks.training import STEPS, compiled, fit, mlp, varied

pytestmark = pytest.mark.backends("jax")


@pytest.fixture
def two_devices():
    assert len(jax.devices()) == 2
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=jax.devices()))
    yield
    keras.distribution.set_distribution(None)


def trained(*callbacks, make=mlp, optimizer=None):
    model = compiled(make, optimizer or keras.optimizers.SGD(0.1, momentum=0.9))
    fit(model, *callbacks, epochs=2)
    return model


@pytest.fixture
def alone():
    """What is recorded on one device."""
    monitor = GradientMonitor(every_n_steps=1)
    trained(monitor)
    return monitor.history


def test_two_devices_record_what_one_does_with_the_global_batch(alone, two_devices):
    every, third = GradientMonitor(every_n_steps=1), GradientMonitor(every_n_steps=3)
    model = trained(every, third)
    assert len(model.weights[0].value.sharding.device_set) == 2
    np.testing.assert_array_equal(every.history.steps, np.arange(2 * STEPS))
    np.testing.assert_array_equal(third.history.steps, np.arange(0, 2 * STEPS, 3))
    for statistic in STATISTICS:
        for history, want in ((every.history, alone), (third.history, alone)):
            rows = np.isin(want.steps, history.steps)
            np.testing.assert_allclose(
                history[statistic], want[statistic][rows], rtol=1e-5, atol=1e-9, err_msg=statistic
            )


@pytest.mark.usefixtures("usual_emitters")
def test_training_on_two_devices_is_bit_identical_with_and_without_the_monitor(two_devices):
    def run(*callbacks):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2), 2.0**10)
        model = trained(*callbacks, make=varied, optimizer=optimizer)
        state = [*model.weights, *model.optimizer.variables]
        return [keras.ops.convert_to_numpy(variable) for variable in state]

    for a, b in zip(run(), run(GradientMonitor(every_n_steps=5)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_files_saved_during_training_on_two_devices_load_without_warnings(tmp_path, two_devices):
    path = tmp_path / "during.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_freq=2 * STEPS - 1)
    model = trained(GradientMonitor(every_n_steps=1), checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.saving.load_model(path)
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    assert int(loaded.optimizer.iterations) == 2 * STEPS - 1
