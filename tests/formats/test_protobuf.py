"""The protobuf walk: numbers, fields, and what lies at the window's edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile.building import MemorySource, field, varint
from mapcell_formats.errors import FormatError
from mapcell_formats.protobuf import READ_AHEAD, WireReader


def walk(data: bytes, limit: int = 1000) -> list[tuple[int, int, int, bytes]]:
    """Number, wire type, value and payload of every field in `data`."""
    source = MemorySource(data)
    fields = WireReader(source, len(data)).fields(0, len(data), limit)
    return [(item.number, item.wire, item.value, data[item.start : item.stop]) for item in fields]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("width", [1, 2, 10])
def test_varints(value: int, width: int) -> None:
    """Every number is read, also when it is written with more bytes than it takes."""
    raw = varint(value, width)
    assert walk(b"\x08" + raw) == [(1, 0, value, raw)]


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b"", []),
        (b"\x0a\x00", [(1, 2, 0, b"")]),
        (b"\x79abcdefgh\x7dabcd", [(15, 1, 0, b"abcdefgh"), (15, 5, 0, b"abcd")]),
        (varint((1 << 29) - 1 << 3 | 2) + b"\x01x", [((1 << 29) - 1, 2, 0, b"x")]),
        (field(1, b"ab") + field(2, 5), [(1, 2, 0, b"ab"), (2, 0, 5, b"\x05")]),
    ],
    ids=["none", "empty", "fixed", "largest number", "two"],
)
def test_fields(data: bytes, fields: list[tuple[int, int, int, bytes]]) -> None:
    """All wire types in use are walked over."""
    assert walk(data) == fields


def test_too_many_fields() -> None:
    """The limit on fields is exact."""
    assert len(walk(field(1, 1) * 5, limit=5)) == 5
    with pytest.raises(FormatError, match="too many fields"):
        walk(field(1, 1) * 6, limit=5)


@given(st.lists(st.integers(0, READ_AHEAD + 20), max_size=6), st.integers(1, 12))
def test_fields_across_the_window(sizes: list[int], number: int) -> None:
    """Fields are found wherever they fall relative to the read-ahead."""
    data = b"".join(field(number, bytes(size)) for size in sizes)
    assert [len(payload) for *_, payload in walk(data)] == sizes


def test_payloads_are_not_read() -> None:
    """A large payload costs no more than a window."""
    data = field(1, bytes(1_000_000)) + field(2, 1)
    source = MemorySource(data)
    assert len(list(WireReader(source, len(data)).fields(0, len(data), 9))) == 2
    assert source.bytes_read <= 2 * READ_AHEAD
