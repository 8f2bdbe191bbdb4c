"""A client without the SDK: what anyone can do with the two sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def ticket_for(runtime: Path, request: object) -> messages.Ticket:
    """The ticket that answers an Attach or an Offer."""
    ticket = ask(runtime, request)
    assert isinstance(ticket, messages.Ticket), ticket
    return ticket


def connect(runtime: Path) -> socket.socket:
    """A connection to the handle channel, on which nothing was said yet."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(20)
    sock.connect(f"{runtime}/handles.sock")
    return sock


def redeem(sock: socket.socket, ticket: messages.Ticket, fds: Sequence[int] = ()) -> None:
    """Sends the ticket with descriptors, which stay the caller's."""
    socket.send_fds(sock, [wire.encode(messages.Redeem(ticket.ticket))], fds)


def hear(sock: socket.socket) -> tuple[Any, list[int]]:
    """The next message that is no Progress, with its descriptors; (None, []) when the daemon hung up."""
    while True:
        try:
            payload, fds, _, _ = socket.recv_fds(sock, messages.MAX_HANDLE_BYTES, 64)
        except ConnectionResetError:
            return None, []
        if not payload:
            return None, []
        message = wire.decode(payload, messages.HANDOUTS)[1]
        if not isinstance(message, messages.Progress):
            return message, fds


@contextlib.contextmanager
def raw_attach(runtime: Path, name: str) -> Iterator[RawGrant]:
    """Attaches `name` by hand; ends the lease and closes every descriptor at the end."""
    with connect(runtime) as sock:
        redeem(sock, ticket_for(runtime, messages.Attach(name)))
        grant, fds = hear(sock)
        try:
            assert isinstance(grant, messages.Grant), grant
            yield RawGrant(grant, tuple(fds))
        finally:
            for fd in fds:
                os.close(fd)
