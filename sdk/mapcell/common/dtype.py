"""The dtype objects of MindSpore's API (``mapcell.float32`` ...) and what they are in NumPy.

A dtype prints as ``Float32``, has the repr ``mapcell.float32``, and equals only itself: neither a string nor a NumPy
dtype.
BFloat16 and the Float8 types have NumPy counterparts in ml_dtypes, which is imported when one of them is first needed.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore/mindspore.dtype.html
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

_FROM_ML_DTYPES = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"})


class Type:
    """One element type. There is exactly one object for each, so identity is equality."""

    def __init__(self, name: str, title: str, numpy_name: str) -> None:
        self._name = name
        self._title = title
        self._numpy_name = numpy_name

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype."""
        if self._numpy_name in _FROM_ML_DTYPES:
            import ml_dtypes

            found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, self._numpy_name))
            return found
        return np.dtype(self._numpy_name)

    @property
    def itemsize(self) -> int:
        """Bytes an element takes."""
        return self.numpy.itemsize

    def __str__(self) -> str:
        return self._title

    def __repr__(self) -> str:
        return f"mapcell.{self._name}"

    def __reduce__(self) -> tuple[object, ...]:
        return (named, (self._name,))

    def __copy__(self) -> Type:
        return self

    def __deepcopy__(self, memo: object) -> Type:
        return self


bool_ = Type("bool_", "Bool", "bool")
int8 = Type("int8", "Int8", "int8")
int16 = Type("int16", "Int16", "int16")
int32 = Type("int32", "Int32", "int32")
int64 = Type("int64", "Int64", "int64")
uint8 = Type("uint8", "UInt8", "uint8")
uint16 = Type("uint16", "UInt16", "uint16")
uint32 = Type("uint32", "UInt32", "uint32")
uint64 = Type("uint64", "UInt64", "uint64")
float16 = Type("float16", "Float16", "float16")
float32 = Type("float32", "Float32", "float32")
float64 = Type("float64", "Float64", "float64")
bfloat16 = Type("bfloat16", "BFloat16", "bfloat16")
float8_e4m3fn = Type("float8_e4m3fn", "Float8E4M3FN", "float8_e4m3fn")
float8_e5m2 = Type("float8_e5m2", "Float8E5M2", "float8_e5m2")
float8_e8m0 = Type("float8_e8m0", "Float8E8M0", "float8_e8m0fnu")
complex64 = Type("complex64", "Complex64", "complex64")
complex128 = Type("complex128", "Complex128", "complex128")

# MindSpore's second names.
byte, short, intc, intp = int8, int16, int32, int64
ubyte, ushort, uintc, uintp = uint8, uint16, uint32, uint64
half, single, double = float16, float32, float64

int_type = (int8, int16, int32, int64)
uint_type = (uint8, uint16, uint32, uint64)
float_type = (float16, float32, float64, bfloat16)
float8_type = (float8_e4m3fn, float8_e5m2, float8_e8m0)
complex_type = (complex64, complex128)
number_type = (*int_type, *uint_type, *float_type, *float8_type, *complex_type)
all_types = (bool_, *number_type)

_BY_NAME: Mapping[str, Type] = {t._name: t for t in all_types}
_BY_NUMPY_NAME: Mapping[str, Type] = {t._numpy_name: t for t in all_types}
_BY_NUMPY: Mapping[np.dtype[Any], Type] = {t.numpy: t for t in all_types if t._numpy_name not in _FROM_ML_DTYPES}
_BY_PYTHON: Mapping[type, Type] = {bool: bool_, int: int64, float: float64, complex: complex128}


def named(name: str) -> Type:
    """The dtype called `name` ("float32"). KeyError when there is none."""
    return _BY_NAME[name]


def from_numpy(dtype: np.dtype[Any]) -> Type:
    """The dtype of a NumPy dtype. TypeError when Tensors cannot hold it."""
    known = _BY_NUMPY.get(dtype) or _BY_NUMPY_NAME.get(dtype.name)
    if known is None:
        raise TypeError(f"a Tensor cannot hold elements of NumPy's type {dtype}")
    return known


def check(dtype: object, who: str) -> Type:
    """`dtype` itself; TypeError unless it is a mapcell dtype."""
    if not isinstance(dtype, Type):
        raise TypeError(f"{who}: 'dtype' has to be a mapcell dtype such as mapcell.float32, not {dtype!r}")
    return dtype


def meant(dtype: object, who: str) -> Type:
    """The dtype of a mapcell dtype, a name such as "float32", a Python type, or NumPy's dtype or type. TypeError."""
    if isinstance(dtype, str) and dtype in _BY_NAME:
        return _BY_NAME[dtype]
    if isinstance(dtype, type) and dtype in _BY_PYTHON:
        return _BY_PYTHON[dtype]
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        return from_numpy(np.dtype(dtype))
    return check(dtype, who)


def dtype_to_nptype(type_: Type) -> type[Any]:
    """NumPy's scalar type of a dtype: ``numpy.float32`` for ``float32``."""
    return check(type_, "dtype_to_nptype").numpy.type


def dtype_to_pytype(type_: Type) -> type:
    """The Python type of a dtype's elements: bool, int, float or complex."""
    check(type_, "dtype_to_pytype")
    if type_ is bool_:
        return bool
    if type_ in complex_type:
        return complex
    return int if type_ in int_type or type_ in uint_type else float


def pytype_to_dtype(obj: object) -> Type:
    """The dtype of a Python or NumPy type; a dtype is returned as it is. NotImplementedError for any other."""
    if isinstance(obj, Type):
        return obj
    if isinstance(obj, type) and obj in _BY_PYTHON:
        return _BY_PYTHON[obj]
    if isinstance(obj, type) and issubclass(obj, np.generic):
        return from_numpy(np.dtype(obj))
    raise NotImplementedError(f"no dtype corresponds to {obj!r}")


def issubclass_(type_: object, dtype: object) -> bool:
    """Whether `type_` is `dtype` (MindSpore's helper of that name)."""
    return type_ is dtype
