"""Keeps a version's pages in memory (`lock = true`): maps of its segments in the daemon, locked with mlock(2)."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence

from mapcelld.segment import Segment

_MAP_FAILED = ctypes.c_void_p(-1).value


class LockedPages:
    """Maps of segments whose pages the kernel may not reclaim. Owns the maps until `close`."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Maps and locks every segment, which reads mapped files whole. OSError when the kernel's limit is too low."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._maps: list[tuple[int, int]] = []
        try:
            for segment in segments:
                if segment.nbytes:
                    self._lock(segment)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlocks and unmaps. A second call does nothing."""
        maps, self._maps = self._maps, []
        for address, nbytes in maps:
            self._libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(nbytes))

    def _lock(self, segment: Segment) -> None:
        # Through libc: Python's mmap does not tell the address of a read-only map, and a writable private one would be
        # copied page by page when it is locked.
        nbytes = ctypes.c_size_t(segment.nbytes)
        address = self._libc.mmap(None, nbytes, mmap.PROT_READ, mmap.MAP_SHARED, segment.fileno(), ctypes.c_long(0))
        if address == _MAP_FAILED:
            raise _error("mmap")
        self._maps.append((address, segment.nbytes))
        if self._libc.mlock(ctypes.c_void_p(address), nbytes) != 0:
            raise _error("mlock")


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}; raise LimitMEMLOCK")
