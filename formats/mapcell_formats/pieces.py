"""A tensor's bytes as they come from its sources: piece by piece, or whole; as they are, or cast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .checkpoint import SourceTensor
from .dtypes import ITEMSIZE, numpy_dtype
from .source import ByteSource

# Fits the second-level cache of a core together with what is made of it, so that hashing reads from there; larger
# pieces measured slower, smaller ones pay for their system calls.
PIECE_BYTES = 1 << 20


def pieces(sources: Sequence[ByteSource], tensor: SourceTensor, buffer: bytearray) -> Iterator[memoryview]:
    """The tensor's bytes in order, in pieces of whole elements that fill `buffer`, each valid until the next.

    StagingFailed when a source ends early or cannot be read.
    """
    view, room = memoryview(buffer), len(buffer) // ITEMSIZE[tensor.dtype] * ITEMSIZE[tensor.dtype]
    held = 0
    for extent in tensor.extents:
        offset, end = extent.offset, extent.offset + extent.nbytes
        while offset < end:
            take = min(room - held, end - offset)
            sources[extent.source].read_into(offset, view[held : held + take])
            offset, held = offset + take, held + take
            if held == room:
                yield view[:held]
                held = 0
    if held:
        yield view[:held]


def cast(data: memoryview, dtype: str, target: str) -> memoryview:
    """`data`, elements of `dtype`, as elements of `target`; itself when they are the same.

    What `target` cannot hold becomes infinite, as NumPy and the processor have it.
    """
    if dtype == target:
        return data
    import numpy as np

    with np.errstate(all="ignore"):
        array: np.ndarray[Any, np.dtype[Any]] = np.frombuffer(data, numpy_dtype(dtype)).astype(numpy_dtype(target))
    return array.view(np.uint8).data


def whole(sources: Sequence[ByteSource], tensor: SourceTensor, target: str) -> memoryview:
    """All bytes of the tensor as elements of `target`, in memory. Errors as `pieces`."""
    out = memoryview(bytearray(tensor.nbytes // ITEMSIZE[tensor.dtype] * ITEMSIZE[target]))
    done = 0
    for piece in pieces(sources, tensor, bytearray(min(PIECE_BYTES, max(tensor.nbytes, 1)))):
        data = cast(piece, tensor.dtype, target)
        out[done : done + len(data)] = data
        done += len(data)
    return out
