"""How far an upload has come, for those who wait for a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Condition

from .driver import Driver
from .memory import DeviceMemory


class Transfer:
    """Which chunks are queued on the device, and which have arrived. Chunks are queued and arrive in their order.

    One thread moves it on; any thread may wait. Event number ``chunk % len(events)`` stands for a chunk from when it
    is queued until it has arrived.
    """

    def __init__(self, driver: Driver, memory: DeviceMemory, chunks: int) -> None:
        self.driver = driver
        self._memory: DeviceMemory | None = memory
        self._device = memory.device
        self._chunks = chunks
        self._changed = Condition()
        self._events: Sequence[int] = ()
        self._queued = 0
        self._arrived = 0
        self._ended = False
        self._error: BaseException | None = None

    @property
    def queued(self) -> int:
        """How many chunks are queued."""
        return self._queued

    @property
    def arrived(self) -> int:
        """How many chunks have arrived."""
        return self._arrived

    @property
    def memory(self) -> DeviceMemory:
        """Where the chunks go. The upload's error when it failed."""
        memory = self._memory
        if memory is None:
            raise self._failure()
        return memory

    def begin(self, events: Sequence[int]) -> None:
        """Tells which events stand for chunks."""
        self._events = events

    def now_queued(self, count: int) -> None:
        """`count` chunks are queued by now."""
        with self._changed:
            self._queued = count
            self._changed.notify_all()

    def now_arrived(self, count: int) -> None:
        """`count` chunks have arrived by now."""
        with self._changed:
            self._arrived = count
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Nothing more will arrive; the memory is let go of here, and the events are no longer asked for."""
        with self._changed:
            self._error = self._error or error
            self._memory = None
            self._changed.notify_all()

    def end(self) -> None:
        """Everything that was used on the way was let go of."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, chunk: int, timeout: float | None = None) -> None:
        """Waits until chunk number `chunk` has arrived. TimeoutError; the upload's error when it never will."""
        with self._changed:
            self._await(lambda: self._arrived > chunk, timeout)

    def wait_ended(self, timeout: float | None = None) -> None:
        """Waits until the upload has arrived and let go of all that it used. Errors as `wait`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended, timeout):
                raise self._late()
            if self._error is not None:
                raise self._error

    def order(self, stream: int, first: int, last: int) -> None:
        """What is queued on `stream` from now on runs after the chunks from `first` to `last`. Errors as `wait`.

        Waits for them to be queued, not to arrive.
        """
        with self._changed:
            self._await(lambda: self._queued > last, None)
            # The newest chunk on each of the two streams stands for all before it there.
            waited = [c for c in (last - 1, last) if c >= max(first, self._arrived)]
            if not waited:
                return
            if self._error is not None:
                raise self._error
            with self.driver.on(self._device):
                for chunk in waited:
                    self.driver.follow(stream, self._events[chunk % len(self._events)])

    def _await(self, reached: Callable[[], bool], timeout: float | None) -> None:
        if not self._changed.wait_for(lambda: reached() or self._error is not None, timeout):
            raise self._late()
        if not reached():
            raise self._failure()

    def _late(self) -> TimeoutError:
        return TimeoutError(f"{self._arrived} of {self._chunks} chunks have arrived so far")

    def _failure(self) -> BaseException:
        assert self._error is not None
        return self._error
