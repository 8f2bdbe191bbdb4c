"""The lookout with stagers that do what the test says: what is looked at and told, and how a name switches over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from mapcell_formats.errors import StagingFailed
from mapcell_formats.messages import Event, Job, Looked, Place, Refused, Selection
from mapcelld import inotify
from mapcelld.access import Access
from mapcelld.config import Config, ModelConfig
from mapcelld.holdings import Holdings
from mapcelld.lookout import Lookout
from mapcelld.registry import Recipe, Version
from mapcelld.staging import Intent, Plan

from .building import sealed_segment, version
from .scripted import Harness, Script, ScriptedStagers

OLD, NEW = "1.2.3.4.5", "1.9.3.7.8"


class Plans:
    """How a configured model is staged."""

    def preload(self, model: ModelConfig) -> tuple[Plan, Intent]:
        """As requests.Requests does it."""
        plan = Plan("configured", (model.source,), Selection(), model.residence)
        return plan, Intent(model.name, None, model.source, pin=model.pin, role="newest")


class House:
    """Holdings with the model "m", and its lookout."""

    def __init__(self, **fields: object) -> None:
        model = ModelConfig(**({"name": "m", "source": "/models/m"} | fields))  # type: ignore[arg-type]
        self.config = Config(budget=1 << 20, models=(model,))
        self.events: list[Event] = []
        self.doubted: list[Version] = []
        self.stagers = ScriptedStagers()
        self.harness = Harness()
        push = lambda event, intent: self.events.append(event)  # noqa: E731
        self.holdings = Holdings(self.config, Access(self.config), push, lambda: 1 << 40, lambda: None)
        self.lookout = Lookout(
            self.config,
            self.stagers,  # type: ignore[arg-type]
            self.holdings,
            self.harness.desk,
            Plans(),
            push,
            self.doubted.append,
        )

    def made(self, number: str, identity: str, **fields: object) -> Version:
        """A version that was just staged from the file with that identity."""
        made = version(number, manifest=sealed_segment(), segments=(sealed_segment(),), **fields)  # type: ignore[arg-type]
        return self.holdings.registry.add(made, Recipe((identity,), "auto", Selection()))

    def load(self, number: str = "v1", identity: str = OLD, **fields: object) -> Version:
        """The same, as the model."""
        made = self.made(number, identity, **fields)
        self.holdings.name(Intent("m", None, "/models/m", role="newest"), made)
        return made

    async def look(self, number: int, seen: object) -> Script:
        """Has stager `number` see that."""
        script = await self.stagers.script(number)
        assert isinstance(await script.hear(), Job)
        script.say(seen)
        assert await script.hear() is None
        return script

    async def until(self, happened: Callable[[], bool]) -> None:
        """Waits until that has happened."""
        async with asyncio.timeout(10):
            while not happened():
                await asyncio.sleep(0.001)

    @property
    def state(self) -> str:
        """What rows say of the source."""
        return self.holdings.registry.models["m"].source_state


def there(identity: str, *places: Place) -> Looked:
    """A file that is there."""
    return Looked("there", (identity,), places, "", "")


def run(scene: Callable[[House], Awaitable[None]], **fields: object) -> None:
    """Plays `scene` on a loop of its own."""

    async def play() -> None:
        house = House(**fields)
        try:
            await scene(house)
        finally:
            await house.lookout.close()
            await house.harness.desk.close()
            for script in (*house.stagers.scripts, *house.harness.stagers.scripts):
                script.close()
            house.holdings.close()

    asyncio.run(play())


def test_a_change_is_told() -> None:
    """From the kernel's word to the row and the event; what nobody follows is not staged."""

    async def scene(house: House, folder: Path) -> None:
        house.load()
        house.lookout.open()
        await house.look(0, there(OLD, Place(watch_of(house, folder), "m")))
        await house.until(lambda: house.state == "same")
        (folder / "m").touch()
        await house.look(1, there(NEW))
        await house.until(lambda: house.state == "changed")
        assert [(e.name, e.detail) for e in house.events if e.kind == "source"] == [("m", "changed")]
        assert len(house.harness.desk) == 0
        assert house.lookout.statistics() == ({"changed": 1}, 0)

    with_folder(scene)


def watch_of(house: House, folder: Path) -> int:
    """A watch on `folder`, as a stager adds it."""
    return inotify.add(house.lookout._fd, str(folder))


def with_folder(scene: Callable[[House, Path], Awaitable[None]], **fields: object) -> None:
    """Plays a scene that needs a folder."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run(lambda house: scene(house, Path(folder)), **fields)


def test_watches_end() -> None:
    """Watches that no source needs any more are taken from the kernel."""

    async def scene(house: House, folder: Path) -> None:
        held = house.load()
        house.lookout.open()
        await house.look(0, there(OLD, Place(watch_of(house, folder), "m")))
        await house.until(lambda: house.state == "same")
        info = Path(f"/proc/self/fdinfo/{house.lookout._fd}")
        assert info.read_text().count("inotify wd") == 1
        house.holdings.drop(held)
        house.load("v2")
        house.lookout.sync()
        house.lookout.configure(house.config)
        await house.look(1, there(OLD))
        await house.until(lambda: "inotify wd" not in info.read_text())

    with_folder(scene)


def test_following_takes_the_pin_along() -> None:
    """The name means the new version at once; the configuration's pin goes over, and the old one goes."""

    async def scene(house: House) -> None:
        old = house.load(pinned=True)
        house.lookout.open()
        await house.look(0, there(NEW))
        await house.until(lambda: len(house.harness.desk) == 1)
        (staging,) = house.harness.desk
        new = house.made("v2", NEW)
        staging.waiters[0].ready(new)
        model = house.holdings.registry.models["m"]
        assert (model.versions, new.pinned, old.pinned) == (["v2"], True, False)
        assert house.lookout.followed == 1
        await house.look(1, there(NEW))
        await house.until(lambda: house.state == "same")

    run(scene, follow=True, pin=True)


def test_equal_bytes_are_no_news() -> None:
    """A file that was written anew with the same bytes is the version that there is: nobody is told of a new one."""

    async def scene(house: House) -> None:
        held = house.load()
        house.lookout.open()
        await house.look(0, there(NEW))
        await house.until(lambda: len(house.harness.desk) == 1)
        (staging,) = house.harness.desk
        ready = [e for e in house.events if e.kind == "ready"]
        house.holdings.registry.add(held, Recipe((NEW,), "auto", Selection()))
        staging.waiters[0].ready(held)
        assert [e for e in house.events if e.kind == "ready"] == ready
        assert house.lookout.followed == 0
        await house.look(1, there(NEW))
        await house.until(lambda: house.state == "same")

    run(scene, follow=True)


def test_a_preload_is_waited_for() -> None:
    """With preload and follow a source that is not there yet is staged when it comes."""

    async def scene(house: House) -> None:
        house.lookout.open()
        await house.look(0, Looked("missing", (), (), "", "no such file"))
        house.lookout.configure(house.config)
        await house.look(1, there(NEW))
        await house.until(lambda: len(house.harness.desk) == 1)

    run(scene, follow=True, preload=True)


def test_failures_are_told() -> None:
    """A version that cannot be staged leaves the one that there is, and says why; so does a look that fails."""

    async def scene(house: House) -> None:
        held = house.load()
        house.lookout.open()
        await house.look(0, there(NEW))
        await house.until(lambda: len(house.harness.desk) == 1)
        (staging,) = house.harness.desk
        staging.waiters[0].failed(StagingFailed("out of room"))
        await house.look(1, there(NEW))
        await house.until(lambda: house.state == "failing")
        model = house.holdings.registry.models["m"]
        assert (model.versions, model.source_detail) == ([held.id], "out of room")
        house.lookout.configure(house.config)
        await house.look(2, Refused.of(StagingFailed("no stager")))
        await house.until(lambda: house.state == "unwatched")
        assert "no stager" in model.source_detail

    run(scene, follow=True)


def test_what_is_mapped_is_doubted() -> None:
    """A mapped file that was rewritten where it lies is named to whoever verified it; another in its place is not."""

    async def scene(house: House) -> None:
        held = house.load(residence="mapped", identities=(OLD,))
        house.lookout.open()
        await house.look(0, there(NEW))
        await house.until(lambda: house.state == "changed")
        assert house.doubted == []
        house.lookout.configure(house.config)
        await house.look(1, there("1.2.3.5.6"))
        await house.until(lambda: house.doubted == [held])

    run(scene)


def test_paths_without_a_name_are_left_alone() -> None:
    """What nobody named is told apart whenever its path is attached: nobody looks at it."""

    async def scene(house: House) -> None:
        made = house.made("v1", OLD)
        house.holdings.name(Intent("/somewhere/m", 1000, "/somewhere/m", role="newest"), made)
        house.lookout.open()
        assert house.lookout.statistics() == ({}, 0)
        assert house.stagers.scripts == []

    run(scene)
