"""Huge pages of which none was set aside: the kernel makes each of 512 ordinary ones (MADV_COLLAPSE).

Sealed memory lies in pages of 4 KiB, of which every process maps sixteen at a time when it first touches them. In huge
pages the first touch of a model takes less than half of the time, page tables a fraction, and the processor looks
addresses up less often; but the kernel needs free memory in pieces of 2 MiB, and time to clear it. They count as
shared memory like any other, and can be written, sealed, locked and swapped.

Done before anything is written: what is there already would be copied. The kernel only makes a page of what is not
quite empty, so each gets a byte first. Source: madvise(2), Linux 6.1.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from mapcelld import filling, memfd
from mapcelld.memfd import HUGE_PAGE

_MADV_COLLAPSE = 25
_PROT_NONE, _MAP_FIXED = 0, 0x10
# Clearing a gigabyte takes a fifth of a second. A host that has to move other pages out of the way first, or to ask its
# own host for memory, may take many times as long: what is not there by then lies in small pages. Meanwhile the stager
# says nothing, and the daemon gives one up that says nothing for long.
_SECONDS, _SECONDS_FOR_EACH_BYTE, MOST_SECONDS = 0.2, 1 / (1 << 30), 20.0
_FAILED = ctypes.c_void_p(-1).value


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


def gather(fd: int, nbytes: int) -> int:
    """Has the first `nbytes` of the empty memfd `fd` (not consumed) lie in huge pages; what is left over does not.

    How many bytes do: fewer than could when the kernel has no more memory in one piece or takes too long to make room,
    0 where it does not know how. StagingFailed when there is no memory at all.
    """
    whole = nbytes // HUGE_PAGE * HUGE_PAGE
    if not whole:
        return 0
    libc, length = _libc(), whole + HUGE_PAGE
    # At an address that is a multiple of a huge page: within a map that is one page longer than it has to be.
    around = libc.mmap(None, length, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if around == _FAILED:
        return 0
    try:
        start = -(-around // HUGE_PAGE) * HUGE_PAGE
        if libc.mmap(start, whole, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, fd, 0) == _FAILED:
            return 0
        return _gather(fd, start, whole)
    finally:
        libc.munmap(around, length)


def _gather(fd: int, start: int, whole: int) -> int:
    workers = filling.threads()
    until = time.monotonic() + min(_SECONDS + whole * _SECONDS_FOR_EACH_BYTE, MOST_SECONDS)

    def work(first: int) -> int:
        done = 0
        for offset in range(first, whole, workers * HUGE_PAGE):
            memfd.write(fd, offset, b"\0")
            if time.monotonic() > until or _libc().madvise(start + offset, HUGE_PAGE, _MADV_COLLAPSE) != 0:
                break
            done += HUGE_PAGE
        return done

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(work, range(0, workers * HUGE_PAGE, HUGE_PAGE)))
