"""What is remembered of requests and grants, for whom, and what is not."""

from __future__ import annotations

import os

import pytest

from mapcell_formats import messages, wire
from mapcell_formats.errors import ProtocolError
from mapcell_formats.messages import Attach, Grant, Redeem, Selection
from mapcelld import wording


@pytest.mark.parametrize(
    "message",
    [Attach("m"), Attach("m", Selection("F32", ("a", "b"), "p")), Attach("n" * 600), Redeem(os.urandom(16))],
    ids=["name", "selection", "long", "ticket"],
)
def test_asked(message: Attach | Redeem) -> None:
    """A request is what it says, however often it is read and whoever asks."""
    payload = wire.encode(message)
    assert [wording.asked(payload, uid) for uid in (1, 2, 1)] == [message] * 3


def test_what_is_remembered() -> None:
    """Only short requests for a name are, for each user apart; tickets are not, and nothing that is malformed."""
    wording._remembered.cache_clear()
    for uid in (1, 1, 2):
        wording.asked(wire.encode(Attach("m")), uid)
    found = wording._remembered.cache_info()
    assert (found.hits, found.misses, found.currsize) == (1, 2, 2)
    for other in (Redeem(b"attach" + bytes(10)), Attach("n" * 600)):
        wording.asked(wire.encode(other), 1)
    for _ in range(2):
        with pytest.raises(ProtocolError):
            wording.asked(wire.encode(Attach("m"))[:-1] + b"\xc0", 1)
    assert wording._remembered.cache_info().currsize == 2


def test_no_more_than_so_many() -> None:
    """Who asks for ever other names takes a bounded amount of memory."""
    wording._remembered.cache_clear()
    for number in range(1000):
        wording.asked(wire.encode(Attach(str(number))), 1)
    assert wording._remembered.cache_info().currsize == 256


def test_granted() -> None:
    """A grant is read back as what was granted; any other field makes another."""
    fields = ("m", "blake3:00", 9, (4096, 1), False)
    assert wire.decode(wording.granted(*fields), messages.HANDOUTS)[1] == Grant(*fields)
    assert wording.granted(*fields) is wording.granted(*fields)
    for other in (("n", *fields[1:]), (*fields[:3], (4096, 2), False), (*fields[:4], True)):
        assert wire.decode(wording.granted(*other), messages.HANDOUTS)[1] == Grant(*other)
