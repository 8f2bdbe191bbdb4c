"""Descriptors that were sent and that nobody has received yet.

Until they are received they count against the sender: a user whose clients receive nothing could take the limit of the
whole daemon, and its grants to everybody else would fail with ETOOMANYREFS (unix(7)).
"""

from __future__ import annotations

import socket
from collections import Counter
from typing import NamedTuple

from mapcell_formats.errors import AccessDenied
from mapcelld import channel

# A thousand leases of one segment at once; a small part of any limit that a daemon is given.
MAX_PER_UID = 2048


class _Sent(NamedTuple):
    uid: int
    descriptors: int
    since: float


class InFlight:
    """What was sent over which socket (borrowed), to whom and when. Times come from the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._sent: dict[socket.socket, _Sent] = {}
        self._per_uid: Counter[int] = Counter()

    def check(self, uid: int, count: int) -> None:
        """AccessDenied when `uid` may not be sent `count` more before it received what is on its way."""
        if self._per_uid[uid] + count > MAX_PER_UID:
            self.settle()
        if (held := self._per_uid[uid]) + count > MAX_PER_UID:
            raise AccessDenied(
                f"{held} descriptors are on their way to processes of uid {uid}, which do not receive them; "
                "end those that hang, then attach again"
            )

    def sent(self, sock: socket.socket, uid: int, count: int, now: float) -> None:
        """Counts `count` descriptors that were sent to `uid` over `sock`."""
        self._sent[sock] = _Sent(uid, count, now)
        self._per_uid[uid] += count

    def forget(self, sock: socket.socket) -> None:
        """Counts what was sent over `sock` no more. Nothing for one that is not known."""
        sent = self._sent.pop(sock, None)
        if sent is not None:
            self._per_uid[sent.uid] -= sent.descriptors
            if not self._per_uid[sent.uid]:
                del self._per_uid[sent.uid]

    def settle(self) -> None:
        """Forgets whatever was received meanwhile."""
        for sock in list(self._sent):
            if not channel.unread(sock):
                self.forget(sock)

    def overdue(self, before: float) -> set[socket.socket]:
        """The sockets over which something was sent before that time and is not received."""
        self.settle()
        return {sock for sock, sent in self._sent.items() if sent.since < before}

    def of(self, uid: int) -> int:
        """How many descriptors are on their way to `uid`, as far as is known."""
        return self._per_uid[uid]
