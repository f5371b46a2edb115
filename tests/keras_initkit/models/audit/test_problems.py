"""The initializers that the audit suggests, by the way to an activation."""

import functools

import keras
import pytest

from keras_initkit.anatomy.following import Following
from keras_initkit.models.audit.parts import variance_before
from keras_initkit.models.audit.problems import suggest_initializer

pytestmark = pytest.mark.backends("tensorflow", "torch")

functions = keras.activations
LEAKY = functools.partial(functions.leaky_relu, negative_slope=0.3)
HALF = functools.partial(functions.relu, negative_slope=0.5, max_value=None, threshold=0.0)


@pytest.mark.parametrize(
    ("name", "function", "variance", "initializer"),
    [
        ("relu", functions.relu, 2.0, "HeNormal()"),
        ("relu(negative_slope=0.5)", HALF, 2 / 1.25, "HeNormal(negative_slope=0.5)"),
        ("leaky_relu(0.3)", LEAKY, 2 / 1.09, "HeNormal(negative_slope=0.3)"),
        ("tanh", functions.tanh, 1.592537**2, "LecunNormal(gain='tanh')"),
        ("relu(max_value=6)", functions.relu6, 2.0, "HeNormal()"),
        ("selu", functions.selu, 1.0, "LecunNormal()"),
        ("softmax", functions.softmax, 1.0, "LecunNormal()"),
        ("<lambda>", lambda x: keras.ops.relu(2.0 * x), 0.5, "LecunNormal(gain=0.7071)"),
        ("<lambda>", lambda x: 2.0 * x, 0.25, "LecunNormal(gain=0.5)"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_an_activation(name, function, variance, initializer):
    # Not all functions are computed in float64.
    assert variance_before(function) == pytest.approx(variance, rel=1e-5)
    assert suggest_initializer(Following(name, function)) == initializer
    # At the end, for a gate, or without an activation that is known, signals keep their variance.
    last, gate = Following(name, function, is_last=True), Following(name, function, is_gate=True)
    for following in (last, gate, Following("linear"), Following()):
        assert suggest_initializer(following) == "LecunNormal()"
