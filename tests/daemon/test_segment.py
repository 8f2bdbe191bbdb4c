"""Segments: every client gets a description of its own, and what it does to that is its own affair."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.building import sealed_segment
from mapcelld.lingering import Lingering
from mapcelld.segment import Segment

DATA = bytes(range(256)) * 32


@pytest.fixture(params=["sealed", "mapped"])
def segment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Segment]:
    """A segment of each residence."""
    if request.param == "sealed":
        held = sealed_segment(DATA)
    else:
        (tmp_path / "file").write_bytes(DATA)
        held = Segment(os.open(tmp_path / "file", os.O_RDONLY | os.O_CLOEXEC), len(DATA))
    yield held
    held.close()


def test_a_description_each(segment: Segment) -> None:
    """Offset and flags that one client sets are seen by no other and not by the daemon."""
    fds = [segment.reopen() for _ in range(3)]
    try:
        os.lseek(fds[0], 100, os.SEEK_SET)
        fcntl.fcntl(fds[0], fcntl.F_SETFL, os.O_NONBLOCK | os.O_DIRECT | os.O_APPEND | os.O_ASYNC)
        fcntl.fcntl(fds[0], fcntl.F_SETSIG, 10)
        fcntl.fcntl(fds[0], fcntl.F_SETOWN, os.getpid())
        os.set_inheritable(fds[0], True)
        for fd in (*fds[1:], segment.fileno()):
            assert os.lseek(fd, 0, os.SEEK_CUR) == 0
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            assert not flags & (os.O_NONBLOCK | os.O_DIRECT | os.O_APPEND | os.O_ASYNC)
            assert flags & os.O_ACCMODE == os.O_RDONLY
            assert fcntl.fcntl(fd, fcntl.F_GETSIG) == fcntl.fcntl(fd, fcntl.F_GETOWN) == 0
            assert not os.get_inheritable(fd)
            assert os.pread(fd, 300, 100) == DATA[100:400]
    finally:
        for fd in fds:
            os.close(fd)


def test_outlives_the_segment(segment: Segment) -> None:
    """What a client was given stays valid when the daemon lets go."""
    fd = segment.reopen()
    segment.close()
    segment.close()
    assert os.pread(fd, len(DATA), 0) == DATA
    os.close(fd)
    with pytest.raises(ValueError, match="segment is closed"):
        segment.reopen()


def test_unused() -> None:
    """Memory is in use while anyone has it open or mapped, and free once both are gone."""
    segment = sealed_segment(DATA)
    assert segment.unused()
    fd = segment.reopen()
    assert not segment.unused()
    with mmap.mmap(fd, len(DATA), prot=mmap.PROT_READ) as view:
        os.close(fd)
        assert not segment.unused()
        assert view[:4] == DATA[:4]
    assert segment.unused()
    segment.close()


def test_lingering() -> None:
    """What was dropped counts until nobody maps it any more, and is let go of then."""
    gone: list[Segment] = []
    lingering = Lingering(gone.append)
    held = [sealed_segment(DATA), sealed_segment(DATA)]
    fd = held[0].reopen()
    lingering.add(held)
    assert (gone, len(lingering), lingering.nbytes) == ([held[1]], 1, len(DATA))
    os.close(fd)
    lingering.sweep()
    assert (gone, lingering.nbytes) == ([held[1], held[0]], 0)
    for segment in gone:
        segment.close()
