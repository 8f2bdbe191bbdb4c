"""Where each tensor lies in a segment that is filled once and then sealed.

Every tensor starts at a multiple of 256 bytes, which suits any vector unit and a GPU's copy engine; one of a mebibyte
or more starts on a page, so that a partial read touches none of its neighbour's pages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .checkpoint import SourceTensor
from .dtypes import FLOATING, ITEMSIZE
from .manifest import TensorEntry

ALIGNMENT = 256
PAGE = 4096
PAGE_ALIGNED_FROM = 1 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """The entries of one sealed segment and its size in bytes, a multiple of the page."""

    entries: tuple[TensorEntry, ...]
    nbytes: int


def align(offset: int, alignment: int) -> int:
    """The first multiple of `alignment` at or after `offset`."""
    return -(-offset // alignment) * alignment


def cast_dtype(dtype: str, target: str | None) -> str:
    """The dtype that a tensor of `dtype` has in a version derived for `target`: only floating tensors change."""
    return target if target is not None and dtype in FLOATING else dtype


def common_dtype(dtypes: Collection[str]) -> str:
    """What to call a version's dtype: that of its floating tensors, which a cast is about, else of all; or "mixed"."""
    chosen = {d for d in dtypes if d in FLOATING} or set(dtypes)
    return chosen.pop() if len(chosen) == 1 else "mixed"


def plan(tensors: Sequence[SourceTensor], target: str | None = None) -> Layout:
    """The layout of `tensors` in one segment, floating ones as `target` when given."""
    entries, offset = [], 0
    for tensor in tensors:
        dtype = cast_dtype(tensor.dtype, target)
        nbytes = tensor.nbytes // ITEMSIZE[tensor.dtype] * ITEMSIZE[dtype]
        offset = align(offset, PAGE if nbytes >= PAGE_ALIGNED_FROM else ALIGNMENT)
        entries.append(TensorEntry(tensor.name, dtype, tensor.shape, 0, offset, nbytes))
        offset += nbytes
    return Layout(tuple(entries), align(offset, PAGE))
