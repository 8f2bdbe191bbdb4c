"""The handle channel: where a ticket becomes descriptors, and an open connection is the lease.

The kernel ends the connection when its last holder dies, forked children included, so a lease needs no heartbeat. A
client sends exactly one message; whoever sends more, or nothing, is dropped. Only on a lease of guarded files is more
said: the daemon tells which file was replaced, and the client answers. One bad client costs its own connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mapcell_formats import messages, wire
from mapcell_formats.errors import MapcellError, ProtocolError
from mapcell_formats.messages import Attach, Extend, Extended, Present, Refused, Remap, Remapped
from mapcelld import channel, wording
from mapcelld.connections import Connection, Recall, Right, Rules
from mapcelld.figures import Histogram
from mapcelld.in_flight import InFlight
from mapcelld.registry import Version
from mapcelld.segment import Segment

log = logging.getLogger("mapcelld.handles")

# A client sends its ticket right after it connects.
REDEEM_SECONDS = 5.0
_BACKLOG = 4096
# Out of descriptors, accepting pauses this long; leases that end meanwhile free some.
_PAUSE_SECONDS = 0.1
# A client that queued more than this before it was let go is no client of ours: it sees its connection reset.
_MAX_UNREAD = 16


class HandleDesk:
    """The listening socket and every connection. `rules` decide; `now` is a clock in seconds."""

    def __init__(
        self,
        path: Path,
        rules: Rules,
        now: Callable[[], float],
        inherited: int | None = None,
        grew: Callable[[], None] = lambda: None,
    ) -> None:
        """Listens at `path`, or on `inherited`, a descriptor that listens there already and is owned from here on.

        `grew` is called for each connection that was taken.
        """
        self._loop = asyncio.get_running_loop()
        self._rules = rules
        self._grew = grew
        self._now = now
        self._connections: dict[Connection, None] = {}
        self._per_uid: Counter[int] = Counter()
        self._waiting: Counter[int] = Counter()
        self._in_flight = InFlight()
        self.refusals: Counter[str] = Counter()
        self.attaches = Histogram()
        self._listener = _Listener(fileno=inherited) if inherited is not None else _bound(path)
        self._listener.setblocking(False)
        # One that the loop looks at, instead of as many readers of the loop: asyncio makes five objects for each.
        self._epoll = select.epoll()
        self._watched: dict[int, Connection] = {}
        self._loop.add_reader(self._epoll.fileno(), self._serve)

    def open(self) -> None:
        """Starts accepting."""
        self._loop.add_reader(self._listener, self._accept)

    def __len__(self) -> int:
        return len(self._connections)

    def of(self, uid: int) -> int:
        """How many connections `uid` has."""
        return self._per_uid[uid]

    def waiting(self, uid: int) -> int:
        """How many of them wait for staging."""
        return self._waiting[uid]

    def watch(self, connection: Connection) -> None:
        """Looks out for the client's end, or for its next message. One that cannot be watched is let go."""
        if connection not in self._connections or connection.fd in self._watched:
            return
        try:
            self._epoll.register(connection.fd, select.EPOLLIN)
        except OSError as exc:
            log.warning("cannot watch: pid=%d error=%r", connection.peer.pid, str(exc))
            self.drop(connection)
            return
        self._watched[connection.fd] = connection

    def _ignore(self, connection: Connection) -> None:
        if self._watched.pop(connection.fd, None) is not None:
            self._epoll.unregister(connection.fd)

    def _serve(self) -> None:
        for fd, _ in self._epoll.poll(0):
            connection = self._watched.get(fd)
            # Let go while another of these was served.
            if connection is not None:
                self._on_readable(connection)

    def grant(self, connection: Connection, version: Version) -> None:
        """Hands out fresh descriptors of `version`; the connection is its lease from here on."""
        if connection not in self._connections:
            return
        try:
            wants_other = connection.then.dtype or (connection.sealed and version.residence == "mapped")
            if wants_other and (cast := self._rules.cast(connection, version)) is not version:
                if cast is not None:
                    self.grant(connection, cast)
                return
            self._settle(connection)
            count = 1 + len(version.segments)
            self._in_flight.check(connection.peer.uid, count)
            # The lease first: it keeps the version from being dropped while its name is settled.
            connection.lease = self._rules.begin(connection.peer, connection.intent.name, version)
            name = self._rules.name(connection.intent, version)
            connection.guarded = version.guarded
            sizes = tuple([s.nbytes for s in version.segments])
            payload = wording.granted(name, version.id, version.manifest.nbytes, sizes, connection.guarded)
            fds: list[int] = []
            try:
                for segment in (version.manifest, *version.segments):
                    fds.append(segment.reopen())
                channel.send(connection.sock, payload, fds)
            finally:
                channel.close_all(fds)
            self._in_flight.sent(connection.sock, connection.peer.uid, count, self._now())
            self.attaches.observe(self._now() - connection.since)
            self.watch(connection)
        except MapcellError as exc:
            self.refuse(connection, exc)
        except OSError as exc:
            log.warning("granting failed: pid=%d uid=%d error=%r", connection.peer.pid, connection.peer.uid, str(exc))
            self.drop(connection)

    def holders(self, version: Version) -> list[Connection]:
        """The connections over which files of `version` were lent that may have to be replaced."""
        return [c for c in self._connections if c.guarded and c.lease is not None and c.lease.version is version]

    def replace(self, connection: Connection, number: int, segment: Segment, recall: Recall) -> None:
        """Has the client map `segment` over its number `number`; `recall` waits for its answer, while it is there."""
        if connection not in self._connections:
            return
        recall.expect(connection)
        connection.recalls[number] = recall
        try:
            with channel.owned([segment.reopen()]) as fds:
                channel.send(connection.sock, wire.encode(Remap(number, segment.nbytes)), fds)
        # One that does not read is waited for all the same, and named when the writer's time is over.
        except OSError as exc:
            log.warning("not told of a copy: pid=%d error=%r", connection.peer.pid, str(exc))

    def refuse(self, connection: Connection, error: MapcellError) -> None:
        """Says why, and lets the client go."""
        if connection in self._connections:
            self.refusals[error.code] += 1
            with contextlib.suppress(OSError):
                channel.send(connection.sock, wire.encode(Refused.of(error)))
            self.drop(connection)

    def drop(self, connection: Connection, ended: bool = False) -> None:
        """Ends the connection and what it stood for. A second call does nothing. `ended`: the client's end is read."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        self._per_uid[connection.peer.uid] -= 1
        if not self._per_uid[connection.peer.uid]:
            del self._per_uid[connection.peer.uid]
        self._ignore(connection)
        self._settle(connection)
        self._in_flight.forget(connection.sock)
        if not ended:
            _empty(connection.sock)
        connection.sock.close()
        connection.gone()
        self._rules.left(connection)

    def sweep(self) -> None:
        """Drops clients that connected and said nothing, and those that never took what they were granted."""
        oldest = self._now() - REDEEM_SECONDS
        overdue = self._in_flight.overdue(oldest)
        for connection in [c for c in self._connections if c.sock in overdue] if overdue else ():
            log.warning("dropped: reads nothing: pid=%d uid=%d", connection.peer.pid, connection.peer.uid)
            self.drop(connection)
        for connection in [c for c in self._connections if not c.redeemed and c.since < oldest]:
            self.drop(connection)

    def close(self) -> None:
        """Stops accepting and ends every connection. Clients keep what they mapped."""
        self.stop()
        for connection in list(self._connections):
            self.drop(connection)
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def listen(self, on: bool) -> None:
        """Accepts from here on, or leaves those who come waiting in the backlog."""
        if self._listener.fileno() >= 0:
            if on:
                self._loop.add_reader(self._listener, self._accept)
            else:
                self._loop.remove_reader(self._listener)

    def stop(self) -> None:
        """Stops accepting. A second call does nothing."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log.error("accepting pauses: error=%r connections=%d", os.strerror(exc.errno), len(self))
                self.listen(False)
                self._loop.call_later(_PAUSE_SECONDS, self.listen, True)
            return
        sock.setblocking(False)
        try:
            connection = Connection(sock, self, self._now())
        except OSError:
            sock.close()
            return
        self._enter(connection)
        try:
            self._rules.admit(connection.peer)
        except MapcellError as exc:
            self.refuse(connection, exc)
            return
        # Its message is usually here already: one turn of the loop less for every attach.
        self._on_readable(connection, first=True)

    def _on_readable(self, connection: Connection, first: bool = False) -> None:
        try:
            payload = channel.peek(connection.sock, messages.MAX_HANDLE_BYTES)
        except BlockingIOError:
            if first:
                self.watch(connection)
            return
        except ProtocolError as exc:
            self.refuse(connection, exc)
            return
        except OSError:
            payload = b""
        try:
            if not payload:
                self.drop(connection, ended=True)
            elif connection.guarded:
                self._hear(connection, payload)
            elif connection.redeemed:
                self.refuse(connection, ProtocolError("one ticket is redeemed on a connection; nothing else is said"))
            else:
                self._redeem(connection, payload)
        # The boundary of one client: a bug that it meets, or a lack of descriptors, costs it its connection. Left open
        # with its message unread, it would be called for again and again.
        except Exception:
            log.exception("a client failed: pid=%d uid=%d", connection.peer.pid, connection.peer.uid)
            self.refuse(connection, MapcellError("the daemon failed on this request; its log says why"))

    def _hear(self, connection: Connection, payload: bytes) -> None:
        try:
            _, message = wire.decode(payload, messages.ANSWERS)
        except MapcellError as exc:
            self.refuse(connection, exc)
            return
        if isinstance(message, Present) and connection.lease is not None:
            pid = channel.sender(connection.sock)
            connection.lease = self._rules.pass_on(connection.lease, pid or connection.peer.pid)
            return
        channel.discard(connection.sock)
        if isinstance(message, Remapped):
            connection.answered(message.segment)
        elif isinstance(message, Extend):
            self._extend(connection)

    def _extend(self, parent: Connection) -> None:
        """Gives the client a lease for the child that it is about to have: a connection of the child's own."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            # The child tells its pid by saying anything at all.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            child = Connection(ours, self, self._now(), parent.peer)
            child.intent, child.redeemed, child.guarded = parent.intent, True, True
            self._enter(child)
            try:
                self._rules.admit(child.peer)
                assert parent.lease is not None
                child.lease = self._rules.begin(child.peer, parent.lease.name, parent.lease.version)
                channel.send(parent.sock, wire.encode(Extended()), [theirs.fileno()])
                self.watch(child)
            except MapcellError as exc:
                self.drop(child)
                with contextlib.suppress(OSError):
                    channel.send(parent.sock, wire.encode(Refused.of(exc)))
            except OSError:
                self.drop(child)

    def _enter(self, connection: Connection) -> None:
        self._connections[connection] = None
        self._per_uid[connection.peer.uid] += 1
        self._grew()

    def _redeem(self, connection: Connection, payload: bytes) -> None:
        connection.redeemed = True
        try:
            message = wording.asked(payload, connection.peer.uid)
            if isinstance(message, Attach):
                right = self._rules.attach(message, connection.peer)
            else:
                right = self._rules.redeem(message.ticket, connection.peer)
            connection.intent, connection.then, connection.sealed = right.intent, right.then, right.sealed
            if right.plan is not None and right.plan.kind == "offer":
                # The message stays queued: only a stager takes a client's descriptors out of it.
                self._ignore(connection)
                self._stage(right, connection, connection.sock.fileno())
                return
            channel.discard(connection.sock)
            if right.version is not None:
                self.grant(connection, right.version)
            elif right.plan is not None:
                self.watch(connection)
                if connection in self._connections:
                    self._stage(right, connection, None)
        except MapcellError as exc:
            self.refuse(connection, exc)

    def _stage(self, right: Right, connection: Connection, offer: int | None) -> None:
        self._rules.stage(right, connection, offer)
        connection.waits = True
        self._waiting[connection.peer.uid] += 1

    def _settle(self, connection: Connection) -> None:
        """It waits for staging no more."""
        if connection.waits:
            connection.waits = False
            self._waiting[connection.peer.uid] -= 1
            if not self._waiting[connection.peer.uid]:
                del self._waiting[connection.peer.uid]


def _empty(sock: socket.socket) -> None:
    # Closing a connection with unread messages resets it, and the client would lose the refusal sent just before.
    with contextlib.suppress(OSError):
        for _ in range(_MAX_UNREAD):
            if not channel.discard(sock):
                return


class _Listener(socket.socket):
    """A listening socket that knows what it is: Python's looks it up in two enums for each that is accepted."""

    family = socket.AF_UNIX
    type = socket.SOCK_SEQPACKET


def _bound(path: Path) -> _Listener:
    listener = _Listener(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(_BACKLOG)
    return listener
