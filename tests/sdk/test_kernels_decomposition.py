"""Determinants, inverses and factors of matrices."""

import numpy as np
import pytest

from mapcell.kernels import decomposition

A = np.array([[[2.0, 1.0], [1.0, 3.0]], [[4.0, -1.0], [-1.0, 5.0]]], np.float32)


def test_factors_multiply_to_the_matrix():
    """Of every matrix of a batch, in its type."""
    lower, upper = decomposition.cholesky(A), decomposition.cholesky(A, True)
    q, r = decomposition.qr(A)
    s, u, v = decomposition.svd(A)
    for product in (
        lower @ lower.swapaxes(1, 2),
        upper.swapaxes(1, 2) @ upper,
        q @ r,
        (u * s[:, None]) @ v.swapaxes(1, 2),
    ):
        assert product.dtype == np.float32
        np.testing.assert_allclose(product, A, rtol=1e-5, atol=1e-5)


def test_inverses_and_powers():
    """A times its inverse is the identity; the pseudo-inverse of a regular matrix is the inverse."""
    np.testing.assert_allclose(decomposition.det(A), [5, 19], rtol=1e-5)
    np.testing.assert_allclose(A @ decomposition.inverse(A), [np.eye(2)] * 2, atol=1e-6)
    np.testing.assert_allclose(decomposition.pinv(A), decomposition.inverse(A), rtol=1e-4)
    np.testing.assert_allclose(decomposition.matrix_power(A, 3), A @ A @ A, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: decomposition.inverse(np.zeros((2, 2), np.float32)), RuntimeError),
        (lambda: decomposition.cholesky(-np.eye(2, dtype=np.float32)), RuntimeError),
        (lambda: decomposition.det(np.ones((2, 3), np.float32)), ValueError),
        (lambda: decomposition.inverse(np.ones(3, np.float32)), ValueError),
    ],
)
def test_errors(call, error):
    """Singular or indefinite matrices are a RuntimeError, other shapes a ValueError: never NumPy's own."""
    with pytest.raises(error):
        call()
