"""The handle channel: a ticket, descriptors, a lease that is the connection; and clients that do not keep to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.building import sealed_segment, version
from mapcell_formats import messages, wire
from mapcell_formats.errors import AccessDenied, MapcellError, NotFound, ProtocolError
from mapcell_formats.messages import (
    Attach,
    Extend,
    Extended,
    Grant,
    Present,
    Progress,
    Redeem,
    Refused,
    Remap,
    Remapped,
    Selection,
)
from mapcelld import channel
from mapcelld.channel import Credentials
from mapcelld.connections import Connection, Recall, Right
from mapcelld.handles import REDEEM_SECONDS, HandleDesk
from mapcelld.leases import Lease
from mapcelld.registry import Version
from mapcelld.segment import Segment
from mapcelld.staging import Intent, Plan

PATIENCE_SECONDS = 10.0
DATA = b"0123456789"


class Rules:
    """What the desk asks, answered as a test wants it, and remembered."""

    def __init__(self, held: Version) -> None:
        self.held = held
        self.plan: Plan | None = None
        self.raises: Exception | None = None
        self.denied = False
        self.waiting: list[tuple[Connection, int | None]] = []
        self.leases: list[Lease] = []
        self.gone: list[Connection] = []

    def admit(self, who: Credentials) -> None:
        """Refuses when told to."""
        if self.denied:
            raise AccessDenied("not you")

    def redeem(self, ticket: bytes, who: Credentials) -> Right:
        """Any ticket but an empty one is good."""
        if self.raises is not None:
            raise self.raises
        if not ticket:
            raise ProtocolError("this ticket is unknown")
        return Right(Intent("m"), None if self.plan else self.held, self.plan)

    def attach(self, request: Attach, who: Credentials) -> Right:
        """Any model but a nameless one is there."""
        if not request.name:
            raise NotFound("no model ''")
        return Right(Intent(request.name), None if self.plan else self.held, self.plan)

    def stage(self, right: Right, connection: Connection, offer: int | None) -> None:
        """Has it wait."""
        self.waiting.append((connection, offer))

    def cast(self, connection: Connection, held: Version) -> Version | None:
        """Casts nothing."""
        return held

    def name(self, intent: Intent, held: Version) -> str:
        """The name as it is."""
        return intent.name

    def begin(self, who: Credentials, name: str, held: Version) -> Lease:
        """Begins a lease."""
        self.leases.append(Lease(who, name, held, 0.0))
        return self.leases[-1]

    def pass_on(self, lease: Lease, pid: int) -> Lease:
        """Another process holds it."""
        return replace(lease, holder=replace(lease.holder, pid=pid))

    def left(self, connection: Connection) -> None:
        """Remembers who left."""
        self.gone.append(connection)


class Stage:
    """A desk, its rules, and its clock."""

    def __init__(self, folder: Path, held: Version) -> None:
        self.now = 0.0
        self.path = folder / "h"
        self.rules = Rules(held)
        self.desk = HandleDesk(self.path, self.rules, lambda: self.now)
        self.clients: list[socket.socket] = []

    def client(self) -> socket.socket:
        """A connected client."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(self.path))
        sock.setblocking(False)
        self.clients.append(sock)
        return sock

    async def until(self, happened: Callable[[], object]) -> None:
        """Returns once that has happened."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not happened():
                await asyncio.sleep(0.001)


async def hear(sock: socket.socket) -> tuple[Any, list[int]]:
    """The next message to a client and its descriptors; (None, []) at the end, however it came."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                payload, fds = channel.receive(sock, messages.MAX_HANDLE_BYTES, 251)
            except BlockingIOError:
                await asyncio.sleep(0.001)
                continue
            return (wire.decode(payload, messages.HANDOUTS)[1] if payload else None), fds


REDEEM = wire.encode(Redeem(b"ticket"))


@pytest.fixture
def held() -> Iterator[Version]:
    """A version of one segment."""
    manifest, segment = sealed_segment(b"manifest"), sealed_segment(DATA)
    yield version("v", manifest=manifest, segments=(segment,))
    manifest.close()
    segment.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Version]:
    """A version of one file that is guarded."""
    (tmp_path / "file").write_bytes(DATA)
    manifest = sealed_segment(b"manifest")
    segment = Segment(os.open(tmp_path / "file", os.O_RDONLY | os.O_CLOEXEC), len(DATA))
    assert segment.guard() == ""
    yield version("v", residence="mapped", manifest=manifest, segments=(segment,))
    manifest.close()
    segment.close()


def run(folder: Path, held: Version, scene: Callable[[Stage], Awaitable[None]]) -> None:
    """Plays `scene`; afterwards every connection is gone, each reported once, and no descriptor is left."""
    before = len(os.listdir("/proc/self/fd"))

    async def play() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        stage = Stage(folder, held)
        try:
            stage.desk.open()
            await scene(stage)
        finally:
            for sock in stage.clients:
                sock.close()
            stage.desk.close()
            stage.desk.close()
        assert len(stage.desk) == stage.desk.of(os.getuid()) == 0
        assert len(stage.rules.gone) == len(set(stage.rules.gone))
        assert failures == []

    asyncio.run(play())
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("asked", [REDEEM, wire.encode(Attach("m"))], ids=["ticket", "name"])
def test_lease(tmp_path: Path, held: Version, asked: bytes) -> None:
    """A ticket, or a name, becomes descriptors, each a description of its own; the connection's end is the lease's."""

    async def scene(stage: Stage) -> None:
        first, second = stage.client(), stage.client()
        for sock in (first, second):
            channel.send(sock, asked)
        (grant, fds), (_, others) = await hear(first), await hear(second)
        with channel.owned([*fds, *others]):
            assert grant == Grant("m", "v", 8, (10,))
            assert [os.pread(fd, 20, 0) for fd in fds] == [b"manifest", DATA]
            os.lseek(fds[1], 5, os.SEEK_SET)
            assert os.lseek(others[1], 0, os.SEEK_CUR) == 0
        assert (len(stage.desk), stage.desk.of(os.getuid()), stage.desk.of(1)) == (2, 2, 0)
        first.close()
        await stage.until(lambda: stage.rules.gone)
        assert [c.lease for c in stage.rules.gone] == stage.rules.leases[:1]
        assert stage.rules.gone[0].peer.pid == os.getpid()

    run(tmp_path, held, scene)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"garbage", "not msgpack"),
        (wire.encode(Redeem(b"")), "this ticket is unknown"),
        (wire.encode(messages.GetStatus()), "unknown operation 'status'"),
        (b"x" * (messages.MAX_HANDLE_BYTES + 1), "more than 65536 bytes"),
    ],
    ids=["garbage", "ticket", "operation", "oversized"],
)
@pytest.mark.parametrize("descriptors", [0, 200])
def test_refusals_arrive(tmp_path: Path, held: Version, payload: bytes, says: str, descriptors: int) -> None:
    """What is wrong is said, though the message was never taken, and its descriptors are opened by nobody."""

    async def scene(stage: Stage) -> None:
        sock = stage.client()
        with open("/proc/self/exe", "rb") as file:
            channel.send(sock, payload, [file.fileno()] * descriptors)
        refused, _ = await hear(sock)
        assert isinstance(refused, Refused)
        assert refused.code == "protocol"
        assert says in refused.message
        assert await hear(sock) == (None, [])
        assert len(stage.rules.gone) == 1

    run(tmp_path, held, scene)


@pytest.mark.parametrize("descriptors", [0, 200])
def test_a_name_that_means_nothing(tmp_path: Path, held: Version, descriptors: int) -> None:
    """An error about a name that was asked for arrives as what it is; descriptors beside it are opened by nobody."""

    async def scene(stage: Stage) -> None:
        sock = stage.client()
        with open("/proc/self/exe", "rb") as file:
            channel.send(sock, wire.encode(Attach("")), [file.fileno()] * descriptors)
        refused, _ = await hear(sock)
        assert isinstance(refused, Refused)
        assert (refused.code, refused.message) == ("not-found", "no model ''")
        assert await hear(sock) == (None, [])
        assert stage.rules.leases == []

    run(tmp_path, held, scene)


@pytest.mark.parametrize("messages_sent", [1, 30])
def test_talking_on(tmp_path: Path, held: Version, messages_sent: int) -> None:
    """Whoever says more than its ticket loses the lease."""

    async def scene(stage: Stage) -> None:
        sock = stage.client()
        channel.send(sock, REDEEM)
        _, fds = await hear(sock)
        channel.close_all(fds)
        for _ in range(messages_sent):
            channel.send(sock, b"more")
        await stage.until(lambda: stage.rules.gone)
        assert stage.rules.gone[0].lease is stage.rules.leases[0]
        if messages_sent == 1:
            refused, _ = await hear(sock)
            assert "nothing else is said" in refused.message

    run(tmp_path, held, scene)


def test_saying_nothing(tmp_path: Path, held: Version) -> None:
    """Who connects and stays silent is dropped after a while; who holds a lease may be silent for ever."""

    async def scene(stage: Stage) -> None:
        silent, leasing = stage.client(), stage.client()
        channel.send(leasing, REDEEM)
        _, fds = await hear(leasing)
        channel.close_all(fds)
        await stage.until(lambda: len(stage.desk) == 2)
        stage.now = REDEEM_SECONDS
        stage.desk.sweep()
        assert len(stage.desk) == 2
        stage.now += 1
        stage.desk.sweep()
        assert await hear(silent) == (None, [])
        assert len(stage.desk) == 1

    run(tmp_path, held, scene)


def test_taking_nothing(tmp_path: Path, held: Version) -> None:
    """Who never receives what it was granted is dropped: descriptors on their way count against the daemon."""

    async def scene(stage: Stage) -> None:
        lazy, quick = stage.client(), stage.client()
        for sock in (lazy, quick):
            channel.send(sock, REDEEM)
        await stage.until(lambda: len(stage.rules.leases) == 2)
        _, fds = await hear(quick)
        channel.close_all(fds)
        stage.now = REDEEM_SECONDS + 1
        stage.desk.sweep()
        assert len(stage.desk) == 1
        assert stage.rules.gone[0].lease is stage.rules.leases[0]

    run(tmp_path, held, scene)


def test_gone_before_anything(tmp_path: Path, held: Version) -> None:
    """Clients that connect and leave, with or without a word, are forgotten."""

    async def scene(stage: Stage) -> None:
        for payload in (None, REDEEM, b"x"):
            sock = stage.client()
            if payload:
                channel.send(sock, payload)
            sock.close()
        await stage.until(lambda: len(stage.rules.gone) == 3)

    run(tmp_path, held, scene)


def test_not_admitted(tmp_path: Path, held: Version) -> None:
    """Who may not be here is told so before it said anything."""

    async def scene(stage: Stage) -> None:
        stage.rules.denied = True
        refused, _ = await hear(stage.client())
        assert isinstance(refused.error(), AccessDenied)

    run(tmp_path, held, scene)


@pytest.mark.parametrize(
    ("error", "says"),
    [(NotFound("gone"), "gone"), (OSError(24, "Too many open files"), "its log"), (ZeroDivisionError(), "its log")],
)
def test_failures(tmp_path: Path, held: Version, error: Exception, says: str) -> None:
    """What goes wrong for one client, foreseen or not, is said to it and costs nobody else anything."""

    async def scene(stage: Stage) -> None:
        stage.rules.raises = error
        sock = stage.client()
        channel.send(sock, REDEEM)
        refused, _ = await hear(sock)
        assert isinstance(refused.error(), MapcellError)
        assert says in refused.message
        stage.rules.raises = None
        other = stage.client()
        channel.send(other, REDEEM)
        _, fds = await hear(other)
        channel.close_all(fds)
        assert len(fds) == 2

    run(tmp_path, held, scene)


def test_a_version_that_is_closed(tmp_path: Path, held: Version) -> None:
    """A grant that fails half way ends the lease that it began."""

    async def scene(stage: Stage) -> None:
        held.segments[0].close()
        sock = stage.client()
        channel.send(sock, REDEEM)
        message, fds = await hear(sock)
        assert not isinstance(message, Grant)
        assert fds == []
        assert [c.lease for c in stage.rules.gone] == stage.rules.leases

    run(tmp_path, held, scene)


PLAN = Plan("configured", ("/x",), Selection(), "auto")


def test_waiting(tmp_path: Path, held: Version) -> None:
    """Who waits hears of progress, then gets its lease; who leaves meanwhile is noticed."""

    async def scene(stage: Stage) -> None:
        stage.rules.plan = PLAN
        patient, hasty = stage.client(), stage.client()
        channel.send(patient, REDEEM)
        await stage.until(lambda: len(stage.rules.waiting) == 1)
        channel.send(hasty, REDEEM)
        await stage.until(lambda: len(stage.rules.waiting) == 2)
        (waiter, offer), (other, _) = stage.rules.waiting
        assert offer is None
        hasty.close()
        await stage.until(lambda: stage.rules.gone == [other])
        waiter.progress(Progress("staging", 1, 2))
        waiter.ready(held)
        assert (await hear(patient))[0] == Progress("staging", 1, 2)
        grant, fds = await hear(patient)
        channel.close_all(fds)
        assert isinstance(grant, Grant)
        other.progress(Progress("staging", 2, 2))
        other.ready(held)
        other.failed(NotFound("late"))
        assert len(stage.rules.leases) == 1

    run(tmp_path, held, scene)


def test_waiting_in_vain(tmp_path: Path, held: Version) -> None:
    """Who waited for what failed is told why."""

    async def scene(stage: Stage) -> None:
        stage.rules.plan = PLAN
        sock = stage.client()
        channel.send(sock, REDEEM)
        await stage.until(lambda: stage.rules.waiting)
        stage.rules.waiting[0][0].failed(NotFound("no tensor 'x'", tensor="x"))
        refused, _ = await hear(sock)
        assert isinstance(refused.error(), NotFound)
        assert await hear(sock) == (None, [])

    run(tmp_path, held, scene)


def test_offer(tmp_path: Path, held: Version) -> None:
    """An offer's message stays queued with its descriptors, for a stager to take; its client is looked out for then."""

    async def scene(stage: Stage) -> None:
        stage.rules.plan = Plan("offer", ("/x",), Selection(), "auto")
        sock = stage.client()
        before = len(os.listdir("/proc/self/fd"))
        with open("/proc/self/exe", "rb") as file:
            channel.send(sock, REDEEM, [file.fileno()] * 3)
        await stage.until(lambda: stage.rules.waiting)
        connection, offer = stage.rules.waiting[0]
        assert offer == connection.sock.fileno()
        await asyncio.sleep(0.01)
        # The daemon's end of the connection, and nothing that came over it.
        assert len(os.listdir("/proc/self/fd")) == before + 1
        with socket.socket(fileno=os.dup(offer)) as stagers:
            payload, fds = channel.receive(stagers, 1000, 5)
        channel.close_all(fds)
        assert (payload, len(fds)) == (REDEEM, 3)
        connection.begun()
        sock.close()
        await stage.until(lambda: stage.rules.gone == [connection])

    run(tmp_path, held, scene)


def test_a_client_that_reads_nothing(tmp_path: Path, held: Version) -> None:
    """Progress fills its queue and is dropped then; the grant that does not fit any more ends it, and nobody waits."""

    async def scene(stage: Stage) -> None:
        stage.rules.plan = PLAN
        sock = stage.client()
        channel.send(sock, REDEEM)
        await stage.until(lambda: stage.rules.waiting)
        connection = stage.rules.waiting[0][0]
        for done in range(20_000):
            connection.progress(Progress("staging", done, 20_000))
        connection.ready(held)
        assert stage.rules.gone == [connection]
        assert connection.lease is stage.rules.leases[0]

    run(tmp_path, held, scene)


def test_pausing(tmp_path: Path, held: Version) -> None:
    """While it does not listen newcomers wait in the backlog, and are served afterwards."""

    async def scene(stage: Stage) -> None:
        stage.desk.listen(False)
        sock = stage.client()
        channel.send(sock, REDEEM)
        await asyncio.sleep(0.01)
        assert len(stage.desk) == 0
        stage.desk.listen(True)
        _, fds = await hear(sock)
        channel.close_all(fds)
        assert len(fds) == 2
        stage.desk.stop()
        stage.desk.listen(True)
        assert len(stage.desk) == 1

    run(tmp_path, held, scene)


def test_no_descriptors_to_accept_with(tmp_path: Path, held: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors it pauses, and goes on when there are some."""

    async def scene(stage: Stage) -> None:
        class Exhausted:
            def __init__(self, listener: socket.socket) -> None:
                self.listener, self.left = listener, 2

            def __getattr__(self, name: str) -> object:
                return getattr(self.listener, name)

            def accept(self) -> tuple[socket.socket, object]:
                self.left -= 1
                if self.left >= 0:
                    raise OSError(24, "Too many open files")
                return self.listener.accept()

        stage.desk._listener = Exhausted(stage.desk._listener)  # type: ignore[assignment]
        sock = stage.client()
        channel.send(sock, REDEEM)
        _, fds = await hear(sock)
        channel.close_all(fds)
        assert len(fds) == 2

    run(tmp_path, held, scene)


async def called(sock: socket.socket) -> tuple[Any, list[int]]:
    """The next message on a guarded lease, and its descriptors; (None, []) at the end."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with contextlib.suppress(BlockingIOError):
                payload, fds = channel.receive(sock, messages.MAX_HANDLE_BYTES, 4)
                return (wire.decode(payload, messages.CALLS)[1] if payload else None), fds
            await asyncio.sleep(0.001)


async def leased(stage: Stage) -> socket.socket:
    """A client that holds a guarded lease."""
    sock = stage.client()
    channel.send(sock, REDEEM)
    grant, fds = await hear(sock)
    channel.close_all(fds)
    assert grant.guarded
    return sock


def test_recall(tmp_path: Path, guarded: Version) -> None:
    """Each holder gets the copy; it is settled once all have answered or gone; stray answers harm none."""

    async def scene(stage: Stage) -> None:
        first, second = await leased(stage), await leased(stage)
        copy, recall = sealed_segment(DATA), Recall()
        for connection in stage.desk.holders(guarded):
            stage.desk.replace(connection, 0, copy, recall)
        for sock in (first, second):
            message, fds = await called(sock)
            with channel.owned(fds):
                assert (message, [os.pread(fd, 20, 0) for fd in fds]) == (Remap(0, 10), [DATA])
        assert recall.pids() == (os.getpid(),)
        for number in (7, 0, 0):
            channel.send(first, wire.encode(Remapped(number)))
        second.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await recall.settled.wait()
        assert recall.pids() == ()
        assert len(stage.desk) == 1
        copy.close()

    run(tmp_path, guarded, scene)


@pytest.mark.parametrize("payload", [b"garbage", REDEEM, wire.encode(Grant("m", "v", 1, ()))])
def test_nonsense_on_a_guarded_lease(tmp_path: Path, guarded: Version, payload: bytes) -> None:
    """It costs its sender the lease and nobody anything else."""

    async def scene(stage: Stage) -> None:
        good, bad = await leased(stage), await leased(stage)
        channel.send(bad, payload, [bad.fileno()])
        refused, fds = await called(bad)
        assert (refused.code, fds) == ("protocol", [])
        assert await called(bad) == (None, [])
        assert len(stage.desk) == 1
        channel.send(good, wire.encode(Remapped(3)))
        await asyncio.sleep(0)
        assert len(stage.desk) == 1

    run(tmp_path, guarded, scene)


def test_extend(tmp_path: Path, guarded: Version) -> None:
    """Who is about to fork gets a lease for the child, which ends by itself; one that is refused stays what it was."""

    async def scene(stage: Stage) -> None:
        parent = await leased(stage)
        channel.send(parent, wire.encode(Extend()))
        message, fds = await called(parent)
        assert message == Extended()
        with socket.socket(fileno=fds[0]) as child:
            channel.send(child, wire.encode(Present()))
            await stage.until(lambda: len(stage.desk) == 2)
            child.close()
            await stage.until(lambda: len(stage.desk) == 1)
        stage.rules.denied = True
        channel.send(parent, wire.encode(Extend()))
        refused, fds = await called(parent)
        assert (refused.code, fds) == ("access-denied", [])
        assert len(stage.desk) == 1

    run(tmp_path, guarded, scene)
