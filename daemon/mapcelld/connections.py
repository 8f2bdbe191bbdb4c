"""One client on the handle channel, and what it may have there. handles.py carries out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import Protocol

from mapcell_formats import wire
from mapcell_formats.errors import MapcellError
from mapcell_formats.messages import Attach, Progress, Selection
from mapcelld import channel
from mapcelld.channel import Credentials
from mapcelld.leases import Lease
from mapcelld.registry import Version
from mapcelld.staging import Intent, Plan


class Desk(Protocol):
    """What a connection asks of the handle channel."""

    def watch(self, connection: Connection) -> None: ...
    def grant(self, connection: Connection, version: Version) -> None: ...
    def refuse(self, connection: Connection, error: MapcellError) -> None: ...


class Recall:
    """Those who have to let go of a file that somebody waits to write to. `settled` once nobody is left."""

    def __init__(self) -> None:
        self._left: dict[Connection, None] = {}
        self.settled = asyncio.Event()
        self.settled.set()

    def expect(self, connection: Connection) -> None:
        """Waits for `connection` as well."""
        self._left[connection] = None
        self.settled.clear()

    def done(self, connection: Connection) -> None:
        """It has let go, or it is gone."""
        self._left.pop(connection, None)
        if not self._left:
            self.settled.set()

    def pids(self) -> tuple[int, ...]:
        """Who has not let go yet."""
        return tuple(sorted({(c.lease.holder if c.lease else c.peer).pid for c in self._left}))


# What a connection means before it has said anything.
_NOTHING, _WHOLE = Intent(""), Selection()


class Connection:
    """One client on the handle channel: redeeming, waiting for a version, then holding the lease.

    Owns its socket until `close`. As a Waiter it hears of the staging that it waits for. `guarded` once it was granted
    files that may be replaced; `recalls` are the segments of which it was told so.
    """

    __slots__ = (
        "_desk", "fd", "guarded", "intent", "lease", "peer", "recalls", "redeemed", "sealed", "since", "sock", "then",
        "waits",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, desk: Desk, since: float, peer: Credentials | None = None) -> None:
        self.sock = sock
        # What asyncio is given: of a socket that it does not know it makes a text, which takes four system calls.
        self.fd = sock.fileno()
        self.peer = peer or channel.credentials(sock)
        self.since = since
        self.intent = _NOTHING
        self.then = _WHOLE
        self.sealed = False
        self.redeemed = False
        self.waits = False
        self.guarded = False
        self.lease: Lease | None = None
        self.recalls: dict[int, Recall] = {}
        self._desk = desk

    def begun(self) -> None:
        """Its files were taken: from here on the client's end is looked out for again."""
        self._desk.watch(self)

    def progress(self, report: Progress) -> None:
        """Tells the client how far staging is; one that does not read misses some."""
        with contextlib.suppress(OSError):
            channel.send(self.sock, wire.encode(report))

    def ready(self, version: Version) -> None:
        """Grants the version: from here on the connection is its lease."""
        self._desk.grant(self, version)

    def failed(self, error: MapcellError) -> None:
        """Refuses the client and lets it go."""
        self._desk.refuse(self, error)

    def answered(self, segment: int) -> None:
        """The client has let go of the file that lay under `segment`; nothing when it was not asked to."""
        if (recall := self.recalls.pop(segment, None)) is not None:
            recall.done(self)

    def gone(self) -> None:
        """Nobody waits for it any more."""
        for segment in list(self.recalls):
            self.answered(segment)


@dataclass(frozen=True, slots=True)
class Right:
    """What a ticket stands for: a version that is there, or a plan to stage one; and what it is to be called.

    `hold` goes on staging for a client that leaves, `then` is what the client wants of the version once it is there,
    `sealed` when it has no use for files.
    """

    intent: Intent
    version: Version | None = None
    plan: Plan | None = None
    hold: bool = False
    then: Selection = _WHOLE
    sealed: bool = False


class Rules(Protocol):
    """What the service decides about connections; handles.py only carries it out."""

    def admit(self, who: Credentials) -> None:
        """AccessDenied when the peer may not be here at all."""
        ...

    def redeem(self, ticket: bytes, who: Credentials) -> Right:
        """What the ticket stands for, once."""
        ...

    def attach(self, request: Attach, who: Credentials) -> Right:
        """What the peer gets of the model that it asks for without a ticket."""
        ...

    def stage(self, right: Right, connection: Connection, offer: int | None) -> None:
        """Has the version staged for `connection`; `offer` is a descriptor of it when its files are still in it."""
        ...

    def cast(self, connection: Connection, version: Version) -> Version | None:
        """What the client gets of `version`; None when it has to be staged first, and `connection` waits for it."""
        ...

    def name(self, intent: Intent, version: Version) -> str:
        """Registers the version under what the client meant it to be called."""
        ...

    def begin(self, who: Credentials, name: str, version: Version) -> Lease:
        """Begins a lease."""
        ...

    def pass_on(self, lease: Lease, pid: int) -> Lease:
        """The lease is held by process `pid` from here on."""
        ...

    def left(self, connection: Connection) -> None:
        """The client is gone: ends its lease, or its waiting."""
        ...
