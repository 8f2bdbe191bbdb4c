"""Floats of what GGUF holds in quantised blocks, made while they are read.

A derived version, one with a `dtype`, is where quantised tensors turn into floats: `dequantised` takes the place of the
checkpoint between reader and cast. Each quantised tensor becomes an F32 one in its full shape, whose bytes lie in a
`DequantisedSource`: a ByteSource that reads the blocks behind whatever piece is asked for and unpacks them, so that
neither stager nor worker holds more than that piece. Everything else (sizes, layout, the cast to float16 or bfloat16,
hashing) goes on as for any other F32 tensor that has to be staged.

The arithmetic is that of the package `gguf`, ggml's own in NumPy: https://pypi.org/project/gguf.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from .checkpoint import Checkpoint, Extent, SourceTensor
from .errors import UnsupportedFormat
from .gguf import QUANTISED, READER, Blocks, parse_type_key, type_key
from .source import ByteSource, read

if TYPE_CHECKING:
    import numpy as np

    Unpack = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]

# Weights that are unpacked at once. The package's intermediate arrays take up to some 100 bytes for each.
_WEIGHTS_AT_ONCE = 1 << 17
_F32_BYTES = 4
_BY_NAME: Mapping[str, Blocks] = {blocks.name: blocks for blocks in QUANTISED.values()}


@dataclass(frozen=True, slots=True)
class _Run:
    """One tensor's blocks, and how they are unpacked."""

    extent: Extent
    blocks: Blocks
    unpack: Unpack

    @property
    def nbytes(self) -> int:
        """Bytes of its weights in F32."""
        return self.extent.nbytes // self.blocks.nbytes * self.blocks.elements * _F32_BYTES


def dequantised(checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint` with its quantised tensors as F32 in their full shape; itself when it has none.

    UnsupportedFormat when the package gguf is missing, or unpacks no blocks of that type.
    """
    if checkpoint.format != READER.format:
        return checkpoint
    tensors: list[SourceTensor] = []
    runs: list[_Run] = []
    offset = 0
    for tensor in checkpoint.tensors:
        blocks = _BY_NAME.get(checkpoint.metadata.get(type_key(tensor.name), ""))
        if blocks is None:
            tensors.append(tensor)
            continue
        shape = (*tensor.shape[:-1], tensor.shape[-1] // blocks.nbytes * blocks.elements)
        extents: tuple[Extent, ...] = ()
        if tensor.extents:
            run = _Run(tensor.extents[0], blocks, _unpacker(blocks, checkpoint.sources[0].path, tensor.name))
            extents = (Extent(len(checkpoint.sources), offset, run.nbytes),)
            runs.append(run)
            offset += run.nbytes
        tensors.append(SourceTensor(tensor.name, "F32", shape, extents))
    metadata = {k: v for k, v in checkpoint.metadata.items() if parse_type_key(k) is None}
    sources = (*checkpoint.sources, DequantisedSource(checkpoint.sources, runs)) if runs else checkpoint.sources
    return Checkpoint(checkpoint.format, tuple(tensors), sources, metadata)


class DequantisedSource:
    """The weights of `runs` in F32, one after another, unpacked whenever they are read. Thread-safe."""

    def __init__(self, sources: tuple[ByteSource, ...], runs: list[_Run]) -> None:
        self.path = sources[0].path
        self._sources, self._runs = sources, runs
        self._starts = list(accumulate((run.nbytes for run in runs), initial=0))
        self.size = self._starts.pop()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer`; StagingFailed when the blocks cannot be read."""
        done = 0
        while done < len(buffer):
            number = bisect_right(self._starts, offset + done) - 1
            within = offset + done - self._starts[number]
            done += self._read_some(self._runs[number], within, buffer[done:])

    def _read_some(self, run: _Run, offset: int, buffer: memoryview) -> int:
        """Fills the beginning of `buffer` from `offset` of the weights of `run`: how many bytes that was."""
        import numpy as np

        blocks, extent = run.blocks, run.extent
        size = blocks.elements * _F32_BYTES
        first = offset // size
        wanted = -(-(offset + len(buffer)) // size) - first
        count = min(wanted, run.nbytes // size - first, _WEIGHTS_AT_ONCE // blocks.elements)
        start, nbytes = extent.offset + first * blocks.nbytes, count * blocks.nbytes
        raw = read(self._sources[extent.source], start, nbytes)
        # As one row: of many, the package takes sixteen at a time, and was twelve times slower.
        weights = run.unpack(np.frombuffer(raw, np.uint8).reshape(1, -1))
        piece: memoryview = weights.reshape(-1).view(np.uint8).data[offset - first * size :][: len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)


def _unpacker(blocks: Blocks, path: str, tensor: str) -> Unpack:
    unpack = _unpack(blocks)
    if isinstance(unpack, str):
        raise UnsupportedFormat(f"is quantised as {blocks.name}", path=path, tensor=tensor, expected=unpack)
    return unpack


@cache
def _unpack(blocks: Blocks) -> Unpack | str:
    """Blocks to weights, or what it takes to have such a function."""
    try:
        from gguf import quants
        from gguf.constants import GGMLQuantizationType
    except ImportError:
        return "the package gguf, to make floats of it: pip install 'mapcell[gguf]'"
    import numpy as np

    def unpack(raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        # A scale may be infinite or no number, and so may what it scales.
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(quants.dequantize(raw, kind), np.float32)

    try:
        kind = GGMLQuantizationType[blocks.name]
        unpack(np.zeros((1, blocks.nbytes), np.uint8))
    except (KeyError, NotImplementedError):
        return f"no dtype: the installed package gguf makes no floats of {blocks.name}"
    return unpack
