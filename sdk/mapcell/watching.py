"""`watch`: what happens to a model, as it happens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from mapcell_formats.errors import DaemonUnavailable

from .connection import CONNECTIONS, CONTROL

if TYPE_CHECKING:
    import zmq

    from mapcell_formats.messages import Event, ModelRow

# The daemon forgets a subscription after 90 s.
_RENEW_SECONDS = 30.0
_RECONNECT_MS = 100


class Watcher:
    """A subscription to the events of the model `name`, or of all when empty.

    It is taken out anew with a daemon that was restarted; `subscribed` says whether it is in force. Owns a ZeroMQ
    context until `close`; for one thread. DaemonUnavailable when no daemon answers.
    """

    def __init__(self, name: str = "") -> None:
        import zmq

        self.folder = CONNECTIONS.client().folder
        self._name = name
        self._request = self._first = 0
        self._connected = False
        self.subscribed = False
        self._renew = self._heard = time.monotonic()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._sock = self._context.socket(zmq.DEALER)
        self._sock.setsockopt(zmq.LINGER, 0)
        self._sock.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self._changes: zmq.Socket[bytes] = self._sock.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self._sock.connect(f"ipc://{os.path.join(self.folder, CONTROL)}")
        self._poller = zmq.Poller()
        self._poller.register(self._sock, zmq.POLLIN)
        self._poller.register(self._changes, zmq.POLLIN)

    def poll(self, seconds: float) -> list[Event]:
        """The events of the next `seconds`, as soon as there are any.

        DaemonUnavailable after a minute of silence; the error when the daemon refuses.
        """
        if self._connected and time.monotonic() >= self._renew:
            self._subscribe()
        ready = dict(self._poller.poll(max(int(seconds * 1000), 0) + 1))
        if self._changes in ready:
            self._note_change()
        if self._sock in ready:
            return self._receive()
        if time.monotonic() - self._heard > 2 * _RENEW_SECONDS:
            raise DaemonUnavailable(f"the daemon at {self.folder} went away; watch again")
        return []

    def close(self) -> None:
        """Ends the subscription. A second call does nothing."""
        if not self._sock.closed:
            self._sock.disable_monitor()
            self._changes.close(0)
            self._sock.close(0)
            self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _note_change(self) -> None:
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        self.subscribed = False
        self._connected = recv_monitor_message(self._changes)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        if self._connected:
            self._subscribe()
            self._first = self._request

    def _subscribe(self) -> None:
        from mapcell_formats import messages, wire

        self._request += 1
        self._sock.send(wire.encode(messages.Watch(self._name), self._request))
        self._renew = time.monotonic() + _RENEW_SECONDS

    def _receive(self) -> list[Event]:
        from mapcell_formats import messages, wire

        self._heard = time.monotonic()
        number, message = wire.decode(self._sock.recv(), messages.REPLIES, wire.MAX_ROWS)
        if isinstance(message, messages.Refused):
            raise message.error()
        if isinstance(message, messages.Models):
            # The answer to a renewal brings nothing new.
            if number != self._first:
                return []
            self.subscribed = True
            return [_snapshot(row) for row in message.rows]
        return [message] if isinstance(message, messages.Event) else []


def watch(name: str = "", timeout: float | None = None) -> Iterator[Event]:
    """Yields events of the model `name`, or of all that this process may see when empty.

    The first ones, with number 0, say what is there now ("ready", or "staging"); then "staging", "progress", "ready",
    "retired", "failed", "verified" (its bytes were hashed) and "source" (`detail` says what became of the source:
    "changed", "missing", ...) as they happen, numbered from 1 without gaps. With a daemon that was restarted both begin
    again. Ends after `timeout` seconds, when given. Raises DaemonUnavailable when no daemon answers, or none for a
    minute; ProtocolError when it refuses.
    """
    until = None if timeout is None else time.monotonic() + timeout
    with Watcher(name) as watcher:
        while until is None or time.monotonic() < until:
            yield from watcher.poll(_RENEW_SECONDS if until is None else min(until - time.monotonic(), _RENEW_SECONDS))


def _snapshot(row: ModelRow) -> Event:
    from mapcell_formats.messages import Event

    kind = "staging" if row.state == "STAGING" else "ready"
    return Event(0, kind, row.name, row.version, row.nbytes, row.nbytes, row.residence)
