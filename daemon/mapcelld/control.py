"""The control channel: a ZeroMQ ROUTER that answers requests and pushes events. No request waits for anything.

Each message is authorised by the credentials of the connection that it came on, which libzmq read from the kernel
("Peer-Address" holds host:uid:gid:pid). This is the only place where an exception becomes an error reply.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zmq

from mapcell_formats import messages, wire
from mapcell_formats.errors import MapcellError, ProtocolError
from mapcell_formats.messages import Event, Refused
from mapcelld.channel import Credentials

log = logging.getLogger("mapcelld.control")

# A peer that reads nothing is worth this many answers; then they are dropped, and it asks again.
_HIGH_WATER = 16
# Requests that are answered before other sockets get their turn.
_BATCH = 64
# A subscription that is not renewed for this long has lost its reader: ZeroMQ does not tell.
SUBSCRIPTION_SECONDS = 90.0
MAX_SUBSCRIPTIONS = 1024

Handlers = Mapping[type[Any], Callable[[Credentials, Any], Any]]
Wanted = Callable[[Credentials, str], bool]


@dataclass(slots=True)
class _Subscription:
    peer: Credentials
    name: str
    until: float
    number: int = 0


class ControlDesk:
    """The ROUTER socket. `handlers` maps a request's class to what answers it; `now` is a clock in seconds.

    `admit` refuses a peer, or answers with what else is known of it.
    """

    def __init__(
        self,
        path: Path,
        handlers: Handlers,
        admit: Callable[[Credentials], Credentials],
        now: Callable[[], float],
        inherited: int | None = None,
        grew: Callable[[], None] = lambda: None,
    ) -> None:
        """Listens at `path`, or on `inherited`, a descriptor that listens there already and is owned from here on.

        `grew` is called for each connection that was taken.
        """
        self._handlers = handlers
        self._admit = admit
        self._now = now
        self._subscriptions: dict[bytes, _Subscription] = {}
        self.refusals: Counter[str] = Counter()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._router = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, messages.MAX_CONTROL_BYTES),
            (zmq.RCVHWM, _HIGH_WATER),
            (zmq.SNDHWM, _HIGH_WATER),
            (zmq.HANDSHAKE_IVL, 1000),
            (zmq.ROUTER_HANDOVER, 0),
        ):
            self._router.setsockopt(option, value)
        # libzmq's own thread accepts: here it tells, and waits when it is told too much that nobody reads.
        self._accepts = self._router.get_monitor_socket(zmq.EVENT_ACCEPTED)
        self._grew = grew
        self._loop: asyncio.AbstractEventLoop | None = None
        self._path = path
        self._inherited = inherited
        self._listening = False
        self.listen(True)

    def open(self) -> None:
        """Starts answering."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._router.FD, self._drain)
        self._loop.add_reader(self._accepts.FD, self._count)
        # The descriptor signals edges only: whatever came before is found by looking once.
        self._loop.call_soon(self._drain)
        self._loop.call_soon(self._count)

    def close(self) -> None:
        """Stops answering. A second call does nothing."""
        if not self._router.closed:
            if self._loop is not None:
                self._loop.remove_reader(self._router.FD)
                self._loop.remove_reader(self._accepts.FD)
            self._router.disable_monitor()
            self._accepts.close(0)
            self._router.close(0)
            self._context.term()
            if self._inherited is not None:
                os.close(self._inherited)

    def listen(self, on: bool) -> None:
        """Takes connections from here on, or none.

        With its listener libzmq ends the connections that came over it; clients come back as soon as there is one.
        """
        if on and not self._listening:
            self._bind()
        elif self._listening and not on:
            self._router.unbind(f"ipc://{self._path}")
        self._listening = on

    def _bind(self) -> None:
        if self._inherited is not None:
            # libzmq closes what it is given when it stops listening: it gets a copy each time.
            self._router.setsockopt(zmq.USE_FD, os.dup(self._inherited))
            self._router.bind(f"ipc://{self._path}")
            return
        self._path.unlink(missing_ok=True)
        self._router.bind(f"ipc://{self._path}")
        self._path.chmod(0o666)

    def subscribers(self) -> int:
        """How many are subscribed."""
        return len(self._subscriptions)

    def push(self, event: Event, wanted: Wanted) -> None:
        """Sends `event` to every subscriber that may see it and asked for it; to nobody once closed."""
        if self._router.closed:
            return
        for identity, subscription in list(self._subscriptions.items()):
            if wanted(subscription.peer, subscription.name):
                subscription.number += 1
                self._looked()
                self._send(identity, wire.encode(replace(event, number=subscription.number)))
        if self._subscriptions and self._loop is not None:
            # Sending may have swallowed the edge of a request that arrived meanwhile.
            self._loop.call_soon(self._drain)

    def sweep(self) -> None:
        """Forgets subscriptions that were not renewed."""
        now = self._now()
        for identity in [i for i, s in self._subscriptions.items() if s.until < now]:
            del self._subscriptions[identity]

    def _count(self) -> None:
        while not self._accepts.closed:
            try:
                self._accepts.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._grew()

    def _drain(self) -> None:
        for _ in range(_BATCH):
            if self._router.closed or not self._looked() & zmq.POLLIN:
                return
            self._answer(self._router.recv_multipart(zmq.NOBLOCK, copy=False))
        if self._loop is not None:
            self._loop.call_soon(self._drain)

    def _answer(self, frames: list[zmq.Frame]) -> None:
        identity = frames[0].bytes
        request = 0
        try:
            if len(frames) != 2:
                raise ProtocolError(f"a request is one frame, not {len(frames) - 1}")
            # Before anybody is refused: a refusal reaches its asker only under the request's number.
            request, message = wire.decode(frames[1].bytes, messages.REQUESTS)
            peer = self._admit(_credentials(frames[1]))
            if isinstance(message, messages.Watch):
                self._subscribe(identity, peer, message.name)
            payload = wire.encode(self._handlers[type(message)](peer, message), request)
        except MapcellError as exc:
            number = exc.details.get("request")
            request = number if isinstance(number, int) and isinstance(exc, ProtocolError) else request
            payload = wire.encode(Refused.of(exc), request)
            self.refusals[exc.code] += 1
        # The boundary of one request: a bug that it meets costs its sender an error, and nobody else anything.
        except Exception:
            log.exception("a request failed")
            error = MapcellError("the daemon failed on this request; its log says why")
            payload = wire.encode(Refused.of(error), request)
            self.refusals[error.code] += 1
        self._send(identity, payload)

    def _subscribe(self, identity: bytes, peer: Credentials, name: str) -> None:
        known = self._subscriptions.get(identity)
        if known is None and len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise ProtocolError(f"{MAX_SUBSCRIPTIONS} subscriptions are open; close one")
        number = known.number if known is not None else 0
        self._subscriptions[identity] = _Subscription(peer, name, self._now() + SUBSCRIPTION_SECONDS, number)

    def _looked(self) -> int:
        """What there is to do, after libzmq looked at who has read what.

        It does that once a millisecond otherwise: what a quick client has read would count as unread, and its next
        answer be dropped at the high-water mark.
        """
        events = self._router.getsockopt(zmq.EVENTS)
        assert isinstance(events, int)
        return events

    def _send(self, identity: bytes, payload: bytes) -> None:
        try:
            self._router.send_multipart([identity, payload], zmq.NOBLOCK)
        except zmq.Again:
            log.info("an answer was dropped: its reader is too slow")


def _credentials(frame: zmq.Frame) -> Credentials:
    try:
        _, uid, gid, pid = str(frame.get("Peer-Address")).rsplit(":", 3)
        return Credentials(int(pid), int(uid), int(gid), frozenset({int(gid)}))
    except (ValueError, zmq.ZMQError):
        raise ProtocolError("this connection shows no credentials") from None
