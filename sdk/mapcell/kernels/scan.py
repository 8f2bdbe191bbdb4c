"""What runs along one axis: running extremes, medians, differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from .half import in_float32
from .promotion import INT64, Array, cast, compute_dtype, settled


def running(choose: np.ufunc, a: Array, axis: int) -> tuple[Array, Array]:
    """The running extreme (`choose`) along `axis`, and the latest position (Int64) that holds it."""
    keys = cast(a, compute_dtype(a.dtype))
    best = choose.accumulate(keys, axis=axis)
    shape = [1] * a.ndim
    shape[axis] = a.shape[axis]
    here = np.arange(a.shape[axis], dtype=INT64).reshape(shape)
    # An element that equals the running extreme is where it was last attained.
    where = np.maximum.accumulate(np.where(keys == best, here, 0), axis=axis)
    return cast(best, a.dtype), where


def median(a: Array, axis: int = -1, keepdims: bool = False) -> tuple[Array, Array]:
    """The lower median along `axis`, and its position (Int64)."""
    order = np.argsort(cast(a, compute_dtype(a.dtype)), axis=axis, kind="stable")
    where = np.take(order, [(a.shape[axis] - 1) // 2], axis=axis).astype(INT64)
    values = np.take_along_axis(a, where, axis)
    return (values, where) if keepdims else (values.squeeze(axis), where.squeeze(axis))


@in_float32
def logcumsumexp(a: Array, axis: int) -> Array:
    """log(cumsum(exp(a))) without overflow."""
    return settled(np.logaddexp.accumulate(a, axis=axis))


def diff(a: Array, n: int = 1, axis: int = -1) -> Array:
    """The n-th differences between neighbours along `axis`."""
    return settled(np.diff(a, n, axis))


@in_float32
def trapezoid(y: Array, x: Array | None = None, dx: float = 1.0, axis: int = -1) -> Array:
    """The integral of `y` along `axis` by the trapezoidal rule."""
    step: Any = np.asarray(dx, y.dtype) if x is None else np.diff(x, axis=-1 if x.ndim == 1 else axis)
    if x is not None and x.ndim == 1:
        shape = [1] * y.ndim
        shape[axis] = -1
        step = step.reshape(shape)
    heights = np.moveaxis(y, axis, -1)
    means = np.moveaxis((heights[..., 1:] + heights[..., :-1]) * np.asarray(0.5, y.dtype), -1, axis)
    return settled(np.sum(means * step, axis=axis))
