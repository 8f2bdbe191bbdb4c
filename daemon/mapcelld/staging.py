"""The daemon's half of staging: one stager a job, one job a source, and everybody who waits for it.

Single flight happens after the stager said what the source's files are (Identified): a version that was made from the
same is handed out at once, a job that is making it takes over the waiters, and this stager is let go before it has read
a byte. Only then does a job go on to parse, ask for room (Sized) and fill.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from mapcell_formats.errors import MapcellError, NotFound, ProtocolError, StagingFailed
from mapcell_formats.messages import Identified, Job, Manner, Proceed, Progress, Refused, Selection, Sized, Staged
from mapcelld import channel, memfd
from mapcelld.figures import Histogram
from mapcelld.registry import Recipe, State, Version
from mapcelld.segment import Segment
from mapcelld.stagers import Stager, Stagers, Told

T = TypeVar("T")
log = logging.getLogger("mapcelld.staging")

# A stager answers in a few milliseconds unless a descriptor hangs it.
IDENTIFY_SECONDS = 10.0
# The largest headers parse in about a second; a source that delivers nothing for this long has stalled.
STALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Intent:
    """What becomes of the version for one waiter.

    `name` is the model's, which `owner` alone sees (None: everybody). `role` says what it is there: "newest" version,
    "derived" (beside the versions, as a cast or a part; of the one whose id is `base`, if known), or "known" already.
    """

    name: str
    owner: int | None = None
    source: str = ""
    tag: str = ""
    pin: bool = False
    role: Literal["newest", "derived", "known"] = "known"
    base: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to stage: the job for the stager, and the descriptors that it needs besides."""

    kind: str
    paths: tuple[str, ...]
    selection: Selection
    residence: str
    roots: tuple[str, ...] = ()
    base: Version | None = None
    manner: Manner = field(default_factory=Manner)

    def job(self, uid: int) -> Job:
        """The message that tells a stager, for a job of `uid`."""
        base = self.base.id if self.base else ""
        identities = self.base.identities if self.base else ()
        sound = self.base is not None and self.base.sound
        manner = self.manner
        return Job(
            self.kind, self.paths, self.roots, self.selection, self.residence, base, manner, identities, uid, sound
        )


class Waiter(Protocol):
    """Whoever waits for a version: it hears of progress, then once of the end."""

    intent: Intent

    def begun(self) -> None: ...
    def progress(self, report: Progress) -> None: ...
    def ready(self, version: Version) -> None: ...
    def failed(self, error: MapcellError) -> None: ...


@dataclass(slots=True, eq=False)
class Staging:
    """One job under way. When nobody waits for it any more it is given up.

    `connection` is a descriptor of an offer's connection, until the stager has it.
    """

    plan: Plan
    uid: int
    waiters: list[Waiter]
    step: str = "queued"
    done: int = 0
    total: int = 0
    promised: int = 0
    since: float = field(default_factory=time.monotonic)
    given_up: bool = False
    connection: int | None = None
    task: asyncio.Task[None] | None = None


Publish = Callable[[Version, Recipe, Staging], Version]
MakeRoom = Callable[[int, int], None]
# Told of a job under way: "staging" (it begins), "progress" or "failed", and the reason of a failure.
Observe = Callable[[Staging, str, str], None]


class StagingDesk:
    """Every job under way. `make_room` (of a uid and bytes) refuses or evicts before a stager allocates."""

    def __init__(
        self,
        stagers: Stagers,
        made_by: Callable[[Recipe], Version | None],
        make_room: MakeRoom,
        publish: Publish,
        observe: Observe,
    ) -> None:
        self._stagers = stagers
        self._made_by = made_by
        self._make_room = make_room
        self._publish = publish
        self._observe = observe
        self._running: dict[Recipe, Staging] = {}
        self._all: dict[Staging, None] = {}
        self.bytes_read = 0
        self.stagings = Histogram()

    def start(self, plan: Plan, uid: int, waiter: Waiter, connection: int | None) -> Staging:
        """Begins `plan` for `waiter`. `connection` (borrowed until the stager has its own) holds an offer's files."""
        staging = Staging(plan, uid, [waiter])
        staging.connection = os.dup(connection) if connection is not None else None
        self._all[staging] = None
        staging.task = asyncio.get_running_loop().create_task(self._run(staging))
        # One that is cancelled before its first step never gets to its own end.
        staging.task.add_done_callback(lambda _: self._end(staging))
        return staging

    def leave(self, waiter: Waiter) -> None:
        """Takes `waiter` from whatever it waits for; a job that nobody waits for any more is given up."""
        for staging in list(self._all):
            if waiter in staging.waiters:
                staging.waiters.remove(waiter)
                if not staging.waiters and staging.task is not None:
                    staging.given_up = True
                    staging.task.cancel()

    def promised(self, uid: int | None = None) -> int:
        """Bytes that running jobs (of `uid`, or all) were allowed to allocate and have not published yet."""
        return sum(s.promised for s in self._all if uid in (None, s.uid))

    def __iter__(self) -> Iterator[Staging]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    async def close(self) -> None:
        """Gives every job up and waits until their stagers are gone."""
        tasks = [s.task for s in self._all if s.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, staging: Staging) -> None:
        recipe: Recipe | None = None
        try:
            async with self._stagers.turn(staging.uid):
                stager = await self._stagers.start()
                try:
                    fds = _job_descriptors(staging)
                    with channel.owned(fds):
                        stager.begin(staging.plan.job(staging.uid), fds)
                    recipe = await self._identify(staging, stager)
                    if recipe is not None:
                        await self._fill(staging, stager, recipe)
                finally:
                    stager.close()
        except MapcellError as exc:
            self._fail(staging, exc)
        # The boundary of one job: a bug that it meets must not leave its waiters without an answer.
        except Exception:
            log.exception("a staging job failed")
            self._fail(staging, StagingFailed("the daemon failed on this checkpoint; its log says why"))
        except asyncio.CancelledError:
            # Given up: the end below tells whoever still waits.
            pass
        finally:
            if recipe is not None and self._running.get(recipe) is staging:
                del self._running[recipe]
            self._end(staging)

    def _end(self, staging: Staging) -> None:
        """Lets go of whatever a job that ended still holds. A second call does nothing."""
        self._all.pop(staging, None)
        connection, staging.connection = staging.connection, None
        if connection is not None:
            os.close(connection)
        if staging.waiters:
            self._fail(staging, StagingFailed("staging was given up; the daemon is stopping or everybody left"))

    async def _identify(self, staging: Staging, stager: Stager) -> Recipe | None:
        """The recipe to go on with, or None when the version is there or another job makes it."""
        staging.step = "opening"
        identified = _expect(await stager.receive(IDENTIFY_SECONDS), Identified)
        for waiter in list(staging.waiters):
            waiter.begun()
        plan = staging.plan
        recipe = Recipe(identified.identities, plan.residence, plan.selection, plan.manner.digest)
        if (made := self._made_by(recipe)) is not None:
            self._finish(staging, made)
            return None
        # One that was given up has not heard of it yet, and would fail whoever joined it now.
        if (running := self._running.get(recipe)) is not None and not running.given_up:
            running.waiters += staging.waiters
            staging.waiters.clear()
            return None
        self._running[recipe] = staging
        return recipe

    async def _fill(self, staging: Staging, stager: Stager, recipe: Recipe) -> None:
        stager.send(Proceed())
        sized = _expect(await stager.receive(STALL_SECONDS), Sized)
        self._make_room(staging.uid, sized.nbytes)
        staging.promised = staging.total = sized.nbytes
        self._observe(staging, "staging", "")
        stager.send(Proceed())
        while True:
            told = await stager.receive(STALL_SECONDS)
            if isinstance(told.message, Progress):
                self._report(staging, told.message)
                continue
            staged = _expect(told, Staged)
            version = _version(staged, told.fds, staging.promised)
            version.identities = recipe.identities if staged.residence == "mapped" else ()
            break
        self.bytes_read += staged.read
        staging.promised = 0
        held = self._publish(version, recipe, staging)
        self.stagings.observe(time.monotonic() - staging.since)
        self._finish(staging, held)

    def _report(self, staging: Staging, report: Progress) -> None:
        staging.step, staging.done, staging.total = report.step, report.done, report.total
        for waiter in list(staging.waiters):
            waiter.progress(report)
        self._observe(staging, "progress", "")

    def _finish(self, staging: Staging, version: Version) -> None:
        # Held for the time being: the first who has it may be gone again before the last has it.
        version.leases += 1
        for waiter in list(staging.waiters):
            try:
                waiter.ready(version)
            # What one may not have takes it from nobody else.
            except MapcellError as exc:
                waiter.failed(exc)
        version.leases -= 1
        staging.waiters.clear()

    def _fail(self, staging: Staging, error: MapcellError) -> None:
        log.info("staging failed: source=%r error=%r", staging.plan.paths[:1], error.message)
        self._observe(staging, "failed", error.message)
        for waiter in list(staging.waiters):
            waiter.failed(error)
        staging.waiters.clear()


def _job_descriptors(staging: Staging) -> list[int]:
    """What the job needs besides itself, the caller's from here on."""
    plan, connection = staging.plan, staging.connection
    if connection is not None:
        staging.connection = None
        return [connection]
    if plan.base is not None:
        if plan.base.state is State.DROPPED:
            raise NotFound(f"{plan.base.id} was unloaded a moment ago; attach again")
        return [plan.base.manifest.reopen(), *(s.reopen() for s in plan.base.segments)]
    return []


def _expect(told: Told, kind: type[T]) -> T:
    message = told.message
    if isinstance(message, kind):
        return message
    channel.close_all(told.fds)
    if isinstance(message, Refused):
        raise message.error()
    raise ProtocolError(f"the stager sent {type(message).__name__} instead of {kind.__name__}")


def _version(staged: Staged, fds: list[int], promised: int) -> Version:
    """The version that the stager handed over, once the daemon has seen for itself that it is what was said."""
    sizes = [staged.manifest, *staged.segments]
    sealed = staged.residence == "sealed"
    sound = len(fds) == len(sizes) and min(sizes) >= 0 and memfd.is_sealed(fds[0], sizes[0])
    sound = sound and (not sealed or sum(staged.segments) <= promised)
    for fd, nbytes in list(zip(fds, sizes, strict=False))[1:]:
        sound = sound and (memfd.is_sealed(fd, nbytes) if sealed else os.fstat(fd).st_size >= nbytes)
    if not sound:
        channel.close_all(fds)
        raise StagingFailed("the stager handed over memory that is not what it said")
    segments = [Segment(fd, n) for fd, n in zip(_read_only(fds), sizes, strict=True)]
    return Version(
        id=staged.version,
        residence=staged.residence,
        format=staged.format,
        dtype=staged.dtype,
        verified=staged.verified,
        tensors=staged.tensors,
        nbytes=sum(staged.segments),
        manifest=segments[0],
        segments=tuple(segments[1:]),
        used=0.0,
        unguarded=staged.unguarded,
    )


def _read_only(fds: list[int]) -> list[int]:
    # Segment.unused counts read-only descriptions; and nothing here ever needs to write.
    with channel.owned(fds):
        return [channel.reopened(fd) for fd in fds]
