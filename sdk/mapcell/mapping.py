"""The client's maps: one segment's bytes in this process, alive exactly as long as the last view of them."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NoReturn

import numpy as np

from mapcell_formats.dtypes import numpy_dtype
from mapcell_formats.manifest import TensorEntry

Mode = Literal["r", "c"]
Array = np.ndarray[Any, np.dtype[Any]]

_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_HUGE_PAGE = 2 << 20
# The processor remembers where a few thousand pages of 4 KiB lie: smaller segments gain nothing.
_ALIGNED_BYTES = 16 << 20
# How each mode maps: flags and protection.
_MANNERS: Mapping[Mode, tuple[int, int]] = {
    "r": (mmap.MAP_SHARED, mmap.PROT_READ),
    "c": (mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE),
}
_MAP_FAILED = ctypes.c_void_p(-1).value


@cache
def _mmap() -> Any:
    """mmap(2) itself: Python's takes no address."""
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
    call.restype = ctypes.c_void_p
    return call


class SegmentMap(mmap.mmap):
    """A map of one segment, which is what an array's `base` leads to.

    `lease` is whatever has to stay alive while anything still looks at these bytes: with a daemon, the connection
    that is the lease. mmap unmaps when the last buffer over it is released, and only then lets go of `lease`.
    """

    lease: object
    nbytes: int
    # Where the segment begins within this map.
    start: int = 0

    def replace(self, fd: int) -> None:
        """Maps `fd` (not consumed), which holds the same bytes, over this map at the same addresses.

        Whoever computes on it meanwhile sees the one or the other. Only for maps of mode "r". OSError when refused.
        """
        # While the buffer is exported nobody can unmap it: the addresses stay this map's own.
        with memoryview(self) as held:
            _map_over(_address(held) + self.start, fd, self.nbytes, "r")

    def align(self, fd: int, mode: Mode) -> None:
        """Maps `fd` (not consumed) into this map, which holds nothing yet, where a huge page could begin."""
        with memoryview(self) as held:
            address = _address(held)
            self.start = -address % _HUGE_PAGE
            _map_over(address + self.start, fd, self.nbytes, mode)


def _address(held: memoryview) -> int:
    address: int = np.frombuffer(held, np.uint8).__array_interface__["data"][0]
    return address


def _map_over(address: int, fd: int, nbytes: int, mode: Mode) -> None:
    flags, protection = _MANNERS[mode]
    if _mmap()(address, nbytes, protection, flags | _MAP_FIXED, fd, 0) == _MAP_FAILED:
        raise OSError(number := ctypes.get_errno(), f"mapping at an address: {os.strerror(number)}")


class ManifestFile:
    """A manifest in the memory that the daemon lends: what `Manifest` reads from. Owns its descriptor.

    Reading some bytes takes a fourth of the time of the page fault that looking at them in a map would bring.
    """

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` at `offset`, fewer where it ends before."""
        return os.pread(self._fd, nbytes, offset)

    def __reduce__(self) -> NoReturn:
        # A copy would close the same descriptor a second time, which may be somebody else's by then.
        raise TypeError("a manifest's descriptor cannot be copied or pickled")

    def __del__(self) -> None:
        os.close(self._fd)


def map_segment(fd: int, nbytes: int, mode: Mode, lease: object) -> SegmentMap | None:
    """Maps `nbytes` of `fd` (not consumed) read-only ("r"), or private and copy-on-write ("c"). None for 0 bytes.

    ValueError when the file is shorter than that, OSError when the kernel refuses.
    """
    if nbytes == 0:
        return None
    flags, protection = _MANNERS[mode]
    segment = SegmentMap(fd, nbytes, flags=flags, prot=protection)
    segment.lease, segment.nbytes = lease, nbytes
    return segment


def map_memory(fd: int, nbytes: int, mode: Mode, lease: object) -> SegmentMap | None:
    """As `map_segment`, for the daemon's memory, which may lie in huge pages: a large one begins where such a page can.

    Only there does the kernel map a huge page as one, and of itself it looks for such a place for files alone.
    """
    if nbytes < _ALIGNED_BYTES:
        return map_segment(fd, nbytes, mode, lease)
    # As Python's own map looks first: it may be a file after all, that nobody could guard.
    if (size := os.fstat(fd).st_size) < nbytes:
        raise ValueError(f"{nbytes} bytes are to be mapped, and there are {size}")
    # Room for the place, which is this map's own until its end; it takes no memory.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    segment = SegmentMap(-1, nbytes + _HUGE_PAGE, flags=flags, prot=_MANNERS[mode][1])
    segment.lease, segment.nbytes = lease, nbytes
    try:
        segment.align(fd, mode)
    except BaseException:
        # At once: the kernel may have taken the place's middle away before it refused.
        segment.close()
        raise
    return segment


def view(segment: SegmentMap | None, entry: TensorEntry, mode: Mode) -> Array:
    """The array of `entry` in `segment`, without a copy. Read-only in mode "r"."""
    _, code, shape, _, offset, nbytes = entry
    if segment is None or not nbytes:
        empty = np.empty(shape, numpy_dtype(code))
        empty.flags.writeable = mode == "c"
        return empty
    return np.ndarray(shape, numpy_dtype(code), segment, segment.start + offset)
