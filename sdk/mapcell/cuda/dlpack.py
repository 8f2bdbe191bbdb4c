"""DLPack capsules over memory that is not NumPy's, built with ctypes as dlpack.h 1.1 lays the structures out.

A capsule is named "dltensor" and holds a DLManagedTensor, or "dltensor_versioned" for consumers that announce version
1. A consumer renames it and calls the deleter when it is done; the destructor of a capsule that nobody took does so.
The structures belong to an object that the managed tensor itself counts as referenced, so no table of exports exists.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any

VERSION = (1, 1)
# A capsule keeps no copy of its name.
_NAME = b"dltensor"
_NAME_VERSIONED = b"dltensor_versioned"

# kDLInt 0, kDLUInt 1, kDLFloat 2, kDLBfloat 4, kDLComplex 5, kDLBool 6, and the float8 types, each with its bits.
DTYPES: Mapping[str, tuple[int, int]] = {
    "BOOL": (6, 8),
    "U8": (1, 8),
    "U16": (1, 16),
    "U32": (1, 32),
    "U64": (1, 64),
    "I8": (0, 8),
    "I16": (0, 16),
    "I32": (0, 32),
    "I64": (0, 64),
    "F16": (2, 16),
    "F32": (2, 32),
    "F64": (2, 64),
    "BF16": (4, 16),
    "C64": (5, 64),
    "F8_E4M3": (10, 8),
    "F8_E5M2": (12, 8),
    "F8_E8M0": (14, 8),
}


class _Device(Structure):
    _fields_ = (("kind", c_int32), ("number", c_int32))


class _DataType(Structure):
    _fields_ = (("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16))


class _Tensor(Structure):
    _fields_ = (
        ("data", c_void_p),
        ("device", _Device),
        ("ndim", c_int32),
        ("dtype", _DataType),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, c_void_p)


class _Managed(Structure):
    _fields_ = (("tensor", _Tensor), ("context", c_void_p), ("deleter", _Deleter))


class _Versioned(Structure):
    _fields_ = (
        ("major", c_uint32),
        ("minor", c_uint32),
        ("context", c_void_p),
        ("deleter", _Deleter),
        ("flags", c_uint64),
        ("tensor", _Tensor),
    )


_python = ctypes.pythonapi
# An API of their own, so that no other user's argument types are changed.
_new = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, c_char_p, c_void_p)(("PyCapsule_New", _python))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, c_void_p, c_char_p)(("PyCapsule_IsValid", _python))
_pointer = ctypes.PYFUNCTYPE(c_void_p, c_void_p, c_char_p)(("PyCapsule_GetPointer", _python))
_increase = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", _python))
_decrease = ctypes.PYFUNCTYPE(None, c_void_p)(("Py_DecRef", _python))


def _let_go(managed: int) -> None:
    _decrease(ctypes.cast(managed, POINTER(_Managed)).contents.context)


def _let_go_versioned(managed: int) -> None:
    _decrease(ctypes.cast(managed, POINTER(_Versioned)).contents.context)


def _unclaimed(capsule: int) -> None:
    """Called with a capsule that is being deallocated: its address, since to count it again would free it twice."""
    for name, delete in ((_NAME, _let_go), (_NAME_VERSIONED, _let_go_versioned)):
        if _is_valid(capsule, name):
            delete(_pointer(capsule, name))


# What C calls; they have to outlive every capsule.
_delete = _Deleter(_let_go)
_delete_versioned = _Deleter(_let_go_versioned)
_destroy = ctypes.PYFUNCTYPE(None, c_void_p)(_unclaimed)


class _Export:
    """The structures of one capsule, and what keeps the memory alive."""

    __slots__ = ("_dimensions", "managed", "owner")

    def __init__(self, tensor: _Tensor, dimensions: Any, owner: object, versioned: bool) -> None:
        self.owner = owner
        self._dimensions = dimensions
        self.managed: _Managed | _Versioned
        if versioned:
            self.managed = _Versioned(*VERSION, id(self), _delete_versioned, 0, tensor)
        else:
            self.managed = _Managed(tensor, id(self), _delete)


def capsule(
    address: int,
    shape: Sequence[int],
    dtype: str,
    device: tuple[int, int],
    owner: object,
    *,
    versioned: bool,
) -> object:
    """A capsule over the C-contiguous elements of `dtype` (safetensors' code) at `address` on `device`.

    `device` is DLPack's pair of kind and number. `owner` lives until the consumer lets go. BufferError when DLPack has
    no such dtype.
    """
    if dtype not in DTYPES:
        raise BufferError(f"DLPack has no dtype for {dtype}")
    rank = len(shape)
    # Shape and strides in one array; an array of none would be no valid pointer.
    dimensions = (c_int64 * max(1, 2 * rank))(*shape, *_strides(shape))
    first = ctypes.cast(dimensions, POINTER(c_int64))
    second = ctypes.cast(ctypes.addressof(dimensions) + 8 * rank, POINTER(c_int64))
    tensor = _Tensor(address, _Device(*device), rank, _DataType(*DTYPES[dtype], 1), first, second, 0)
    export = _Export(tensor, dimensions, owner, versioned)
    made = _new(
        ctypes.addressof(export.managed),
        _NAME_VERSIONED if versioned else _NAME,
        ctypes.cast(_destroy, c_void_p),
    )
    # From here on the capsule's deleter owns this reference.
    _increase(export)
    return made


def _strides(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return strides[::-1]
