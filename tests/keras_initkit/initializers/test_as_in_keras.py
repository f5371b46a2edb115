"""Classes with the name of one of Keras's: with Keras's arguments they are the same."""

import inspect
import json
import math
from typing import Any

import keras
import numpy as np
import pytest

from keras_initkit import initializers
from tests.keras_initkit.initializers.helpers import array

pytestmark = pytest.mark.backends("tensorflow", "torch")

BOTH = [name for name in initializers.__all__ if hasattr(keras.initializers, name)]
each_name = pytest.mark.parametrize("name", BOTH)

# For each of Keras's arguments, values in each of the forms that Keras takes.
VALUES: dict[str, list[Any]] = {
    "scale": [2, 0.5],
    "mode": ["fan_in", "fan_out", "fan_avg"],
    "distribution": ["uniform", "normal", "truncated_normal", "untruncated_normal", "Uniform"],
    "seed": [42, None, keras.random.SeedGenerator(7)],
    "input_axes": [[0], (0,)],
    "output_axes": [[1], (1,)],
    "gain": [2, 0.5, 3.0],
}


def both(name):
    """Return Keras's class of a name, and ours."""
    return getattr(keras.initializers, name), getattr(initializers, name)


def parameters(cls):
    """Return the arguments of a class, in their order."""
    return list(inspect.signature(cls).parameters.values())


def assert_draw_the_same(own, ours, is_fixed=True):
    """Compare two initializers: by their numbers, or by variances if their seeds are not given."""
    for shape in ((40, 50), (3, 3, 8, 20)):
        if type(own).__name__ == "Identity" and len(shape) > 2:
            continue
        expected, values = array(own(shape)), array(ours(shape))
        if is_fixed:
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
        assert values.var() == pytest.approx(expected.var(), rel=12 / math.sqrt(values.size))


def test_the_names_that_both_have():
    families = {"Glorot", "He", "Lecun"}
    of_variance = {family + kind for family in families for kind in ("Normal", "Uniform")}
    assert set(BOTH) == of_variance | {"Identity", "Orthogonal", "VarianceScaling"}


@each_name
def test_our_arguments_begin_with_those_of_keras_and_go_on_by_keyword(name):
    own, ours = (parameters(cls) for cls in both(name))
    for expected, parameter in zip(own, ours, strict=False):
        assert parameter.name == expected.name
        assert parameter.default == expected.default
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = ours[len(own) :]
    if "input_axes" not in {parameter.name for parameter in own}:  # as before Keras 3.15
        added = [parameter for parameter in added if not parameter.name.endswith("_axes")]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in added)
    assert len(ours) > len(own)


@each_name
def test_every_call_means_the_same(name):
    own, ours = both(name)
    names = [parameter.name for parameter in parameters(own)]
    # All by position, all by keyword, and each alone.
    values = [VALUES[argument][0] for argument in names]
    calls: list[Any] = [(values[:count], {}) for count in range(len(names) + 1)]
    calls = [call for call in calls if "input_axes" not in names[len(call[0]) - 1 : len(call[0])]]
    calls.append(([], dict(zip(names, values, strict=True))))
    calls += [
        ([], {argument: value})
        for argument in names
        if not argument.endswith("_axes")
        for value in VALUES[argument]
    ]
    for arguments, keywords in calls:
        given = {**dict(zip(names, arguments, strict=False)), **keywords}
        one, other = own(*arguments, **keywords), ours(*arguments, **keywords)
        for attribute in set(one.__dict__) & {"scale", "mode", "distribution", "gain"}:
            assert getattr(other, attribute) == pytest.approx(getattr(one, attribute))
        is_fixed = isinstance(given.get("seed"), int) or "seed" not in names
        assert_draw_the_same(one, other, is_fixed)


@each_name
def test_configs_that_keras_saved_load(name):
    own, ours = both(name)
    names = [parameter.name for parameter in parameters(own)]
    for index in range(max(map(len, VALUES.values()))):
        chosen = {argument: VALUES[argument][index % len(VALUES[argument])] for argument in names}
        saved = json.loads(json.dumps(own(**chosen).get_config()))
        assert saved.keys() == chosen.keys() or name == "Identity"  # which forgets its gain
        loaded = ours.from_config(saved)
        config = loaded.get_config()
        assert {argument: config[argument] for argument in saved} == saved
        seed = chosen.get("seed", 0)
        assert_draw_the_same(own.from_config(saved), loaded, is_fixed=seed is not None)
