"""Which element type a result has, and in which one it is computed.

Between tensors the wider type wins, and any floating type wins over any integer one. A Python number widens only across
kinds: bool < int < float < complex. Float16, BFloat16 and Float8 are computed in Float32 and rounded once.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
DType: TypeAlias = np.dtype[Any]
Scalar: TypeAlias = bool | int | float | complex
Operand: TypeAlias = Array | Scalar

BOOL, INT64, FLOAT16, FLOAT32 = (np.dtype(name) for name in ("bool", "int64", "float16", "float32"))
_ML_FLOATS = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"})


@cache
def is_floating(dtype: DType) -> bool:
    """Whether `dtype` is a real floating type, ml_dtypes' included."""
    return dtype.kind == "f" or dtype.name in _ML_FLOATS


@cache
def is_integer(dtype: DType) -> bool:
    """Whether `dtype` is an integer type; bool is none."""
    return dtype.kind in "iu"


@cache
def is_inexact(dtype: DType) -> bool:
    """Whether `dtype` is floating or complex."""
    return dtype.kind == "c" or is_floating(dtype)


@cache
def is_low_precision(dtype: DType) -> bool:
    """Whether `dtype` is a floating type of under 32 bits."""
    return is_floating(dtype) and dtype.itemsize < 4


@cache
def compute_dtype(dtype: DType) -> DType:
    """The type to compute in: Float32 for the low-precision ones, else `dtype` itself."""
    return FLOAT32 if is_low_precision(dtype) else dtype


@cache
def inexact_dtype(dtype: DType) -> DType:
    """The type of a function such as exp: `dtype` if inexact, else Float32."""
    return dtype if is_inexact(dtype) else FLOAT32


def _two_floats(a: DType, b: DType) -> DType:
    if a.itemsize == b.itemsize:
        return FLOAT32 if a.itemsize < 4 else a
    return a if a.itemsize > b.itemsize else b


@cache
def promoted(a: DType, b: DType) -> DType:
    """The type of an operation between tensors of types `a` and `b`."""
    if a == b:
        return a
    if is_floating(a) and is_floating(b):
        return _two_floats(a, b)
    if is_inexact(a) and not is_inexact(b):
        return a
    if is_inexact(b) and not is_inexact(a):
        return b
    if a.kind == "c" or b.kind == "c":
        return np.result_type(compute_dtype(a), compute_dtype(b))
    both = np.result_type(a, b)
    # NumPy answers float64 for uint64 with a signed integer.
    return FLOAT32 if both.kind == "f" else both


def with_scalar(dtype: DType, scalar: Scalar) -> DType:
    """The type of an operation between a tensor of type `dtype` and a Python number."""
    if isinstance(scalar, bool | np.bool_):
        return dtype
    if isinstance(scalar, int | np.integer):
        return INT64 if dtype.kind == "b" else dtype
    if isinstance(scalar, float | np.floating):
        return inexact_dtype(dtype)
    return np.result_type(compute_dtype(inexact_dtype(dtype)), np.complex64)


def common_dtype(a: Operand, b: Operand) -> DType:
    """The type of an operation between two operands, one of them at least an array."""
    if isinstance(a, np.ndarray):
        return promoted(a.dtype, b.dtype) if isinstance(b, np.ndarray) else with_scalar(a.dtype, b)
    if isinstance(b, np.ndarray):
        return with_scalar(b.dtype, a)
    return promoted(np.asarray(a).dtype, np.asarray(b).dtype)


def cast(array: Array, dtype: DType) -> Array:
    """`array` in `dtype`, itself when it already is. Float to integer truncates; nothing warns."""
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def settled(result: Any) -> Array:
    """What NumPy gave, as an array: results of shape () may be scalars. Never a copy."""
    # Not np.asarray, which would take the elements out of a `Recorded`.
    return result if isinstance(result, np.ndarray) else np.asarray(result)


def as_array(operand: Operand, dtype: DType) -> Array:
    """An operand as an array of `dtype`; integers out of range wrap around."""
    if isinstance(operand, np.ndarray):
        return cast(operand, dtype)
    return cast(np.asarray(operand), dtype)


def matched(a: Operand, b: Operand) -> tuple[Array, Array]:
    """Both operands as arrays of their common type."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype:
        return a, b
    dtype = common_dtype(a, b)
    return as_array(a, dtype), as_array(b, dtype)
