"""Weights with a given largest singular value."""

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.initializers.base import GainedInitializer

# A matrix whose smaller side is longer is left to Lanczos's method.
_LARGEST_GRAM = 512
# Of the residual, relative to the singular value; the value's own error is of its square.
_TOLERANCE = 3e-5


@keras.saving.register_keras_serializable(package="keras_initkit")
class Spectral(GainedInitializer):
    """Draws normal weights with the largest singular value gain · sqrt(o/fan_in), for o units.

    Then the features of a layer, and the change of them by a step, are of the order of 1 at any
    width. Every gate, head, group and depthwise channel has that singular value where the layer
    is known, as in `Orthogonal`. The value is met to five digits.

    An embedding has a fan_in of 1, and each of its inputs chooses a vector: where the layer is
    known the longest of these has the length gain · sqrt(o). A singular value belongs to
    sums of vectors, which no input makes, and would leave those of a large vocabulary short.

    Examples:
    >>> layer = keras.layers.Dense(64, "relu", kernel_initializer=Spectral("relu", seed=0))

    Args:
        gain: As in `VarianceScaling`: a positive number, or an activation.
        seed: As in `VarianceScaling`.

    Raises:
        ValueError: As `Orthogonal`.

    Reference:
        Yang, Simon & Bernstein, 2023, A Spectral Condition for Feature Learning, condition 1.
    """

    def _maps(self, view: KernelView) -> Any:
        _, weights, units = view.matrix_shape
        values = self._normal(view.matrix_shape)
        wanted = self._factor * math.sqrt(units / max(1.0, view.fans.fan_in))
        norms: NDArray[Any]
        if view.fans.fan_in <= 1 < weights:  # one-hot inputs: the longest row
            norms = np.sqrt(np.einsum("mio,mio->mi", values, values).max(axis=1))
        else:
            norms = largest_singular_values(values)
        return values * (wanted / norms).astype(np.float32)[:, None, None]


def largest_singular_values(matrices: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the largest singular value of each matrix of a random array (maps, rows, columns)."""
    if matrices.shape[1] < matrices.shape[2]:
        matrices = np.swapaxes(matrices, 1, 2)
    if matrices.shape[2] > _LARGEST_GRAM:
        return np.array([_lanczos(matrix) for matrix in matrices])
    wide = matrices.astype(np.float64)
    return np.sqrt(np.linalg.eigvalsh(np.swapaxes(wide, 1, 2) @ wide)[:, -1])


def _lanczos(matrix: NDArray[np.float32]) -> float:
    """Return the largest singular value, from a growing space of products with the matrix."""
    columns = matrix.shape[1]
    basis = np.zeros((columns, columns), np.float32)  # rows that are not reached take no memory
    tridiagonal = np.zeros((columns, columns))
    # The first row has a part along every direction, as any random vector has.
    basis[0] = matrix[0] / np.linalg.norm(matrix[0])
    value = 0.0
    for step in range(columns):
        product = (matrix @ basis[step]) @ matrix
        tridiagonal[step, step] = product @ basis[step]
        for _ in range(2):
            product = product - (basis[: step + 1] @ product) @ basis[: step + 1]
        length = float(np.linalg.norm(product))
        if step % 8 == 7 or step == columns - 1:
            values, vectors = np.linalg.eigh(tridiagonal[: step + 1, : step + 1])
            value = float(values[-1])
            if length * abs(vectors[-1, -1]) <= _TOLERANCE * value:
                break
        if step + 1 < columns:
            tridiagonal[step, step + 1] = tridiagonal[step + 1, step] = length
            basis[step + 1] = product / length
    return math.sqrt(value)
