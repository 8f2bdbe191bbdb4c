"""Deflated members are inflated as far as they claim, and a claim that is wrong is an error."""

from __future__ import annotations

import threading
import tracemalloc
import zlib

import pytest

from hostile.building import MemorySource, deflated
from mapcell_formats.errors import FormatError
from mapcell_formats.inflate import MAX_RATIO, InflatedSource
from mapcell_formats.source import read

PLAIN = b"".join(i.to_bytes(4, "big") * 7 for i in range(20_000))


def _source(packed: bytes, size: int, crc: int = 0, before: bytes = b"abc") -> InflatedSource:
    inner = MemorySource(before + packed + b"what follows")
    return InflatedSource(inner, len(before), len(packed), size, crc, "weight.npy")


def test_any_order() -> None:
    """Reading on, skipping, going back and reading the same again all give the plain bytes."""
    source = _source(deflated(PLAIN), len(PLAIN), zlib.crc32(PLAIN))
    for start, nbytes in ((0, 10), (10, 70_000), (200_000, 5), (100, 3), (0, len(PLAIN)), (len(PLAIN) - 1, 1), (5, 0)):
        assert read(source, start, nbytes) == PLAIN[start : start + nbytes]
    assert source.head(20) == PLAIN[:20]


def test_threads() -> None:
    """Two threads that read one member each get their bytes."""
    source = _source(deflated(PLAIN), len(PLAIN), zlib.crc32(PLAIN))
    found: dict[int, bytes] = {}

    def work(start: int) -> None:
        pieces = [bytes(read(source, at, 10_000)) for at in range(start, start + 100_000, 10_000)]
        found[start] = b"".join(pieces)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 300_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {start: PLAIN[start : start + 100_000] for start in (0, 300_000)}


BROKEN: dict[str, tuple[bytes, int, int, str]] = {
    "more than claimed": (deflated(PLAIN), len(PLAIN) - 1, 0, "inflates to more than"),
    "less than claimed": (deflated(PLAIN), len(PLAIN) + 1, 0, f"inflates to {len(PLAIN)} bytes"),
    "cut": (deflated(PLAIN)[:-5], len(PLAIN), 0, "ends after"),
    "another checksum": (deflated(PLAIN), len(PLAIN), 1, "has the CRC-32"),
    "no deflated data": (b"\xff" * 50, 50, 0, "is no deflated data"),
    "nothing": (b"", 5, 0, "ends after 0 bytes"),
    "an endless row of empty blocks": (b"\x00\x00\x00\xff\xff" * 40_000, 5, 0, "ends after 0 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_streams(case: str) -> None:
    """A stream that is none, or makes other bytes than its entry says, is named with member and offset."""
    packed, size, crc, says = BROKEN[case]
    with pytest.raises(FormatError, match=says) as caught:
        read(_source(packed, size, crc), 0, size)
    assert caught.value.offset == 3
    assert "'weight.npy'" in str(caught.value)


def test_a_bomb_costs_what_is_read_of_it() -> None:
    """Of a stream that would make a gigabyte only the claimed part is ever made, piece by piece."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    assert len(bomb) * MAX_RATIO > 100 << 20
    source = _source(bomb, 1 << 20)
    tracemalloc.start()
    with pytest.raises(FormatError, match="inflates to more than"):
        read(source, 0, 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20


def test_state_is_not_kept() -> None:
    """What was read to its end, or only looked at, keeps no inflater: a checkpoint may have 100,000 members."""
    sources = [_source(deflated(PLAIN[:4000]), 4000, zlib.crc32(PLAIN[:4000])) for _ in range(200)]
    tracemalloc.start()
    for source in sources:
        source.head(128)
        read(source, 0, source.size)
    assert tracemalloc.get_traced_memory()[0] < 200_000
    tracemalloc.stop()
