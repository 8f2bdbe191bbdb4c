"""Memory figures: parsed from text that the kernel wrote, and checked against memory that the test makes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest

from mapcell.demo.measure import (
    Mapping,
    Memory,
    family,
    mapping_at,
    memory_available,
    memory_of,
    parse_mappings,
    parse_memory,
    since_boot,
    started_at,
)

MIB = 1 << 20
ROLLUP = """\
55d0c0c8e000-7ffd1d9f6000 ---p 00000000 00:00 0                          [rollup]
Rss:               28656 kB
Pss:               16826 kB
Pss_Dirty:         13596 kB
Shared_Clean:      15052 kB
Shared_Dirty:          0 kB
Private_Clean:         8 kB
Private_Dirty:     13596 kB
Shared_Hugetlb:     4096 kB
Private_Hugetlb:    2048 kB
"""
SMAPS = """\
7f3c2c000000-7f3c2c400000 r--s 00000000 00:01 1025                       /memfd:mapcell (deleted)
Size:               4096 kB
Rss:                  12 kB
Pss:                   6 kB
Private_Clean:         0 kB
Private_Dirty:         4 kB
VmFlags: rd sh mr me ms sd
7ffd1d9d5000-7ffd1d9f6000 rw-p 00000000 00:00 0                          [stack]
Size:                132 kB
Rss:                  20 kB
Pss:                  20 kB
Private_Clean:         4 kB
Private_Dirty:        16 kB
7ffd1d9f8000-7ffd1d9fa000 rw-p 00000000 00:00 0
Rss:                   8 kB
"""


def test_parse_rollup() -> None:
    """Huge pages are counted apart, and the private ones are private."""
    kib = 1024
    assert parse_memory(ROLLUP) == Memory(28656 * kib, 16826 * kib, (8 + 13596 + 2048) * kib, 6144 * kib)


def test_parse_smaps_adds_up() -> None:
    """A full smaps gives the sums of its mappings, for kernels without smaps_rollup."""
    assert parse_memory(SMAPS) == Memory(40 * 1024, 26 * 1024, 24 * 1024, 0)


def test_parse_mappings() -> None:
    """Each mapping has its range, access, name (with blanks in it, or none) and resident bytes."""
    assert list(parse_mappings(SMAPS)) == [
        Mapping(0x7F3C2C000000, 0x7F3C2C400000, "r--s", "/memfd:mapcell (deleted)", 12 * 1024),
        Mapping(0x7FFD1D9D5000, 0x7FFD1D9F6000, "rw-p", "[stack]", 20 * 1024),
        Mapping(0x7FFD1D9F8000, 0x7FFD1D9FA000, "rw-p", "", 8 * 1024),
    ]


def test_parse_nothing() -> None:
    """A process without memory, a zombie, has zeros."""
    assert parse_memory("") == Memory(0, 0, 0, 0)
    assert list(parse_mappings("")) == []


def test_private_memory_shows() -> None:
    """Memory that this process fills is private to it."""
    before = memory_of(os.getpid())
    held = bytearray(os.urandom(64)) * (MIB // 2)
    after = memory_of(os.getpid())
    assert after.private - before.private >= len(held) * 0.9
    assert after.pss - before.pss >= len(held) * 0.9


def test_mapping_counts_touched_pages() -> None:
    """A fresh mapping has no resident page; touching every page of its first half makes those resident."""
    with mmap.mmap(-1, 4 * MIB) as memory:
        # A writable anonymous map may merge with a neighbour: look at the difference.
        address = _address(memory)
        before = mapping_at(address).rss
        for offset in range(0, 2 * MIB, mmap.PAGESIZE):
            memory[offset] = 1
        assert mapping_at(address).rss - before >= 2 * MIB


def _address(memory: mmap.mmap) -> int:
    import numpy as np

    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def test_unmapped_address() -> None:
    """Nothing is mapped at the lowest addresses."""
    with pytest.raises(LookupError, match="0x10"):
        mapping_at(0x10)


def test_family() -> None:
    """A process's children belong to it; a process that is gone has no family."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in family(os.getpid())
        assert family(child.pid) == [child.pid]
    assert family(child.pid) == []


def test_clocks() -> None:
    """This process started before now, and not before the machine."""
    assert 0 < started_at() <= since_boot()


def test_available() -> None:
    """MemAvailable is some memory, and less than all addresses."""
    assert MIB < memory_available() < 1 << 56
