import numpy as np
import pytest

from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tensorboard_plugin_initkit.record.signal import is_bias, shows_units, signal_of
from tests.tensorboard_plugin_initkit.record.made import ones

pytestmark = pytest.mark.numpy_alone


def test_a_bias_is_known_by_its_name():
    paths = ["a/bias", "a/b/beta", "bias", "bias/kernel", "gamma"]
    assert [is_bias(path) for path in paths] == [True, True, True, False, False]


def test_units_are_shown_by_biases_and_by_kernels_whose_dead_units_are_recorded():
    nan = np.nan
    dead = np.array([[nan, nan, nan, 0.5, nan], [nan, nan, nan, nan, nan]])
    paths = ["a/kernel", "a/bias", "b/beta", "c/kernel", "d/gamma"]
    assert shows_units(paths, dead).tolist() == [False, True, True, True, False]
    assert not shows_units(paths, dead[1:])[3]


def test_the_signal_is_the_rms_of_the_elements_that_are_not_zero(rng):
    gradient = rng.normal(size=64)
    gradient[:48] = 0
    rms = np.sqrt(np.mean(np.square(gradient)))
    expected = np.sqrt(np.mean(np.square(gradient[48:])))
    np.testing.assert_allclose(signal_of(rms, 0.75), expected)
    np.testing.assert_array_equal(
        signal_of(np.array([0.0, 2.0, np.nan]), [1, np.nan, 0]), [0, 2, np.nan]
    )


def test_the_signal_of_a_history_is_that_of_the_biases_or_of_kernels_without():
    variables = [("a/kernel", (2, 2)), ("a/bias", (2,)), ("b/kernel", (2, 2)), ("c/scale", (2,))]
    layout = Layout(tuple(Variable(path, path[0], shape) for path, shape in variables))
    nan = np.nan
    values = {
        "norm": [[100, 2, 6, 1], [100, nan, 6, 1]],
        "nonfinite": [[0, 0, 0, 0], [0, nan, 0, 0]],
        "zeros": [[0, 0.5, 0.75, 0], [0, nan, 1, 0]],
        "dead_units": [[nan, 0, 0, nan], [nan, nan, 0, nan]],
    }
    history = GradientHistory()
    history.append(ones(layout, [0, 1], **values))
    np.testing.assert_allclose(history["signal"], [[2, 6, nan], [nan, 0, nan]])
    expected = [[nan, 2, 6, nan], [nan, nan, 0, nan]]
    np.testing.assert_allclose(history.per_variable("signal"), expected)
