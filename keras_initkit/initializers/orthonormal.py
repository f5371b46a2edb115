"""Random orthonormal matrices, many at once."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Columns that are made orthonormal together. From 128 on, OpenBLAS factors matrices of this size
# with several threads, which wait for each other: 240 ms instead of .7.
_PANEL = 96
_PASSES = 5  # two do, but for matrices that are singular up to rounding


def orthonormal_columns(gaussian: Array) -> Array:
    """Make orthonormal matrices of Gaussian ones.

    The result is, up to rounding, the Q of the decomposition A = Q R with a positive diagonal
    in R: of independent normal numbers it is uniformly distributed over all orthonormal matrices.
    Gram and Schmidt's method works on panels of columns: nearly all of the work is products of
    float32 matrices.

    Args:
        gaussian: Float32 array (maps, rows, columns).

    Returns:
        Float32 array of the same shape. The columns of each matrix are orthonormal; if there are
        more columns than rows, the rows.
    """
    gaussian = np.asarray(gaussian, np.float32)
    if gaussian.shape[1] < gaussian.shape[2]:
        return np.swapaxes(orthonormal_columns(np.swapaxes(gaussian, 1, 2)), 1, 2)
    result = np.empty(gaussian.shape, np.float32)
    columns = gaussian.shape[2]
    for start in range(0, columns, _PANEL):
        panel = slice(start, min(start + _PANEL, columns))
        result[:, :, panel] = _orthonormal_panel(gaussian[:, :, panel], result[:, :, :start])
    return result


def _orthonormal_panel(panel: Array, earlier: Array) -> Array:
    """Make columns orthonormal, among themselves and to earlier ones."""
    _, rows, width = panel.shape
    free = rows - earlier.shape[2]
    # Of a Gaussian panel it is known beforehand that it is far from singular, where it is thin;
    # and what rounding leaves along the earlier columns grows as rows/free from panel to panel.
    once = free >= rows / 8 and free >= 4 * width
    for _ in range(_PASSES):
        if earlier.shape[2]:
            panel = panel - earlier @ (np.swapaxes(earlier, 1, 2) @ panel)
        wide = panel.astype(np.float64)
        gram = np.swapaxes(wide, 1, 2) @ wide
        try:
            # Upper triangular: makes the columns orthonormal.
            root = np.swapaxes(np.linalg.inv(np.linalg.cholesky(gram)), 1, 2)
        except np.linalg.LinAlgError:
            once, panel = False, _q_of_qr(wide).astype(np.float32)
            continue
        if once:
            return panel @ root.astype(np.float32)
        panel = (wide @ root).astype(np.float32)
        if np.abs(gram - np.eye(width)).max(initial=0.0) < 0.1:
            break
    return panel


def _q_of_qr(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    q, r = np.linalg.qr(matrices)
    diagonal = np.diagonal(r, axis1=1, axis2=2)
    return np.where(diagonal < 0, -1.0, 1.0)[:, None, :] * q
