"""ZMTP, the protocol between ZeroMQ's sockets, as far as a DEALER needs it that asks one ROUTER over a UNIX socket.

    connection  = greeting, READY, frame...       from each side; frames once both have said READY
    greeting    = FF, 8 bytes, 7F, version 3.x, mechanism in 20 bytes, as-server, 31 bytes of 0
    frame       = flags (1 more follow, 2 long, 4 command), size in 1 byte or, if long, in 8, body
    command     = size of its name in 1 byte, name, data

A worker asks one thing at a time and waits for the answer: a send and a recv. libzmq would bring it two threads, their
wake-ups on the way of each question and of each answer, and an import that takes longer than attaching a model.

Source: 23/ZMTP, https://rfc.zeromq.org/spec/23/, and libzmq 4.3, which the daemon listens with.
"""

from __future__ import annotations

import socket
import struct
import time

from mapcell_formats.errors import ProtocolError

_MORE, _LONG, _COMMAND = 1, 2, 4
_GREETING = struct.Struct("10sBB20sB31s")
_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_HEADERS = struct.Struct("!BB"), struct.Struct("!BQ")
# Rows of 100,000 leases or models. The daemon is trusted; a socket of something else is noticed at its greeting.
MAX_MESSAGE_BYTES = 1 << 28
_READ_BYTES = 1 << 16


def frame(body: bytes, flags: int = 0) -> bytes:
    """The frame that holds `body`."""
    if len(body) < 256:
        return _HEADERS[0].pack(flags, len(body)) + body
    return _HEADERS[1].pack(flags | _LONG, len(body)) + body


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + struct.pack("!I", len(value)) + value


# What a client begins with: its greeting, and at once what it is.
HELLO = _GREETING.pack(_SIGNATURE, 3, 0, b"NULL", 0, b"") + frame(
    b"\x05READY" + _property(b"Socket-Type", b"DEALER") + _property(b"Identity", b""), _COMMAND
)


class Incoming:
    """What the other side sends, from its first byte on: bytes in, whole messages out. Pure."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._greeted = False
        self.ready = False

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. ProtocolError when it is no ZMTP, or too long."""
        self._rest += data
        if not self._greeted and not self._greet():
            return []
        messages = []
        while (found := self._next()) is not None:
            flags, body = found
            if flags & _COMMAND:
                self._obey(body)
            elif flags & _MORE:
                raise ProtocolError("an answer in several frames")
            else:
                messages.append(body)
        return messages

    def _obey(self, command: bytes) -> None:
        if not command.startswith(b"\x05READY"):
            raise ProtocolError(f"the control socket says {command[:64]!r}")
        self.ready = True

    def _greet(self) -> bool:
        head = bytes(self._rest[: _GREETING.size])
        if head[:1] not in (b"", b"\xff") or (len(head) > 10 and (head[9:10] != b"\x7f" or head[10] < 3)):
            raise ProtocolError(f"no ZeroMQ socket: it begins with {head[:16]!r}")
        self._greeted = len(head) == _GREETING.size
        if self._greeted:
            del self._rest[: _GREETING.size]
        return self._greeted

    def _next(self) -> tuple[int, bytes] | None:
        """Flags and body of the next whole frame, taken out; None while it is not whole."""
        rest = self._rest
        header = _HEADERS[bool(rest[0] & _LONG)] if rest else None
        if header is None or len(rest) < header.size:
            return None
        flags, size = header.unpack_from(rest)
        if size > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"the daemon announces a message of {size} bytes")
        end = header.size + size
        if len(rest) < end:
            return None
        body = bytes(rest[header.size : end])
        del rest[:end]
        return flags, body


class Dealer:
    """A connection to the ROUTER at `path`, made when something is sent. Owns its descriptor until `close`.

    After an OSError it is closed, and the next `send` connects again. For one thread at a time.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._sock: socket.socket | None = None
        self._incoming = Incoming()
        self._patience = 0.0

    def send(self, payload: bytes, seconds: float) -> None:
        """Sends a message of one frame. OSError when nobody listens, or reads within `seconds`; TimeoutError when the
        other side has not said yet who it is, which the next call goes on waiting for."""
        try:
            sock = self._sock or self._connect(seconds)
            self._shake_hands(seconds)
            sock.sendall(frame(payload), socket.MSG_NOSIGNAL)
        except TimeoutError:
            raise
        except BaseException:
            # Half a frame may be on its way: whatever came after it would be read as its rest.
            self.close()
            raise

    def receive(self, seconds: float) -> list[bytes]:
        """The messages that arrived; none when nothing does within `seconds`. OSError when the other side is gone."""
        if self._sock is None:
            raise ConnectionResetError(f"{self._path}: not connected")
        if seconds != self._patience:
            self._wait_at_most(self._sock, seconds)
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            self.close()
            raise
        if not data:
            self.close()
            raise ConnectionResetError(f"{self._path}: it ended")
        try:
            return self._incoming.feed(data)
        except ProtocolError:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection; a second call does nothing. In a forked child it ends only the child's hold on it."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _connect(self, seconds: float) -> socket.socket:
        self._incoming = Incoming()
        self._sock = sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wait_at_most(sock, seconds)
        sock.connect(self._path)
        sock.sendall(HELLO, socket.MSG_NOSIGNAL)
        return sock

    def _shake_hands(self, seconds: float) -> None:
        # libzmq takes a message that comes before it said READY itself for a broken handshake.
        until = time.monotonic() + seconds
        while not self._incoming.ready:
            self.receive(seconds)
            if time.monotonic() > until:
                raise TimeoutError(f"{self._path}: no greeting yet")

    def _wait_at_most(self, sock: socket.socket, seconds: float) -> None:
        # The kernel's timeouts, not Python's: with those every recv is preceded by a poll.
        limit = time_limit(seconds)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._patience = seconds


def time_limit(seconds: float) -> bytes:
    """`seconds` as SO_RCVTIMEO and SO_SNDTIMEO take them: a timeval, at least a millisecond, for 0 is for ever."""
    whole, part = divmod(max(int(seconds * 1_000_000), 1000), 1_000_000)
    return struct.pack("@ll", whole, part)
