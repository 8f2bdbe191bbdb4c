"""Tensor's reductions.

MindSpore names their arguments differently from method to method, so each takes both spellings: `axis` or `dim`, and
`keepdims`, `keep_dims` or `keepdim`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mapcell_formats.record import Record

from ..kernels import reduce
from ..kernels.promotion import DType
from .core import TensorCore, numpy_dtype_of, required_operand
from .dtype import Type

if TYPE_CHECKING:
    from .tensor import Tensor

_SECOND_SPELLINGS = {"dim": "axis", "keep_dims": "keepdims", "keepdim": "keepdims", "correction": "ddof"}


class Reduction(Record):
    """The arguments of one reduction under one spelling."""

    axis: Any = None
    keepdims: bool = False
    dtype: DType | None = None
    ddof: float = 0


def arguments(who: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Reduction:
    """`positional` in any order after the axis (their types say which they are) and `named` in any spelling.

    TypeError for what is not understood.
    """
    given: dict[str, Any] = {"axis": positional[0]} if positional else {}
    for value in positional[1:]:
        given[_position_of(value)] = value
    for name, value in named.items():
        key = _SECOND_SPELLINGS.get(name, name)
        if key in given or key not in ("axis", "keepdims", "dtype", "ddof"):
            raise TypeError(f"{who}() got an unexpected keyword argument {name!r}")
        given[key] = value
    if given.get("dtype") is not None:
        given["dtype"] = numpy_dtype_of(given["dtype"])
    if isinstance(given.get("axis"), TensorCore):
        given["axis"] = given["axis"]._array.tolist()
    return Reduction(**given)


def _position_of(value: object) -> str:
    if isinstance(value, bool):
        return "keepdims"
    return "dtype" if isinstance(value, Type) or value is None else "ddof"


class TensorReduce(TensorCore):
    """Reductions over one, several or all axes."""

    __slots__ = ()

    def sum(self, *args: Any, **kwargs: Any) -> Tensor:
        """``sum(axis=None, dtype=None, keepdims=False)``; integers sum to Int64."""
        r = arguments("sum", args, kwargs)
        return self._wrap(reduce.sum(self._array, r.axis, r.keepdims, r.dtype))

    def mean(self, *args: Any, **kwargs: Any) -> Tensor:
        """``mean(axis=None, keep_dims=False, *, dtype=None)``; the mean of integers is truncated."""
        r = arguments("mean", args, kwargs)
        return self._wrap(reduce.mean(self._array, r.axis, r.keepdims, r.dtype))

    def prod(self, *args: Any, **kwargs: Any) -> Tensor:
        """``prod(axis=None, keep_dims=False, dtype=None)``."""
        r = arguments("prod", args, kwargs)
        return self._wrap(reduce.prod(self._array, r.axis, r.keepdims, r.dtype))

    def var(self, *args: Any, **kwargs: Any) -> Tensor:
        """``var(axis=None, ddof=0, keepdims=False)``."""
        r = arguments("var", args, kwargs)
        return self._wrap(reduce.var(self._array, r.axis, r.ddof, r.keepdims))

    def std(self, *args: Any, **kwargs: Any) -> Tensor:
        """``std(axis=None, ddof=0, keepdims=False)``."""
        r = arguments("std", args, kwargs)
        return self._wrap(reduce.std(self._array, r.axis, r.ddof, r.keepdims))

    def all(self, *args: Any, **kwargs: Any) -> Tensor:
        """``all(axis=None, keep_dims=False)``: whether no element is zero."""
        r = arguments("all", args, kwargs)
        return self._wrap(reduce.all(self._array, r.axis, r.keepdims))

    def any(self, *args: Any, **kwargs: Any) -> Tensor:
        """``any(axis=None, keep_dims=False)``: whether some element is not zero."""
        r = arguments("any", args, kwargs)
        return self._wrap(reduce.any(self._array, r.axis, r.keepdims))

    def amax(self, *args: Any, **kwargs: Any) -> Tensor:
        """``amax(axis=None, keepdims=False)``: the largest elements."""
        r = arguments("amax", args, kwargs)
        return self._wrap(reduce.max(self._array, r.axis, r.keepdims))

    def amin(self, *args: Any, **kwargs: Any) -> Tensor:
        """``amin(axis=None, keepdims=False)``: the smallest elements."""
        r = arguments("amin", args, kwargs)
        return self._wrap(reduce.min(self._array, r.axis, r.keepdims))

    def max(self, *args: Any, **kwargs: Any) -> Any:
        """The largest elements; with a positional axis, `dim` or `return_indices`, a pair with positions."""
        return self._extreme("max", args, kwargs)

    def min(self, *args: Any, **kwargs: Any) -> Any:
        """The smallest elements; with a positional axis, `dim` or `return_indices`, a pair with positions."""
        return self._extreme("min", args, kwargs)

    def _extreme(self, which: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        initial, where = kwargs.pop("initial", None), kwargs.pop("where", True)
        pair = kwargs.pop("return_indices", False) or "dim" in kwargs or bool(args and isinstance(args[0], int))
        r = arguments(which, args, kwargs)
        array = self._array
        if initial is not None or where is not True:
            return self._wrap(_bounded_extreme(which, array, r, initial, where))
        values = self._wrap(getattr(reduce, which)(array, r.axis, r.keepdims))
        if not pair or r.axis is None:
            return values
        return values, self._wrap(getattr(reduce, "arg" + which)(array, r.axis, r.keepdims))

    def argmax(self, axis: int | None = None, keepdims: bool = False, **kwargs: Any) -> Tensor:
        """The position of the largest element (Int64), in the flattened Tensor when `axis` is None."""
        r = arguments("argmax", (axis, keepdims) if not kwargs else (), _with(kwargs, axis, keepdims))
        return self._wrap(reduce.argmax(self._array, r.axis, r.keepdims))

    def argmin(self, axis: int | None = None, keepdims: bool = False, **kwargs: Any) -> Tensor:
        """The position of the smallest element (Int32), in the flattened Tensor when `axis` is None."""
        r = arguments("argmin", (axis, keepdims) if not kwargs else (), _with(kwargs, axis, keepdims))
        return self._wrap(reduce.argmin(self._array, r.axis, r.keepdims, np.dtype("int32")))

    def logsumexp(self, *args: Any, **kwargs: Any) -> Tensor:
        """``logsumexp(axis, keepdims=False)``: log of the sum of exponentials."""
        r = arguments("logsumexp", args, kwargs)
        return self._wrap(reduce.logsumexp(self._array, r.axis, r.keepdims))

    def norm(self, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Type | None = None) -> Tensor:
        """A vector or matrix norm, as `numpy.linalg.norm`."""
        out = self._wrap(reduce.norm(self._array, ord, dim, keepdim))
        return out if dtype is None else out.astype(dtype)

    def cumsum(self, axis: int | None = None, dtype: Type | None = None, *, dim: int | None = None) -> Tensor:
        """Running sums along `axis`; of the flattened Tensor when None."""
        along = axis if dim is None else dim
        array = self._array.reshape(-1) if along is None else self._array
        return self._wrap(reduce.cumulative(np.cumsum, array, along or 0, numpy_dtype_of(dtype)))

    def cumprod(self, dim: int, dtype: Type | None = None) -> Tensor:
        """Running products along `dim`."""
        return self._wrap(reduce.cumulative(np.cumprod, self._array, dim, numpy_dtype_of(dtype)))

    def ptp(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """The largest element minus the smallest."""
        top, bottom = reduce.max(self._array, axis, keepdims), reduce.min(self._array, axis, keepdims)
        return self._wrap(top) - self._wrap(bottom)


def _with(named: dict[str, Any], axis: int | None, keepdims: bool) -> dict[str, Any]:
    """`named` and whichever of the two was given beside it."""
    if not named:
        return {}
    return named | ({"axis": axis} if axis is not None else {}) | ({"keepdims": keepdims} if keepdims else {})


def _bounded_extreme(which: str, array: Any, r: Reduction, initial: Any, where: Any) -> Any:
    start = None if initial is None else required_operand(initial, which)
    mask = where._array if isinstance(where, TensorCore) else where
    extra: dict[str, Any] = {"where": mask} if start is None else {"where": mask, "initial": start}
    function = np.max if which == "max" else np.min
    return np.asarray(function(array, axis=reduce.axes(r.axis), keepdims=r.keepdims, **extra)).astype(array.dtype)
