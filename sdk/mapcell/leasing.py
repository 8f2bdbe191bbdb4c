"""Leases as a client has them: tickets redeemed for descriptors, connections kept, and told anew after a restart."""

from __future__ import annotations

import os
import select
import socket
import time
from array import array
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, NoReturn, TypeVar
from weakref import WeakSet

from mapcell_formats import messages, wire
from mapcell_formats.errors import DaemonUnavailable, MapcellError, NotFound, ProtocolError, StagingFailed
from mapcell_formats.messages import Attach, GetStatus, Grant, Progress, Redeem, Refused, Ticket

from .connection import HANDLES, ControlClient, left
from .zmtp import time_limit

if TYPE_CHECKING:
    from .mapping import SegmentMap

OnProgress = Callable[[Progress], None]
T = TypeVar("T")
# The grant, its descriptors, and the connection that is the lease.
Granted = tuple[Grant, list[int], socket.socket]

# How long a lease's renewal may hold up the attach that noticed a restarted daemon.
_RENEW_SECONDS = 1.0
_RETRY_SECONDS = 0.02
_LOOK_SECONDS = 0.2
# As plain numbers: the enum's members are looked up anew each time, and made into numbers by a function.
_SOL_SOCKET, _SO_RCVTIMEO, _SCM_RIGHTS = int(socket.SOL_SOCKET), int(socket.SO_RCVTIMEO), int(socket.SCM_RIGHTS)
_NO_SIGNAL, _CLOSE_ON_EXEC = int(socket.MSG_NOSIGNAL), int(socket.MSG_CMSG_CLOEXEC)
# For the descriptors of one grant: the manifest's, and one for each segment.
_ROOM = socket.CMSG_LEN((messages.MAX_DESCRIPTORS + 1) * array("i").itemsize)


class Lease:
    """One lease: the connection that keeps it. Owns the descriptor; the lease ends when this object goes."""

    __slots__ = ("__weakref__", "_fd", "name")

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._fd = sock.detach()
        self.name = name
        self._look_out()

    def fileno(self) -> int:
        """The connection's descriptor, still owned by this object; -1 once closed."""
        return self._fd

    def go_on(self, grant: Grant, fds: Sequence[int], sock: socket.socket) -> None:
        """Goes on with what the daemon that came back granted, all of which is consumed."""
        close_all(fds)
        self.replace(sock)

    def replace(self, sock: socket.socket) -> None:
        """Goes on with another connection, after the daemon that knew the first one was restarted."""
        self.close()
        self._fd = sock.detach()

    def listen(self, maps: Sequence[SegmentMap | None]) -> None:
        """Has `maps` follow what the daemon says about them: nothing, unless they are of guarded files."""

    def close(self) -> None:
        """Ends the lease. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _look_out(self) -> None:
        KEEPER.watch(self)

    def __reduce__(self) -> NoReturn:
        # A copy would close the same descriptor a second time, which may be somebody else's by then.
        raise TypeError("a lease cannot be copied or pickled; attach again")

    def __del__(self) -> None:
        self.close()


class Keeper:
    """Notices leases whose daemon went away, and tells the one that came back that they are still held.

    The leases of this process only: what a child inherited its parent looks after.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._leases: WeakSet[Lease] = WeakSet()
        self._looked = 0.0

    def watch(self, lease: Lease) -> None:
        """Looks out for the end of the lease's connection."""
        with self._lock:
            self._leases.add(lease)

    def renew(self, client: ControlClient) -> None:
        """Leases anew what was lost, as far as the daemon still has the version. Looks at most every 0.2 s."""
        for lease in self._lost():
            try:
                granted = obtain(client, Attach(lease.name), time.monotonic() + _RENEW_SECONDS, None)
            except MapcellError:
                # It is gone there: what is mapped here stays, and nobody is told.
                lease.close()
                continue
            lease.go_on(*granted)

    def after_fork(self) -> None:
        """Forgets what the parent looks after."""
        self._lock = Lock()
        self._leases = WeakSet()

    def _lost(self) -> list[Lease]:
        with self._lock:
            now = time.monotonic()
            if now < self._looked + _LOOK_SECONDS:
                return []
            self._looked = now
            held = {lease.fileno(): lease for lease in self._leases}
        poll = select.poll()
        for fd in held.keys() - {-1}:
            poll.register(fd, select.POLLRDHUP)
        return [held[fd] for fd, _ in poll.poll(0)]


KEEPER = Keeper()
os.register_at_fork(after_in_child=KEEPER.after_fork)


def obtain(
    client: ControlClient, request: Attach, until: float, on_progress: OnProgress | None, payload: bytes = b""
) -> Granted:
    """A lease of the model that `request` names; returns and errors as `redeem`. `payload` if it is encoded already."""
    payload = payload or wire.encode(request)
    if len(payload) <= messages.MAX_HANDLE_BYTES:
        try:
            return _claim(client.folder, payload, (), until, on_progress)
        except StagingFailed:
            if time.monotonic() >= until:
                # Nothing came in time. The control channel, which never waits, tells a daemon that hangs.
                client.ask(GetStatus(), _RENEW_SECONDS)
            raise
    try:
        return redeem(client, client.ask(request, left(until)), (), until, on_progress)
    except NotFound:
        # Between ticket and redemption the version may be evicted or replaced; asking again settles which.
        return redeem(client, client.ask(request, left(until)), (), until, on_progress)


def redeem(
    client: ControlClient, ticket: Ticket, offer: Sequence[int], until: float, on_progress: OnProgress | None
) -> Granted:
    """Redeems `ticket`, with an offer's descriptors: the grant, its descriptors and the connection, all the caller's.

    Raises what the daemon refused with, StagingFailed after `until`, DaemonUnavailable when the daemon goes away.
    """
    return _claim(client.folder, wire.encode(Redeem(ticket.ticket)), offer, until, on_progress)


def _claim(folder: str, payload: bytes, offer: Sequence[int], until: float, on_progress: OnProgress | None) -> Granted:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _send(sock, folder, payload, offer)
        while True:
            message, fds = _receive(sock, folder, until)
            if isinstance(message, Refused):
                raise message.error()
            if isinstance(message, Grant):
                break
            if on_progress is not None:
                on_progress(message)
        if len(fds) != 1 + len(message.segments):
            close_all(fds)
            raise ProtocolError(f"{len(fds)} descriptors came with a grant of {len(message.segments)} segments")
    except BaseException:
        sock.close()
        raise
    return message, fds, sock


def persist(attempt: Callable[[], T], until: float) -> T:
    """What `attempt` gives; put again while a daemon that was there restarts, until `until`."""
    while True:
        try:
            return attempt()
        except (DaemonUnavailable, ProtocolError) as exc:
            restarted = isinstance(exc, DaemonUnavailable) or exc.details.get("ticket") == "stale"
            if not restarted or time.monotonic() + _RETRY_SECONDS >= until:
                raise
        time.sleep(_RETRY_SECONDS)


def close_all(fds: Sequence[int]) -> None:
    """Closes every descriptor."""
    for fd in fds:
        os.close(fd)


def _send(sock: socket.socket, folder: str, payload: bytes, offer: Sequence[int]) -> None:
    try:
        sock.connect(f"{folder}/{HANDLES}")
        if offer:
            socket.send_fds(sock, [payload], list(offer), _NO_SIGNAL)
        else:
            sock.send(payload, _NO_SIGNAL)
    except BrokenPipeError:
        # Refused before it was asked anything: what the daemon said is there to be received.
        return
    except OSError as exc:
        raise _gone(folder, exc.strerror) from exc


def _receive(sock: socket.socket, folder: str, until: float) -> tuple[Grant | Progress | Refused, list[int]]:
    sock.setsockopt(_SOL_SOCKET, _SO_RCVTIMEO, time_limit(until - time.monotonic()))
    try:
        # Not socket.recv_fds: it ignores its flags, and a program that this process starts would inherit the handles.
        payload, ancillary, _, _ = sock.recvmsg(messages.MAX_HANDLE_BYTES, _ROOM, _CLOSE_ON_EXEC)
    except BlockingIOError:
        raise StagingFailed("not ready in time; give a longer timeout=, or load it beforehand") from None
    except OSError as exc:
        raise _gone(folder, exc.strerror) from exc
    if not payload:
        raise _gone(folder, "it ended")
    fds = array("i", b"".join([data for _, kind, data in ancillary if kind == _SCM_RIGHTS]))
    try:
        _, message = wire.decode(payload, messages.HANDOUTS)
        if fds and not isinstance(message, Grant):
            raise ProtocolError(f"{len(fds)} descriptors came with {type(message).__name__}")
    except ProtocolError:
        close_all(fds)
        raise
    return message, list(fds)


def _gone(folder: str, why: str | None) -> DaemonUnavailable:
    return DaemonUnavailable(f"the daemon at {folder} went away ({why}); see its log, or start it again")
