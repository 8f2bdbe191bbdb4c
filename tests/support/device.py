"""A device for tests: it really copies bytes, but only when somebody waits for them, and as late as CUDA may."""

from __future__ import annotations

import ctypes
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock, get_ident
from typing import Any

from mapcell.cuda.driver import DLPACK_CPU, Device, exceeded
from mapcell_formats.errors import DeviceFailed, DeviceUnavailable

ALIGNMENT = 256
PAGE = 4096
# The default stream, on which the tests themselves compute: what it has to wait for is done at once.
LEGACY = 1


@dataclass(slots=True)
class Stream:
    """What is queued on a stream, oldest first."""

    queue: deque[Callable[[], None]] = field(default_factory=deque)
    done: int = 0
    queued: int = 0


def within(address: int, nbytes: int, memory: dict[int, int]) -> bool:
    """Whether one piece of `memory` holds all of it. Copied first: other threads go on."""
    return any(a <= address and address + nbytes <= a + n for a, n in list(memory.items()))


class FakeDriver:
    """`Driver` for `count` devices of `capacity` bytes, whose memory is this process's and so can be looked at.

    AssertionError when it is used as CUDA must not be: memory that is unknown, unaligned, not page-locked or too
    short, handles after their end, calls with another device current. `fail_at` makes the call of that number raise
    DeviceFailed; a release is done all the same, since CUDA reports what went wrong before.
    """

    dlpack_device = DLPACK_CPU

    def __init__(
        self, count: int = 1, capacity: int = 1 << 30, *, read_only: bool = True, fail_at: int | None = None
    ) -> None:
        self._count = count
        self._capacity = capacity
        self._read_only = read_only
        self._fail_at = fail_at
        self._lock = RLock()
        self._handles = itertools.count(100)
        self._current: dict[int, int] = {}
        self._buffers: dict[int, Any] = {}
        self.device_memory: dict[int, int] = {}
        self.host_memory: dict[int, int] = {}
        self.registered: dict[int, int] = {}
        self.streams: dict[int, Stream] = {LEGACY: Stream()}
        self.events: dict[int, tuple[int, int]] = {}
        self.calls: Counter[str] = Counter()
        self.most_registered = 0
        self.refuse_registration = False

    @property
    def live(self) -> dict[str, int]:
        """What has not been given back, by kind."""
        kinds = {
            "device memory": len(self.device_memory),
            "host memory": len(self.host_memory),
            "registrations": len(self.registered),
            "streams": len(self.streams) - 1,
            "events": len(self.events),
            "current devices": len(self._current),
        }
        return {kind: n for kind, n in kinds.items() if n}

    def count(self) -> int:
        """See `Driver`."""
        if self._count < 0:
            raise DeviceUnavailable("no CUDA device was found: this one is told to have no driver")
        return self._count

    def describe(self, device: int) -> Device:
        """See `Driver`."""
        self._called("describe")
        return Device(device, "fake", self._capacity, self._free(), self._read_only)

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        """See `Driver`."""
        assert 0 <= device < self._count
        me = get_ident()
        before = self._current.get(me)
        self._current[me] = device
        try:
            yield
        finally:
            if before is None:
                del self._current[me]
            else:
                self._current[me] = before

    def allocate(self, device: int, nbytes: int) -> int:
        """See `Driver`."""
        self._called("allocate", device)
        if nbytes > self._free():
            raise exceeded(self.describe(device), nbytes)
        address = self._memory(nbytes, ALIGNMENT)
        self.device_memory[address] = nbytes
        return address

    def free(self, address: int) -> None:
        """See `Driver`."""
        for stream in list(self.streams):
            self._advance(stream)
        assert self.device_memory.pop(address)
        del self._buffers[address]
        self._called("free")

    def allocate_host(self, nbytes: int) -> int:
        """See `Driver`."""
        self._called("allocate_host")
        address = self._memory(nbytes, PAGE)
        self.host_memory[address] = nbytes
        return address

    def free_host(self, address: int) -> None:
        """See `Driver`. A copy that is still queued will find that it is no longer there."""
        assert self.host_memory.pop(address)
        del self._buffers[address]
        self._called("free_host")

    def register(self, address: int, nbytes: int) -> None:
        """See `Driver`."""
        self._called("register")
        if self.refuse_registration:
            raise DeviceFailed("this memory cannot be page-locked")
        assert address % PAGE == 0
        with self._lock:
            if any(a < address + nbytes and address < a + n for a, n in self.registered.items()):
                raise DeviceFailed("this memory is page-locked already")
            self.registered[address] = nbytes
            self.most_registered = max(self.most_registered, sum(self.registered.values()))

    def unregister(self, address: int) -> None:
        """See `Driver`."""
        with self._lock:
            assert self.registered.pop(address)
        self._called("unregister")

    def create_stream(self) -> int:
        """See `Driver`."""
        self._called("create_stream")
        handle = next(self._handles)
        self.streams[handle] = Stream()
        return handle

    def destroy_stream(self, stream: int) -> None:
        """See `Driver`."""
        self._advance(stream)
        del self.streams[stream]
        self._called("destroy_stream")

    def create_event(self) -> int:
        """See `Driver`."""
        self._called("create_event")
        handle = next(self._handles)
        self.events[handle] = (LEGACY, 0)
        return handle

    def destroy_event(self, event: int) -> None:
        """See `Driver`."""
        del self.events[event]
        self._called("destroy_event")

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """See `Driver`."""
        self._called("copy")
        assert nbytes > 0
        assert within(target, nbytes, self.device_memory), "no such memory"
        assert self._locked(source, nbytes), "not page-locked as a whole"

        def copied() -> None:
            assert self._locked(source, nbytes), "unlocked before it was read"
            ctypes.memmove(target, source, nbytes)

        self._queue(stream, copied)

    def record(self, event: int, stream: int) -> None:
        """See `Driver`."""
        self._called("record")
        with self._lock:
            assert event in self.events
            self.events[event] = (stream, self.streams[stream].queued)

    def follow(self, stream: int, event: int) -> None:
        """See `Driver`."""
        self._called("follow")
        other, upto = self.events[event]
        self._queue(stream, lambda: self._advance(other, upto))
        if stream == LEGACY:
            self._advance(LEGACY)

    def finish(self, event: int) -> None:
        """See `Driver`."""
        self._called("finish")
        self._advance(*self.events[event])

    def finish_stream(self, stream: int) -> None:
        """See `Driver`."""
        self._advance(stream)
        self._called("finish_stream")

    def _locked(self, address: int, nbytes: int) -> bool:
        return within(address, nbytes, self.host_memory) or within(address, nbytes, self.registered)

    def _queue(self, stream: int, work: Callable[[], None]) -> None:
        with self._lock:
            self.streams[stream].queue.append(work)
            self.streams[stream].queued += 1

    def _advance(self, stream: int, upto: int | None = None) -> None:
        """Does what is queued on `stream`, up to the work of number `upto`."""
        with self._lock:
            held = self.streams.get(stream)
            while held is not None and held.queue and (upto is None or held.done < upto):
                held.done += 1
                held.queue.popleft()()

    def _called(self, name: str, device: int | None = None) -> None:
        with self._lock:
            assert get_ident() in self._current, f"{name} with no device current"
            assert device is None or self._current[get_ident()] == device
            self.calls[name] += 1
            if self._fail_at is not None and self.calls.total() == self._fail_at:
                raise DeviceFailed(f"call {self._fail_at}, {name}, was told to fail")

    def _free(self) -> int:
        return self._capacity - sum(list(self.device_memory.values()))

    def _memory(self, nbytes: int, alignment: int) -> int:
        raw = (ctypes.c_uint8 * (nbytes + alignment))()
        address = -(-ctypes.addressof(raw) // alignment) * alignment
        self._buffers[address] = raw
        return address
