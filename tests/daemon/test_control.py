"""The control channel: every message gets one answer, and whoever sends nonsense hurts nobody."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from mapcell_formats import messages, wire
from mapcell_formats.errors import AccessDenied, NotFound
from mapcell_formats.messages import Event, GetStatus, ListModels, Models, Refused, Resolve, Unload, Watch
from mapcelld import control
from mapcelld.channel import Credentials
from mapcelld.control import SUBSCRIPTION_SECONDS, ControlDesk

# Long enough on a busy machine; a test that waits this long has failed.
PATIENCE_SECONDS = 10.0
NOTHING = Models(())


class Desk:
    """A desk with handlers of its own, and what it saw."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.peers: list[Credentials] = []
        self.denied = False
        self.desk = ControlDesk(
            folder / "c",
            {
                ListModels: lambda who, _: NOTHING,
                Resolve: self._resolve,
                GetStatus: lambda who, _: 1 // 0,
                Unload: lambda who, request: Refused("x", "\ud800", {}),
                Watch: lambda who, _: NOTHING,
            },
            self._admit,
            lambda: self.now,
        )

    def _admit(self, who: Credentials) -> Credentials:
        self.peers.append(who)
        if self.denied:
            raise AccessDenied("not you")
        return who

    def _resolve(self, who: Credentials, request: Resolve) -> Models:
        raise NotFound(f"no model {request.name!r}", model=request.name)


class Client:
    """A DEALER that may send anything."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: Path) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(f"ipc://{folder}/c")
        self.asked = 0

    def send(self, *frames: bytes) -> None:
        """Sends frames as they are."""
        self.socket.send_multipart(frames)

    async def receive(self) -> tuple[int, Any]:
        """The next message and its number."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    return wire.decode(self.socket.recv(zmq.NOBLOCK), messages.REPLIES)
                except zmq.Again:
                    await asyncio.sleep(0.001)

    async def ask(self, message: object) -> Any:
        """The answer to a message."""
        self.asked += 1
        self.send(wire.encode(message, self.asked))
        number, reply = await self.receive()
        assert number == self.asked
        return reply


def run(folder: Path, scene: Callable[[Desk, Callable[[], Client]], Awaitable[None]]) -> None:
    """Plays `scene` with a desk and as many clients as it makes; nothing may be logged as an error of the loop's."""

    async def play() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        desk, clients = Desk(folder), []
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

        def client() -> Client:
            clients.append(Client(context, folder))
            return clients[-1]

        try:
            desk.desk.open()
            await scene(desk, client)
        finally:
            for one in clients:
                one.socket.close()
            desk.desk.close()
            desk.desk.close()
            context.term()
        assert failures == []

    asyncio.run(play())


def test_answers(tmp_path: Path) -> None:
    """A reply under the request's number, authorised by what the kernel says of the connection."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        assert await client().ask(ListModels()) == NOTHING
        assert desk.peers == [Credentials(os.getpid(), os.getuid(), os.getgid(), frozenset({os.getgid()}))]

    run(tmp_path, scene)


def test_errors(tmp_path: Path) -> None:
    """A typed error goes back as itself; a bug, also one met while answering, as an error that names the log."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        asking = client()
        refused = await asking.ask(Resolve("x"))
        assert isinstance(refused.error(), NotFound)
        assert (refused.message, refused.details) == ("no model 'x'", {"model": "x"})
        assert "its log says why" in (await asking.ask(GetStatus())).message
        assert (await asking.ask(Unload("x"))).code == "protocol"
        assert await asking.ask(ListModels()) == NOTHING

    run(tmp_path, scene)


def test_not_admitted(tmp_path: Path) -> None:
    """Who may not be here is told so, under its request's number as far as it has one."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        desk.denied = True
        asking = client()
        for payload in (wire.encode(ListModels(), 1), b"garbage"):
            asking.send(payload)
            expected = "access-denied" if payload != b"garbage" else "protocol"
            assert (await asking.receive())[1].code == expected
        assert len(desk.peers) == 1

    run(tmp_path, scene)


@pytest.mark.parametrize(
    ("frames", "number", "says"),
    [
        ([b""], 0, "not msgpack"),
        ([b"garbage"], 0, "not msgpack"),
        ([b"", wire.encode(ListModels(), 1)], 0, "one frame, not 2"),
        ([b"x"] * 500, 0, "one frame, not 500"),
        ([wire.encode(messages.Redeem(b"x"), 7)], 7, "unknown operation 'redeem'"),
        ([msgpack.packb([wire.PROTOCOL + 1, 7, "list", {}])], 7, f"protocol {wire.PROTOCOL + 1} met"),
        ([msgpack.packb([wire.PROTOCOL, 7, "list", {"x": 1}])], 7, "list: unknown fields ['x']"),
        ([bytes(messages.MAX_CONTROL_BYTES)], 0, "not msgpack"),
    ],
    ids=["empty", "garbage", "delimiter", "many", "unknown", "protocol", "field", "large"],
)
def test_nonsense(tmp_path: Path, frames: list[bytes], number: int, says: str) -> None:
    """Nonsense brings its sender a ProtocolError, and everybody is served as before."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        asking = client()
        asking.send(*frames)
        got, refused = await asking.receive()
        assert (got, refused.code) == (number, "protocol")
        assert says in refused.message
        assert await asking.ask(ListModels()) == NOTHING
        assert await client().ask(ListModels()) == NOTHING

    run(tmp_path, scene)


def test_oversized(tmp_path: Path) -> None:
    """A message over the limit costs its sender the connection: no answer comes, and others are served."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        asking = client()
        monitor = asking.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            asking.send(bytes(messages.MAX_CONTROL_BYTES + 1))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not monitor.poll(0):
                    await asyncio.sleep(0.001)
        finally:
            asking.socket.disable_monitor()
            monitor.close()
        assert await client().ask(ListModels()) == NOTHING
        assert len(desk.peers) == 1

    run(tmp_path, scene)


def test_many_at_once(tmp_path: Path) -> None:
    """More requests than one turn of the loop takes are all answered, in order."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        asking = client()
        received: list[int] = []
        for number in range(300):
            asking.send(wire.encode(ListModels(), number))
            if number % 10 == 9:
                received += [(await asking.receive())[0] for _ in range(10)]
        assert received == list(range(300))

    run(tmp_path, scene)


def event(name: str) -> Event:
    """Something that happened to `name`."""
    return Event(0, "ready", name, "v", 1, 1, "")


def test_events(tmp_path: Path) -> None:
    """Each subscriber gets what it asked for and may see, numbered without gaps from its own first."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        one, every, none = client(), client(), client()
        assert await one.ask(Watch("a")) == await every.ask(Watch()) == await none.ask(Watch("z")) == NOTHING
        assert desk.desk.subscribers() == 3
        for name in ("a", "b", "a"):
            desk.desk.push(event(name), lambda who, wanted, name=name: wanted in ("", name))
        assert [(await one.receive())[1].number for _ in range(2)] == [1, 2]
        got = [(await every.receive()) for _ in range(3)]
        assert [(n, e.number, e.name) for n, e in got] == [(0, 1, "a"), (0, 2, "b"), (0, 3, "a")]
        assert await none.ask(ListModels()) == NOTHING
        # Renewing goes on counting.
        await one.ask(Watch("a"))
        desk.desk.push(event("a"), lambda who, wanted: wanted == "a")
        assert (await one.receive())[1].number == 3

    run(tmp_path, scene)


def test_lost_subscribers(tmp_path: Path) -> None:
    """A subscription that is not renewed is forgotten."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        first, second = client(), client()
        await first.ask(Watch())
        desk.now = SUBSCRIPTION_SECONDS
        await second.ask(Watch())
        desk.desk.sweep()
        assert desk.desk.subscribers() == 2
        desk.now += 1
        desk.desk.sweep()
        assert desk.desk.subscribers() == 1

    run(tmp_path, scene)


def test_too_many_subscribers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is an end to subscriptions; those that are there may renew."""
    monkeypatch.setattr(control, "MAX_SUBSCRIPTIONS", 1)

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        first = client()
        assert await first.ask(Watch()) == NOTHING
        assert "subscriptions are open" in (await client().ask(Watch())).message
        assert await first.ask(Watch()) == NOTHING

    run(tmp_path, scene)


def test_a_reader_that_reads_nothing(tmp_path: Path) -> None:
    """Who never reads loses events; nobody waits for it."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        idle, asking = client(), client()
        await idle.ask(Watch())
        for _ in range(5000):
            desk.desk.push(Event(0, "ready", "x" * 1000, "v", 1, 1, ""), lambda who, wanted: True)
        assert await asking.ask(ListModels()) == NOTHING

    run(tmp_path, scene)


def test_pausing(tmp_path: Path) -> None:
    """While it does not listen nobody is served; afterwards those who were there come back, and newcomers come too."""

    async def scene(desk: Desk, client: Callable[[], Client]) -> None:
        here = client()
        await here.ask(ListModels())
        desk.desk.listen(False)
        desk.desk.listen(False)
        # Whether this one is lost with its connection or waits for the next does not matter.
        here.send(wire.encode(ListModels(), 50))
        await asyncio.sleep(0.05)
        desk.desk.listen(True)
        assert await client().ask(ListModels()) == NOTHING
        here.send(wire.encode(ListModels(), 51))
        while (await here.receive())[0] != 51:
            pass

    run(tmp_path, scene)


def test_closed_before_it_was_opened(tmp_path: Path) -> None:
    """A desk whose daemon failed to start closes as well, and pushes to nobody."""
    desk = Desk(tmp_path).desk
    desk.close()
    desk.close()
    desk.push(event("a"), lambda who, wanted: True)
