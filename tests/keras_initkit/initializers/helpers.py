"""The initializers that all of Keras's contract is tested with, and what tests of them share."""

import math
from typing import Any

import keras
import numpy as np
import pytest

from keras_initkit import initializers as own
from keras_initkit.anatomy.weights import weights_of
from keras_initkit.connectivity.layer_fans import has_rule, view_of_weight

# Each with a shape that it can be called with.
EACH: list[tuple[Any, tuple[int, ...]]] = [
    (own.HeNormal(3, gain="tanh"), (6, 4)),
    (own.HeUniform(3, negative_slope=0.25, mode="fan_geo_avg"), (3, 6, 4)),
    (own.LecunNormal(3), (6, 4)),
    (own.LecunUniform(3, [0], [2, 1], gain=lambda z: 2 * z), (6, 2, 4)),
    (own.VarianceScaling(2.0, "fan_out", "untruncated_normal", 3, gain=0.5), (6, 4)),
    (own.XavierNormal(3, gain="relu", negative_slope=0.1), (6, 4)),
    (own.XavierUniform(3), (6, 4)),
    (own.KaimingNormal(0.1, seed=3), (6, 4)),
    (own.KaimingUniform(mode="fan_out", nonlinearity="tanh", seed=3), (3, 6, 4)),
    (own.Siren(10, seed=3), (6, 4)),
    (own.Siren(first=True, seed=3), (6, 4)),
    (own.Orthogonal("tanh", 3), (6, 4)),
    (own.Orthogonal(gain=lambda z: 2 * z, seed=3, scaled=True), (3, 2, 9)),
    (own.DeltaOrthogonal(gain=2, seed=3), (3, 4, 4, 6)),
    (own.Sparse(0.5, gain="relu", seed=3), (6, 4)),
    (own.Spectral(gain="relu", seed=3), (6, 4)),
    (own.Dirac(0.5, groups=2), (3, 2, 4)),
    (own.Identity(0.5, gates=2), (3, 8)),
    (own.ZerO(gain=0.5), (3, 3, 6)),
    (own.PriorBias(0.01), (4,)),
    (own.PriorBias([1, 2, 1], "softmax"), (3,)),
    (own.ChronoBias(2, 100, seed=3), (8,)),
    (own.ChronoBias(2, 100, "gru", seed=3), (2, 6)),
    (own.ForgetGateBias(2, 2.5), (8,)),
    (own.ForgetGateBias(2, cell="gru"), (6,)),
]
if keras.config.backend() == "jax":  # which compiles each anew: one of each kind
    _KINDS = (own.HeNormal, own.Orthogonal, own.Dirac, own.ChronoBias)
    EACH = [pair for pair in EACH if isinstance(pair[0], _KINDS)]
NAMES = [f"{i}-{type(initializer).__name__}" for i, (initializer, _) in enumerate(EACH)]


def array(tensor: Any) -> np.ndarray:
    """Return a tensor or a variable, of any precision, as float64."""
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")).astype(np.float64)


def assert_same(some: Any, others: Any) -> None:
    """Check that arrays are the same, one by one."""
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)


def built(layer: Any, *shape: int | None) -> Any:
    """Return a layer, built for inputs of a shape without the batch."""
    layer.build((None, *shape))
    return layer


def attention_of(layer: Any, *shape: int) -> Any:
    """Return an attention layer, built to attend to its own inputs."""
    layer.build((None, *shape), (None, *shape))
    return layer


def draw(layer: Any, name: str, initializer: Any) -> tuple[Any, np.ndarray]:
    """Draw a weight of a layer as what it is; return its view and the matrices that it holds."""
    [weight] = [one for one in weights_of(layer, has_rule) if one.variable.path.endswith(name)]
    view: Any = view_of_weight(weight.owner, weight.variable)
    values = initializer.draw(view)
    assert tuple(values.shape) == tuple(weight.variable.shape)
    weight.variable.assign(values)
    return view, array(view.to_maps(values))


def assert_variance(values: np.ndarray, variance: float) -> None:
    """Check mean and variance to five standard errors, with a kurtosis of at most 3."""
    assert abs(values.mean()) <= 5 * math.sqrt(variance / values.size)
    assert values.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / values.size))


def assert_orthonormal(matrices: Any, scale: float = 1.0, atol: float = 5e-6) -> None:
    """Check the products of the columns of each matrix; of the rows, if there are fewer."""
    matrices = np.asarray(matrices, np.float64)
    if matrices.shape[-2] < matrices.shape[-1]:
        matrices = np.swapaxes(matrices, -1, -2)
    gram = np.swapaxes(matrices, -1, -2) @ matrices / scale**2
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(gram.shape[-1]), gram.shape), atol=atol)
