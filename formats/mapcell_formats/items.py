"""What a writer is given: tensors and strings in the order in which they are to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from .checks import name_fault, shape_fault
from .dtypes import ITEMSIZE
from .errors import FormatError

if TYPE_CHECKING:
    from typing_extensions import Buffer


# Aligned for every vector unit, and one of the wider cache line pairs.
DEFAULT_ALIGN = 256
MAX_ALIGN = 1 << 21


@dataclass(frozen=True, slots=True)
class TensorItem:
    """One tensor to write.

    `data` holds its bytes, little-endian in C order, or is a function that brings them. It is asked for them when the
    tensor's turn to be written comes, and what it gave is let go of afterwards.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Buffer | Callable[[], Buffer]

    @property
    def nbytes(self) -> int:
        """Bytes that `dtype` and `shape` make."""
        return prod(self.shape) * ITEMSIZE[self.dtype]

    def view(self) -> memoryview:
        """The bytes, not copied. FormatError when they are not as many as dtype and shape say."""
        view = memoryview(self.data() if callable(self.data) else self.data)
        if view.nbytes != self.nbytes:
            raise FormatError(f"{view.nbytes} bytes given", tensor=self.name, expected=f"{self.nbytes} bytes")
        # A view without elements cannot be cast.
        return view.cast("B") if view.nbytes else memoryview(b"")


@dataclass(frozen=True, slots=True)
class StringItem:
    """One string to write among the tensors; only .ckpt holds such."""

    name: str
    text: str


Item = TensorItem | StringItem


def checked(items: Iterable[Item]) -> Iterator[Item]:
    """`items`, each checked as a reader would check it and its name seen for the first time; else FormatError."""
    seen: set[str] = set()
    for item in items:
        if fault := name_fault(item.name):
            raise FormatError(fault.message, tensor=item.name[:80], expected=fault.expected)
        if item.name in seen:
            raise FormatError("is given twice", tensor=item.name, expected="each name once")
        seen.add(item.name)
        if isinstance(item, TensorItem):
            _check_tensor(item)
        yield item


def check_align(align: int) -> None:
    """ValueError unless `align` is a power of two up to MAX_ALIGN."""
    if not 1 <= align <= MAX_ALIGN or align & (align - 1):
        raise ValueError(f"align={align}: it has to be a power of two from 1 to {MAX_ALIGN}")


def _check_tensor(item: TensorItem) -> None:
    if item.dtype not in ITEMSIZE:
        raise FormatError(f"there is no dtype {item.dtype!r}", tensor=item.name, expected=", ".join(ITEMSIZE))
    if fault := shape_fault(item.shape):
        raise FormatError(fault.message, tensor=item.name, expected=fault.expected)
