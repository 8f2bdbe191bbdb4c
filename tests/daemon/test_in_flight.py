"""Descriptors that nobody receives are counted by user and bounded; received ones count no more."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mapcell_formats.errors import AccessDenied
from mapcelld.in_flight import MAX_PER_UID, InFlight

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Three connections, over each of which something was sent that is not received yet."""
    made = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
    for ours, _ in made:
        ours.send(b"grant")
    yield made
    for ours, theirs in made:
        ours.close()
        theirs.close()


def test_counted_until_received(pairs: list[Pair]) -> None:
    """What is received counts no more, each user has a count of their own, and forgetting twice does nothing."""
    flight = InFlight()
    for (ours, _), (uid, count) in zip(pairs, ((1, 2), (1, 3), (2, 4)), strict=True):
        flight.sent(ours, uid, count, 10.0)
    assert (flight.of(1), flight.of(2), flight.of(3)) == (5, 4, 0)
    pairs[0][1].recv(100)
    flight.settle()
    assert (flight.of(1), flight.of(2)) == (3, 4)
    for _ in range(2):
        flight.forget(pairs[2][0])
    assert (flight.of(1), flight.of(2)) == (3, 0)


def test_overdue(pairs: list[Pair]) -> None:
    """Only what was sent before the given time and is still unread is overdue."""
    flight = InFlight()
    for number, (ours, _) in enumerate(pairs):
        flight.sent(ours, 1, 1, float(number))
    pairs[1][1].recv(100)
    assert flight.overdue(0.0) == set()
    assert flight.overdue(2.0) == {pairs[0][0]}
    assert flight.overdue(3.0) == {pairs[0][0], pairs[2][0]}


def test_bounded(pairs: list[Pair]) -> None:
    """A user with too many on the way is refused, nobody else is, and receiving them is all it takes."""
    flight = InFlight()
    flight.sent(pairs[0][0], 1, MAX_PER_UID - 2, 0.0)
    flight.check(1, 2)
    with pytest.raises(AccessDenied, match=f"{MAX_PER_UID - 2} descriptors are on their way to processes of uid 1"):
        flight.check(1, 3)
    flight.check(2, 3)
    pairs[0][1].recv(100)
    flight.check(1, 3)
    assert flight.of(1) == 0
