"""What a state dict's pickle may name, and what comes of it: torch's dtypes, storages, and the calls that make tensors.

    GLOBAL       OrderedDict, torch.Size, torch.device, torch's dtypes and storage classes, and the functions below
    REDUCE       _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks [, metadata])
                 _rebuild_tensor_v3(the same, dtype [, metadata]), for types that have no storage class
                 _rebuild_tensor(storage, offset, shape, strides)
                 _rebuild_parameter(tensor, requires_grad, hooks [, state])
    BINPERSID    ("storage", storage class, KEY, device, elements)

Nothing is imported and nothing is called: these are tables. Source: torch 2.13, torch/_utils.py, torch/serialization.py
and torch/_weights_only_unpickler.py, which says what state dicts use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from .checks import MAX_ELEMENTS
from .dtypes import ITEMSIZE

# torch's name of each dtype, and what it is called here; None for one that safetensors has no name for.
DTYPES: Mapping[str, str | None] = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "complex64": "C64",
    "complex128": None,
    "complex32": None,
    "float8_e4m3fnuz": None,
    "float8_e5m2fnuz": None,
    "float4_e2m1fn_x2": None,
    "qint8": None,
    "quint8": None,
    "qint32": None,
    "quint4x2": None,
    "quint2x4": None,
}
_STORAGES: Mapping[str, str] = {
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}
_ONLY_INTEGERS = {int}
_UNNAMED_ITEMSIZE: Mapping[str, int] = {"complex128": 16, "complex32": 4, "qint32": 4}


@dataclass(frozen=True, slots=True)
class DType:
    """torch's dtype `name`."""

    name: str

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        code = DTYPES[self.name]
        return ITEMSIZE[code] if code else _UNNAMED_ITEMSIZE.get(self.name, 1)


@dataclass(frozen=True, slots=True)
class StorageClass:
    """A class of storages, whose elements are of `dtype`; None for bytes of no type."""

    dtype: DType | None


@dataclass(frozen=True, slots=True)
class Function:
    """A function of torch's or Python's that state dicts call, by its own name."""

    name: str


# This and Tensor are not frozen: it would take them four times as long to be made, one of each for every tensor.
@dataclass(slots=True)
class Storage:
    """A storage that the pickle refers to: member data/`key`, of `nbytes` bytes."""

    key: str
    dtype: DType | None
    nbytes: int


@dataclass(slots=True)
class Tensor:
    """A tensor that the pickle describes at byte `at`. `offset` and `strides` in elements."""

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    at: int


GLOBALS: Mapping[str, object] = {
    **{
        f"{module}.{name}": Function(name)
        for module, name in (
            ("collections", "OrderedDict"),
            ("torch._utils", "_rebuild_tensor"),
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_tensor_v3"),
            ("torch._utils", "_rebuild_parameter"),
            ("torch._utils", "_rebuild_parameter_with_state"),
            ("torch", "Size"),
            ("torch", "device"),
        )
    },
    **{f"torch.{name}": DType(name) for name in DTYPES},
    **{f"torch.{name}": StorageClass(DType(dtype)) for name, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": StorageClass(None),
    "torch.UntypedStorage": StorageClass(None),
}


class StateDicts:
    """The vocabulary of state dicts, as `pickle_walk.Vocabulary` says. KeyError for everything else."""

    def find(self, name: str) -> object:
        return GLOBALS[name]

    def call(self, function: object, arguments: tuple[object, ...], at: int) -> object:
        if not isinstance(function, Function):
            raise KeyError(function)
        match function.name, arguments:
            case "OrderedDict", ():
                return {}
            case "Size", (tuple() as size,):
                return size
            case "device", (str(), *_):
                return None
            case "_rebuild_tensor", (Storage() as storage, offset, shape, strides):
                return _tensor(storage, storage.dtype, offset, shape, strides, at)
            case "_rebuild_tensor_v2", (Storage() as storage, offset, shape, strides, bool(), dict(), *more):
                return _tensor(storage, storage.dtype, offset, shape, strides, at, *more)
            case "_rebuild_tensor_v3", (
                Storage() as storage,
                offset,
                shape,
                strides,
                bool(),
                dict(),
                DType() as d,
                *more,
            ):
                return _tensor(storage, d, offset, shape, strides, at, *more)
            case "_rebuild_parameter", (Tensor() as tensor, bool(), dict()):
                return tensor
            case "_rebuild_parameter_with_state", (Tensor() as tensor, bool(), dict(), _):
                return tensor
        raise KeyError(function)

    def persistent(self, identity: object, at: int) -> object:
        match identity:
            case ("storage", StorageClass(dtype), str() as key, str(), int() as elements) if (
                0 <= elements <= MAX_ELEMENTS
            ):
                return Storage(key, dtype, elements * (dtype.itemsize if dtype else 1))
        raise KeyError(identity)


def _tensor(
    storage: Storage, dtype: DType | None, offset: object, shape: object, strides: object, at: int, *more: object
) -> Tensor:
    """The tensor of a call's arguments; KeyError when one of them is not of its kind."""
    # torch notes there that a tensor is to be read conjugated or negated.
    if dtype is None or more not in ((), (None,), ({},)):
        raise KeyError(dtype)
    if type(offset) is not int or not _integers(shape) or not _integers(strides):
        raise KeyError(offset)
    return Tensor(storage, dtype, offset, shape, strides, at)


def _integers(value: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and set(map(type, value)) <= _ONLY_INTEGERS
