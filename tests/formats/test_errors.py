"""Every error crosses the wire, and a process boundary, as the class that it is."""

from __future__ import annotations

import pickle

import pytest

from mapcell_formats import errors
from mapcell_formats.errors import FormatError, MapcellError, from_wire

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MapcellError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_crosses(cls: type[MapcellError]) -> None:
    """An error comes back from its code as the same class, with its message and details, also through pickle."""
    for error in (
        from_wire(cls.code, "what; do this", {"path": "/m"}),
        pickle.loads(pickle.dumps(cls("what; do this"))),
    ):
        assert type(error) is cls
        assert str(error) == "what; do this"
    assert from_wire(cls.code, "what", {"path": "/m"}).details == {"path": "/m"}


def test_format_error_keeps_what_it_named() -> None:
    """A FormatError's message is not built a second time, and its fields survive."""
    error = FormatError("is short", path="/m", tensor="w", offset=8, expected="16 bytes")
    again = from_wire(error.code, error.message, error.details)
    assert isinstance(again, FormatError)
    assert (str(again), again.path, again.tensor, again.offset, again.expected) == (
        "/m: tensor 'w': is short (at byte 8); expected 16 bytes", "/m", "w", 8, "16 bytes",
    )  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
def test_odd_details(cls: type[MapcellError]) -> None:
    """Details may be called anything, also what the initialisers call their own arguments."""
    details = {"self": 1, "message": "other", "args": None, "code": "x", "path": 5}
    error = from_wire(cls.code, "what and why", details)
    assert (type(error), str(error), error.details, error.code) == (cls, "what and why", details, cls.code)


def test_unknown_code_is_the_base() -> None:
    """A newer daemon's error is a MapcellError here."""
    assert type(from_wire("from-the-future", "what", {})) is MapcellError
