"""Reductions over axes, and what runs along an axis.

`axis` is None or () for all axes, an int, or a tuple of ints. Functions and Tensor methods name their arguments
differently in MindSpore; here every reduction takes both spellings (axis or dim; keepdims, keep_dims or keepdim).

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ..common.dtype import Type
from ..common.tensor import Tensor, wrap
from ..kernels import reduce, scan
from ..kernels.promotion import Array
from ._call import array, call, wrapped

Axis = int | Sequence[int] | None
P = ParamSpec("P")
R = TypeVar("R")

_SPELLINGS = {"dim": "axis", "axis": "dim"}
_KEEP = ("keepdims", "keep_dims", "keepdim")


def _spelled(function: Callable[P, R]) -> Callable[P, R]:
    """Lets callers use any of MindSpore's spellings of an axis and of keeping it."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount]
    keep = next((name for name in _KEEP if name in names), "")
    aliases = {other: keep for other in _KEEP if keep and other != keep}
    aliases |= {other: name for other, name in _SPELLINGS.items() if name in names and other not in names}

    @wraps(function)
    def op(*args: P.args, **kwargs: P.kwargs) -> R:
        if not aliases.keys() & kwargs.keys():
            return function(*args, **kwargs)
        renamed: Any = {aliases.get(name, name): value for name, value in kwargs.items()}
        return function(*args, **renamed)

    return op


def _dtype(dtype: Type | None) -> np.dtype[Any] | None:
    return None if dtype is None else dtype.numpy


@_spelled
def mean(x: Tensor, axis: Axis = None, keep_dims: bool = False) -> Tensor:
    """The mean; of integers truncated."""
    return call(reduce.mean, x, axis, keep_dims)


@_spelled
def sum(input: Tensor, dim: Axis = None, keepdim: bool = False, *, dtype: Type | None = None) -> Tensor:
    """The sum; integers and bools give Int64 unless `dtype` says otherwise."""
    return call(reduce.sum, input, dim, keepdim, _dtype(dtype))


@_spelled
def prod(input: Tensor, axis: Axis = None, keep_dims: bool = False, dtype: Type | None = None) -> Tensor:
    """The product; integers and bools give Int64 unless `dtype` says otherwise."""
    return call(reduce.prod, input, axis, keep_dims, _dtype(dtype))


@_spelled
def amax(input: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest elements."""
    return call(reduce.max, input, axis, keepdims)


@_spelled
def amin(input: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest elements."""
    return call(reduce.min, input, axis, keepdims)


@_spelled
def max(input: Tensor, axis: int | None = None, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """The largest elements along `axis` and their positions (Int64); over all elements, the position is 0."""
    return _extreme(reduce.max, reduce.argmax, input, axis, keepdims)


@_spelled
def min(input: Tensor, axis: int | None = None, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """The smallest elements along `axis` and their positions (Int64); over all elements, the position is 0."""
    return _extreme(reduce.min, reduce.argmin, input, axis, keepdims)


def _extreme(
    value: Callable[..., Array], position: Callable[..., Array], tensor: Tensor, axis: int | None, keepdims: bool
) -> tuple[Tensor, Tensor]:
    x = array(tensor, value.__name__)
    if axis is None:
        return wrap(value(x)), wrap(np.zeros((), np.int64))
    return wrap(value(x, axis, keepdims)), wrap(position(x, axis, keepdims))


@_spelled
def aminmax(input: Tensor, *, axis: int | None = 0, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """The smallest and the largest elements along `axis`."""
    return amin(input, axis, keepdims), amax(input, axis, keepdims)


@_spelled
def all(input: Tensor, axis: Axis = None, keep_dims: bool = False) -> Tensor:
    """Whether all elements are true (not zero)."""
    return call(reduce.all, input, axis, keep_dims)


@_spelled
def any(input: Tensor, axis: Axis = None, keep_dims: bool = False) -> Tensor:
    """Whether some element is true (not zero)."""
    return call(reduce.any, input, axis, keep_dims)


@_spelled
def var(input: Tensor, axis: Axis = None, ddof: int | bool = 0, keepdims: bool = False) -> Tensor:
    """The variance with divisor N - ddof."""
    return call(reduce.var, input, axis, int(ddof), keepdims)


@_spelled
def std(input: Tensor, axis: Axis = None, ddof: int | bool = 0, keepdims: bool = False) -> Tensor:
    """The square root of `var`."""
    return call(reduce.std, input, axis, int(ddof), keepdims)


@_spelled
def var_mean(input: Tensor, axis: Axis = None, ddof: int | bool = 0, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """The variance and the mean."""
    return var(input, axis, ddof, keepdims), mean(input, axis, keepdims)


@_spelled
def std_mean(input: Tensor, axis: Axis = None, ddof: int | bool = 0, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean."""
    return std(input, axis, ddof, keepdims), mean(input, axis, keepdims)


@_spelled
def norm(
    A: Tensor, ord: float | str | None = None, dim: Axis = None, keepdim: bool = False, *, dtype: Type | None = None
) -> Tensor:
    """A vector or matrix norm, `ord` as in numpy.linalg.norm. ValueError for an `ord` that the axes do not allow."""
    return call(reduce.norm, A if dtype is None else A.astype(dtype), ord, dim, keepdim)


@_spelled
def logsumexp(input: Tensor, dim: Axis, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) without overflow."""
    return call(reduce.logsumexp, input, dim, keepdim)


@_spelled
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The positions of the largest elements (Int64), in the flattened Tensor when `dim` is None."""
    return call(reduce.argmax, input, dim, keepdim if dim is not None else False)


@_spelled
def argmin(input: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The positions of the smallest elements (Int32), in the flattened Tensor when `axis` is None."""
    return call(reduce.argmin, input, axis, keepdims if axis is not None else False, np.dtype(np.int32))


@_spelled
def count_nonzero(x: Tensor, axis: Axis = (), keep_dims: bool = False) -> Tensor:
    """The number of elements that are not zero (Int32)."""
    counted = reduce.sum(array(x, "count_nonzero") != 0, axis, keep_dims)
    return wrap(counted.astype(np.int32))


@_spelled
def median(input: Tensor, axis: int = -1, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """The lower median along `axis` and its position (Int64)."""
    values, where = scan.median(array(input, "median"), axis, keepdims)
    return wrap(values), wrap(where)


@_spelled
def nansum(input: Tensor, axis: Axis = None, keepdims: bool = False, *, dtype: Type | None = None) -> Tensor:
    """The sum, NaN counting as zero."""
    x = array(input, "nansum")
    return wrap(reduce.sum(np.where(np.isnan(x), np.zeros((), x.dtype), x), axis, keepdims, _dtype(dtype)))


@_spelled
def nanmean(input: Tensor, axis: Axis = None, keepdims: bool = False, *, dtype: Type | None = None) -> Tensor:
    """The mean of the elements that are not NaN."""
    x = array(input, "nanmean")
    counted = reduce.sum(~np.isnan(x), axis, keepdims)
    total = nansum(input, axis, keepdims, dtype=dtype)
    return total / wrap(counted.astype(array(total, "nanmean").dtype))


@_spelled
def cumsum(x: Tensor, axis: int, dtype: Type | None = None) -> Tensor:
    """The sums of all elements up to each one along `axis`."""
    return wrap(reduce.cumulative(np.cumsum, array(x, "cumsum"), axis, _dtype(dtype)))


@_spelled
def cumprod(input: Tensor, dim: int, dtype: Type | None = None) -> Tensor:
    """The products of all elements up to each one along `dim`; integers give Int64."""
    x = array(input, "cumprod")
    out = _dtype(dtype) or (np.dtype(np.int64) if x.dtype.kind in "biu" else None)
    return wrap(reduce.cumulative(np.cumprod, x, dim, out))


@_spelled
def cummax(input: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The largest element up to each one along `axis`, and its position (Int64)."""
    values, where = wrapped(scan.running(np.maximum, array(input, "cummax"), axis))
    return values, where


@_spelled
def cummin(input: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The smallest element up to each one along `axis`, and its position (Int32)."""
    values, where = scan.running(np.minimum, array(input, "cummin"), axis)
    return wrap(values), wrap(where.astype(np.int32))


@_spelled
def logcumsumexp(input: Tensor, axis: int) -> Tensor:
    """log of the sums of exp of all elements up to each one along `axis`."""
    return call(scan.logcumsumexp, input, axis)


@_spelled
def diff(x: Tensor, n: int = 1, axis: int = -1) -> Tensor:
    """The differences between neighbours along `axis`, taken `n` times."""
    return call(scan.diff, x, n, axis)


@_spelled
def trapz(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The integral of `y` along `dim` by the trapezoidal rule, over the points `x` or a step of `dx`."""
    return call(scan.trapezoid, y, x, dx, dim)


def reduce_mean(x: Tensor, axis: Axis = ()) -> Tensor:
    """As `mean`."""
    return mean(x, axis)


def reduce_sum(x: Tensor, axis: Axis = ()) -> Tensor:
    """The sum in the dtype of `x`."""
    return sum(x, axis, dtype=x.dtype)


def reduce_max(x: Tensor, axis: Axis = ()) -> Tensor:
    """As `amax`."""
    return amax(x, axis)


def reduce_min(x: Tensor, axis: Axis = ()) -> Tensor:
    """As `amin`."""
    return amin(x, axis)
