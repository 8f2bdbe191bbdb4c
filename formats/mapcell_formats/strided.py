"""Tensors whose elements do not lie in C order, read as if they did: transposed ones, channels-last, Fortran order.

Element (i, j, ...) lies at start + itemsize * (i * stride[0] + j * stride[1] + ...). The file is mapped while this is
read, since one piece of the result needs elements from everywhere; the kernel keeps and drops the pages, so that no
memory is taken. Source: NumPy's and torch's description of strides.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from .errors import StagingFailed
from .source import FileSource

if TYPE_CHECKING:
    import numpy as np


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides, in elements, of an array of `shape` in C order."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def in_c_order(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements lie in C order without gaps. Strides of dimensions of one element do not matter."""
    return 0 in shape or all(
        dim == 1 or stride == wanted for dim, stride, wanted in zip(shape, strides, c_strides(shape), strict=True)
    )


def span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """From the first element to the one that lies last, in elements; 0 for no elements. Strides are from 0 up."""
    if 0 in shape:
        return 0
    return 1 + sum((dim - 1) * stride for dim, stride in zip(shape, strides, strict=True))


class StridedSource:
    """A tensor's bytes in C order. `start` in bytes of `inner`, `strides` in elements; all of it lies in the file.

    Reading raises StagingFailed when the file became shorter. Thread-safe.
    """

    def __init__(
        self, inner: FileSource, start: int, itemsize: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.path = inner.path
        self.size = prod(shape) * itemsize
        self._inner, self._start, self._itemsize = inner, start, itemsize
        self._shape, self._strides = shape, strides
        self._array: np.ndarray[Any, np.dtype[Any]] | None = None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` from `offset` of the tensor's bytes."""
        # Mapped once for a tensor, not once for a piece, and let go of with its last piece.
        array = self._array if self._array is not None else self._map()
        first, skip = divmod(offset, self._itemsize)
        last = -(-(offset + len(buffer)) // self._itemsize)
        buffer[:] = array.flat[first:last].tobytes()[skip : skip + len(buffer)]
        self._array = array if offset + len(buffer) < self.size else None

    def _map(self) -> np.ndarray[Any, np.dtype[Any]]:
        import numpy as np

        page = self._start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        nbytes = self._start - page + span(self._shape, self._strides) * self._itemsize
        try:
            view = mmap.mmap(self._inner.fileno(), nbytes, access=mmap.ACCESS_READ, offset=page)
        except (OSError, ValueError) as exc:
            raise StagingFailed(f"{self.path}: cannot be mapped, perhaps it became shorter: {exc}") from exc
        strides = [stride * self._itemsize for stride in self._strides]
        return np.ndarray(self._shape, f"V{self._itemsize}", view, self._start - page, strides)
