"""What a version holds, for Weights: what a manifest tells, told of a checkpoint that this process read itself.

A manifest is for others to map; here nobody but this process looks, so its bytes would be made only to be read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol

from mapcell_formats.dtypes import ITEMSIZE
from mapcell_formats.errors import FormatError, NotFound
from mapcell_formats.layout import cast_dtype
from mapcell_formats.limits import MAX_TENSORS
from mapcell_formats.manifest import NO_DIGEST, TensorEntry, near
from mapcell_formats.table import TensorTable

if TYPE_CHECKING:
    from mapcell_formats.checkpoint import SourceTensor
    from mapcell_formats.manifest import Description

# A named tuple without the call in between.
_new: Any = tuple.__new__


class Contents(Protocol):
    """What Weights ask of a Manifest, or of ReadContents. Entries are numbered in the checkpoint's order."""

    def __len__(self) -> int: ...

    def description(self) -> Description:
        """About the version as a whole."""
        ...

    def names(self) -> list[str]:
        """The name of each entry."""
        ...

    def find(self, name: str) -> int:
        """The number of the entry called `name`; -1 when there is none."""
        ...

    def __getitem__(self, name: str) -> TensorEntry:
        """The entry called `name`; NotFound with near names when there is none."""
        ...

    def entries(self) -> list[TensorEntry]:
        """Each entry."""
        ...

    def digest(self, number: int) -> bytes:
        """blake3 of the bytes of entry `number`; NO_DIGEST when they were not hashed."""
        ...


class ReadContents:
    """Contents of a checkpoint whose `tensors` a reader found, floating ones as `dtype` when given.

    FormatError when there are more than a version may have: several files can hold them, each no more than that.
    """

    def __init__(self, about: Description, tensors: Sequence[SourceTensor], dtype: str | None) -> None:
        if len(tensors) > MAX_TENSORS:
            raise FormatError(f"has {len(tensors)} tensors", expected=f"at most {MAX_TENSORS}")
        self._about = about
        self._tensors = tensors
        self._dtype = dtype
        self._table = tensors if dtype is None and isinstance(tensors, TensorTable) else None
        self._numbers: Mapping[str, int] = (
            tensors.numbers if isinstance(tensors, TensorTable) else {t.name: n for n, t in enumerate(tensors)}
        )

    def __len__(self) -> int:
        return len(self._tensors)

    def description(self) -> Description:
        """About the version as a whole."""
        return self._about

    def names(self) -> list[str]:
        """All names in the checkpoint's order."""
        return list(self._numbers)

    def find(self, name: str) -> int:
        """The number of the entry called `name`; -1 when there is none."""
        return self._numbers.get(name, -1)

    def tensor(self, entry: TensorEntry) -> SourceTensor:
        """What the checkpoint holds of one of `entries`."""
        return self._tensors[self._numbers[entry.name]]

    def lies_whole(self, entry: TensorEntry) -> bool:
        """Whether the bytes of one of `entries` lie in one piece of a source, in the dtype that it has."""
        if self._table is not None:
            return True
        tensor = self.tensor(entry)
        return tensor.dtype == entry.dtype and (len(tensor.extents) == 1 or entry.nbytes == 0)

    def __getitem__(self, name: str) -> TensorEntry:
        """The entry called `name`; NotFound with near names when there is none."""
        number = self._numbers.get(name)
        if number is None:
            raise NotFound(f"no tensor {name!r}{near(name, self.names())}", tensor=name)
        if self._table is not None:
            return TensorEntry(*self._table.row(number))
        return _entry(self._tensors[number], self._dtype)

    def entries(self) -> list[TensorEntry]:
        """All entries in the checkpoint's order."""
        if self._table is not None:
            return list(map(_new, repeat(TensorEntry), self._table.rows()))
        return [_entry(tensor, self._dtype) for tensor in self._tensors]

    def digest(self, number: int) -> bytes:
        """NO_DIGEST: nothing here is hashed."""
        return NO_DIGEST


def _entry(tensor: SourceTensor, dtype: str | None) -> TensorEntry:
    first = tensor.extents[0] if tensor.extents else None
    target = cast_dtype(tensor.dtype, dtype)
    nbytes = tensor.nbytes // ITEMSIZE[tensor.dtype] * ITEMSIZE[target]
    return TensorEntry(
        tensor.name, target, tensor.shape, first.source if first else 0, first.offset if first else 0, nbytes
    )
