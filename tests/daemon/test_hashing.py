"""Hashing in the background, with stagers that do what the test says: what is taken, when, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mapcell_formats.errors import StagingFailed
from mapcell_formats.messages import Event, Hashed, Job, Progress, Refused, Staged
from mapcelld import channel, memfd
from mapcelld.access import Access
from mapcelld.config import Config
from mapcelld.hashing import Hashing
from mapcelld.holdings import Holdings
from mapcelld.registry import Version
from mapcelld.staging import Intent

from .building import recipe, sealed_segment, version
from .scripted import Script, ScriptedStagers, staged

DIGEST = "blake3:" + "d" * 64
CONFIG = Config(budget=1 << 20)


class House:
    """Holdings with mapped versions, and what hashes them."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, Intent]] = []
        self.changes = 0
        self.idle = True
        self.stagers = ScriptedStagers()
        push = lambda event, intent: self.events.append((event, intent))  # noqa: E731
        self.holdings = Holdings(CONFIG, Access(CONFIG), push, lambda: 1 << 40, self._changed)
        self.hashing = Hashing(self.stagers, self.holdings, lambda: self.idle, push)  # type: ignore[arg-type]

    def _changed(self) -> None:
        self.changes += 1

    def mapped(self, number: str = "file-1", **fields: object) -> Version:
        """A version that was just mapped, called "m"."""
        parts: dict[str, object] = {"manifest": sealed_segment(), "segments": (sealed_segment(),)}
        sound = {"residence": "mapped", "verified": False, "identities": ("1.2.3.4.5",)}
        made = version(number, **(parts | sound | fields))  # type: ignore[arg-type]
        self.holdings.registry.add(made, recipe("1.2.3.4.5"))
        self.holdings.registry.name("m", None, "/m", made)
        return made

    async def begun(self, number: int = 0) -> Script:
        """The stager that hashes next, with its job taken."""
        for _ in range(2):
            self.hashing.sweep()
        script = await self.stagers.script(number)
        assert isinstance(await script.hear(), Job)
        return script

    async def settled(self, happened: Callable[[], bool] | None = None) -> None:
        """Waits until nothing is being hashed, or until that has happened."""
        async with asyncio.timeout(10):
            while not (self.hashing._current is None if happened is None else happened()):
                await asyncio.sleep(0.001)


def run(scene: Callable[[House], Awaitable[None]]) -> None:
    """Plays `scene` on a loop of its own."""

    async def play() -> None:
        house = House()
        try:
            await scene(house)
        finally:
            await house.hashing.close()
            for script in house.stagers.scripts:
                script.close()
            house.holdings.close()

    asyncio.run(play())


def say(script: Script, digest: str, detail: str = "") -> None:
    """What a stager says in the end, with another manifest."""
    with channel.owned([memfd.sealed_copy("m", b"manifest")]) as fds:
        script.say(Hashed(digest, 8, detail), fds)


def test_verified() -> None:
    """The job names the files as they were; then the version is verified, with its digest and a new manifest."""

    async def scene(house: House) -> None:
        held = house.mapped()
        script = await house.begun()
        assert script.job is not None
        assert (script.job.kind, script.job.base, script.job.identities) == ("hash", "file-1", ("1.2.3.4.5",))
        script.say(Progress("hashing", 1, 2))
        say(script, DIGEST)
        await house.settled()
        assert (held.id, held.verified, held.digest, held.content) == ("file-1", True, DIGEST, DIGEST)
        assert held.manifest.nbytes == 8
        assert [(e.kind, e.name, e.version, e.detail) for e, _ in house.events] == [("verified", "m", "file-1", DIGEST)]
        assert (house.changes, house.hashing.hashed, house.hashing.unverified()) == (1, 1, 0)
        for _ in range(3):
            house.hashing.sweep()
        assert len(house.stagers.scripts) == 1

    run(scene)


def test_one_at_a_time_and_last() -> None:
    """Nothing begins while versions are staged, another is hashed, or for what has just come; sealed ones never."""

    async def scene(house: House) -> None:
        house.mapped("blake3:s", residence="sealed", verified=True)
        first = house.mapped("file-1")
        house.hashing.sweep()
        house.idle = False
        house.hashing.sweep()
        assert house.hashing._current is None
        house.idle = True
        await house.begun()
        house.mapped("file-2")
        for _ in range(3):
            house.hashing.sweep()
        assert len(house.stagers.scripts) == 1
        say(house.stagers.scripts[0], DIGEST)
        await house.settled(lambda: first.verified)
        second = await house.stagers.script(1)
        await second.hear()
        assert second.job is not None
        assert second.job.base == "file-2"

    run(scene)


def test_dropped_meanwhile() -> None:
    """What is dropped while it is hashed is hashed no further."""

    async def scene(house: House) -> None:
        held = house.mapped()
        script = await house.begun()
        house.holdings.drop(held)
        house.hashing.sweep()
        assert await script.hear() is None
        await house.settled()
        assert not held.verified

    run(scene)


@pytest.mark.parametrize(
    "answer",
    [Refused.of(StagingFailed("touched")), staged(), Hashed(DIGEST, 8, ""), None],
    ids=["refused", "nonsense", "no manifest", "dead"],
)
def test_failures_end(answer: Any) -> None:
    """A stager that refuses, dies or talks nonsense makes nothing verified; it is tried three times."""

    async def scene(house: House) -> None:
        held = house.mapped()
        for number in range(3):
            script = await house.begun(number)
            if answer is not None and not isinstance(answer, Staged):
                script.say(answer)
            elif answer is not None:
                with channel.owned([memfd.sealed_copy("m", b"x")]) as fds:
                    script.say(answer, fds)
            else:
                script.close()
            await house.settled(lambda number=number: house.hashing._attempts[held.id] == number + 1)
        for _ in range(3):
            house.hashing.sweep()
        assert house.hashing._current is None
        assert (held.verified, held.digest, len(house.stagers.scripts)) == (False, "", 3)

    run(scene)


def test_doubt() -> None:
    """What was verified is hashed again when its files changed; when it is other bytes it is verified no more, once."""

    async def scene(house: House) -> None:
        held = house.mapped(verified=True, digest=DIGEST)
        await asyncio.sleep(0)
        house.hashing.doubt(held)
        script = await house.begun()
        say(script, "", "its files were changed")
        await house.settled()
        assert (held.verified, held.digest, held.content) == (False, "", "")
        assert [(e.kind, e.detail) for e, _ in house.events] == [("source", "changed")]
        house.hashing.doubt(held)
        for _ in range(3):
            house.hashing.sweep()
        assert len(house.stagers.scripts) == 1

    run(scene)
