"""`watch`: what happens to a model, as it happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mapcell_formats.errors import DaemonUnavailable

from .connection import CONNECTIONS, CONTROL

if TYPE_CHECKING:
    from mapcell_formats.messages import Event, ModelRow

# The daemon forgets a subscription after 90 s.
_RENEW_SECONDS = 30.0


def watch(name: str = "", timeout: float | None = None) -> Iterator[Event]:
    """Yields events of the model `name`, or of all that this process may see when empty.

    The first ones say what is there now ("ready", or "staging"); then "staging", "progress", "ready", "retired" and
    "failed" as they happen, numbered without gaps. Ends after `timeout` seconds, when given. Raises DaemonUnavailable
    when no daemon answers, ProtocolError when it refuses.
    """
    import zmq

    from mapcell_formats import messages, wire

    folder = CONNECTIONS.client().folder
    until = None if timeout is None else time.monotonic() + timeout
    with zmq.Context(io_threads=1) as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(f"ipc://{folder / CONTROL}")
        request, renew, heard = 0, 0.0, time.monotonic()
        while until is None or time.monotonic() < until:
            if time.monotonic() >= renew:
                request += 1
                sock.send(wire.encode(messages.Watch(name), request))
                renew = time.monotonic() + _RENEW_SECONDS
            wait = min(renew, until or renew) - time.monotonic()
            if not sock.poll(max(int(wait * 1000), 0) + 1):
                if time.monotonic() - heard > 2 * _RENEW_SECONDS:
                    raise DaemonUnavailable(f"the daemon at {folder} went away; watch again")
                continue
            heard = time.monotonic()
            number, message = wire.decode(sock.recv(), messages.REPLIES, wire.MAX_ROWS)
            if isinstance(message, messages.Refused):
                raise message.error()
            if isinstance(message, messages.Models) and number == 1:
                yield from map(_snapshot, message.rows)
            elif isinstance(message, messages.Event):
                yield message


def _snapshot(row: ModelRow) -> Event:
    from mapcell_formats.messages import Event

    kind = "staging" if row.state == "STAGING" else "ready"
    return Event(0, kind, row.name, row.version, row.nbytes, row.nbytes, row.residence)
