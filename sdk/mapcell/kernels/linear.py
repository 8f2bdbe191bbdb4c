"""Products of matrices and vectors. A weight reaches BLAS as a transposed view, never as a copy.

All inputs of one call have one dtype (TypeError otherwise); low precision is computed in Float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .half import in_float32
from .promotion import Array, settled


def same_dtype(who: str, *arrays: Array) -> None:
    """TypeError unless all arrays have one dtype."""
    if len({array.dtype for array in arrays}) > 1:
        given = ", ".join(str(array.dtype) for array in arrays)
        raise TypeError(f"{who}: all inputs need the same dtype, but they are {given}")


def dense(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x @ weight.T + bias: x (..., in), weight (out, in) or (in,), bias (out,). ValueError if they do not fit."""
    same_dtype("dense", x, weight, *(() if bias is None else (bias,)))
    if x.ndim == 0 or weight.ndim not in (1, 2) or x.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"dense: the last axes of the input {x.shape} and of the weight {weight.shape} have to be equally long"
        )
    return _dense(x, weight, bias)


@in_float32
def _dense(x: Array, weight: Array, bias: Array | None) -> Array:
    if weight.ndim == 1:
        return settled(x @ weight if bias is None else x @ weight + bias)
    # One large product instead of one per leading index.
    rows = x.reshape(-1, x.shape[-1]) if x.ndim > 2 else x
    out = np.matmul(rows, weight.T)
    if bias is not None:
        out += bias
    return settled(out.reshape(*x.shape[:-1], weight.shape[0]) if x.ndim > 2 else out)


def batch_matmul(a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False) -> Array:
    """(..., n, k) @ (..., k, m), either one read transposed. ValueError if k differs, TypeError if the dtypes do."""
    same_dtype("matmul", a, b)
    left = a.swapaxes(-1, -2) if transpose_a else a
    right = b.swapaxes(-1, -2) if transpose_b else b
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(f"matmul: {left.shape} @ {right.shape} does not fit: {left.shape[-1]} != {right.shape[-2]}")
    return _matmul(left, right)


@in_float32
def _matmul(a: Array, b: Array) -> Array:
    return settled(np.matmul(a, b))


@in_float32
def einsum(equation: str, *operands: Array) -> Array:
    """Einstein's summation, the cheapest order of contraction first."""
    return settled(np.einsum(equation, *operands, optimize="greedy"))


@in_float32
def tensordot(a: Array, b: Array, axes: int | Sequence[Any]) -> Array:
    """The sum of products over `axes`: a number of axes, or the axes of `a` and those of `b`."""
    return settled(np.tensordot(a, b, axes=axes))  # type: ignore[arg-type]


@in_float32
def outer(a: Array, b: Array) -> Array:
    """The products of each element of `a` with each of `b`, both flattened."""
    return settled(np.multiply.outer(a.reshape(-1), b.reshape(-1)))


@in_float32
def addmm(x: Array, a: Array, b: Array, beta: float, alpha: float) -> Array:
    """beta * x + alpha * (a @ b)."""
    out = np.matmul(a, b)
    if alpha != 1:
        out *= np.asarray(alpha, out.dtype)
    out += x if beta == 1 else x * np.asarray(beta, x.dtype)
    return settled(out)


@in_float32
def bidense(x: Array, y: Array, weight: Array, bias: Array | None = None) -> Array:
    """out[..., o] = x @ weight[o] @ y + bias[o] for x (..., n), y (..., m), weight (o, n, m)."""
    rows, others = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    halfway = np.matmul(rows, weight)
    out = np.einsum("obm,bm->bo", halfway, others)
    if bias is not None:
        out += bias
    return settled(out.reshape(*x.shape[:-1], weight.shape[0]))


def cross(a: Array, b: Array, axis: int | None = None) -> Array:
    """The cross product along `axis`, by default the first one of length 3. ValueError when there is none."""
    if axis is None:
        axis = next((i for i, n in enumerate(a.shape) if n == 3), None)
    if axis is None or a.shape[axis] != 3 or b.shape[axis] != 3:
        raise ValueError(f"cross: the axis has to have 3 elements in both inputs, {a.shape} and {b.shape}")
    return _cross(a, b, axis)


@in_float32
def _cross(a: Array, b: Array, axis: int) -> Array:
    return settled(np.cross(a, b, axis=axis))


@in_float32
def cosine_similarity(a: Array, b: Array, axis: int = 1, eps: float = 1e-8) -> Array:
    """The cosine of the angle between `a` and `b` along `axis`; each norm counts as at least `eps`."""
    dot = np.sum(a * b, axis=axis)
    norms = [np.maximum(np.sqrt(np.sum(v * v, axis=axis)), np.asarray(eps, v.dtype)) for v in (a, b)]
    return settled(dot / (norms[0] * norms[1]))


@in_float32
def cdist(a: Array, b: Array, p: float = 2.0) -> Array:
    """The p-norms of the differences between each row of `a` (..., n, m) and each of `b` (..., k, m): (..., n, k)."""
    difference = np.abs(a[..., :, None, :] - b[..., None, :, :])
    if p == 0:
        return settled(np.count_nonzero(difference, axis=-1)).astype(a.dtype)
    return settled(np.linalg.norm(difference, ord=p, axis=-1))


@in_float32
def batch_dot(a: Array, b: Array, axis_a: int, axis_b: int) -> Array:
    """For each element of the first axes the sum of products over `axis_a` and `axis_b`, (N, 1) at least."""
    left = np.moveaxis(a, axis_a, -1)
    right = np.moveaxis(b, axis_b, 1)
    rows = left.reshape(left.shape[0], -1, left.shape[-1])
    out = np.matmul(rows, right.reshape(right.shape[0], right.shape[1], -1))
    shape = (*left.shape[:-1], *right.shape[2:])
    return settled(out.reshape(shape if len(shape) > 1 else (*shape, 1)))
