"""ZMTP: what a real ROUTER sends is understood however it is cut, and nothing else is."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from mapcell import zmtp
from mapcell.zmtp import HELLO, Dealer, Incoming, frame, time_limit
from mapcell_formats.errors import ProtocolError

# Recorded from libzmq 4.3.5: its greeting (3.1, NULL) and READY.
GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01NULL" + bytes(48)
READY = b"\x04)\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER\x08Identity\x00\x00\x00\x00"
LONG = b"\x02" + (300).to_bytes(8, "big") + b"y" * 300
STREAM = GREETING + READY + b"\x00\x05hello" + LONG + b"\x00\x00"
SAID = [b"hello", b"y" * 300, b""]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_however_it_is_cut(cuts: list[int]) -> None:
    """The same messages come out whatever pieces the stream arrives in."""
    incoming, said = Incoming(), []
    places = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(places):
        said += incoming.feed(STREAM[start:end])
    assert said == SAID
    assert incoming.ready


def test_byte_by_byte() -> None:
    """Nothing comes before it is whole."""
    incoming = Incoming()
    seen = [(n, m) for n in range(len(STREAM)) for m in incoming.feed(STREAM[n : n + 1])]
    ends = [len(STREAM) - 2 - len(LONG) - 1, len(STREAM) - 3, len(STREAM) - 1]
    assert seen == list(zip(ends, SAID, strict=True))


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "no ZeroMQ socket"),
        (b"\x00", "no ZeroMQ socket"),
        (GREETING[:9] + b"\x00\x03", "no ZeroMQ socket"),
        (GREETING[:10] + b"\x01" + GREETING[11:], "no ZeroMQ socket"),
        (GREETING + b"\x04\x08\x05ERROR\x01x", "the control socket says"),
        (GREETING + READY + b"\x04\x05\x04PING", "the control socket says"),
        (GREETING + READY + b"\x01\x01a\x00\x01b", "several frames"),
        (GREETING + READY + b"\x02" + b"\xff" * 8, "announces a message of"),
        (GREETING + READY + b"\x02" + (zmtp.MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), "announces a message of"),
    ],
)
def test_refused(stream: bytes, says: str) -> None:
    """What is no ZMTP, or too long, is a ProtocolError before anything is made room for."""
    with pytest.raises(ProtocolError, match=says):
        Incoming().feed(stream)


@given(data=st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    """Random bytes behind a greeting bring ProtocolError, messages or silence, and nothing else."""
    with contextlib.suppress(ProtocolError):
        assert all(isinstance(m, bytes) for m in Incoming().feed(GREETING + data))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_frames(size: int) -> None:
    """What we frame is what we understand."""
    incoming = Incoming()
    incoming.feed(GREETING + READY)
    assert incoming.feed(frame(b"z" * size)) == [b"z" * size]


@pytest.mark.parametrize(
    ("seconds", "parts"), [(0.2, (0, 200_000)), (3.5, (3, 500_000)), (0, (0, 1000)), (-1, (0, 1000))]
)
def test_time_limit(seconds: float, parts: tuple[int, int]) -> None:
    """A timeval; never zero, which the kernel takes for ever."""
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, time_limit(seconds))
        raw = one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    whole, part = int.from_bytes(raw[:8], sys.byteorder), int.from_bytes(raw[8:], sys.byteorder)
    # The kernel rounds up to its own ticks.
    assert whole == parts[0]
    assert parts[1] <= part < parts[1] + 20_000


class Echo:
    """A ROUTER that sends each message back `times`."""

    def __init__(self, folder: Path, times: int = 1) -> None:
        self.path = str(folder / "echo.sock")
        self._times = times
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.bind(f"ipc://{self.path}")
        self._ended = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended:
            if self._router.poll(10):
                frames = self._router.recv_multipart()
                for _ in range(self._times):
                    self._router.send_multipart(frames)

    def close(self) -> None:
        """Ends it."""
        self._ended = True
        self._thread.join()
        self._router.close()
        self._context.term()


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Echo]:
    """A ROUTER of libzmq's that says everything three times."""
    serving = Echo(tmp_path, 3)
    yield serving
    serving.close()


@pytest.mark.parametrize("size", [0, 5, 256, 65_536, 1_000_000])
def test_with_libzmq(echo: Echo, size: int) -> None:
    """Messages of all sizes go to a ROUTER of libzmq's and come back."""
    dealer = Dealer(echo.path)
    dealer.send(b"q" * size, 10)
    got: list[bytes] = []
    while len(got) < 3:
        got += dealer.receive(10)
    dealer.close()
    dealer.close()
    assert got == [b"q" * size] * 3


def test_nobody(tmp_path: Path) -> None:
    """Where nobody listens there is an OSError, and nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    dealer = Dealer(str(tmp_path / "nobody.sock"))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            dealer.send(b"", 1)
        with pytest.raises(ConnectionResetError):
            dealer.receive(1)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """Somebody who listens and says nothing by itself."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "mute.sock"))
        listening.listen()
        yield listening


def test_one_who_says_nothing_yet(listener: socket.socket) -> None:
    """Until the other side has greeted, sending runs out of time, over one connection; then it goes on."""
    dealer = Dealer(listener.getsockname())
    for _ in range(2):
        with pytest.raises(TimeoutError):
            dealer.send(b"late", 0.01)
    peer, _ = listener.accept()
    with peer:
        peer.sendall(GREETING + READY)
        dealer.send(b"late", 10)
        said = b""
        while len(said) < len(HELLO) + 6:
            said += peer.recv(1000)
        assert said == HELLO + b"\x00\x04late"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    with pytest.raises(ConnectionResetError):
        dealer.receive(10)


def test_one_who_is_something_else(listener: socket.socket) -> None:
    """A socket of something else is a ProtocolError, and the connection is gone."""
    dealer = Dealer(listener.getsockname())
    with pytest.raises(TimeoutError):
        dealer.send(b"", 0.01)
    peer, _ = listener.accept()
    with peer:
        peer.sendall(b"220 smtp ready\r\n")
        with pytest.raises(ProtocolError, match="no ZeroMQ socket"):
            dealer.send(b"", 10)
        assert peer.recv(1000) == HELLO
        assert peer.recv(1000) == b""


LIGHT = """
import sys, threading
from mapcell.connection import daemon_status
assert daemon_status() is None
print(*sorted({"zmq", "pathlib", "asyncio", "ssl", "random"} & sys.modules.keys()), threading.active_count())
"""


def test_light(tmp_path: Path) -> None:
    """Asking a daemon loads no libzmq and starts no thread."""
    env = os.environ | {"MAPCELL_RUNTIME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", LIGHT], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == ["1"]
