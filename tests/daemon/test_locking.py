"""Locked pages stay in memory until they are unlocked, and a limit of the kernel's costs a line in the log."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Iterator

import pytest

from mapcelld import channel, memfd
from mapcelld.locking import LockedPages, Locker
from mapcelld.segment import Segment
from support.proc import eventually, locked

MIB = 1 << 20


def sealed(nbytes: int) -> Segment:
    """A segment over a read-only description, as the daemon keeps them."""
    with channel.owned([memfd.sealed_copy("mapcell-segment", bytes(nbytes))]) as (fd,):
        return Segment(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY), nbytes)


@pytest.fixture
def segments() -> Iterator[list[Segment]]:
    """Two segments of a MiB, and one of nothing."""
    made = [sealed(n) for n in (MIB, MIB, 0)]
    yield made
    for segment in made:
        segment.close()


def test_locked_and_unlocked(segments: list[Segment]) -> None:
    """The kernel counts the pages as locked from `lock` to `unlock`, however often the version is locked."""
    before, opened = locked(os.getpid()), len(os.listdir("/proc/self/fd"))
    locker = Locker()
    for _ in range(2):
        locker.lock("v", segments)
    eventually(lambda: locked(os.getpid()) == before + 2 * MIB)
    # The second time is looked into by the thread after that, with descriptors of its own.
    eventually(lambda: len(os.listdir("/proc/self/fd")) == opened)
    locker.unlock("v")
    locker.unlock("never locked")
    eventually(lambda: locked(os.getpid()) == before)
    locker.close()


def test_close_unlocks(segments: list[Segment]) -> None:
    """Closing waits until nothing is locked any more."""
    before = locked(os.getpid())
    locker = Locker()
    locker.lock("v", segments)
    locker.close()
    assert locked(os.getpid()) == before


def test_locked_memory_is_in_use(segments: list[Segment]) -> None:
    """What is locked does not pass for free, although nobody else maps it."""
    pages = LockedPages([segments[0].reopen()], [MIB])
    assert not segments[0].unused()
    pages.close()
    pages.close()
    assert segments[0].unused()


def unlockable() -> None:
    """In a child: a user without privileges and with a limit of 4 KiB cannot lock a MiB, and goes on."""
    os.setgid(65_533)
    os.setuid(65_533)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
    segment = sealed(MIB)
    with pytest.raises(OSError, match=r"mlock: .*raise LimitMEMLOCK"):
        LockedPages([segment.reopen()], [MIB])
    locker = Locker()
    locker.lock("v", [segment])
    locker.unlock("v")
    locker.close()
    assert locked(os.getpid()) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up the privilege to lock any amount takes root")
def test_limit() -> None:
    """Where the limit is too low nothing is locked, nothing fails, and the error says what to raise."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            logging.disable()
            unlockable()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
