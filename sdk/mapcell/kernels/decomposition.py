"""Determinants, inverses and factors of matrices (the last two axes), through NumPy's LAPACK."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

from .half import in_float32
from .promotion import Array, settled

P = ParamSpec("P")
R = TypeVar("R")


def _solvable(kernel: Callable[P, R]) -> Callable[P, R]:
    """Turns NumPy's own error into RuntimeError for a singular or unsuited matrix, into ValueError for a shape."""

    @wraps(kernel)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return kernel(*args, **kwargs)
        except np.linalg.LinAlgError as error:
            kind = ValueError if "dimension" in str(error) or "square" in str(error) else RuntimeError
            raise kind(f"{kernel.__name__}: {error}") from error

    return checked


@in_float32
@_solvable
def det(a: Array) -> Array:
    """The determinants."""
    return settled(np.linalg.det(a))


@in_float32
@_solvable
def inverse(a: Array) -> Array:
    """The inverses. RuntimeError when one is singular."""
    return settled(np.linalg.inv(a))


@in_float32
@_solvable
def pinv(a: Array) -> Array:
    """The pseudo-inverses."""
    return settled(np.linalg.pinv(a))


@in_float32
@_solvable
def matrix_power(a: Array, n: int) -> Array:
    """a to the integer power n."""
    return settled(np.linalg.matrix_power(a, n))


@in_float32
@_solvable
def cholesky(a: Array, upper: bool = False) -> Array:
    """The triangular factors. RuntimeError when a matrix is not positive definite."""
    lower = np.linalg.cholesky(a)
    return settled(lower.swapaxes(-1, -2) if upper else lower)


@in_float32
@_solvable
def qr(a: Array, mode: str = "reduced") -> tuple[Array, Array]:
    """An orthogonal and an upper triangular factor."""
    q, r = np.linalg.qr(a, "complete" if mode == "complete" else "reduced")
    return q, r


@in_float32
@_solvable
def svd(a: Array, full_matrices: bool = False) -> tuple[Array, Array, Array]:
    """s, u and v with a = u @ diag(s) @ v.T."""
    u, s, vt = np.linalg.svd(a, full_matrices)
    return s, u, vt.swapaxes(-1, -2)
