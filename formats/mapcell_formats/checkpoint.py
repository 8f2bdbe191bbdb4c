"""What a checkpoint is once its header was read, and what a reader of one format has to offer.

A reader looks at bytes and answers with a `Checkpoint`: which tensors there are and where their bytes lie. It never
reads the tensors themselves. Whoever stages or maps them takes the extents from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple, Protocol

from .dtypes import ITEMSIZE
from .source import ByteSource, FileSource


# Named tuples: a million of each may have to be made, and a frozen dataclass takes twice as long to make.
class Extent(NamedTuple):
    """`nbytes` consecutive bytes at `offset` of the checkpoint's source number `source`."""

    source: int
    offset: int
    nbytes: int


class SourceTensor(NamedTuple):
    """One tensor as the checkpoint holds it: little-endian, C order, its bytes the extents one after another.

    `dtype` is spelled as in `dtypes.CODES`. A tensor without elements has no extents or one of 0 bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    extents: tuple[Extent, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor: elements times item size."""
        return prod(self.shape) * ITEMSIZE[self.dtype]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The parsed and validated header of one checkpoint.

    Guaranteed by every reader: names are unique and no longer than MAX_NAME_BYTES in UTF-8, dtypes are known, the
    extents of a tensor add up to its `nbytes` and lie within their source. Tensors come in the file's order.
    """

    format: str
    tensors: Sequence[SourceTensor]
    sources: tuple[ByteSource, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(t.nbytes for t in self.tensors)

    def mappable(self) -> bool:
        """Whether every tensor can be used where it lies: one extent of a file, aligned to its item size."""
        return self.obstacle() is None

    def obstacle(self) -> str | None:
        """Why this checkpoint cannot be used where it lies, by its first tensor that cannot; None when it can."""
        for number, source in enumerate(self.sources):
            if not isinstance(source, FileSource):
                return self._undecoded(number)
        return next(filter(None, map(_obstacle, self.tensors)), None)

    def obstructed(self) -> int:
        """How many tensors cannot be used where they lie, each looked at by itself."""
        files = {number for number, source in enumerate(self.sources) if isinstance(source, FileSource)}
        return sum(any(e.source not in files for e in t.extents) or _obstacle(t) is not None for t in self.tensors)

    def _undecoded(self, number: int) -> str:
        for tensor in self.tensors:
            if any(extent.source == number for extent in tensor.extents):
                return f"tensor {tensor.name!r} is compressed, encrypted or not in C order, and has to be decoded first"
        return f"{self.sources[number].path} has to be decoded first"


def _obstacle(tensor: SourceTensor) -> str | None:
    if len(tensor.extents) > 1:
        return f"tensor {tensor.name!r} lies in {len(tensor.extents)} pieces"
    size = ITEMSIZE[tensor.dtype]
    if tensor.extents and tensor.extents[0].offset % size:
        offset = tensor.extents[0].offset
        return f"tensor {tensor.name!r} lies at byte {offset}, which is no multiple of its item size {size}"
    return None


class Reader(Protocol):
    """One checkpoint format. A module of this package holds one reader and the byte layout it reads."""

    @property
    def format(self) -> str: ...

    def accepts(self, head: bytes, size: int) -> bool:
        """Whether a file of `size` bytes that starts with `head` (up to HEAD_BYTES) is of this format."""
        ...

    def parse(self, source: ByteSource) -> Checkpoint:
        """The checkpoint in `source`. FormatError names the tensor and offset; nothing is executed."""
        ...
