"""Short pieces near one another come with one read."""

from __future__ import annotations

import pytest

from hostile.building import MemorySource
from mapcell_formats.errors import StagingFailed
from mapcell_formats.window import READ_AHEAD, Window

DATA = bytes(i % 251 for i in range(3 * READ_AHEAD))


def test_pieces() -> None:
    """Whatever is asked for in whatever order is what lies there, up to the last byte."""
    window = Window(MemorySource(DATA))
    last = len(DATA) - 5
    for offset, nbytes in (
        (0, 10),
        (READ_AHEAD - 3, 20),
        (5, 1),
        (100, READ_AHEAD),
        (1, 2 * READ_AHEAD),
        (last, 5),
        (9, 0),
    ):
        assert window.take(offset, nbytes) == DATA[offset : offset + nbytes]


def test_near_ones_are_read_once() -> None:
    """A page of small pieces costs one page."""
    source = MemorySource(DATA)
    window = Window(source)
    assert b"".join(window.take(offset, 16) for offset in range(0, READ_AHEAD, 16)) == DATA[:READ_AHEAD]
    assert source.bytes_read == READ_AHEAD


def test_long_ones_are_not_kept() -> None:
    """After a long piece the short ones around the one before are still at hand."""
    source = MemorySource(DATA)
    window = Window(source)
    window.take(0, 16)
    window.take(0, len(DATA))
    window.take(16, 16)
    assert source.bytes_read == READ_AHEAD + len(DATA)


def test_a_source_that_became_shorter() -> None:
    """What the source raises comes through."""
    source = MemorySource(DATA)
    window = Window(source)
    source.size = 10
    with pytest.raises(StagingFailed):
        window.take(8, 8)
