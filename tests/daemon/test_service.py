"""The service as a whole, on a loop of the test's: from opening to closing, and what may go wrong between."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from mapcell_formats import messages, wire
from mapcell_formats.messages import (
    Attach,
    GetStatus,
    Grant,
    ListModels,
    Models,
    Redeem,
    Refused,
    Status,
    Ticket,
    Watch,
)
from mapcelld import channel
from mapcelld.config import Config, ModelConfig, Principals
from mapcelld.manager import Manager
from mapcelld.runtime import RuntimeFolder
from mapcelld.service import Service
from support.checkpoints import write_safetensors
from support.raw import ask

PATIENCE_SECONDS = 20.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint of half floats."""
    return write_safetensors(tmp_path / "x.safetensors", {"w": np.ones((4, 4), np.float16)})


def config(file: Path, **fields: Any) -> Config:
    """A configuration with one model."""
    model = {"name": "m", "source": str(file), "residence": "sealed"} | fields
    return Config(budget=1 << 20, models=(ModelConfig(**model),))


class Stage:
    """A service in a folder of its own, and what clients ask of it."""

    def __init__(self, folder: Path, settings: Config) -> None:
        self.runtime = RuntimeFolder(folder)
        self.service = Service(settings, self.runtime, lambda: 1 << 40, Manager({}, os.getpid()))

    async def ask(self, message: object) -> Any:
        """The reply to a message."""
        return await asyncio.to_thread(ask, self.runtime.path, message)

    async def redeem(self, ticket: Ticket) -> tuple[Any, list[int], socket.socket]:
        """What a ticket gives in the end, its descriptors and the connection."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(str(self.runtime.handles))
        channel.send(sock, wire.encode(Redeem(ticket.ticket)))
        while True:
            payload, fds = await asyncio.to_thread(channel.receive, sock, messages.MAX_HANDLE_BYTES, 8)
            message = wire.decode(payload, messages.HANDOUTS)[1] if payload else None
            if not isinstance(message, messages.Progress):
                return message, fds, sock

    async def until(self, happened: Callable[[Status], bool]) -> Status:
        """The status in which that has happened."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not happened(status := await self.ask(GetStatus())):
                await asyncio.sleep(0.005)
        assert isinstance(status, Status)
        return status


def run(folder: Path, settings: Config, scene: Callable[[Stage], Awaitable[None]]) -> None:
    """Plays `scene` with a service that is opened before and closed afterwards, without an error on the loop."""

    async def play() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        stage = Stage(folder / "run", settings)
        try:
            await stage.service.open()
            await scene(stage)
        finally:
            await stage.service.close()
            stage.runtime.close()
        assert failures == []
        assert os.listdir(folder / "run") == ["lock"]

    asyncio.run(play())


def test_attach(tmp_path: Path, file: Path) -> None:
    """A configured model is staged when it is first asked for, found afterwards, and counted while it is leased."""

    async def scene(stage: Stage) -> None:
        leases = []
        for _ in range(2):
            grant, fds, sock = await stage.redeem(await stage.ask(Attach("m")))
            assert isinstance(grant, Grant)
            channel.close_all(fds)
            leases.append(sock)
        status = await stage.ask(GetStatus())
        assert (status.leases, status.models, status.connections, status.stagings) == (2, 1, 2, 1)
        assert status.sealed == 4096
        for sock in leases:
            sock.close()
        assert (await stage.until(lambda s: s.connections == 0)).leases == 0

    run(tmp_path, config(file), scene)


@pytest.mark.parametrize(("allow", "name"), [(None, "m"), (Principals(frozenset({os.geteuid()})), "(private)")])
def test_statistics(tmp_path: Path, file: Path, allow: Principals | None, name: str) -> None:
    """What was served, refused and read is counted; a model that is not for everybody is counted without its name."""

    async def scene(stage: Stage) -> None:
        for asked in ("m", "nothing"):
            reply = await stage.ask(Attach(asked))
            if isinstance(reply, Refused):
                continue
            _, fds, sock = await stage.redeem(reply)
            channel.close_all(fds)
        seen = stage.service.statistics()
        assert seen.leases == {(name, os.geteuid()): 1}
        assert seen.refusals == {"not-found": 1}
        assert seen.versions == {("sealed", "READY"): 1}
        assert seen.held == {"sealed": 4096, "mapped": 0}
        assert (sum(seen.attaches.counts), sum(seen.stagings.counts), seen.published) == (1, 1, 1)
        assert seen.read >= file.stat().st_size
        assert (seen.adopted, seen.restarts, seen.stored, seen.store_limit, seen.lingering) == (0, 0, 0, 0, 0)
        sock.close()

    run(tmp_path, config(file, allow=allow), scene)


def test_attach_with_a_cast(tmp_path: Path, file: Path) -> None:
    """The first who asks for a configured model in a dtype gets it in that dtype; so does the next."""

    async def scene(stage: Stage) -> None:
        from mapcell_formats.manifest import Manifest

        versions = set()
        for _ in range(2):
            grant, fds, sock = await stage.redeem(await stage.ask(Attach("m", messages.Selection("F32"))))
            with sock, channel.owned(fds):
                assert Manifest(os.pread(fds[0], grant.manifest, 0))["w"].dtype == "F32"
                versions.add(grant.version)
        assert len(versions) == 1
        grant, fds, sock = await stage.redeem(await stage.ask(Attach("m")))
        with sock, channel.owned(fds):
            assert grant.version not in versions

    run(tmp_path, config(file), scene)


def test_preload(tmp_path: Path, file: Path) -> None:
    """A model that is to be preloaded is there without anybody asking."""

    async def scene(stage: Stage) -> None:
        await stage.until(lambda s: s.models == 1 and s.stagers == 0)
        rows = (await stage.ask(ListModels())).rows
        assert [(r.name, r.state, r.pinned, r.leases) for r in rows] == [("m", "READY", True, 0)]

    run(tmp_path, config(file, preload=True, pin=True), scene)


def test_preload_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that cannot be loaded is a line in the log, and the daemon serves."""

    async def scene(stage: Stage) -> None:
        await stage.until(lambda s: s.stagers == 0)
        refused, _, sock = await stage.redeem(await stage.ask(Attach("m")))
        sock.close()
        assert isinstance(refused, Refused)
        assert refused.code == "not-found"

    run(tmp_path, config(tmp_path / "gone", preload=True), scene)
    assert "loading failed: name='m'" in caplog.text


def test_closing_in_the_middle(tmp_path: Path, file: Path) -> None:
    """With subscribers, leases, silent connections, a ticket and a job under way it closes as if there were none."""

    async def scene(stage: Stage) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with context, context.socket(zmq.DEALER) as subscriber:
            subscriber.setsockopt(zmq.LINGER, 0)
            subscriber.connect(f"ipc://{stage.runtime.control}")
            subscriber.send(wire.encode(Watch(), 1))
            reply = await asyncio.to_thread(subscriber.recv)
            assert isinstance(wire.decode(reply, messages.REPLIES)[1], Models)
            grant, fds, leasing = await stage.redeem(await stage.ask(Attach("m")))
            await stage.ask(Attach("m"))
            silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            silent.connect(str(stage.runtime.handles))
            await stage.until(lambda s: s.connections == 2)
            ticket = await stage.ask(Attach("m", messages.Selection("F64")))
            under_way = asyncio.create_task(stage.redeem(ticket))
            await stage.until(lambda s: s.connections == 3)
            await stage.service.close()
            # What was granted stays the client's.
            assert os.pread(fds[0], 8, 0) == b"MAPCELLM"
            channel.close_all(fds)
            assert isinstance(grant, Grant)
            assert leasing.recv(10) == b""
            for sock in (leasing, silent):
                sock.close()
            _, fds, sock = await under_way
            channel.close_all(fds)
            sock.close()

    run(tmp_path, config(file), scene)


def test_closed_without_opening(tmp_path: Path, file: Path) -> None:
    """A service whose daemon failed to start closes as well."""

    async def play() -> None:
        stage = Stage(tmp_path / "run", config(file))
        await stage.service.close()
        stage.runtime.close()

    asyncio.run(play())


def test_sweeping(tmp_path: Path, file: Path) -> None:
    """Sweeping takes nothing from anybody who is served."""

    async def scene(stage: Stage) -> None:
        grant, fds, sock = await stage.redeem(await stage.ask(Attach("m")))
        channel.close_all(fds)
        for _ in range(3):
            stage.service.sweep()
            stage.service.look()
        assert isinstance(grant, Grant)
        assert (await stage.ask(GetStatus())).leases == 1
        sock.close()

    run(tmp_path, config(file), scene)
