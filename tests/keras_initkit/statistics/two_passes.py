"""Moments by two passes with exactly rounded sums, to hold others against."""

import math

import numpy as np

TOLERANCE = 1e-12


def exact_sums(columns):
    return np.array([math.fsum(column) for column in columns.T])


def two_pass(rows, weights=1.0):
    """Mean and weighted sum of squared deviations of each feature, with exactly rounded sums."""
    x = rows.reshape(len(rows), -1).astype(np.float64)
    w = np.broadcast_to(weights, rows.shape).reshape(x.shape)
    offsets = exact_sums(w * (x - x[0])) / exact_sums(w)
    squares = exact_sums(w * ((x - x[0]) - offsets) ** 2)
    return (x[0] + offsets).reshape(rows.shape[1:]), squares.reshape(rows.shape[1:])


def check(moments, rows):
    mean, squares = two_pass(rows)
    assert moments.rows == len(rows)
    assert np.all(moments.count == len(rows))
    spread = np.sqrt(squares / len(rows))
    assert np.all(np.abs(moments.mean - mean) <= TOLERANCE * (np.abs(mean) + spread))
    np.testing.assert_allclose(moments.m2, squares, rtol=TOLERANCE, atol=0)
    np.testing.assert_allclose(moments.variance, squares / len(rows), rtol=TOLERANCE, atol=0)
    np.testing.assert_array_equal(moments.min, rows.min(axis=0).astype(np.float64))
    np.testing.assert_array_equal(moments.max, rows.max(axis=0).astype(np.float64))
