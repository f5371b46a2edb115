"""Location and scale, as tables of cases."""

import re

import numpy as np
import pytest

from keras_initkit.layers.scaling import (
    Scaling,
    compute_scaling,
    describe_problems,
    find_rest,
)
from keras_initkit.statistics.moments import Moments

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def moments(*columns):
    return Moments((len(columns),)).update(np.array(columns, float).T)


def scaling(location, scale):
    nothing = np.zeros(np.shape(location), bool)
    return Scaling(np.array(location, float), np.array(scale, float), nothing, nothing)


@pytest.mark.parametrize(
    ("method", "feature_range", "location", "scale"),
    [
        ("standard", (0, 1), [2, 3], [1, 2]),
        ("min_max", (0, 1), [1, 1], [2, 4]),
        ("min_max", (-1, 1), [2, 3], [1, 2]),
        ("min_max", (2, 4), [-1, -3], [1, 2]),
    ],
)
def test_location_and_scale(method, feature_range, location, scale):
    found = compute_scaling(moments([1, 3], [1, 5]), "float32", method, feature_range)
    assert (found.location.tolist(), found.scale.tolist()) == (location, scale)


@pytest.mark.parametrize("method", ["standard", "min_max"])
@pytest.mark.parametrize(
    ("dtype", "values", "is_constant", "is_flat"),
    [
        ("float32", [0.1, 0.1], True, False),
        ("float32", [0.0, 1e-18], False, False),
        ("float32", [0.0, 1e-20], False, True),
        ("bfloat16", [0.0, 1e-20], False, True),
        ("float16", [0.0, 1e-4], False, True),
        ("float64", [0.0, 1e-20], False, False),
    ],
)
def test_features_without_a_scale(method, dtype, values, is_constant, is_flat):
    found = compute_scaling(moments(values), dtype, method)
    assert (found.is_constant.item(), found.is_flat.item()) == (is_constant, is_flat)
    assert (found.scale.item() == 0) == (is_constant or is_flat)


@pytest.mark.parametrize(
    ("dtype", "values", "received"),
    [
        ("float32", [1e30, -1e30], "means up to 3 and standard deviations up to 1e+30"),
        ("float16", [0.0, 600.0], "means up to 300 and standard deviations up to 300"),
        ("float16", [1e5, 1e5 + 1], "means up to 100000 and standard deviations up to 0.5"),
        ("float64", [1e200, -1e200], "means up to 3 and standard deviations up to inf"),
    ],
)
def test_a_range_that_the_type_cannot_hold(dtype, values, received):
    with np.errstate(all="ignore"):
        wide = moments(values, [3.0, 3.0])
    message = f"mean and a variance that {dtype} can hold. Received: {received}. Divide the data"
    with pytest.raises(ValueError, match=re.escape(message)):
        compute_scaling(wide, dtype)


def test_statistics_that_are_to_be_nan_are_in_range():
    found = compute_scaling(moments([1.0, np.nan], [1.0, 3.0]), "float32")
    np.testing.assert_array_equal(found.location, [np.nan, 2])
    np.testing.assert_array_equal(found.scale, [np.nan, 1])
    assert not list(describe_problems(found, "float32", "standard", str))


def names(chosen):
    return str(np.flatnonzero(chosen).tolist())


@pytest.mark.parametrize(
    ("values", "dtype", "beginnings"),
    [
        ([[1, 2], [3, 5]], "float32", []),
        ([[1, 2], [3, 3]], "float32", ["1 of 2 features are constant and come out as 0: [1]."]),
        ([[0, 1e-30], [0, 1]], "float32", ["1 of 2 features vary, but method='standard' finds n"]),
        ([[1e7, 1e7 + 2], [0, 1]], "float32", ["float32 can't resolve 1 of 2 features, whose me"]),
        ([[1e7, 1e7 + 2], [0, 1]], "float64", []),
        ([[1e17, 1e17 + 64], [0, 1]], "float64", []),
        ([[300, 301], [7, 7]], "bfloat16", ["1 of 2 features are constant", "bfloat16 can't res"]),
    ],
)
def test_problems(values, dtype, beginnings):
    found = compute_scaling(moments(*values), dtype)
    problems = list(describe_problems(found, dtype, "standard", names))
    assert len(problems) == len(beginnings)
    for problem, beginning in zip(problems, beginnings, strict=True):
        assert problem.startswith(beginning)


@pytest.mark.parametrize(
    ("location", "scale", "rounded", "rest"),
    [
        (1 / 3, 1.0, np.float32(1 / 3), None),  # an error of 1e-8 does not show
        (1e6 + 1 / 3, 1.0, np.float32(1e6 + 1 / 3), [0.0208]),
        (1e6 + 1 / 3, 0.0, np.float32(1e6 + 1 / 3), None),  # a constant stays exactly 0
        (np.nan, np.nan, np.nan, None),
    ],
)
def test_the_rest_of_a_mean(location, scale, rounded, rest):
    found = find_rest(scaling([location], [scale]), np.array([rounded], float))
    if rest is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_allclose(found, rest, atol=1e-4)
