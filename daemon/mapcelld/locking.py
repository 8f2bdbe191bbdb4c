"""Keeps versions' pages in memory (`lock = true`): maps of their segments in the daemon, locked with mlock(2)."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mapcelld import channel
from mapcelld.segment import Segment

_MAP_FAILED = ctypes.c_void_p(-1).value
log = logging.getLogger("mapcelld.locking")


class LockedPages:
    """Maps of memory whose pages the kernel may not reclaim. Owns the maps until `close`."""

    def __init__(self, fds: Sequence[int], sizes: Sequence[int]) -> None:
        """Maps and locks so many bytes of each of `fds` (consumed), which reads files whole.

        OSError when the kernel's limit is too low.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._maps: list[tuple[int, int]] = []
        with channel.owned(fds):
            try:
                for fd, nbytes in zip(fds, sizes, strict=True):
                    if nbytes:
                        self._lock(fd, nbytes)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Unlocks and unmaps. A second call does nothing."""
        maps, self._maps = self._maps, []
        for address, nbytes in maps:
            self._libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(nbytes))

    def _lock(self, fd: int, nbytes: int) -> None:
        # Through libc: Python's mmap does not tell the address of a read-only map, and a writable private one would be
        # copied page by page when it is locked.
        size = ctypes.c_size_t(nbytes)
        address = self._libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
        if address == _MAP_FAILED:
            raise _error("mmap")
        self._maps.append((address, nbytes))
        if self._libc.mlock(ctypes.c_void_p(address), size) != 0:
            raise _error("mlock")


class Locker:
    """The versions that are locked, by id. A thread of its own locks them: a file may have to be read whole."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "locker")
        self._locked: dict[str, Future[LockedPages | None]] = {}

    def lock(self, version: str, segments: Sequence[Segment]) -> None:
        """Locks the pages of `segments` soon; where the kernel refuses, the log says so. Nothing when they are."""
        if version not in self._locked:
            # Descriptions of its own: a dropped segment is not free before they are closed, and their maps gone.
            fds = [segment.reopen() for segment in segments]
            self._locked[version] = self._thread.submit(_locked, version, fds, [s.nbytes for s in segments])

    def unlock(self, version: str) -> bool:
        """Lets the kernel have them again soon. Whether the version was locked."""
        locked = self._locked.pop(version, None)
        if locked is not None:
            self._thread.submit(_unlock, locked)
        return locked is not None

    def close(self) -> None:
        """Unlocks all, and waits for that."""
        for version in list(self._locked):
            self.unlock(version)
        self._thread.shutdown()


def _locked(version: str, fds: Sequence[int], sizes: Sequence[int]) -> LockedPages | None:
    try:
        return LockedPages(fds, sizes)
    except OSError as exc:
        log.warning("not locked: version=%s error=%r", version, str(exc))
        return None


def _unlock(locked: Future[LockedPages | None]) -> None:
    # The thread is one and does things in turn: this one is done.
    pages = locked.result()
    if pages is not None:
        pages.close()


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}; raise LimitMEMLOCK")
