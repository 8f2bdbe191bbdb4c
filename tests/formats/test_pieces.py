"""Tensors' bytes piece by piece, whole, and cast."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hostile.building import MemorySource
from mapcell_formats.checkpoint import Extent, SourceTensor
from mapcell_formats.errors import StagingFailed
from mapcell_formats.pieces import cast, pieces, whole

VALUES = np.arange(10, dtype=np.float32)
RAW = VALUES.tobytes()
# In three pieces of two sources, the cuts within elements.
SOURCES = (MemorySource(b"??" + RAW[:13] + b"?" + RAW[30:]), MemorySource(RAW[13:30]))
TENSOR = SourceTensor("x", "F32", (10,), (Extent(0, 2, 13), Extent(1, 0, 17), Extent(0, 16, 10)))


@pytest.mark.parametrize("size", [4, 7, 12, 40, 100])
def test_pieces_hold_whole_elements(size: int) -> None:
    """However a tensor is cut into extents, each piece is as many elements as the buffer holds."""
    found = [bytes(piece) for piece in pieces(SOURCES, TENSOR, bytearray(size))]
    assert b"".join(found) == RAW
    assert {len(piece) for piece in found[:-1]} <= {size // 4 * 4}


@pytest.mark.parametrize("target", ["F32", "F16", "BF16", "F64"])
def test_whole(target: str) -> None:
    """A whole tensor, cast or not, is what NumPy makes of it."""
    itemsize = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}[target]
    data = whole(SOURCES, TENSOR, target)
    assert len(data) == 10 * itemsize
    assert np.array_equal(np.frombuffer(cast(data, target, "F32"), np.float32), VALUES)


def test_a_cast_out_of_range_is_infinite() -> None:
    """What the target cannot hold becomes infinite, without a warning."""
    data = memoryview(np.array([1e30, float("nan")], np.float32).tobytes())
    first, second = np.frombuffer(cast(data, "F32", "F16"), np.float16)
    assert math.isinf(first)
    assert math.isnan(second)


def test_no_elements() -> None:
    """A tensor without elements has no bytes."""
    assert bytes(whole(SOURCES, SourceTensor("x", "F32", (0, 3), ()), "F16")) == b""


def test_a_source_that_ends() -> None:
    """A source that turns out shorter is StagingFailed."""
    with pytest.raises(StagingFailed):
        whole((MemorySource(RAW[:8]), SOURCES[1]), TENSOR, "F32")
