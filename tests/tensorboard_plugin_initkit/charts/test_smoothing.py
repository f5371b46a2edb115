"""Lines are smoothed as TensorBoard smooths scalars."""

import numpy as np
import pytest

from tensorboard_plugin_initkit.charts.smoothing import smooth

pytestmark = pytest.mark.numpy_alone


def debiased_average(values, weight):
    """Value by value, as it is defined."""
    average, count, result = 0.0, 0, []
    for value in values:
        if not np.isfinite(value):
            result.append(np.nan)
            continue
        average, count = weight * average + (1 - weight) * value, count + 1
        result.append(average / (1 - weight**count))
    return np.array(result)


@pytest.fixture
def values(rng):
    values = rng.lognormal(sigma=5, size=(50, 4))
    values[3, 1], values[0, 2], values[10, 0], values[:, 3] = np.nan, np.inf, 0, np.nan
    return values


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("weight", [0, 0.3, 0.6, 0.99])
def test_it_is_a_debiased_moving_average_on_a_log_axis_of_logarithms(values, weight, log):
    result = smooth(values, weight, log)
    for i, line in enumerate(values.T):
        with np.errstate(divide="ignore"):
            average = debiased_average(np.log(line) if log else line, weight)
        np.testing.assert_allclose(result[:, i], np.exp(average) if log else average, rtol=1e-9)
        np.testing.assert_allclose(smooth(line, weight, log), result[:, i], rtol=1e-12)
    assert np.isnan(result[10, 0]) == log  # zero has no logarithm


@pytest.mark.parametrize("log", [False, True])
def test_a_constant_line_stays_as_it_is(log):
    line = smooth(np.full(100, 0.002), 0.8, log)
    np.testing.assert_allclose(line, 0.002, rtol=1e-12)
    assert (line == line[0]).all()  # an axis would show the rounding


def test_no_record_is_no_record():
    assert smooth(np.zeros((0, 3)), 0.5).shape == (0, 3)


@pytest.mark.parametrize("weight", [-0.1, 1, 1.5, np.nan])
def test_a_wrong_weight_is_named(weight):
    with pytest.raises(
        ValueError, match=f"at least 0 and less than 1. Received: smoothing={weight}"
    ):
        smooth([1.0], weight)
