"""Low-precision arrays are computed in Float32 and rounded once.

NumPy rounds float16 after each step, and bfloat16 and float8 have no BLAS at all; so every kernel of several steps is
decorated with `in_float32`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from .promotion import FLOAT32, DType, cast, is_low_precision, settled
from .recorded import rule_for

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(kernel: Callable[P, R]) -> Callable[P, R]:
    """Shows `kernel` Float32 in place of low-precision arrays; rounds its Float32 results to the first one's dtype.

    Arrays in tuples count too. Results are arrays, also of shape (), and nothing warns of overflow or NaN.
    """

    @wraps(kernel)
    def rounded_once(*args: P.args, **kwargs: P.kwargs) -> R:
        values = (*args, *kwargs.values())
        low, plain = _first_low(values)
        run = kernel if plain else rule_for(rounded_once, values) or kernel
        if low is None:
            with np.errstate(all="ignore"):
                return _finished(run(*args, **kwargs), None)  # type: ignore[no-any-return]
        wide_args: Any = [_widened(value) for value in args]
        wide_kwargs: Any = {name: _widened(value) for name, value in kwargs.items()}
        with np.errstate(all="ignore"):
            return _finished(run(*wide_args, **wide_kwargs), low)  # type: ignore[no-any-return]

    return rounded_once


def _first_low(values: Iterable[object]) -> tuple[DType | None, bool]:
    """The first low-precision dtype among arrays, and whether all of them are plain ones."""
    low, plain = None, True
    for value in values:
        if type(value) is np.ndarray:
            if low is None and is_low_precision(value.dtype):
                low = value.dtype
        elif isinstance(value, tuple):
            inner, inner_plain = _first_low(value)
            low, plain = low or inner, plain and inner_plain
        elif isinstance(value, np.ndarray):
            plain = False
            if low is None and is_low_precision(value.dtype):
                low = value.dtype
    return low, plain


def _widened(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_widened(item) for item in value)
    if isinstance(value, np.ndarray) and is_low_precision(value.dtype):
        return value.astype(FLOAT32)
    return value


def _finished(result: Any, low: DType | None) -> Any:
    if isinstance(result, tuple):
        return tuple(_finished(item, low) for item in result)
    array = settled(result)
    return cast(array, low) if low is not None and array.dtype == FLOAT32 else array
