"""Stagers that do what a test says, at the other end of a real job channel; and waiters that remember."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from mapcell_formats import messages, wire
from mapcell_formats.errors import MapcellError
from mapcell_formats.messages import Identified, Job, Proceed, Progress, Selection, Sized, Staged
from mapcell_formats.source import FileSource, read
from mapcelld import channel, memfd
from mapcelld.registry import Recipe, Registry, Version
from mapcelld.stagers import Spawner, Stager
from mapcelld.staging import Intent, Plan, Staging, StagingDesk

# Long enough on a busy machine; a test that waits this long has failed.
PATIENCE_SECONDS = 10.0
VERSION = "blake3:" + "0" * 64


class NoSpawner(Spawner):
    """Remembers whom it was to kill."""

    def __init__(self) -> None:
        super().__init__()
        self.killed: list[int] = []

    def kill(self, pid: int) -> None:
        """Kills nobody."""
        self.killed.append(pid)


class Script:
    """The stager's end of one job channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.job: Job | None = None

    async def hear(self) -> object:
        """The next order; None at the end of the channel."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.sock, ready.set)
        try:
            await asyncio.wait_for(ready.wait(), PATIENCE_SECONDS)
        finally:
            loop.remove_reader(self.sock)
        payload, fds = channel.receive(self.sock, messages.MAX_HANDLE_BYTES, 252)
        with channel.owned(fds):
            if not payload:
                return None
            if payload != messages.JOB_FOLLOWS:
                return wire.decode(payload, messages.STAGER_ORDERS)[1]
            with FileSource(fds.pop(0), "job") as held:
                _, self.job = wire.decode(bytes(read(held, 0, held.size)), messages.STAGER_ORDERS)
            return self.job

    def say(self, report: object, fds: Sequence[int] = ()) -> None:
        """Reports, with descriptors that stay the test's."""
        channel.send(self.sock, report if isinstance(report, bytes) else wire.encode(report), fds)

    async def identify(self, *identities: str) -> None:
        """Takes the job and says what its files are."""
        assert isinstance(await self.hear(), Job)
        self.say(Identified(1, identities or ("file",)))

    async def size(self, nbytes: int = 4) -> None:
        """Says how much it would allocate, and is told to go on."""
        assert await self.hear() == Proceed()
        self.say(Sized("sealed", nbytes, 1))

    def publish(self, version: str = VERSION, data: bytes = b"data") -> None:
        """Hands over sealed memory."""
        with channel.owned([memfd.sealed_copy("m", b"manifest"), memfd.sealed_copy("s", data)]) as fds:
            self.say(staged(version, segments=(len(data),)), fds)

    def close(self) -> None:
        """Ends the stager."""
        self.sock.close()


def staged(version: str = VERSION, manifest: int = 8, segments: tuple[int, ...] = (4,)) -> Staged:
    """What a stager says when it is done."""
    return Staged(version, "sealed", "safetensors", "F32", True, 1, manifest, segments, 10)


class ScriptedStagers:
    """Instead of processes: one script for each stager that is started."""

    def __init__(self) -> None:
        self.spawner = NoSpawner()
        self.scripts: list[Script] = []
        self._started = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def turn(self, uid: int) -> AsyncIterator[None]:
        """Never makes anyone wait."""
        yield

    async def start(self) -> Stager:
        """A stager whose other end is the next script."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        async with self._started:
            self.scripts.append(Script(theirs))
            self._started.notify_all()
        return Stager(ours, len(self.scripts), self.spawner)

    async def script(self, number: int) -> Script:
        """The script of stager `number`, once it is started."""
        async with self._started:
            waiting = self._started.wait_for(lambda: len(self.scripts) > number)
            await asyncio.wait_for(waiting, PATIENCE_SECONDS)
        return self.scripts[number]


@dataclass(eq=False)
class Waiting:
    """Whoever waits for a version, and what it heard. `refuse` is what having the version fails with.

    `on_begun` happens when its files were taken, `on_ready` when the version is there.
    """

    intent: Intent = field(default_factory=lambda: Intent("m"))
    refuse: MapcellError | None = None
    on_begun: Callable[[], None] = lambda: None
    on_ready: Callable[[Version], None] = lambda version: None
    heard: list[object] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def begun(self) -> None:
        """Its files were taken."""
        self.heard.append("begun")
        self.on_begun()

    def progress(self, report: Progress) -> None:
        """Staging goes on."""
        self.heard.append(report)

    def ready(self, version: Version) -> None:
        """The version is there."""
        if self.refuse is not None:
            raise self.refuse
        self.on_ready(version)
        self.heard.append(version)
        self.done.set()

    def failed(self, error: MapcellError) -> None:
        """There will be none."""
        self.heard.append(error)
        self.done.set()

    async def outcome(self) -> object:
        """The version or the error, once there is one."""
        await asyncio.wait_for(self.done.wait(), PATIENCE_SECONDS)
        return self.heard[-1]


class Harness:
    """A staging desk over a registry, with scripted stagers."""

    def __init__(self, make_room: Callable[[int, int], None] = lambda uid, nbytes: None) -> None:
        self.registry = Registry()
        self.stagers = ScriptedStagers()
        self.observed: list[str] = []
        self.desk = StagingDesk(
            self.stagers,  # type: ignore[arg-type]
            self.registry.made_by,
            make_room,
            self._publish,
            lambda staging, kind, detail: self.observed.append(kind),
        )

    def _publish(self, version: Version, recipe: Recipe, staging: Staging) -> Version:
        held = self.registry.add(version, recipe)
        if held is not version:
            close(version)
        return held

    def start(self, waiter: Waiting, **plan: object) -> Staging:
        """Begins a job for `waiter`."""
        sound: dict[str, object] = {
            "kind": "configured", "paths": ("/x",), "selection": Selection(), "residence": "auto"
        }  # fmt: skip
        return self.desk.start(Plan(**(sound | plan)), 7, waiter, None)  # type: ignore[arg-type]

    async def end(self) -> None:
        """Waits for every job, and lets everything go."""
        for script in self.stagers.scripts:
            script.close()
        while len(self.desk):
            await asyncio.sleep(0.001)
        for version in self.registry.versions.values():
            close(version)


def close(version: Version) -> None:
    """Closes the segments of a version."""
    for segment in (version.manifest, *version.segments):
        segment.close()
