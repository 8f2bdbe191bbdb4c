"""Arrays as tensors: the same bytes, each tensor with a storage of its own that keeps the array, its map and lease.

NumPy and torch do not know the same dtypes, so the bytes cross as bytes and get torch's dtype there. Each tensor has
its own storage because torch.save, pickling and safetensors write, and compare, whole storages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

if TYPE_CHECKING:
    from ..mapping import Array
    from ..weights import Weights

DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
}
_CODES: Mapping[torch.dtype, str] = {dtype: code for code, dtype in DTYPES.items()}


def code_of(dtype: Any) -> Any:
    """What ``attach`` calls a torch dtype; anything else as it is, for ``attach`` to judge."""
    return _CODES.get(dtype, dtype) if isinstance(dtype, torch.dtype) else dtype


def storage_of(array: Array) -> torch.UntypedStorage:
    """The bytes of a C-ordered array as a storage, which keeps the array alive.

    A read-only array comes through DLPack, which says so; torch knows no such thing and would write into it.
    """
    flat = array.reshape(-1).view(np.uint8)
    return (torch.from_numpy(flat) if flat.flags.writeable else from_dlpack(flat)).untyped_storage()


def tensor_of(array: Array, code: str) -> torch.Tensor:
    """The array, of dtype `code`, as a tensor over the same bytes; one without elements owns none."""
    # Not where an enclosing torch.device(...) would put them.
    if array.size == 0:
        return torch.empty(array.shape, dtype=DTYPES[code], device="cpu")
    return torch.empty(0, dtype=DTYPES[code], device="cpu").set_(
        storage_of(array), 0, array.shape, _strides(array.shape)
    )


def _strides(shape: tuple[int, ...]) -> list[int]:
    """In elements, of a tensor in C order."""
    return [*accumulate(shape[:0:-1], mul, initial=1)][::-1] if shape else []


def tensors_of(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor by name, in the checkpoint's order."""
    for entry in weights.entries():
        yield entry.name, tensor_of(weights.at(entry), entry.dtype)
