"""The messages themselves: the tables of the channels, and errors on their way."""

from __future__ import annotations

import dataclasses

import pytest

from mapcell_formats import messages, wire
from mapcell_formats.errors import AccessDenied, BudgetExceeded, FormatError, MapcellError, NotFound, UnsupportedFormat
from mapcell_formats.messages import Refused
from mapcell_formats.record import Record


def test_operations_are_unique() -> None:
    """No two messages of one channel share an operation, and each is a frozen, slotted value."""
    classes = [c for c in vars(messages).values() if dataclasses.is_dataclass(c) and c is not Record]
    operations = [c.OP for c in classes if hasattr(c, "OP")]
    assert len(operations) == len(set(operations))
    for cls in classes:
        assert issubclass(cls, Record)
        assert "__slots__" in vars(cls)


@pytest.mark.parametrize(
    "error",
    [
        NotFound("no model 'x'", model="x"),
        BudgetExceeded("needs 5", needed=5, budget=1, in_use=None),
        AccessDenied("no"),
        MapcellError("the daemon failed"),
        FormatError("is odd", path="/m", tensor="t", offset=3, expected="even"),
        UnsupportedFormat("is a zip", path="/m"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_travel(error: MapcellError) -> None:
    """An error arrives as the class that it was, with its message and details."""
    _, refused = wire.decode(wire.encode(Refused.of(error)), messages.HANDOUTS)
    back = refused.error()
    assert (type(back), str(back), back.details) == (type(error), str(error), error.details)


@pytest.mark.parametrize(
    "error",
    [
        FormatError("has a name", tensor="\1" * 4096, path="/" + "é" * 4000),
        FormatError("has half a pair", tensor="\ud800", path="/x\udcff"),
        FormatError("has an offset", offset=1 << 80),
        FormatError("m" * 100_000, expected="e" * 100_000),
        NotFound("many", **{str(i): "x" * 5000 for i in range(100)}),
        NotFound("keys", **{"k" * 100_000: 1}),
    ],
    ids=["long", "unwritable", "large number", "texts", "details", "keys"],
)
def test_errors_always_fit(error: MapcellError) -> None:
    """An error that quotes what a file claims arrives as well, cut where it exceeds what a message may hold."""
    payload = wire.encode(Refused.of(error), 1)
    assert len(payload) <= messages.MAX_HANDLE_BYTES
    for channel in (messages.REPLIES, messages.HANDOUTS, messages.STAGER_REPORTS):
        _, refused = wire.decode(payload, channel)
        assert type(refused.error()) is type(error)
        assert refused.message[:2] == str(error)[:2]


def test_cut_text_is_marked() -> None:
    """What was cut ends in dots, on a whole character."""
    refused = Refused.of(NotFound("é" * 10_000))
    assert refused.message.endswith("é...")
    assert len(refused.message.encode()) in (wire.MAX_TEXT - 1, wire.MAX_TEXT)
