"""Huge pages that the kernel makes: how much lies in them, what lies in them, and where there can be none."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapcell_formats.errors import StagingFailed
from mapcelld import gathering, memfd, staging
from mapcelld.memfd import HUGE_PAGE

COUNT = 4


@pytest.fixture
def memory() -> Iterator[int]:
    """Memory for four huge pages and a bit."""
    fd = memfd.create("gathered", COUNT * HUGE_PAGE + 5000)
    yield fd
    os.close(fd)


def huge() -> int:
    """Bytes of shared memory that lie in huge pages on this host."""
    found = re.search(r"^ShmemHugePages: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def gathered(fd: int, nbytes: int) -> int:
    """As `gather`. Skips where the kernel makes no huge pages of shared memory."""
    done = gathering.gather(fd, nbytes)
    if not done:
        pytest.skip("this kernel, or what memory this host has left, makes no huge pages")
    return done


def test_whole_pages_are_gathered(memory: int) -> None:
    """What fills huge pages lies in them, the rest does not; all of it is still zero, and no map is left."""
    maps = Path("/proc/self/maps").read_text().count("gathered")
    before = huge()
    done = gathered(memory, os.fstat(memory).st_size)
    assert done <= COUNT * HUGE_PAGE
    assert done % HUGE_PAGE == 0
    assert huge() - before >= done
    assert not any(os.pread(memory, os.fstat(memory).st_size, 0))
    assert Path("/proc/self/maps").read_text().count("gathered") == maps == 0


def test_written_and_sealed(memory: int) -> None:
    """It is written, sealed, mapped and read like any other memory."""
    size = os.fstat(memory).st_size
    gathered(memory, size)
    data = os.urandom(HUGE_PAGE + 17)
    memfd.write(memory, HUGE_PAGE - 5, data)
    memfd.seal(memory)
    assert memfd.is_sealed(memory, size)
    with mmap.mmap(memory, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as view:
        assert view[HUGE_PAGE - 5 : HUGE_PAGE - 5 + len(data)] == data
        assert view[: HUGE_PAGE - 5] == bytes(HUGE_PAGE - 5)
    with mmap.mmap(memory, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as own:
        own[0] = 7
    assert os.pread(memory, 1, 0) == b"\0"


@pytest.mark.parametrize("nbytes", [0, 1, HUGE_PAGE - 1])
def test_too_little(nbytes: int) -> None:
    """Less than a huge page stays as it is."""
    fd = memfd.create("little", nbytes)
    assert gathering.gather(fd, nbytes) == 0
    assert os.fstat(fd).st_blocks == 0
    os.close(fd)


def test_what_cannot_be_gathered(tmp_path: Path) -> None:
    """Where the kernel makes none, as for a file that is open for writing, none are made and nothing is left behind."""
    before = len(os.listdir("/proc/self/fd"))
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(2 * HUGE_PAGE)
        assert gathering.gather(file.fileno(), 2 * HUGE_PAGE) == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_written(memory: int) -> None:
    """Memory that cannot be had is a StagingFailed."""
    memfd.seal(memory)
    with pytest.raises(StagingFailed):
        gathering.gather(memory, HUGE_PAGE)


def test_no_longer_than_it_may(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over, what is left stays in small pages, and nothing else is different."""
    monkeypatch.setattr(gathering, "_SECONDS", -1.0)
    monkeypatch.setattr(gathering, "_SECONDS_FOR_EACH_BYTE", 0.0)
    assert gathering.gather(memory, os.fstat(memory).st_size) == 0
    assert not any(os.pread(memory, os.fstat(memory).st_size, 0))
    # A stager that says nothing for that long is given up.
    assert gathering.MOST_SECONDS <= staging.STALL_SECONDS / 2
