"""Tensor's shape and dtype, and its conversions to other dtypes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels import indexing
from ..kernels.promotion import cast, is_floating
from ..storage import LazyInit, Unfilled, array_of, initializer_of
from .core import TensorCore, numpy_dtype_of, required_operand
from .dtype import (
    Type,
    bfloat16,
    bool_,
    check,
    float16,
    float32,
    float64,
    from_numpy,
    int16,
    int32,
    int64,
    meant,
    uint8,
)

if TYPE_CHECKING:
    from .tensor import Tensor


class TensorLayout(TensorCore):
    """What is known of a Tensor without its elements."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return self._storage.shape

    @property
    def dtype(self) -> Type:
        """The type of the elements."""
        return from_numpy(self._storage.dtype)

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self._storage.shape)

    @property
    def size(self) -> int:
        """How many elements there are."""
        return prod(self._storage.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._storage.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next along each axis."""
        storage = self._storage
        if isinstance(storage, np.ndarray):
            return storage.strides
        return tuple(storage.dtype.itemsize * prod(storage.shape[i + 1 :]) for i in range(self.ndim))

    def stride(self, dim: int | None = None) -> Any:
        """Elements from one to the next along each axis as a list, or along the axis `dim`."""
        steps = [step // self.itemsize for step in self.strides]
        return steps if dim is None else steps[dim]

    def dim(self) -> int:
        """How many axes there are."""
        return self.ndim

    def ndimension(self) -> int:
        """How many axes there are."""
        return self.ndim

    def numel(self) -> int:
        """How many elements there are."""
        return self.size

    nelement = numel

    def is_contiguous(self) -> bool:
        """Whether the elements lie row by row without gaps."""
        storage = self._storage
        return bool(storage.flags.c_contiguous) if isinstance(storage, np.ndarray) else True

    def contiguous(self) -> Tensor:
        """The same elements row by row without gaps; a copy only if they do not."""
        array = self._array
        return self._wrap(array if array.flags.c_contiguous else array.copy())

    def is_floating_point(self) -> bool:
        """Whether the dtype is floating."""
        return is_floating(self._storage.dtype)

    def is_complex(self) -> bool:
        """Whether the dtype is complex."""
        return self._storage.dtype.kind == "c"

    def is_signed(self) -> bool:
        """Whether the dtype has negative numbers."""
        return self._storage.dtype.kind not in "bu"


class TensorConvert(TensorLayout):
    """Conversions. Apart from TensorLayout because methods called int and bool hide the types of those names."""

    __slots__ = ()

    def astype(self, dtype: Type | str | type[Any], copy: bool = True) -> Tensor:
        """The elements in another dtype, also by name or as NumPy's; a copy unless `copy` is False and it fits."""
        wanted = meant(dtype, "astype").numpy
        array = cast(self._array, wanted)
        return self._wrap(array.copy() if copy and array is self._array else array)

    def to(self, dtype: Type, *args: Any, **kwargs: Any) -> Tensor:
        """The elements in `dtype`; shared when it already has it."""
        del args, kwargs
        return self.astype(dtype, copy=False)

    def type(self, dtype: Type | None = None) -> Any:
        """The name of the dtype; with `dtype`, the elements in that."""
        return str(self.dtype) if dtype is None else self.to(dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """The elements in the dtype of `other`."""
        return self.to(other.dtype)

    def set_dtype(self, dtype: Type) -> Type:
        """Converts in place and returns the dtype. A Tensor whose initializer has not run stays lazy."""
        wanted, storage = check(dtype, "set_dtype").numpy, self._storage
        init = initializer_of(storage)
        if init is not None:
            self._storage = LazyInit(init, storage.shape, wanted)
        elif isinstance(storage, Unfilled):
            self._storage = Unfilled(storage.shape, wanted)
        else:
            self._storage = cast(array_of(storage), wanted)
        return dtype

    def half(self) -> Tensor:
        """The elements as Float16."""
        return self.to(float16)

    def float(self) -> Tensor:
        """The elements as Float32."""
        return self.to(float32)

    def double(self) -> Tensor:
        """The elements as Float64."""
        return self.to(float64)

    def bfloat16(self) -> Tensor:
        """The elements as BFloat16."""
        return self.to(bfloat16)

    def int(self) -> Tensor:
        """The elements as Int32."""
        return self.to(int32)

    def short(self) -> Tensor:
        """The elements as Int16."""
        return self.to(int16)

    def byte(self) -> Tensor:
        """The elements as UInt8."""
        return self.to(uint8)

    def long(self) -> Tensor:
        """The elements as Int64."""
        return self.to(int64)

    def bool(self) -> Tensor:
        """Whether the elements are not zero."""
        return self.to(bool_)

    def fill(self, value: object) -> Tensor:
        """A Tensor of this shape and dtype filled with `value`."""
        out = np.empty(self.shape, self._storage.dtype)
        indexing.put(out, ..., required_operand(value, "fill"))
        return self._wrap(out)

    def new_zeros(self, size: Any, dtype: Type | None = None) -> Tensor:
        """Zeros of `size`, in this dtype unless given."""
        return self._wrap(np.zeros(size, numpy_dtype_of(dtype) or self._storage.dtype))

    def new_ones(self, size: Any, dtype: Type | None = None) -> Tensor:
        """Ones of `size`, in this dtype unless given."""
        return self._wrap(np.ones(size, numpy_dtype_of(dtype) or self._storage.dtype))
