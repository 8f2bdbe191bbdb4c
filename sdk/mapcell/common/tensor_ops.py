"""Tensor methods that are an operator of the same name with the Tensor as its first argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .core import TensorCore

METHODS = (
    "addbmm", "addcdiv", "addmm", "addmv", "addr", "aminmax", "argwhere", "baddbmm", "bernoulli", "bincount", "bmm",
    "cholesky", "copysign", "count_nonzero", "cross", "cummax", "cummin", "deg2rad", "det", "diag", "diff", "dot",
    "dsplit", "fliplr", "flipud", "float_power", "fmax", "fmin", "frac", "gcd", "ger", "hardshrink", "heaviside",
    "hsplit", "hypot", "index_add", "index_fill", "inner", "inv", "inverse", "invert", "isneginf", "isposinf", "isreal",
    "lcm", "ldexp", "lerp", "logaddexp", "logaddexp2", "logcumsumexp", "logit", "median", "mm", "msort", "multinomial",
    "mv", "nan_to_num", "nanmean", "nansum", "nextafter", "outer", "positive", "rad2deg", "reverse", "rot90", "scatter",
    "sgn", "signbit", "sinc", "softmax", "svd", "tensor_split", "top_k", "trace", "unfold",
    "unique_consecutive", "vsplit", "xdivy", "xlogy",
)  # fmt: skip


class TensorOps(TensorCore):
    """The operators of `METHODS` as methods."""

    __slots__ = ()

    def searchsorted(self, v: Any, side: str = "left") -> Any:
        """Where each of `v` would have to be inserted into the sorted last axis (Int32; the operator says Int64)."""
        return _method("searchsorted")(self, v, side=side, out_int32=True)


def _method(name: str) -> Callable[..., Any]:
    def method(self: TensorOps, *args: Any, **kwargs: Any) -> Any:
        # The operators stand on Tensor; they are there by the time that anybody calls one.
        from .. import ops

        return getattr(ops, name)(self, *args, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``ops.{name}`` with this Tensor as its first argument."
    return method


for _name in METHODS:
    setattr(TensorOps, _name, _method(_name))
