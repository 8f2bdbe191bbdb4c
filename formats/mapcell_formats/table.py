"""A checkpoint's tensors as columns: of 100,000 a worker wants ten, and only what is asked for becomes a tensor.

As rows they would be 200,000 objects, which take as long to make as the header takes to read, and which the garbage
collector walks through again whenever they have become more. Strings and integers it never looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import itemgetter, sub
from typing import Any, NamedTuple, overload

from .checkpoint import Extent, SourceTensor

Row = tuple[str, str, tuple[int, ...], int, int, int]

# A named tuple without the call in between.
_new: Any = tuple.__new__


class Kind(NamedTuple):
    """What many tensors share: dtype, shape in elements, and the bytes that these make."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class TensorTable(Sequence[SourceTensor]):
    """Tensors of one file, each beginning where the one before it ends, the first at byte `start` of source number 0.

    `numbers` leads from the names, which stand in the tensors' order, to their places in `kinds` and in `ends`: what
    each tensor is, and where it ends, in bytes from `start`.
    """

    def __init__(self, start: int, numbers: Mapping[str, int], kinds: Sequence[Kind], ends: Sequence[int]) -> None:
        self.numbers = numbers
        self._start = start
        self._kinds = kinds
        self._ends = ends
        # Not functools.cached_property: in Python 3.11 it has one lock for all, which a child may inherit taken.
        self._made: tuple[SourceTensor, ...] | None = None
        self._listed: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, number: int) -> SourceTensor: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[SourceTensor]: ...
    def __getitem__(self, number: int | slice) -> SourceTensor | Sequence[SourceTensor]:
        if isinstance(number, slice):
            return self._tensors[number]
        name, dtype, shape, source, offset, nbytes = self.row(number)
        return SourceTensor(name, dtype, shape, (Extent(source, offset, nbytes),) if nbytes else ())

    def __iter__(self) -> Iterator[SourceTensor]:
        return iter(self._tensors)

    def row(self, number: int) -> Row:
        """What `rows` gives of tensor `number`. IndexError when there is none."""
        dtype, shape, nbytes = self._kinds[number]
        offset = self._start + self._ends[number] - nbytes if nbytes else 0
        return self._names[number], dtype, shape, 0, offset, nbytes

    def rows(self) -> Iterator[Row]:
        """Name, dtype, shape, source, offset in it and bytes of each tensor; without bytes the offset is 0."""
        offsets, nbytes = self._places()
        dtypes, shapes = self._dtypes_and_shapes()
        return zip(self.numbers, dtypes, shapes, repeat(0), offsets, nbytes)

    def _dtypes_and_shapes(self) -> tuple[Iterator[str], Iterator[tuple[int, ...]]]:
        return map(itemgetter(0), self._kinds), map(itemgetter(1), self._kinds)

    def _places(self) -> tuple[list[int], list[int]]:
        nbytes = list(map(itemgetter(2), self._kinds))
        offsets = list(map(sub, map(self._start.__add__, self._ends), nbytes))
        if 0 in nbytes:
            offsets = [offset if size else 0 for offset, size in zip(offsets, nbytes, strict=True)]
        return offsets, nbytes

    @property
    def _names(self) -> Sequence[str]:
        if self._listed is None:
            self._listed = tuple(self.numbers)
        return self._listed

    @property
    def _tensors(self) -> tuple[SourceTensor, ...]:
        if self._made is None:
            self._made = self._all()
        return self._made

    def _all(self) -> tuple[SourceTensor, ...]:
        offsets, nbytes = self._places()
        extents: Iterable[tuple[Extent, ...]] = zip(map(_new, repeat(Extent), zip(repeat(0), offsets, nbytes)))
        if 0 in nbytes:
            extents = (extent if size else () for extent, size in zip(extents, nbytes, strict=True))
        dtypes, shapes = self._dtypes_and_shapes()
        return tuple(map(_new, repeat(SourceTensor), zip(self.numbers, dtypes, shapes, extents, strict=True)))
