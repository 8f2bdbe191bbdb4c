"""Filling: every byte is read once, cast if asked, hashed, and given to its place."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from blake3 import blake3

from hostile.building import MemorySource
from mapcell_formats.checkpoint import Extent, SourceTensor
from mapcell_formats.errors import StagingFailed
from mapcell_formats.layout import plan
from mapcelld.filling import MAX_THREADS, Counter, fill, threads


class Memory:
    """A destination that remembers what it was given, from whichever thread."""

    def __init__(self, nbytes: int) -> None:
        self.data = bytearray(nbytes)
        self.written = 0
        self._lock = threading.Lock()

    def take(self, offset: int, data: memoryview) -> None:
        """The sink."""
        with self._lock:
            self.data[offset : offset + len(data)] = data
            self.written += len(data)


def quiet(nbytes: int = 1 << 60) -> Counter:
    """A counter that reports nothing."""
    return Counter(report=lambda done: None, step=nbytes)


def test_as_they_are() -> None:
    """Tensors in pieces, large, empty and scalar arrive whole, each with the hash of its bytes."""
    source = np.random.default_rng(1).integers(0, 256, 3_000_000, np.uint8).tobytes()
    sources = [MemorySource(source[:2_000_000]), MemorySource(source[2_000_000:])]
    tensors = [
        SourceTensor("pieces", "U8", (1_500_000,), (Extent(0, 1_000_000, 1_000_000), Extent(1, 0, 500_000))),
        SourceTensor("large", "U8", (1_000_000,), (Extent(0, 0, 1_000_000),)),
        SourceTensor("none", "F32", (0, 3), ()),
        SourceTensor("one", "F64", (), (Extent(1, 500_001, 8),)),
    ]
    layout = plan(tensors)
    memory, counter = Memory(layout.nbytes), quiet()
    digests = fill(memory.take, sources, tensors, layout.entries, counter)
    expected = [source[1_000_000:2_500_000], source[:1_000_000], b"", source[2_500_001:2_500_009]]
    for entry, digest, data in zip(layout.entries, digests, expected, strict=True):
        assert memory.data[entry.offset : entry.offset + entry.nbytes] == data
        assert digest == blake3(data).digest()
    assert counter.done == memory.written == sum(map(len, expected))
    assert [s.bytes_read for s in sources] == [2_000_000, 500_008]


def test_cast() -> None:
    """Floating tensors are cast as NumPy casts them, over the seams of pieces; the others are left alone."""
    values = np.random.default_rng(2).standard_normal(700_001).astype(np.float32)
    source = MemorySource(values.tobytes() + b"\1\2\3\4")
    cut = 4 * 333_333 + 2
    tensors = [
        SourceTensor("f", "F32", values.shape, (Extent(0, 0, cut), Extent(0, cut, values.nbytes - cut))),
        SourceTensor("i", "I16", (2,), (Extent(0, values.nbytes, 4),)),
    ]
    layout = plan(tensors, "F16")
    memory = Memory(layout.nbytes)
    digests = fill(memory.take, [source], tensors, layout.entries, quiet())
    half = values.astype(np.float16).tobytes()
    assert memory.data[: len(half)] == half
    assert digests[0] == blake3(half).digest()
    place = layout.entries[1]
    assert (place.dtype, memory.data[place.offset : place.offset + 4]) == ("I16", b"\1\2\3\4")


def test_a_source_that_ends() -> None:
    """A source that ends early fails the whole, from whichever thread it was read."""
    tensors = [SourceTensor(str(i), "U8", (10,), (Extent(0, 10 * i, 10),)) for i in range(9)]
    layout = plan(tensors)
    with pytest.raises(StagingFailed, match="ended at byte 85"):
        fill(Memory(layout.nbytes).take, [MemorySource(bytes(85))], tensors, layout.entries, quiet())


def test_reports() -> None:
    """Progress is told at most once a step, and never runs backwards."""
    told: list[int] = []
    tensors = [SourceTensor(str(i), "U8", (100,), (Extent(0, 0, 100),)) for i in range(100)]
    layout = plan(tensors)
    counter = Counter(report=told.append, step=1000)
    fill(Memory(layout.nbytes).take, [MemorySource(bytes(100))], tensors, layout.entries, counter)
    assert told == sorted(told)
    assert (len(told), told[-1], counter.done) == (10, 10_000, 10_000)


def test_threads() -> None:
    """No more than there are cores to run them."""
    assert 1 <= threads() <= MAX_THREADS
