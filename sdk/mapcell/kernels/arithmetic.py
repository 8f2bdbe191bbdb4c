"""Elementwise functions and the matrix product, with MindSpore's result types. Nothing warns of overflow or NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .promotion import (
    FLOAT32,
    Array,
    DType,
    Operand,
    as_array,
    cast,
    common_dtype,
    compute_dtype,
    inexact_dtype,
    is_inexact,
    is_integer,
    is_low_precision,
    matched,
    settled,
)

Function = Callable[..., Any]


def _apply(function: Function, *arrays: Array) -> Array:
    with np.errstate(all="ignore"):
        result = function(*arrays)
    return result if type(result) is np.ndarray else settled(result)


def binary(function: Function, a: Operand, b: Operand) -> Array:
    """`function` of both operands after promotion, in the promoted type."""
    x, y = matched(a, b)
    with np.errstate(all="ignore"):
        result = function(x, y)
    return result if type(result) is np.ndarray else settled(result)


def unary(function: Function, a: Array) -> Array:
    """`function` of `a`, computed in Float32 for low-precision types; the result has the type of `a`."""
    return cast(_apply(function, cast(a, compute_dtype(a.dtype))), a.dtype)


def unary_inexact(function: Function, a: Array) -> Array:
    """As `unary`, but integers and bools become Float32 first."""
    return unary(function, cast(a, inexact_dtype(a.dtype)))


def compare(function: Function, a: Operand, b: Operand) -> Array:
    """A comparison after promotion, as bool."""
    return _apply(function, *_comparable(a, b))


def _comparable(a: Operand, b: Operand) -> tuple[Array, Array]:
    x, y = matched(a, b)
    # ml_dtypes compares its own types, but only in the newer releases all of them.
    return cast(x, compute_dtype(x.dtype)), cast(y, compute_dtype(y.dtype))


def add(a: Operand, b: Operand) -> Array:
    return binary(np.add, a, b)


def subtract(a: Operand, b: Operand) -> Array:
    return binary(np.subtract, a, b)


def multiply(a: Operand, b: Operand) -> Array:
    return binary(np.multiply, a, b)


def divide(a: Operand, b: Operand) -> Array:
    """True division; between integers the result is Float32."""
    dtype = inexact_dtype(common_dtype(a, b))
    return _apply(np.true_divide, as_array(a, dtype), as_array(b, dtype))


def floor_divide(a: Operand, b: Operand) -> Array:
    """Division rounded towards minus infinity."""
    return binary(np.floor_divide, a, b)


def remainder(a: Operand, b: Operand) -> Array:
    """Remainder with the sign of the divisor, as Python's ``%``."""
    return binary(np.remainder, a, b)


def trunc_remainder(a: Operand, b: Operand) -> Array:
    """Remainder with the sign of the dividend, as C's ``fmod``."""
    return binary(np.fmod, a, b)


def power(a: Operand, b: Operand) -> Array:
    """`a` to the power `b`. Integers to a negative power truncate towards zero, as MindSpore does."""
    x, y = matched(a, b)
    if is_integer(y.dtype) and bool(np.any(y < 0)):
        return cast(_apply(np.power, x.astype(np.float64), y.astype(np.float64)), x.dtype)
    return _apply(np.power, x, y)


def maximum(a: Operand, b: Operand) -> Array:
    return binary(np.maximum, a, b)


def minimum(a: Operand, b: Operand) -> Array:
    return binary(np.minimum, a, b)


def bitwise(function: Function, a: Operand, b: Operand) -> Array:
    """A bit operation. TypeError for anything but integers and bools."""
    x, y = matched(a, b)
    if is_inexact(x.dtype):
        raise TypeError(f"bit operations take integers or bools, not {x.dtype}")
    return _apply(function, x, y)


def logical(function: Function, a: Operand, b: Operand) -> Array:
    """A truth function of both operands as bools."""
    return _apply(function, as_array(a, np.dtype(bool)), as_array(b, np.dtype(bool)))


def equal(a: Operand, b: Operand) -> Array:
    return compare(np.equal, a, b)


def negative(a: Array) -> Array:
    return _apply(np.negative, a)


def absolute(a: Array) -> Array:
    return a if a.dtype.kind in "bu" else unary(np.absolute, a)


def invert(a: Array) -> Array:
    if is_inexact(a.dtype):
        raise TypeError(f"bit operations take integers or bools, not {a.dtype}")
    return _apply(np.invert, a)


def square(a: Array) -> Array:
    return _apply(np.multiply, a, a)


def sign(a: Array) -> Array:
    return unary(np.sign, a) if a.dtype.kind != "b" else a


def reciprocal(a: Array) -> Array:
    return unary_inexact(np.reciprocal, a)


def rsqrt(a: Array) -> Array:
    return unary_inexact(lambda x: 1 / np.sqrt(x), a)


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a))."""
    return unary_inexact(_sigmoid, a)


def _sigmoid(a: Array) -> Array:
    # Of the two exact forms tanh neither overflows nor loses the small end's sign.
    return (np.tanh(a * 0.5) * 0.5 + 0.5).astype(a.dtype, copy=False)


def rounding(function: Function, a: Array) -> Array:
    """floor, ceil, round or trunc; integers and bools are left alone."""
    return unary(function, a) if is_inexact(a.dtype) else a


def _special(name: str) -> Callable[[Array], Array]:
    def function(a: Array) -> Array:
        from scipy import special

        return unary_inexact(getattr(special, name), a)

    function.__name__ = name
    return function


erf, erfc, erfinv = _special("erf"), _special("erfc"), _special("erfinv")
lgamma, digamma, expit = _special("gammaln"), _special("digamma"), _special("expit")


def clip(a: Array, low: Operand | None, high: Operand | None) -> Array:
    """`a` kept within `low` and `high`; ValueError when both are None. The result has the type of `a`."""
    if low is None and high is None:
        raise ValueError("clip/clamp: give 'min', 'max' or both")
    out = cast(a, compute_dtype(a.dtype))
    if low is not None:
        out = _apply(np.maximum, out, as_array(low, out.dtype))
    if high is not None:
        out = _apply(np.minimum, out, as_array(high, out.dtype))
    return cast(out, a.dtype)


def nan_to_num(a: Array, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Array:
    return settled(np.nan_to_num(a, nan=nan, posinf=posinf, neginf=neginf))


def predicate(function: Function, a: Array) -> Array:
    """isnan, isinf, isfinite: False (True for isfinite) all over for integers."""
    return _apply(function, cast(a, compute_dtype(a.dtype)))


def matmul(a: Array, b: Array) -> Array:
    """The matrix product (..., n, k) @ (..., k, m), 1-D allowed. TypeError when the dtypes differ."""
    if a.dtype != b.dtype:
        raise TypeError(f"matmul: both inputs need the same dtype, but they are {a.dtype} and {b.dtype}")
    return in_compute_dtype(np.matmul, a, b)


def in_compute_dtype(function: Function, *arrays: Array) -> Array:
    """`function` of `arrays` of one dtype, computed in Float32 for low precision and rounded once."""
    dtype = arrays[0].dtype
    if not is_low_precision(dtype):
        return _apply(function, *arrays)
    return cast(_apply(function, *(a.astype(FLOAT32) for a in arrays)), dtype)


def astype(a: Array, dtype: DType) -> Array:
    """A copy of `a` in `dtype`."""
    with np.errstate(all="ignore"):
        return a.astype(dtype)


# Functions of one tensor by the name that MindSpore's ops and Tensor methods share.
UNARY: dict[str, Callable[[Array], Array]] = {
    "neg": negative,
    "abs": absolute,
    "square": square,
    "sign": sign,
    "reciprocal": reciprocal,
    "rsqrt": rsqrt,
    "sigmoid": sigmoid,
    "erf": erf,
    "erfc": erfc,
    "erfinv": erfinv,
    "lgamma": lgamma,
    "digamma": digamma,
    "bitwise_not": invert,
}


def _register(names: str, through: Callable[[Function, Array], Array]) -> None:
    for name in names.split():
        ufunc = getattr(np, _NUMPY_NAMES.get(name, name))
        UNARY[name] = lambda a, ufunc=ufunc: through(ufunc, a)  # type: ignore[misc]


_NUMPY_NAMES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh"
}  # fmt: skip
_register("exp exp2 expm1 log log2 log10 log1p sqrt sin cos tan sinh cosh tanh", unary_inexact)
_register("asin acos atan asinh acosh atanh", unary_inexact)
_register("floor ceil round trunc", rounding)
_register("isnan isinf isfinite", predicate)
_register("logical_not", lambda f, a: _apply(f, cast(a, np.dtype(bool))))

BINARY: dict[str, Callable[[Operand, Operand], Array]] = {
    "add": add,
    "sub": subtract,
    "mul": multiply,
    "div": divide,
    "floor_div": floor_divide,
    "remainder": remainder,
    "fmod": trunc_remainder,
    "pow": power,
    "maximum": maximum,
    "minimum": minimum,
    "equal": equal,
    "not_equal": lambda a, b: compare(np.not_equal, a, b),
    "greater": lambda a, b: compare(np.greater, a, b),
    "greater_equal": lambda a, b: compare(np.greater_equal, a, b),
    "less": lambda a, b: compare(np.less, a, b),
    "less_equal": lambda a, b: compare(np.less_equal, a, b),
    "logical_and": lambda a, b: logical(np.logical_and, a, b),
    "logical_or": lambda a, b: logical(np.logical_or, a, b),
    "logical_xor": lambda a, b: logical(np.logical_xor, a, b),
    "bitwise_and": lambda a, b: bitwise(np.bitwise_and, a, b),
    "bitwise_or": lambda a, b: bitwise(np.bitwise_or, a, b),
    "bitwise_xor": lambda a, b: bitwise(np.bitwise_xor, a, b),
    "bitwise_left_shift": lambda a, b: bitwise(np.left_shift, a, b),
    "bitwise_right_shift": lambda a, b: bitwise(np.right_shift, a, b),
    "atan2": lambda a, b: binary(np.arctan2, as_array(a, d := inexact_dtype(common_dtype(a, b))), as_array(b, d)),
}
