"""Tickets: once, in time, by the uid they were made for."""

from __future__ import annotations

import pytest

from mapcell_formats.errors import ProtocolError
from mapcell_formats.messages import TICKET_BYTES, TICKET_SECONDS
from mapcelld.tickets import MAX_PER_UID, Tickets


def refused(tickets: Tickets[str], ticket: bytes, uid: int, now: float) -> str:
    """What redeeming is refused with."""
    with pytest.raises(ProtocolError) as caught:
        tickets.redeem(ticket, uid, now)
    return str(caught.value)


def test_once() -> None:
    """A ticket gives its right once."""
    tickets: Tickets[str] = Tickets()
    ticket = tickets.issue(7, "right", 0.0)
    assert len(ticket) == TICKET_BYTES
    assert tickets.redeem(ticket, 7, TICKET_SECONDS) == "right"
    assert "ask for a new one" in refused(tickets, ticket, 7, 0.0)
    assert len(tickets) == 0


def test_one_answer_for_all() -> None:
    """Unknown, somebody else's, too old and used: all are refused alike, and only its holder can use a ticket up."""
    tickets: Tickets[str] = Tickets()
    ticket, other = tickets.issue(7, "right", 0.0), tickets.issue(8, "other", 0.0)
    answers = {
        refused(tickets, b"", 7, 0.0),
        refused(tickets, bytes(TICKET_BYTES), 7, 0.0),
        refused(tickets, ticket[:-1], 7, 0.0),
        refused(tickets, other, 7, 0.0),
        refused(tickets, ticket, 7, TICKET_SECONDS + 0.1),
    }
    assert len(answers) == 1
    assert tickets.redeem(ticket, 7, 0.0) == "right"
    assert tickets.redeem(other, 8, 0.0) == "other"


def test_sweep() -> None:
    """Those that are too old are forgotten, the others stay."""
    tickets: Tickets[str] = Tickets()
    tickets.issue(7, "old", 0.0)
    young = tickets.issue(7, "young", 10.0)
    tickets.sweep(TICKET_SECONDS + 1)
    assert len(tickets) == 1
    assert tickets.redeem(young, 7, TICKET_SECONDS + 1) == "young"


def test_bounded_per_uid() -> None:
    """Who asks for ever more loses the oldest; nobody else loses one."""
    tickets: Tickets[int] = Tickets()
    other = tickets.issue(8, -1, 0.0)
    own = [tickets.issue(7, number, 0.0) for number in range(MAX_PER_UID + 2)]
    assert len(tickets) == MAX_PER_UID + 1
    for gone in own[:2]:
        with pytest.raises(ProtocolError):
            tickets.redeem(gone, 7, 0.0)
    assert tickets.redeem(own[2], 7, 0.0) == 2
    assert tickets.redeem(other, 8, 0.0) == -1


def test_unpredictable() -> None:
    """No two are equal."""
    tickets: Tickets[int] = Tickets()
    assert len({tickets.issue(uid, 0, 0.0) for uid in range(1000)}) == 1000
