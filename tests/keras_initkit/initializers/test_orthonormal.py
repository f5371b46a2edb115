"""Orthonormal matrices, against a QR decomposition."""

import math

import numpy as np
import pytest

from keras_initkit.initializers.orthonormal import orthonormal_columns
from tests.keras_initkit.initializers.helpers import assert_orthonormal

pytestmark = pytest.mark.numpy_alone


@pytest.mark.parametrize(
    "shape",
    [(500, 1, 1), (500, 3, 3), (2, 130, 130), (1, 100, 400), (7, 9, 1), (0, 3, 2), (2, 0, 3)],
    ids=str,
)
def test_orthonormal_matrices_are_those_of_a_qr_decomposition(rng, shape):
    gaussian = rng.standard_normal(shape, dtype=np.float32)
    result = orthonormal_columns(gaussian)
    assert result.dtype == np.float32
    assert result.shape == shape
    assert_orthonormal(result, atol=2e-6)
    if 0 in shape:
        return
    if shape[1] < shape[2]:
        gaussian, result = np.swapaxes(gaussian, 1, 2), np.swapaxes(result, 1, 2)
    q, r = np.linalg.qr(gaussian.astype(np.float64))
    diagonal = np.diagonal(r, axis1=1, axis2=2)
    q *= np.sign(diagonal)[:, None]
    # The decomposition itself is known to the rounding of the data over the smallest diagonal.
    np.testing.assert_allclose(result, q, atol=2e-5 / min(1.0, np.abs(diagonal).min()))


def test_matrices_that_are_singular_still_become_orthonormal():
    gaussian = np.random.default_rng(0).standard_normal((2, 40, 40), dtype=np.float32)
    gaussian[0, :, 7] = gaussian[0, :, 3]
    gaussian[1] = 0
    assert_orthonormal(orthonormal_columns(gaussian))
    almost = gaussian[:1].copy()
    almost[0, :, 7] += 1e-6 * almost[0, :, 8]
    assert_orthonormal(orthonormal_columns(almost))
    # Tall ones, which are taken to be regular until they prove not to be.
    gaussian[0, :, 1] = 0
    assert_orthonormal(orthonormal_columns(gaussian[:1, :, :4]))


def test_orthonormal_matrices_are_uniformly_distributed(rng):
    q = orthonormal_columns(rng.standard_normal((20000, 3, 3), dtype=np.float32)).astype(float)
    error = 5 / math.sqrt(len(q))
    # Moments of Haar's measure: of an element, a trace, and a determinant.
    np.testing.assert_allclose(q.mean(0), 0, atol=error)
    np.testing.assert_allclose((q**2).mean(0), 1 / 3, atol=error)
    np.testing.assert_allclose((q**4).mean(0), 1 / 5, atol=error)
    traces = np.trace(q, axis1=1, axis2=2)
    assert traces.mean() == pytest.approx(0, abs=error)
    assert (traces**2).mean() == pytest.approx(1, abs=2 * error)
    assert np.linalg.det(q).mean() == pytest.approx(0, abs=error)
