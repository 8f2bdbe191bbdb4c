"""Chunks through two streams: each is made ready, queued, and its place taken by another once it has arrived."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from .driver import Driver
from .plan import Plan
from .staging import SLOTS, Copy, Stager
from .transfer import Transfer

STREAMS = 2
Report = Callable[[int, int], None]


class Pipeline:
    """The streams and events of one upload, and the only one who queues copies. Used by one thread.

    Called within ``driver.on(device)``; the device memory begins at `address`. `resources` gets what has to be let go
    of, whatever happens.
    """

    def __init__(
        self,
        driver: Driver,
        address: int,
        plan: Plan,
        transfer: Transfer,
        progress: Report | None,
        resources: ExitStack,
    ) -> None:
        self._driver = driver
        self._address = address
        self._plan = plan
        self._transfer = transfer
        self._progress = progress
        self._streams = [self._made(driver.create_stream, driver.destroy_stream, resources) for _ in range(STREAMS)]
        self._events = [self._made(driver.create_event, driver.destroy_event, resources) for _ in range(SLOTS)]
        transfer.begin(self._events)

    def run(self, chunks: range, stager: Stager) -> float:
        """Brings `chunks` to the device by way of `stager`, and waits for them. Seconds that it took."""
        began = time.perf_counter()
        waiting: deque[tuple[int, Callable[[], Sequence[Copy]]]] = deque()
        for number in chunks:
            self.arrive(number - SLOTS + 1)
            waiting.append((number, stager.stage(number, self._plan.chunks[number])))
            if len(waiting) >= stager.ahead:
                self._queue(*waiting.popleft())
        while waiting:
            self._queue(*waiting.popleft())
        self.arrive(chunks.stop)
        return time.perf_counter() - began

    def arrive(self, count: int) -> None:
        """Waits until the first `count` chunks have arrived, which are queued."""
        while self._transfer.arrived < count:
            done = self._transfer.arrived
            self._driver.finish(self._events[done % SLOTS])
            self._transfer.now_arrived(done + 1)
            if self._progress is not None:
                self._progress(self._plan.end_of(done + 1), self._plan.end_of(len(self._plan.chunks)))

    def settle(self) -> None:
        """Waits for whatever is queued, so that nothing reads what is let go of next."""
        for stream in self._streams:
            self._driver.finish_stream(stream)

    def _queue(self, number: int, ready: Callable[[], Sequence[Copy]]) -> None:
        stream = self._streams[number % STREAMS]
        for copy in ready():
            self._driver.copy(self._address + copy.offset, copy.source, copy.nbytes, stream)
        self._driver.record(self._events[number % SLOTS], stream)
        self._transfer.now_queued(number + 1)

    @staticmethod
    def _made(create: Callable[[], int], destroy: Callable[[int], None], resources: ExitStack) -> int:
        handle = create()
        resources.callback(destroy, handle)
        return handle
