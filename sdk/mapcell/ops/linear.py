"""Products of matrices and vectors, and what solves systems of them.

All Tensors of one call have one dtype (TypeError otherwise). ValueError when shapes do not fit.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.tensor import Tensor, wrap
from ..kernels import arithmetic, decomposition, linear
from ..kernels.promotion import Array
from ._call import array, arrays, call, call_all, maybe, wrapped


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product over the last two axes; the others broadcast, vectors are allowed."""
    return call_all(arithmetic.matmul, (input, other))


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    return call_all(linear.batch_matmul, (input, mat2))


def bmm(input_x: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices."""
    return call_all(linear.batch_matmul, (input_x, mat2))


def mv(mat: Tensor, vec: Tensor) -> Tensor:
    """A matrix times a vector."""
    return matmul(mat, vec)


def dot(input: Tensor, other: Tensor) -> Tensor:
    """The sums of products over the last axis of `input` and the last but one of `other`, both of at least 2 axes."""
    a, b = array(input, "dot"), array(other, "dot")
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError(f"dot: both inputs need at least 2 axes, but they are {a.shape} and {b.shape}")
    return wrap(linear.tensordot(a, b, ((-1,), (-2,))))


def inner(input: Tensor, other: Tensor) -> Tensor:
    """The sums of products over the last axes of both."""
    return call_all(linear.tensordot, (input, other), ((-1,), (-1,)))


def dense(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias for weight (out, in) and bias (out,)."""
    return wrap(linear.dense(array(input, "dense"), array(weight, "dense"), maybe(bias, "dense")))


def bidense(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """out[..., o] = input1 @ weight[o] @ input2 + bias[o] for weight (out, in1, in2)."""
    x, y, w = arrays((input1, input2, weight), "bidense")
    return wrap(linear.bidense(x, y, w, maybe(bias, "bidense")))


def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein's summation: einsum("ij,jk->ik", a, b)."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands
    return wrap(linear.einsum(equation, *arrays(tuple(given), "einsum")))


def tensor_dot(x1: Tensor, x2: Tensor, axes: int | Sequence[Any]) -> Tensor:
    """The sums of products over `axes`: a number of axes, or the axes of `x1` and those of `x2`."""
    return call_all(linear.tensordot, (x1, x2), axes)


def batch_dot(x1: Tensor, x2: Tensor, axes: int | tuple[int, int] | None = None) -> Tensor:
    """For each element of the first axis the sum of products over one axis of each, the last and the last but one."""
    a, b = array(x1, "batch_dot"), array(x2, "batch_dot")
    if axes is None:
        return wrap(linear.batch_dot(a, b, a.ndim - 1, max(b.ndim - 2, 1)))
    first, second = (axes, axes) if isinstance(axes, int) else axes
    return wrap(linear.batch_dot(a, b, first, second))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The products of each element of one vector with each of another."""
    return call_all(linear.outer, (input, vec2))


ger = outer


def kron(input: Tensor, other: Tensor) -> Tensor:
    """Kronecker's product."""
    return wrap(np.kron(array(input, "kron"), array(other, "kron")))


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    return call_all(linear.addmm, (input, mat1, mat2), beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec)."""
    return call_all(linear.addmm, (input, mat, vec), beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2)."""
    return call_all(linear.addmm, (input, batch1, batch2), beta, alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * the sum of all batch1[i] @ batch2[i]."""
    summed = linear.tensordot(array(batch1, "addbmm"), array(batch2, "addbmm"), ((0, 2), (0, 1)))
    return input * beta + wrap(summed) * alpha


def addr(x: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * x + alpha * outer(vec1, vec2)."""
    return x * beta + outer(vec1, vec2) * alpha


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product along `dim`, by default the first axis of 3 elements."""
    return call_all(linear.cross, (input, other), dim)


def vecdot(x: Tensor, y: Tensor, *, axis: int = -1) -> Tensor:
    """The sums of products along `axis`."""
    return (x * y).sum(axis)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """The p-norms of the differences between all rows of `x1` and all of `x2`."""
    return call_all(linear.cdist, (x1, x2), p)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-08) -> Tensor:
    """The cosine of the angle between both along `dim`."""
    return call_all(linear.cosine_similarity, (x1, x2), dim, eps)


def det(input: Tensor) -> Tensor:
    """The determinants of matrices."""
    return call(decomposition.det, input)


matrix_determinant = det


def inverse(input: Tensor) -> Tensor:
    """The inverses of matrices. RuntimeError when one is singular."""
    return call(decomposition.inverse, input)


matrix_inverse = inverse


def pinv(x: Tensor) -> Tensor:
    """The pseudo-inverses of matrices."""
    return call(decomposition.pinv, x)


def matrix_power(input: Tensor, n: int) -> Tensor:
    """Matrices to the integer power `n`."""
    return call(decomposition.matrix_power, input, n)


def cholesky(input_x: Tensor, upper: bool = False) -> Tensor:
    """The triangular factors of positive definite matrices. RuntimeError when one is not."""
    return call(decomposition.cholesky, input_x, upper)


def _all(results: tuple[Array, ...]) -> tuple[Tensor, ...]:
    return wrapped(results)


def qr(input: Tensor, mode: str = "reduced") -> tuple[Tensor, ...]:
    """An orthogonal and an upper triangular factor. ValueError unless `mode` is "reduced" or "complete"."""
    if mode not in ("reduced", "complete"):
        raise ValueError(f"qr: 'mode' has to be 'reduced' or 'complete', not {mode!r}")
    return _all(decomposition.qr(array(input, "qr"), mode))


def svd(input: Tensor, full_matrices: bool = False, compute_uv: bool = True) -> Any:
    """The singular values s, and (compute_uv) u and v with input = u @ diag(s) @ v.T."""
    found = decomposition.svd(array(input, "svd"), full_matrices)
    return _all(found) if compute_uv else wrap(found[0])
