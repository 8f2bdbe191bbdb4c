"""The two ways in which a chunk's bytes become something that the device can fetch by itself.

`Ring` copies them into one of a few page-locked buffers, with several threads. `Registered` page-locks the shared
mapping itself, a window at a time, and copies nothing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from mapcell_formats.errors import DeviceFailed
from mapcell_formats.layout import ALIGNMENT

from ..mapping import Array, SegmentMap
from .driver import Driver
from .plan import Chunk, Piece

SLOTS = 8
THREADS = min(4, os.cpu_count() or 1)
# Bounds what is page-locked at once; a window is large enough that registering is seldom.
WINDOW_BYTES = 32 << 20
WINDOWS = 4
# A strided tensor is laid out in memory of its own while it is copied; so many are kept at once.
_LAID_OUT = 2


class Copy(NamedTuple):
    """`nbytes` from host address `source` to byte `offset` of the device memory."""

    offset: int
    source: int
    nbytes: int


class Stager(Protocol):
    """Makes chunks ready for the device, up to `ahead` of them at once."""

    @property
    def name(self) -> Literal["ring", "register"]: ...

    @property
    def ahead(self) -> int: ...

    def stage(self, number: int, chunk: Chunk) -> Callable[[], Sequence[Copy]]:
        """Begins; what is returned waits until the chunk is ready and tells what to copy."""
        ...

    def close(self) -> None:
        """Lets go of everything; the device has done all copies."""
        ...


class Host:
    """The bytes of the items of a plan, each looked up when it is needed."""

    def __init__(self, arrays: Sequence[Callable[[], Array]]) -> None:
        self._arrays = arrays
        self._laid_out: OrderedDict[int, Array] = OrderedDict()

    def at(self, item: int) -> Array:
        """The bytes of item number `item`, one after another, as uint8."""
        array = self._laid_out.get(item)
        if array is None:
            array = self._arrays[item]()
            if not array.flags.c_contiguous:
                array = self._laid_out[item] = np.ascontiguousarray(array)
                if len(self._laid_out) > _LAID_OUT:
                    self._laid_out.popitem(last=False)
        return array.reshape(-1).view(np.uint8)

    def mapping(self, item: int) -> tuple[mmap.mmap, int] | None:
        """The read-only map that the item lies in, and the item's address; None when it lies elsewhere."""
        array = self._arrays[item]()
        if array.flags.writeable or not array.flags.c_contiguous:
            # Page-locking a private map would make private copies of its pages.
            return None
        owner: object = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        return (owner, array.ctypes.data) if isinstance(owner, mmap.mmap) else None


class Ring:
    """`SLOTS` page-locked buffers of `chunk_bytes`, filled by a few threads."""

    name: Literal["ring"] = "ring"
    ahead = THREADS

    def __init__(self, driver: Driver, host: Host, chunk_bytes: int) -> None:
        self._driver = driver
        self._host = host
        self._chunk_bytes = chunk_bytes
        self._address = driver.allocate_host(SLOTS * chunk_bytes)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mapcell-stage")
        memory = (ctypes.c_uint8 * (SLOTS * chunk_bytes)).from_address(self._address)
        self._buffers = np.ctypeslib.as_array(memory).reshape(SLOTS, chunk_bytes)

    def stage(self, number: int, chunk: Chunk) -> Callable[[], Sequence[Copy]]:
        """See `Stager`."""
        slot = number % SLOTS
        # Found here, in one thread: they are kept for the next chunk. The threads only copy.
        sources = [self._host.at(p.item)[p.start : p.start + p.nbytes] for p in chunk.pieces]
        filled: Future[None] = self._pool.submit(self._fill, self._buffers[slot], chunk, sources)
        copies = (Copy(chunk.offset, self._address + slot * self._chunk_bytes, chunk.nbytes),)

        def ready() -> Sequence[Copy]:
            filled.result()
            return copies

        return ready

    def close(self) -> None:
        """See `Stager`."""
        self._pool.shutdown()
        address, self._address = self._address, 0
        if address:
            self._driver.free_host(address)

    @staticmethod
    def _fill(buffer: Array, chunk: Chunk, sources: Sequence[Array]) -> None:
        for piece, source in zip(chunk.pieces, sources, strict=True):
            at = piece.offset - chunk.offset
            buffer[at : at + piece.nbytes] = source


class Registered:
    """The shared mapping itself, page-locked in windows of which `WINDOWS` are held at most.

    `arrive` waits until as many chunks as it is told have arrived.
    """

    name: Literal["register"] = "register"
    ahead = 1

    def __init__(self, driver: Driver, host: Host, arrive: Callable[[int], None], window_bytes: int) -> None:
        self._driver = driver
        self._host = host
        self._arrive = arrive
        self._window_bytes = window_bytes
        # By address: the number of the last chunk that uses the window, and what has to stay mapped.
        self._windows: OrderedDict[int, tuple[int, Any]] = OrderedDict()

    def stage(self, number: int, chunk: Chunk) -> Callable[[], Sequence[Copy]]:
        """See `Stager`."""
        copies: list[Copy] = []
        window = 0
        for piece in chunk.pieces:
            for within, copy in self._locked(number, piece):
                if copies and within == window and _follows(copy, copies[-1]):
                    copies[-1] = _joined(copies[-1], copy)
                else:
                    copies.append(copy)
                window = within
        return lambda: copies

    def close(self) -> None:
        """See `Stager`."""
        error: BaseException | None = None
        while self._windows:
            address, _ = self._windows.popitem(last=False)
            try:
                self._driver.unregister(address)
            # The others have to be let go of all the same; the first error is told.
            except Exception as exc:
                error = error or exc
        if error is not None:
            raise error

    def _locked(self, number: int, piece: Piece) -> list[tuple[int, Copy]]:
        """The copies of `piece`, each with its window: CUDA refuses one that spans two registrations."""
        found = self._host.mapping(piece.item)
        if found is None:
            raise DeviceFailed("only a read-only map can be page-locked where it lies; use strategy='ring'")
        segment, address = found
        # What lies around the segment in its map is no memory that could be locked.
        begin, nbytes = (segment.start, segment.nbytes) if isinstance(segment, SegmentMap) else (0, len(segment))
        whole = np.frombuffer(segment, np.uint8, nbytes, begin)
        base, end = whole.ctypes.data, whole.ctypes.data + len(whole)
        copies, start, stop = [], address + piece.start, address + piece.start + piece.nbytes
        while start < stop:
            window = base + (start - base) // self._window_bytes * self._window_bytes
            upto = min(window + self._window_bytes, stop)
            self._hold(number, window, min(self._window_bytes, end - window), whole)
            copies.append((window, Copy(piece.offset + start - address - piece.start, start, upto - start)))
            start = upto
        return copies

    def _hold(self, number: int, window: int, nbytes: int, owner: object) -> None:
        if window not in self._windows:
            if len(self._windows) >= WINDOWS:
                self._let_go(number)
            self._driver.register(window, nbytes)
        self._windows[window] = (number, owner)
        self._windows.move_to_end(window)

    def _let_go(self, number: int) -> None:
        """Lets the window go that was used longest ago, unless chunk `number` itself needs them all."""
        address, (last, _) = next(iter(self._windows.items()))
        if last < number:
            self._arrive(last + 1)
            del self._windows[address]
            self._driver.unregister(address)


def _follows(copy: Copy, last: Copy) -> bool:
    """Whether `copy` lies behind `last` on the device as it does on the host, with nothing but padding between."""
    apart = copy.source - last.source
    return apart == copy.offset - last.offset and 0 <= apart - last.nbytes < ALIGNMENT


def _joined(first: Copy, second: Copy) -> Copy:
    return Copy(first.offset, first.source, second.offset + second.nbytes - first.offset)
