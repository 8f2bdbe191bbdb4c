"""Reductions over axes, with MindSpore's result types: integers sum to Int64, their mean is truncated.

`axis` is None or () for all axes, an int, or a tuple of ints.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from .promotion import FLOAT32, INT64, Array, DType, cast, compute_dtype, inexact_dtype, is_inexact, settled

Axis: TypeAlias = int | Sequence[int] | None


def axes(axis: Axis) -> int | tuple[int, ...] | None:
    """`axis` as NumPy takes it. TypeError unless it is None, an int or a sequence of ints."""
    if axis is None or (isinstance(axis, int | np.integer) and not isinstance(axis, bool)):
        return axis
    if isinstance(axis, tuple | list) and builtins.all(isinstance(a, int | np.integer) for a in axis):
        return tuple(int(a) for a in axis) or None
    raise TypeError(f"'axis' has to be None, an int or a tuple of ints, not {axis!r}")


def _sum_dtype(dtype: DType) -> DType:
    return dtype if is_inexact(dtype) or dtype == np.uint64 else INT64


def _accumulate(function: Callable[..., Any], a: Array, axis: Axis, keepdims: bool, dtype: DType | None) -> Array:
    out = dtype or _sum_dtype(a.dtype)
    with np.errstate(all="ignore"):
        result = function(cast(a, compute_dtype(out)), axis=axes(axis), keepdims=keepdims, dtype=compute_dtype(out))
    return cast(settled(result), out)


def sum(a: Array, axis: Axis = None, keepdims: bool = False, dtype: DType | None = None) -> Array:
    return _accumulate(np.sum, a, axis, keepdims, dtype)


def prod(a: Array, axis: Axis = None, keepdims: bool = False, dtype: DType | None = None) -> Array:
    return _accumulate(np.prod, a, axis, keepdims, dtype)


def mean(a: Array, axis: Axis = None, keepdims: bool = False, dtype: DType | None = None) -> Array:
    """The mean; of integers truncated in their own type unless `dtype` says otherwise, of bools Int64."""
    out = dtype or (INT64 if a.dtype.kind == "b" else a.dtype)
    wide = np.dtype(np.float64) if not is_inexact(a.dtype) else compute_dtype(a.dtype)
    with np.errstate(all="ignore"):
        return cast(settled(np.mean(cast(a, wide), axis=axes(axis), keepdims=keepdims)), out)


def var(a: Array, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Array:
    """The variance with divisor N - ddof; integers give Float32."""
    out = inexact_dtype(a.dtype)
    with np.errstate(all="ignore"):
        result = np.var(cast(a, compute_dtype(out)), axis=axes(axis), ddof=ddof, keepdims=keepdims)
    return cast(settled(result), out)


def std(a: Array, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Array:
    """The square root of `var`."""
    out = inexact_dtype(a.dtype)
    with np.errstate(all="ignore"):
        result = np.std(cast(a, compute_dtype(out)), axis=axes(axis), ddof=ddof, keepdims=keepdims)
    return cast(settled(result), out)


def max(a: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    return settled(np.max(a, axis=axes(axis), keepdims=keepdims))


def min(a: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    return settled(np.min(a, axis=axes(axis), keepdims=keepdims))


def all(a: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    return settled(np.all(cast(a, np.dtype(bool)), axis=axes(axis), keepdims=keepdims))


def any(a: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    return settled(np.any(cast(a, np.dtype(bool)), axis=axes(axis), keepdims=keepdims))


def argmax(a: Array, axis: int | None = None, keepdims: bool = False, dtype: DType = INT64) -> Array:
    """The position of the (first) largest element; over the flattened array when `axis` is None."""
    return settled(np.argmax(cast(a, compute_dtype(a.dtype)), axis=axis, keepdims=keepdims)).astype(dtype)


def argmin(a: Array, axis: int | None = None, keepdims: bool = False, dtype: DType = INT64) -> Array:
    """The position of the (first) smallest element; over the flattened array when `axis` is None."""
    return settled(np.argmin(cast(a, compute_dtype(a.dtype)), axis=axis, keepdims=keepdims)).astype(dtype)


def logsumexp(a: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """log(sum(exp(a))) without overflow."""
    x = cast(a, compute_dtype(inexact_dtype(a.dtype)))
    with np.errstate(all="ignore"):
        peak = np.max(x, axis=axes(axis), keepdims=True)
        peak = np.where(np.isfinite(peak), peak, np.zeros((), x.dtype))
        out = np.log(np.sum(np.exp(x - peak), axis=axes(axis), keepdims=True)) + peak
    if not keepdims:
        out = np.squeeze(out, axis=axes(axis))
    return cast(settled(out), inexact_dtype(a.dtype))


def cumulative(function: Callable[..., Any], a: Array, axis: int, dtype: DType | None = None) -> Array:
    """cumsum or cumprod along `axis`, in the type of `a` unless `dtype` says otherwise."""
    out = dtype or (INT64 if a.dtype.kind == "b" else a.dtype)
    wide = compute_dtype(out)
    with np.errstate(all="ignore"):
        return cast(settled(function(cast(a, wide), axis=axis, dtype=wide)), out)


def norm(a: Array, ord: float | str | None = None, axis: Axis = None, keepdims: bool = False) -> Array:
    """A vector or matrix norm as `numpy.linalg.norm`; integers give Float32."""
    out = inexact_dtype(a.dtype)
    x = cast(a, compute_dtype(out))
    if axis is None and ord is None:
        x, keep = x.reshape(-1), keepdims
        result = settled(np.linalg.norm(x))
        return cast(result.reshape((1,) * a.ndim) if keep else result, np.dtype(out))
    result = settled(np.linalg.norm(x, ord=ord, axis=axes(axis), keepdims=keepdims))  # type: ignore[arg-type]
    return cast(result, out)


__all__ = [
    "FLOAT32", "all", "any", "argmax", "argmin", "axes", "cumulative", "logsumexp", "max", "mean", "min", "norm",
    "prod", "std", "sum", "var",
]  # fmt: skip
