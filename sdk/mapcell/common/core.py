"""What every family of Tensor methods stands on: the storage slot, and how elements become a Tensor again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.promotion import Array, DType, Operand
from ..storage import Storage
from .dtype import Type
from .dtype import check as check_dtype

if TYPE_CHECKING:
    from .tensor import Tensor


class TensorCore:
    """The slot that holds a Tensor's storage. Arithmetic on a Parameter gives Tensors, so `_wrap` always makes one."""

    __slots__ = ("__dict__", "__weakref__", "_storage")

    _storage: Storage

    @staticmethod
    def _wrap(array: Array) -> Tensor:
        """A Tensor around `array`, without a copy."""
        raise NotImplementedError("Tensor provides this")

    @property
    def _array(self) -> Array:
        storage = self._storage
        return storage if type(storage) is np.ndarray else storage.operand()  # type: ignore[union-attr]


def operand(value: object) -> Operand | None:
    """`value` as a kernel takes it: an array for Tensors, arrays and sequences, a number as it is, None otherwise."""
    if isinstance(value, TensorCore):
        return value._array
    if isinstance(value, np.ndarray | bool | int | float | complex):
        return value
    if isinstance(value, np.generic):
        return value  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return sequence_array(value)
    return None


def required_operand(value: object, who: str) -> Operand:
    """As `operand`. TypeError for what is neither a Tensor nor a number."""
    out = operand(value)
    if out is None:
        raise TypeError(f"{who}: expected a Tensor or a number, not {type(value).__name__}")
    return out


def sequence_array(items: list[Any] | tuple[Any, ...]) -> Array:
    """A list as an array: ints Int64, floats Float32, bools Bool; Tensors inside count as their elements."""
    array = np.array(plain(items))
    if array.dtype.kind not in "biufcV":
        raise TypeError(f"a Tensor holds numbers, and {items!r} has something else in it")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def plain(items: Any) -> Any:
    """A list with the Tensors in it, at any depth, replaced by their arrays."""
    if isinstance(items, TensorCore):
        return items._array
    return [plain(item) for item in items] if isinstance(items, list | tuple) else items


def numpy_dtype_of(dtype: Type | None) -> DType | None:
    """NumPy's dtype of a mapcell dtype, None for None. TypeError for anything else."""
    return None if dtype is None else check_dtype(dtype, "Tensor").numpy
