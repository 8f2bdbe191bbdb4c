"""Requests and grants of the handle channel as bytes, remembered: workers of one kind ask for the same in one wording.

What one user asked is not remembered for another, who could tell by the time that it takes which names are known to
somebody else; a ticket, which is said once, is not remembered at all.
"""

from __future__ import annotations

from functools import lru_cache

from mapcell_formats import messages, wire
from mapcell_formats.messages import Attach, Grant, Redeem

# So many requests and grants are remembered, of requests those up to so many bytes.
_REMEMBERED, _SHORT = 256, 512
# Where a message says what it is.
_ATTACH, _OPERATION_BYTES = Attach.OP.encode(), 24


def asked(payload: bytes, uid: int) -> Attach | Redeem:
    """What user `uid` asks. ProtocolError says what is wrong with it."""
    usual = len(payload) <= _SHORT and _ATTACH in payload[:_OPERATION_BYTES]
    return _remembered(payload, uid) if usual else _read(payload)


def _read(payload: bytes) -> Attach | Redeem:
    message: Attach | Redeem = wire.decode(payload, messages.REDEMPTIONS)[1]
    return message


@lru_cache(maxsize=_REMEMBERED)
def _remembered(payload: bytes, uid: int) -> Attach | Redeem:
    return _read(payload)


@lru_cache(maxsize=_REMEMBERED)
def granted(name: str, version: str, manifest: int, segments: tuple[int, ...], guarded: bool) -> bytes:
    """The bytes of a Grant of these fields."""
    return wire.encode(Grant(name, version, manifest, segments, guarded))
