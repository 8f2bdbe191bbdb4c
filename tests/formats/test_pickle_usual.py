"""Tensors that are read at once come out as if each of their opcodes had been walked."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from hostile.torch_building import PROLOGUE, pickled, usual
from mapcell_formats import pickle_usual
from mapcell_formats.errors import FormatError
from mapcell_formats.pickle_usual import FIRST_MEMO, MEMO_ITEMS, numbers, usual_call
from mapcell_formats.pickle_walk import Walk
from mapcell_formats.torch_pickle import StateDicts, Tensor

Change = Callable[[bytes], bytes]


def walked(body: bytes, monkeypatch: pytest.MonkeyPatch | None = None) -> object:
    """What the pickle of a list around `body` holds, or the error about it; with a monkeypatch opcode by opcode."""
    data = pickled(PROLOGUE + body + b"e")
    if monkeypatch:
        monkeypatch.setattr(pickle_usual, "usual_call", lambda *_: None)
    try:
        return Walk(data, StateDicts(), "/m/x", 100).run()
    except FormatError as exc:
        return str(exc), exc.offset


SAME: dict[str, bytes] = {
    "one": usual(FIRST_MEMO),
    "two": usual(FIRST_MEMO) + usual(FIRST_MEMO + MEMO_ITEMS, b"12345"),
    "one dimension": usual(FIRST_MEMO, shape=b"J\x00\x01\x00\x00\x85", strides=b"K\x01\x85"),
    "three dimensions": usual(FIRST_MEMO, shape=b"K\x02K\x03K\x04\x87", strides=b"K\x0cK\x04K\x01\x87"),
    "four dimensions": usual(FIRST_MEMO, shape=b"(K\x01K\x02K\x03K\x04t", strides=b"(K\x18K\x0cK\x04K\x01t"),
    "numbers that look like opcodes": usual(FIRST_MEMO, shape=b"K\x86K\x85\x86", strides=b"K\x85M\x86r\x86"),
    "no dimension": usual(FIRST_MEMO, shape=b")", strides=b")"),
    "the tensor again": usual(FIRST_MEMO) + b"j" + struct.pack("<I", FIRST_MEMO + 6),
    "its shape again": usual(FIRST_MEMO) + b"j" + struct.pack("<I", FIRST_MEMO + 2),
    "a storage that is no number": usual(FIRST_MEMO, b"7x"),
    "a class that came late": b"ctorch\nIntStorage\nr"
    + struct.pack("<I", FIRST_MEMO)
    + usual(FIRST_MEMO + 1).replace(b"h\x01X", b"j" + struct.pack("<I", FIRST_MEMO) + b"X"),
    "negative strides": usual(FIRST_MEMO, strides=b"J\xff\xff\xff\xffK\x01\x86"),
}
ODD: dict[str, Change] = {
    "another memo number": lambda raw: raw.replace(struct.pack("<I", FIRST_MEMO + 3), struct.pack("<I", 999)),
    "a number used before": lambda raw: raw.replace(struct.pack("<I", FIRST_MEMO + 3), struct.pack("<I", 9)),
    "a shorter key": lambda raw: raw.replace(b"X\x01", b"X\x00"),
    "a longer key": lambda raw: raw.replace(b"X\x01", b"X\x02"),
    "a tuple of more": lambda raw: raw.replace(b"\x86r", b"\x87r"),
    "a tuple of fewer": lambda raw: raw.replace(b"\x86r", b"\x85r"),
    "what is not there": lambda raw: raw.replace(b"h\x01X", b"j" + struct.pack("<I", FIRST_MEMO) + b"X"),
    "what is no function": lambda raw: b"h\x09" + raw[2:],
    "what is no storage class": lambda raw: raw.replace(b"h\x01X", b"h\x04X"),
    "what is no OrderedDict": lambda raw: raw.replace(b"\x89h\x03", b"\x89h\x04"),
    "no PERSID": lambda raw: raw.replace(b"Q", b"N"),
    "cut": lambda raw: raw[:-5],
}


@pytest.mark.parametrize("case", SAME)
def test_same(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is usual, or nearly, gives what the walk gives."""
    found = walked(SAME[case])
    assert isinstance(found, list)
    assert found == walked(SAME[case], monkeypatch)
    assert isinstance(found[-1], Tensor | tuple)


@pytest.mark.parametrize("case", ODD)
def test_odd(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong gets the walk's own error, at the walk's own offset."""
    body = ODD[case](usual(FIRST_MEMO))
    assert walked(body) == walked(body, monkeypatch)


def test_recognised() -> None:
    """Usual tensors are taken whole; none is while the memo is small."""
    raw = usual(FIRST_MEMO)
    call = usual_call(raw, 0, FIRST_MEMO)
    assert call is not None
    assert (call.end, call.key, call.function, call.hooks) == (len(raw), "7", 4, 3)
    assert usual_call(raw, 0, FIRST_MEMO - 1) is None
    assert usual_call(raw, 0, FIRST_MEMO + 1) is None


@pytest.mark.parametrize(("raw", "wanted"), [(b"K\x85", (0x85,)), (b"J\xff\xff\xff\xff", (-1,)), (b"K\1K\2\x87", None)])
def test_numbers(raw: bytes, wanted: tuple[int, ...] | None) -> None:
    """Numbers of every width, and a tuple that is not of as many."""
    assert numbers(raw) == wanted


def test_what_made_a_tensor_is_not_kept() -> None:
    """The arguments of a usual tensor can be fetched, as any memo can, but nothing comes of them."""
    body = usual(FIRST_MEMO) + b"h\x04j" + struct.pack("<I", FIRST_MEMO + 5) + b"R"
    found = walked(body)
    assert isinstance(found, tuple)
    assert "calls with what is no tuple" in found[0]
