"""Tickets: one-time rights to redeem on the handle channel. Pure; `now` is passed in."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mapcell_formats.errors import ProtocolError
from mapcell_formats.messages import TICKET_BYTES, TICKET_SECONDS

T = TypeVar("T")

# A client needs one at a time for each thread that attaches; the oldest goes when one uid asks for more.
MAX_PER_UID = 1024


@dataclass(slots=True)
class _Issued(Generic[T]):
    uid: int
    until: float
    right: T


@dataclass(slots=True)
class Tickets(Generic[T]):
    """Every ticket that was issued and neither redeemed nor forgotten."""

    _issued: dict[bytes, _Issued[T]] = field(default_factory=dict)
    _per_uid: dict[int, dict[bytes, None]] = field(default_factory=dict)

    def issue(self, uid: int, right: T, now: float) -> bytes:
        """A new ticket to `right`, for `uid` alone."""
        ticket = secrets.token_bytes(TICKET_BYTES)
        own = self._per_uid.setdefault(uid, {})
        if len(own) >= MAX_PER_UID:
            self._forget(next(iter(own)))
        self._issued[ticket] = _Issued(uid, now + TICKET_SECONDS, right)
        own[ticket] = None
        return ticket

    def redeem(self, ticket: bytes, uid: int, now: float) -> T:
        """What the ticket gives, once. ProtocolError for any that is unknown, used, too old, or somebody else's."""
        issued = self._issued.get(ticket)
        # One answer for all: which tickets exist is nobody's business.
        if issued is None or issued.uid != uid or issued.until < now:
            raise ProtocolError("this ticket is unknown, used or too old; ask for a new one", ticket="stale")
        self._forget(ticket)
        return issued.right

    def sweep(self, now: float) -> None:
        """Forgets those that are too old."""
        for ticket in [t for t, i in self._issued.items() if i.until < now]:
            self._forget(ticket)

    def __len__(self) -> int:
        return len(self._issued)

    def _forget(self, ticket: bytes) -> None:
        issued = self._issued.pop(ticket)
        own = self._per_uid[issued.uid]
        del own[ticket]
        if not own:
            del self._per_uid[issued.uid]
