"""Rescues: what the daemon does while the kernel holds somebody who wants to write to a guarded file.

    break -> room -> copy (a stager in a hurry) -> publish under the same version -> Remap to all who map the file
          -> their answers -> the store -> the writer goes on

All within the writer's time (guard_deadline). What cannot be done by then is said in the log, and the writer goes on
all the same.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Protocol

from mapcell_formats.errors import BudgetExceeded, MapcellError, StagingFailed
from mapcell_formats.messages import Copied, Job, Manner, Progress, Refused, Selection
from mapcelld import channel, guard, memfd
from mapcelld.connections import Connection, Recall
from mapcelld.registry import Registry, State, Version
from mapcelld.segment import Segment
from mapcelld.stagers import Stager, Stagers

log = logging.getLogger("mapcelld.rescue")

# Room may come while a writer waits: leases end, memory is given back.
_AGAIN_SECONDS = 0.05
# Connections that are told in one turn of the loop.
_BATCH = 128


class Keeping(Protocol):
    """What holds the versions."""

    registry: Registry

    def room_for_rescue(self, version: Version, needed: int, promised: int) -> None: ...
    def rescued(self, version: Version, number: int, copy: Segment) -> None: ...
    def lost(self, version: Version, reason: str) -> None: ...
    def discard(self, segments: list[Segment]) -> None: ...
    def report(self, version: Version, kind: str, done: int, detail: str) -> None: ...


class Telling(Protocol):
    """What speaks to those who hold leases."""

    def holders(self, version: Version) -> list[Connection]: ...
    def replace(self, connection: Connection, number: int, segment: Segment, recall: Recall) -> None: ...


class RescueDesk:
    """Every rescue under way. `deadline` is how long a writer waits, in seconds; `keep` brings the store up to date."""

    def __init__(
        self,
        stagers: Stagers,
        holdings: Keeping,
        handles: Telling,
        keep: Callable[[], None],
        deadline: Callable[[], float],
        promised: Callable[[], int],
    ) -> None:
        """`promised` are bytes that other jobs were allowed to allocate."""
        self._stagers = stagers
        self._holdings = holdings
        self._handles = handles
        self._keep = keep
        self._deadline = deadline
        self._others = promised
        self._running: dict[Segment, asyncio.Task[None]] = {}
        self._promised: dict[Segment, int] = {}
        self._due = False
        self._over = False
        self.rescues = 0

    def open(self) -> None:
        """Listens for writers from here on, and looks for those that came before.

        Files that an earlier daemon guarded may be held by workers that this one has not heard of yet: their versions
        are kept, and writers wait their whole time.
        """
        loop = asyncio.get_running_loop()
        for number in (guard.SIGNAL, signal.SIGIO):
            loop.add_signal_handler(number, self._wake)
        inherited = [v for v in self._holdings.registry.versions.values() if v.guarded]
        for version in inherited:
            version.awaited = True
        if inherited:
            loop.call_later(guard.limit(self._deadline()), _await_no_more, inherited)
        self.scan()

    def scan(self) -> None:
        """Begins a rescue for each guarded file that somebody wants to write to."""
        self._due = False
        if self._over:
            return
        for version in self._holdings.registry.versions.values():
            for number, segment in enumerate(version.segments):
                if segment not in self._running and segment.broken():
                    self._begin(version, number)

    def promised(self) -> int:
        """Bytes that rescues were allowed to allocate and have not published yet."""
        return sum(self._promised.values())

    def __len__(self) -> int:
        return len(self._running)

    async def close(self) -> None:
        """Gives every rescue up; the writers go on when the files are closed."""
        # The handlers stay: guards are let go later, and the signal would end the process.
        self._over = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wake(self) -> None:
        # Signals come in bunches, and none says which file it is about.
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.scan)

    def _begin(self, version: Version, number: int) -> None:
        segment = version.segments[number]
        version.rescuing += 1
        task = asyncio.get_running_loop().create_task(self._run(version, number, segment))
        self._running[segment] = task
        task.add_done_callback(lambda _: self._end(version, segment))

    def _end(self, version: Version, segment: Segment) -> None:
        del self._running[segment]
        self._promised.pop(segment, None)
        version.rescuing -= 1

    async def _run(self, version: Version, number: int, segment: Segment) -> None:
        until = asyncio.get_running_loop().time() + guard.limit(self._deadline())
        log.info("rescuing: version=%s segment=%d bytes=%d", version.id, number, segment.nbytes)
        try:
            copy = await self._copy(version, segment, until)
            if version.state is State.DROPPED:
                self._holdings.discard([copy])
                return
            self._holdings.rescued(version, number, copy)
            self._promised.pop(segment, None)
            await self._recall(version, number, copy, until)
            version.replaced.pop(number, None)
            self._keep()
            self.rescues += 1
        except MapcellError as exc:
            if version.state is not State.DROPPED:
                self._holdings.lost(version, exc.message)
        # The boundary of one rescue: whatever a bug does to it, the writer is not to hang, and the log says why.
        except Exception:
            log.exception("a rescue failed: version=%s", version.id)
            if version.state is not State.DROPPED:
                self._holdings.lost(version, "the daemon failed on it; its log says why")
        # Not when it is given up: the writer then waits for the next daemon, if the manager keeps the description.
        segment.let_go()
        if segment not in version.segments:
            self._holdings.discard([segment])

    async def _copy(self, version: Version, segment: Segment, until: float) -> Segment:
        """A sealed copy of the file. StagingFailed or BudgetExceeded when none can be had in time."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                if version.state is State.DROPPED:
                    raise StagingFailed("it was unloaded meanwhile")
                others = self._others() + self.promised()
                self._holdings.room_for_rescue(version, segment.nbytes, others)
                self._promised[segment] = segment.nbytes
                async with asyncio.timeout_at(until):
                    return await self._copied(version, segment, until)
            except (BudgetExceeded, StagingFailed):
                self._promised.pop(segment, None)
                # The segments of a version that was dropped meanwhile are closed.
                gone = version.state is State.DROPPED
                if gone or loop.time() + _AGAIN_SECONDS >= until or segment.changed():
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
            except TimeoutError:
                raise StagingFailed("the copy was not made in the writer's time; raise guard_deadline") from None

    async def _copied(self, version: Version, segment: Segment, until: float) -> Segment:
        async with self._stagers.turn(version.uid, urgent=True):
            stager = await self._stagers.start(urgent=True)
            try:
                if version.state is State.DROPPED:
                    raise StagingFailed("it was unloaded meanwhile")
                with channel.owned([segment.reopen()]) as fds:
                    stager.begin(Job("rescue", (), (), Selection(), "sealed", version.id, Manner()), fds)
                fd = await self._received(version, stager, until)
            finally:
                stager.close()
        with channel.owned([fd]):
            if not memfd.is_sealed(fd, segment.nbytes) or (segment.guarded and segment.changed()):
                raise StagingFailed("the file was written to before it was copied")
            return Segment(channel.reopened(fd), segment.nbytes, sealed=True)

    async def _received(self, version: Version, stager: Stager, until: float) -> int:
        while True:
            told = await stager.receive(max(until - asyncio.get_running_loop().time(), 0.001))
            match told.message:
                case Progress(_, done, _):
                    self._holdings.report(version, "rescuing", done, "")
                case Copied() if len(told.fds) == 1:
                    return told.fds[0]
                case Refused() as refused:
                    channel.close_all(told.fds)
                    raise refused.error()
                case other:
                    channel.close_all(told.fds)
                    raise StagingFailed(f"the stager of a rescue sent {type(other).__name__}")

    async def _recall(self, version: Version, number: int, copy: Segment, until: float) -> None:
        """Has everybody map the copy, and waits for their answers, not longer than the writer does."""
        recall = Recall()
        for told, connection in enumerate(self._handles.holders(version)):
            self._handles.replace(connection, number, copy, recall)
            if told % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
        try:
            async with asyncio.timeout_at(until):
                await recall.settled.wait()
                while version.awaited:
                    # Workers whose daemon died come back on their own: there is no list of them.
                    await asyncio.sleep(_AGAIN_SECONDS)
        except TimeoutError:
            if late := recall.pids():
                version.late = late
                log.warning("did not follow in time, and may see what is written: version=%s pids=%s", version.id,
                            ",".join(map(str, late)))  # fmt: skip


def _await_no_more(versions: list[Version]) -> None:
    for version in versions:
        version.awaited = False
