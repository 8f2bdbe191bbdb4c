"""Elementwise functions beyond `arithmetic`: the tables of `ops` and of the primitives read them by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import arithmetic
from .half import in_float32
from .promotion import (
    Array,
    Operand,
    as_array,
    cast,
    common_dtype,
    inexact_dtype,
    is_inexact,
    is_integer,
    matched,
    settled,
)


def _inexact(a: Array) -> Array:
    return cast(a, inexact_dtype(a.dtype))


def frac(a: Array) -> Array:
    """What is behind the point, with the sign of `a`."""
    return arithmetic.subtract(a, arithmetic.UNARY["trunc"](a))


@in_float32
def sinc(a: Array) -> Array:
    """sin(pi a) / (pi a), 1 at 0."""
    return settled(np.sinc(_inexact(a)))


@in_float32
def logit(a: Array, eps: float | None = None) -> Array:
    """log(a / (1 - a)), of `a` kept within eps and 1 - eps if given."""
    x = _inexact(a) if eps is None else np.clip(_inexact(a), eps, 1 - eps)
    return settled(np.log(x / (1 - x)))


@in_float32
def round_decimals(a: Array, decimals: int = 0) -> Array:
    """Rounded to `decimals` places, halves to even."""
    return settled(np.round(a, decimals))


def div(a: Operand, b: Operand, rounding_mode: str | None = None) -> Array:
    """a / b, rounded down ("floor") or towards zero ("trunc"), which keeps integers. ValueError for another mode."""
    match rounding_mode:
        case None:
            return arithmetic.divide(a, b)
        case "floor":
            return arithmetic.floor_divide(a, b)
        case "trunc":
            dtype = common_dtype(a, b)
            wide = as_array(a, np.dtype(np.float64)) if not is_inexact(dtype) else as_array(a, dtype)
            return cast(arithmetic.UNARY["trunc"](arithmetic.divide(wide, b)), dtype)
        case _:
            raise ValueError(f"div: 'rounding_mode' has to be None, 'floor' or 'trunc', not {rounding_mode!r}")


def _through(function: Callable[..., Any], a: Operand, b: Operand) -> Array:
    """`function` of both as floating arrays of one dtype."""
    dtype = inexact_dtype(common_dtype(a, b))
    return _rounded(function, as_array(a, dtype), as_array(b, dtype))


@in_float32
def _rounded(function: Callable[..., Any], a: Array, b: Array) -> Array:
    return settled(function(a, b))


def _integers(function: Callable[..., Any], a: Operand, b: Operand) -> Array:
    x, y = matched(a, b)
    if not is_integer(x.dtype):
        raise TypeError(f"{function.__name__} takes integers, not {x.dtype}")
    return settled(function(x, y))


def xlogy(a: Operand, b: Operand) -> Array:
    """a * log(b), 0 where a is 0."""
    return _through(lambda x, y: np.where(x == 0, np.zeros((), x.dtype), x * np.log(y)), a, b)


def xdivy(a: Operand, b: Operand) -> Array:
    """a / b, 0 where a is 0."""
    return _through(lambda x, y: np.where(x == 0, np.zeros((), x.dtype), x / y), a, b)


def is_close(a: Array, b: Array, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """|a - b| <= atol + rtol * |b|."""
    x, y = matched(a, b)
    return settled(np.isclose(x.astype(np.float64), y.astype(np.float64), rtol, atol, equal_nan))


def lerp(start: Array, end: Array, weight: Operand) -> Array:
    """start + weight * (end - start)."""
    return arithmetic.add(start, arithmetic.multiply(weight, arithmetic.subtract(end, start)))


def addcmul(x: Array, a: Array, b: Array, value: Operand = 1) -> Array:
    """x + value * a * b."""
    return arithmetic.add(x, arithmetic.multiply(arithmetic.multiply(a, b), value))


def addcdiv(x: Array, a: Array, b: Array, value: Operand = 1) -> Array:
    """x + value * a / b."""
    return arithmetic.add(x, arithmetic.multiply(arithmetic.divide(a, b), value))


def _bounded(choose: Callable[[Operand, Operand], Array], x: Array, bound: Operand | None) -> Array:
    return x if bound is None else choose(x, bound)


def clamp(x: Array, low: Operand | None = None, high: Operand | None = None) -> Array:
    """x kept within `low` and `high`, in their common type. ValueError when both are None."""
    if low is None and high is None:
        raise ValueError("clamp: give 'min', 'max' or both")
    return _bounded(arithmetic.minimum, _bounded(arithmetic.maximum, x, low), high)


UNARY: dict[str, Callable[[Array], Array]] = {
    **arithmetic.UNARY,
    "frac": frac,
    "sinc": sinc,
    "deg2rad": lambda a: arithmetic.multiply(_inexact(a), float(np.pi / 180)),
    "rad2deg": lambda a: arithmetic.multiply(_inexact(a), float(180 / np.pi)),
    "signbit": lambda a: settled(np.signbit(a.astype(np.float64))),
    "isneginf": lambda a: settled(np.isneginf(a.astype(np.float64))),
    "isposinf": lambda a: settled(np.isposinf(a.astype(np.float64))),
    "isreal": lambda a: settled(np.isreal(a)),
    "positive": lambda a: a,
}

BINARY: dict[str, Callable[[Operand, Operand], Array]] = {
    **arithmetic.BINARY,
    "fmax": lambda a, b: arithmetic.binary(np.fmax, a, b),
    "fmin": lambda a, b: arithmetic.binary(np.fmin, a, b),
    "hypot": lambda a, b: _through(np.hypot, a, b),
    "logaddexp": lambda a, b: _through(np.logaddexp, a, b),
    "logaddexp2": lambda a, b: _through(np.logaddexp2, a, b),
    "copysign": lambda a, b: _through(np.copysign, a, b),
    "nextafter": lambda a, b: arithmetic.binary(np.nextafter, a, b),
    "heaviside": lambda a, b: _through(np.heaviside, a, b),
    "float_power": lambda a, b: arithmetic.power(as_array(a, np.dtype(np.float64)), b),
    "gcd": lambda a, b: _integers(np.gcd, a, b),
    "lcm": lambda a, b: _integers(np.lcm, a, b),
    "ldexp": lambda a, b: _through(lambda x, y: x * np.exp2(y), a, b),
    "xlogy": xlogy,
    "xdivy": xdivy,
}
