"""What anyone may send to the two sockets: it costs its sender, and after each attack the daemon is as it was."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from mapcell_formats import messages, wire
from mapcell_formats.messages import Attach, GetStatus, Grant, Offer, Redeem, Refused, Selection, Status, Ticket
from mapcelld import channel
from mapcelld.handles import REDEEM_SECONDS
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.raw import ask
from support.users import OTHER_UID, as_user, needs_root

PATIENCE_SECONDS = 20.0


class Target:
    """A daemon with one model, and what it looked like before anybody attacked it."""

    def __init__(self, daemon: DaemonProcess, file: Path) -> None:
        self.daemon = daemon
        self.file = file
        self.serve()
        self.baseline = self.at_rest(self.status())

    @property
    def handles(self) -> str:
        """The address of the handle channel."""
        return f"{self.daemon.runtime}/handles.sock"

    @property
    def control(self) -> str:
        """The address of the control channel."""
        return f"{self.daemon.runtime}/control.sock"

    def ask(self, message: object) -> Any:
        """The reply to a message."""
        return ask(self.daemon.runtime, message)

    def ticket(self, message: object) -> bytes:
        """A ticket."""
        reply = self.ask(message)
        assert isinstance(reply, Ticket), reply
        return reply.ticket

    def connect(self) -> socket.socket:
        """A connection to the handle channel."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(self.handles)
        return sock

    def serve(self) -> None:
        """Attaches the model as anybody would; its bytes are right."""
        with self.connect() as sock, self.file.open("rb") as opened:
            channel.send(sock, wire.encode(Redeem(self.ticket(offer(self.file)))), [opened.fileno()])
            grant, fds = hear(sock)
            with channel.owned(fds):
                assert isinstance(grant, Grant), grant
                assert os.pread(fds[0], 8, 0) == b"MAPCELLM"
                assert grant.segments == (4096,)
                assert os.pread(fds[1], 16, 0) == np.arange(4, dtype=np.float32).tobytes()

    def status(self) -> Status:
        """The daemon's figures."""
        status = self.ask(GetStatus())
        assert isinstance(status, Status), status
        return status

    def at_rest(self, status: Status) -> tuple[int, ...]:
        """The figures that are the same whenever nobody is there."""
        return status.pid, status.leases, status.connections, status.stagers, status.models, status.descriptors

    def unharmed(self) -> None:
        """The daemon serves, and is back where it was."""
        self.serve()
        until = time.monotonic() + PATIENCE_SECONDS
        while (now := self.at_rest(self.status())) != self.baseline and time.monotonic() < until:
            time.sleep(0.02)
        assert now == self.baseline
        assert "Traceback" not in self.daemon.log()


def offer(path: Path | str, **fields: Any) -> Offer:
    """An offer of one file, to be sealed."""
    return Offer((str(path),), **({"residence": "sealed"} | fields))


def hear(sock: socket.socket) -> tuple[Any, list[int]]:
    """The last message to a client but for progress; (None, []) at the end, also of a connection that was reset."""
    while True:
        try:
            payload, fds = channel.receive(sock, messages.MAX_HANDLE_BYTES, 251)
        except ConnectionResetError:
            return None, []
        message = wire.decode(payload, messages.HANDOUTS)[1] if payload else None
        if not isinstance(message, messages.Progress):
            return message, fds


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One daemon for all attacks: what one of them breaks, the next ones find broken."""
    file = write_safetensors(tmp_path_factory.mktemp("models") / "x.safetensors", {"w": np.arange(4, dtype=np.float32)})
    with DaemonProcess() as daemon:
        yield Target(daemon, file)


@pytest.fixture
def target(house: Target) -> Iterator[Target]:
    """The daemon to attack, looked at afterwards."""
    yield house
    house.unharmed()


# --- control: messages ------------------------------------------------------------------------------------------------


def fields(**changes: Any) -> dict[str, Any]:
    """The fields of an Attach, some changed; ... leaves one out."""
    sound = {"name": "m", "selection": {"dtype": "", "keys": None, "prefix": ""}, "hold": False}
    return {k: v for k, v in (sound | changes).items() if v is not ...}


def packed(op: Any = "attach", body: Any = None, protocol: Any = wire.PROTOCOL, request: Any = 1) -> bytes:
    """A message put together by hand."""
    data: bytes = msgpack.packb([protocol, request, op, fields() if body is None else body])
    return data


ANSWERED = {
    "empty": [b""],
    "text": [b"GET / HTTP/1.1\r\n\r\n"],
    "pickle": [b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93."],
    "two frames": [b"", packed()],
    "many frames": [b"x"] * 2000,
    "large": [b"\xc6\0\x0f\xff\xfb" + bytes(messages.MAX_CONTROL_BYTES - 5)],
    "nested": [b"\xdd\0\0\x10\0" * (messages.MAX_CONTROL_BYTES // 5)],
    "protocol": [packed(protocol=99)],
    "operation": [packed("shutdown")],
    "stagers' operation": [packed("staged", {})],
    "extra field": [packed(body=fields(more=1))],
    "missing field": [packed(body=fields(name=...))],
    "mistyped field": [packed(body=fields(name=7))],
    "null": [packed(body=fields(name=None))],
    "extension": [packed(body=fields(name=msgpack.ExtType(7, b"abc")))],
    "timestamp": [packed(body=fields(name=msgpack.Timestamp(1)))],
    "many names": [packed(body=fields(selection={"dtype": "", "keys": ["k"] * 5000, "prefix": ""}))],
    "dtype": [packed(body=fields(selection={"dtype": "F32; rm", "keys": None, "prefix": ""}))],
    "model": [packed(body=fields(name="../../etc/passwd"))],
    "long name": [packed(body=fields(name="x" * 16_000))],
    "offer of nothing": [wire.encode(Offer(()), 1)],
    "offer of much": [wire.encode(Offer(("/x",) * 4000), 1)],
    "offer of a name": [wire.encode(Offer(("m",)), 1)],
}


@pytest.mark.parametrize("attack", ANSWERED)
def test_answered(target: Target, attack: str) -> None:
    """A message that means nothing is refused by a typed error, and its sender may go on."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(f"ipc://{target.control}")
        for _ in range(3):
            sock.send_multipart(ANSWERED[attack])
            assert sock.poll(int(PATIENCE_SECONDS * 1000))
            _, refused = wire.decode(sock.recv(), messages.REPLIES)
            assert isinstance(refused, Refused)
            assert refused.code in ("protocol", "not-found")
            assert len(refused.message.encode()) <= wire.MAX_TEXT
        sock.send(wire.encode(GetStatus(), 9))
        assert sock.poll(int(PATIENCE_SECONDS * 1000))
        assert wire.decode(sock.recv(), messages.REPLIES)[0] == 9


def test_random_messages(target: Target) -> None:
    """So is whatever chance puts together: random bytes, and sound messages with bytes changed."""
    chance = random.Random(20_240_817)
    sound = [packed(), wire.encode(offer("/x"), 1), wire.encode(GetStatus(), 1)]
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(f"ipc://{target.control}")
        for number in range(400):
            if number % 2:
                payload = chance.randbytes(chance.randrange(200))
            else:
                changed = bytearray(chance.choice(sound))
                changed[chance.randrange(len(changed))] = chance.randrange(256)
                payload = bytes(changed)
            sock.send_multipart([payload] * chance.choice([1, 1, 1, 2, 5]))
            assert sock.poll(int(PATIENCE_SECONDS * 1000))
            wire.decode(sock.recv(), messages.REPLIES, wire.MAX_ROWS)


def test_a_quick_client(target: Target) -> None:
    """Who asks as fast as answers come gets every one of them."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(f"ipc://{target.control}")
        for number in range(10_000):
            sock.send(packed("nothing", {}, request=number))
            assert sock.poll(int(PATIENCE_SECONDS * 1000)), f"answer {number} did not come"
            assert wire.decode(sock.recv(), messages.REPLIES)[0] == number


def test_oversized(target: Target) -> None:
    """A message over a mebibyte costs its sender the connection."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        with sock.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            sock.connect(f"ipc://{target.control}")
            sock.send(bytes(messages.MAX_CONTROL_BYTES + 1))
            assert monitor.poll(int(PATIENCE_SECONDS * 1000))
            sock.disable_monitor()


def test_never_reading(target: Target) -> None:
    """Who asks and asks and never reads is answered so far, and keeps nobody else from being answered."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.RCVHWM, 1)
        sock.connect(f"ipc://{target.control}")
        for number in range(3000):
            try:
                sock.send(wire.encode(messages.Watch(), number), zmq.NOBLOCK)
            except zmq.Again:
                break
        target.serve()


# --- control: below the messages --------------------------------------------------------------------------------------

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\0NULL" + bytes(48)


@pytest.mark.parametrize(
    ("sent", "dropped"),
    [
        (b"", True),
        (b"\0", True),
        (GREETING[:20], True),
        (GREETING, True),
        (GREETING + b"\x04\xff" * 500, True),
        # To libzmq these might be ZeroMQ 2, which had no handshake: it waits for the rest of a message.
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"\x01" + random.Random(1).randbytes(100_000), False),
    ],
    ids=["nothing", "a zero", "half a greeting", "a greeting", "a greeting and noise", "http", "noise"],
)
def test_other_protocols(target: Target, sent: bytes, dropped: bool) -> None:
    """Who does not speak ZeroMQ, or stops in the middle, is let go of; at the latest when it goes itself."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(20):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(PATIENCE_SECONDS)
            sock.connect(target.control)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(sent)
            socks.append(sock)
        for sock in socks:
            with contextlib.suppress(ConnectionResetError):
                while dropped and sock.recv(1 << 16):
                    pass


# --- handles ----------------------------------------------------------------------------------------------------------


def refusal(sock: socket.socket) -> str:
    """What a client is refused with; then the connection ends."""
    refused, fds = hear(sock)
    assert fds == []
    assert isinstance(refused, Refused), refused
    assert hear(sock) == (None, [])
    return refused.message


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\0", "a message is"),
        (b"garbage" * 100, "not msgpack"),
        (wire.encode(Redeem(b"1234567890123456"))[:-3], "not msgpack"),
        (wire.encode(GetStatus()), "unknown operation"),
        (b"x" * (messages.MAX_HANDLE_BYTES + 1), "more than 65536 bytes"),
        (b"x" * 150_000, "more than 65536 bytes"),
        (wire.encode(Redeem(b"")), "this ticket is unknown"),
        (wire.encode(Redeem(b"1234567890123456")), "this ticket is unknown"),
        (wire.encode(Redeem(b"x" * 10_000)), "this ticket is unknown"),
    ],
    ids=["zero", "garbage", "half", "operation", "oversized", "huge", "empty", "unknown", "long"],
)
@pytest.mark.parametrize("descriptors", [0, 1, 200])
def test_no_ticket(target: Target, payload: bytes, says: str, descriptors: int) -> None:
    """Without a ticket there is an answer that says so, and descriptors that came along are opened by nobody."""
    with target.connect() as sock, open("/proc/self/exe", "rb") as file:
        channel.send(sock, payload, [file.fileno()] * descriptors)
        assert says in refusal(sock)


def test_an_empty_message(target: Target) -> None:
    """A message of no bytes is the end of a connection."""
    with target.connect() as sock:
        sock.send(b"")
        assert hear(sock) == (None, [])


def test_saying_nothing(target: Target) -> None:
    """Who connects and says nothing is let go of after a while, and may be many."""
    socks = [target.connect() for _ in range(50)]
    began = time.monotonic()
    target.serve()
    for sock in socks:
        with sock:
            assert hear(sock) == (None, [])
    # Not before its time, which is promised; how long after it depends on the machine.
    assert time.monotonic() - began > REDEEM_SECONDS - 1


def test_coming_and_going(target: Target) -> None:
    """Connections that end at once, by the thousand, leave nothing."""
    for number in range(1000):
        with target.connect() as sock:
            if number % 3:
                sock.send(b"x" * (number % 5 + 1))
            if number % 2:
                sock.shutdown(socket.SHUT_WR)


def test_used_ticket(target: Target) -> None:
    """A ticket is good once, for whoever comes first."""
    ticket = wire.encode(Redeem(target.ticket(named(target))))
    with target.connect() as first, target.connect() as second:
        for sock in (first, second):
            channel.send(sock, ticket)
        heard = [hear(sock) for sock in (first, second)]
        for _, fds in heard:
            channel.close_all(fds)
        refused, granted = sorted((message for message, _ in heard), key=lambda m: isinstance(m, Grant))
        assert isinstance(granted, Grant)
        assert "ask for a new one" in refused.message


def named(target: Target) -> Attach:
    """What asks for the model that is there, by the name that its path gave it."""
    return Attach(str(target.file))


@needs_root
def test_somebody_elses_ticket(target: Target) -> None:
    """A ticket that was stolen is worth nothing to another user, and stays good for its own."""
    for folder in (target.daemon.runtime.parent, target.daemon.runtime):
        folder.chmod(0o711)
    ticket = wire.encode(Redeem(target.ticket(named(target))))

    def steal() -> str:
        with target.connect() as sock:
            channel.send(sock, ticket)
            return refusal(sock)

    try:
        assert "this ticket is unknown" in as_user(OTHER_UID, steal)
    finally:
        for folder in (target.daemon.runtime.parent, target.daemon.runtime):
            folder.chmod(0o700)
    with target.connect() as sock:
        channel.send(sock, ticket)
        grant, fds = hear(sock)
        channel.close_all(fds)
        assert isinstance(grant, Grant)


def test_descriptors_with_a_name(target: Target) -> None:
    """Descriptors that nobody asked for are dropped in the kernel, and the ticket is good."""
    with target.connect() as sock, open("/proc/self/exe", "rb") as file:
        channel.send(sock, wire.encode(Redeem(target.ticket(named(target)))), [file.fileno()] * 200)
        grant, fds = hear(sock)
        channel.close_all(fds)
        assert isinstance(grant, Grant)
        assert target.status().descriptors <= target.baseline[-1] + 1


@pytest.mark.parametrize("more", [[b"more"], [b"x" * 1000] * 100, [wire.encode(Redeem(b"1"))] * 3])
def test_talking_on(target: Target, more: list[bytes]) -> None:
    """Who goes on talking after its grant loses the lease; what it was given stays its own."""
    with target.connect() as sock, open("/proc/self/exe", "rb") as file:
        channel.send(sock, wire.encode(Redeem(target.ticket(named(target)))))
        _, fds = hear(sock)
        with channel.owned(fds):
            try:
                for payload in more:
                    channel.send(sock, payload, [file.fileno()] * 10)
            except (BrokenPipeError, ConnectionResetError):
                pass
            while hear(sock) != (None, []):
                pass
            assert os.pread(fds[1], 4, 4) == np.float32(1).tobytes()


def test_shutting_down_half(target: Target) -> None:
    """Who closes its sending half has ended its lease."""
    with target.connect() as sock:
        channel.send(sock, wire.encode(Redeem(target.ticket(named(target)))))
        _, fds = hear(sock)
        channel.close_all(fds)
        sock.shutdown(socket.SHUT_WR)
        assert hear(sock) == (None, [])


# --- offers -----------------------------------------------------------------------------------------------------------


OFFERED: dict[str, tuple[Callable[[], list[int]], slice, str]] = {
    "nothing": (list, slice(0), "0 descriptors came for 1 files"),
    "two": (lambda: [os.open("/proc/self/exe", os.O_RDONLY), os.dup(0)], slice(2), "2 descriptors came for 1 files"),
    "folder": (lambda: [os.open("/tmp", os.O_RDONLY)], slice(1), "is a directory"),
    "path": (lambda: [os.open("/tmp", os.O_PATH)], slice(1), "open for reading only"),
    "device": (lambda: [os.open("/dev/zero", os.O_RDONLY)], slice(1), "is not a regular file"),
    "procfs": (lambda: [os.open("/proc/self/mem", os.O_RDONLY)], slice(1), "file system of type 0x9fa0"),
    "memory": (lambda: [os.memfd_create("x")], slice(1), "open for reading only"),
    "pipe": (lambda: list(os.pipe()), slice(1), "file system of type"),
    "socket": (lambda: [end.detach() for end in socket.socketpair()], slice(1), "open for reading only"),
}


@pytest.mark.parametrize("kind", OFFERED)
def test_offering(target: Target, kind: str) -> None:
    """What is no file that was opened for reading is refused by the claimed path, and leaves nothing in the daemon."""
    make, sent, says = OFFERED[kind]
    with channel.owned(make()) as fds, target.connect() as sock:
        channel.send(sock, wire.encode(Redeem(target.ticket(offer("/claimed")))), fds[sent])
        assert says in refusal(sock)


def test_leaving_while_staging(target: Target, tmp_path: Path) -> None:
    """Clients that leave at any moment of their staging take their stagers with them."""
    big = write_safetensors(tmp_path / "big.safetensors", {"w": np.zeros(4_000_000, np.float32)})
    for number in range(20):
        with target.connect() as sock, big.open("rb") as file:
            # A selection each: none waits for another's job.
            asked = offer(big, selection=Selection(prefix="w" if number % 2 else f"{number}"))
            channel.send(sock, wire.encode(Redeem(target.ticket(asked))), [file.fileno()])
            time.sleep(number * 0.002)
    until = time.monotonic() + PATIENCE_SECONDS
    while target.status().stagers and time.monotonic() < until:
        time.sleep(0.02)
    unload = target.ask(messages.Unload(str(big)))
    assert isinstance(unload, (messages.Models, Refused))


def test_many_who_offer_the_same_garbage(target: Target, tmp_path: Path) -> None:
    """Fifty clients at once with a file that is no checkpoint: each is told, by name."""
    junk = tmp_path / "junk"
    junk.write_bytes(os.urandom(5000))
    socks = []
    for _ in range(50):
        sock = target.connect()
        with junk.open("rb") as file:
            channel.send(sock, wire.encode(Redeem(target.ticket(offer(junk)))), [file.fileno()])
        socks.append(sock)
    for sock in socks:
        with sock:
            assert str(junk) in refusal(sock)
