"""Has the bytes of mapped versions hashed in the background: one at a time, at the lowest priority, off the loop.

A version is lent at once and unverified; once its bytes were hashed its manifest is replaced by one that has their
digests, for those who attach from then on. The id stays: it stands in leases, tags and recipes, and the digest is
another name of the version.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable

from mapcell_formats.errors import MapcellError, ProtocolError, StagingFailed
from mapcell_formats.messages import Event, Hashed, Job, Manner, Progress, Refused, Selection
from mapcelld import channel, memfd
from mapcelld.holdings import Holdings, Push
from mapcelld.registry import State, Version
from mapcelld.segment import Segment
from mapcelld.stagers import HASHING, Stagers
from mapcelld.staging import Intent

log = logging.getLogger("mapcelld.hashing")

# At the lowest priority on a busy host 64 MiB may take minutes.
_STALL_SECONDS = 900.0
# A file that is touched again and again while it is hashed is left alone in the end.
_ATTEMPTS = 3


class Hashing:
    """What hashes, and what waits for it. `idle` says whether nothing is being staged, which has the disk first."""

    def __init__(self, stagers: Stagers, holdings: Holdings, idle: Callable[[], bool], push: Push) -> None:
        self._stagers = stagers
        self._holdings = holdings
        self._idle = idle
        self._push = push
        self._seen: set[str] = set()
        self._ripe: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._doubted: set[str] = set()
        self._current: Version | None = None
        self._task: asyncio.Task[None] | None = None
        self.hashed = 0

    def sweep(self) -> None:
        """Begins with the next version that waits; called every second or so, on the loop."""
        if self._current is not None and self._current.state is not State.READY and self._task is not None:
            self._task.cancel()
        versions = self._holdings.registry.versions
        self._doubted &= versions.keys()
        for gone in self._attempts.keys() - versions.keys():
            del self._attempts[gone]
        waiting = [v for v in versions.values() if self._wanted(v)]
        # What is gone a second after it came was not worth it.
        self._ripe, self._seen = self._seen, {v.id for v in waiting}
        self._begin()

    def doubt(self, version: Version) -> None:
        """The files of `version` were changed: what was said of its bytes has to be shown again, if it can be."""
        # What is guarded, or was copied when somebody wrote to it, is what it was.
        if not version.sound:
            self._doubted.add(version.id)

    def unverified(self) -> int:
        """How many versions wait to be hashed, or cannot be."""
        return sum(not v.verified for v in self._holdings.registry.versions.values())

    async def close(self) -> None:
        """Gives up what is being hashed."""
        self._ripe.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _begin(self) -> None:
        versions = self._holdings.registry.versions.values()
        version = next((v for v in versions if v.id in self._ripe and self._wanted(v)), None)
        if version is not None and self._current is None and self._idle():
            # Once between two sweeps: what failed may succeed a little later.
            self._ripe.discard(version.id)
            self._current = version
            self._task = asyncio.get_running_loop().create_task(self._run(version))

    def _wanted(self, version: Version) -> bool:
        due = not version.verified or version.id in self._doubted
        fresh = version.residence == "mapped" and version.state is State.READY
        return due and fresh and self._attempts[version.id] < _ATTEMPTS

    async def _run(self, version: Version) -> None:
        try:
            message, fds = await self._hashed(version)
            with channel.owned(fds):
                self._take(version, message, fds)
        except MapcellError as exc:
            self._attempts[version.id] += 1
            log.info("not hashed: version=%s error=%r", version.id, exc.message)
        # The boundary of one job: a bug that it meets must not end all hashing.
        except Exception:
            self._attempts[version.id] += 1
            log.exception("hashing failed: version=%s", version.id)
        finally:
            self._current = self._task = None
            self._begin()

    async def _hashed(self, version: Version) -> tuple[Hashed, list[int]]:
        job = Job("hash", (version.id,), (), Selection(), "mapped", version.id, Manner(), version.identities)
        async with self._stagers.turn(HASHING):
            stager = await self._stagers.start()
            try:
                with channel.owned([version.manifest.reopen(), *(s.reopen() for s in version.segments)]) as fds:
                    stager.begin(job, fds)
                told = await stager.receive(_STALL_SECONDS)
                while isinstance(told.message, Progress):
                    told = await stager.receive(_STALL_SECONDS)
            finally:
                stager.close()
        if isinstance(told.message, Hashed):
            return told.message, told.fds
        channel.close_all(told.fds)
        if isinstance(told.message, Refused):
            raise told.message.error()
        raise ProtocolError(f"the stager sent {type(told.message).__name__} instead of Hashed")

    def _take(self, version: Version, message: Hashed, fds: list[int]) -> None:
        """Notes what was found, unless the version is gone."""
        if self._holdings.registry.versions.get(version.id) is not version:
            return
        self._doubted.discard(version.id)
        if not message.digest:
            self._attempts[version.id] = _ATTEMPTS
            log.warning("not what was mapped any more: version=%s reason=%r", version.id, message.detail)
        if message.manifest:
            if len(fds) != 1 or not memfd.is_sealed(fds[0], message.manifest):
                raise StagingFailed("the stager handed over memory that is not what it said")
            old, version.manifest = version.manifest, _segment(fds[0], message.manifest)
            self._holdings.discard([old])
        version.verified = bool(message.digest)
        version.digest = message.digest if message.digest != version.id else ""
        if version.verified:
            self.hashed += 1
            log.info("verified: version=%s digest=%r", version.id, message.digest)
        self._tell(version)

    def _tell(self, version: Version) -> None:
        self._holdings.changed()
        for model in [self._holdings.registry.models[n] for n in sorted(version.names)]:
            kind = "verified" if version.verified else "source"
            event = Event(0, kind, model.name, version.id, 0, version.nbytes, version.digest or "changed")
            self._push(event, Intent(model.name, model.owner, model.source))


def _segment(fd: int, nbytes: int) -> Segment:
    return Segment(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC), nbytes)
