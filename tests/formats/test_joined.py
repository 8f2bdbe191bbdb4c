"""Parts behind one another are read as one source."""

from __future__ import annotations

import pytest

from hostile.building import MemorySource
from mapcell_formats.checkpoint import Extent
from mapcell_formats.errors import StagingFailed
from mapcell_formats.joined import JoinedSource, Joiner
from mapcell_formats.source import read

PARTS = (b"", b"abc", b"", b"", b"d", b"efghij", b"")
WHOLE = b"".join(PARTS)


def test_every_range() -> None:
    """Whatever range is read, over none, one or several parts, has the bytes of the whole."""
    source = JoinedSource("/m/x", [MemorySource(part) for part in PARTS])
    assert source.size == len(WHOLE)
    for start in range(len(WHOLE) + 1):
        for stop in range(start, len(WHOLE) + 1):
            assert read(source, start, stop - start) == WHOLE[start:stop]


@pytest.mark.parametrize("offset", [5, 10, 11, -1])
def test_beyond_the_end(offset: int) -> None:
    """Reading before the start or beyond the end fails with the path."""
    source = JoinedSource("/m/x", [MemorySource(part) for part in PARTS])
    with pytest.raises(StagingFailed, match="/m/x: ended at byte"):
        read(source, offset, 8)


def test_joiner() -> None:
    """What is collected is told its place in the one source that comes of it; nothing makes no source."""
    joiner = Joiner("/m/x", 3)
    assert joiner.sources() == ()
    assert joiner.add(MemorySource(b"abc"), 1, 2) == Extent(3, 1, 2)
    assert joiner.add(MemorySource(b"defg"), 0, 4) == Extent(3, 3, 4)
    (source,) = joiner.sources()
    assert read(source, 1, 6) == b"bcdefg"
