"""A client without the SDK: what anyone can do with the two sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq

from mapcell_formats import messages, wire


@dataclass(frozen=True, slots=True)
class RawGrant:
    """One lease as it comes: the grant, and the descriptors of the manifest and the segments."""

    grant: messages.Grant
    fds: tuple[int, ...]


def ask(runtime: Path, message: object, timeout_ms: int = 10_000) -> object:
    """The reply to one control message; TimeoutError when none comes."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(f"ipc://{runtime}/control.sock")
        sock.send(wire.encode(message, 1))
        if not sock.poll(timeout_ms):
            raise TimeoutError("no reply")
        return wire.decode(sock.recv(), messages.REPLIES, wire.MAX_ROWS)[1]


@contextlib.contextmanager
def raw_attach(runtime: Path, name: str) -> Iterator[RawGrant]:
    """Attaches `name` by hand; ends the lease and closes every descriptor at the end."""
    ticket = ask(runtime, messages.Attach(name))
    assert isinstance(ticket, messages.Ticket), ticket
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        sock.connect(f"{runtime}/handles.sock")
        sock.send(wire.encode(messages.Redeem(ticket.ticket)))
        payload, fds, _, _ = socket.recv_fds(sock, messages.MAX_HANDLE_BYTES, 64)
        try:
            _, grant = wire.decode(payload, messages.HANDOUTS)
            assert isinstance(grant, messages.Grant), grant
            yield RawGrant(grant, tuple(fds))
        finally:
            for fd in fds:
                os.close(fd)
