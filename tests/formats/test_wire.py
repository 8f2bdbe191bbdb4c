"""The wire: every message comes back as it was sent, and nothing else gets through."""

from __future__ import annotations

import dataclasses
import tracemalloc
import types
import typing
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapcell_formats import messages, wire
from mapcell_formats.errors import ProtocolError
from mapcell_formats.messages import Attach, GetStatus, Grant, Redeem, Refused, Selection

CHANNELS = [
    messages.REQUESTS,
    messages.REPLIES,
    messages.REDEMPTIONS,
    messages.HANDOUTS,
    messages.STAGER_ORDERS,
    messages.STAGER_REPORTS,
]
EVERY = {op: cls for channel in CHANNELS for op, cls in channel.items()}
CLASSES = sorted(EVERY.values(), key=lambda cls: cls.__name__)

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
_SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: _TEXT,
    bytes: st.binary(max_size=40),
    int: st.integers(-wire.MAX_INTEGER, wire.MAX_INTEGER),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    type(None): st.none(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of what a message's field is annotated with."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{f.name: values(hints[f.name]) for f in dataclasses.fields(kind)})
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return st.lists(values(args[0]), max_size=4).map(tuple)
    if origin is dict:
        return st.dictionaries(_TEXT, values(args[1]), max_size=4)
    assert origin in (types.UnionType, typing.Union)
    return st.one_of([values(a) for a in args])


ANY = st.one_of([values(cls) for cls in CLASSES])
REQUEST = st.integers(0, wire.MAX_INTEGER)


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data(), request_number=REQUEST)
def test_round_trip(cls: type[Any], data: st.DataObject, request_number: int) -> None:
    """Every message of every channel comes back equal, under its request's number."""
    message = data.draw(values(cls))
    assert wire.decode(wire.encode(message, request_number), EVERY) == (request_number, message)


@pytest.mark.parametrize(
    "channel", CHANNELS, ids=["requests", "replies", "redemptions", "handouts", "orders", "reports"]
)
def test_only_its_own_messages(channel: dict[str, type[Any]]) -> None:
    """A channel takes its own messages alone, and says which operation it does not know."""
    for op, cls in EVERY.items():
        assert op == cls.OP
        if op not in channel:
            with pytest.raises(ProtocolError, match="unknown operation") as caught:
                wire.decode(msgpack.packb([wire.PROTOCOL, 7, op, {}]), channel)
            assert caught.value.details == {"request": 7}


def refused(payload: bytes, **limits: int) -> str:
    """The message of the ProtocolError that `payload` brings."""
    with pytest.raises(ProtocolError) as caught:
        wire.decode(payload, EVERY, **limits)
    # It goes back to the sender, so it has to fit what a sender may be told.
    answer = wire.encode(Refused.of(caught.value))
    assert len(answer) <= messages.MAX_HANDLE_BYTES
    assert isinstance(wire.decode(answer, messages.REPLIES)[1], Refused)
    return caught.value.message


def packed(
    op: object = "attach", fields: object = None, protocol: object = wire.PROTOCOL, request: object = 1
) -> bytes:
    """A message put together by hand."""
    sound = {"name": "m", "selection": {"dtype": "", "keys": None, "prefix": ""}, "hold": False, "sealed": False}
    data: bytes = msgpack.packb([protocol, request, op, sound if fields is None else fields])
    return data


def attach(**fields: object) -> bytes:
    """An Attach with fields replaced, added, or (...) left out."""
    selection = {"dtype": "", "keys": None, "prefix": ""}
    sound: dict[str, object] = {"name": "m", "selection": selection, "hold": False, "sealed": False}
    return packed(fields={k: v for k, v in (sound | fields).items() if v is not ...})


SELECTION = {"dtype": "", "keys": None, "prefix": ""}


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (b"GET / HTTP/1.1\r\n", "not msgpack"),
        (b"\x80\x04\x95N.", "not msgpack"),
        (packed() + b"\0", "not msgpack"),
        (packed()[:-1], "not msgpack"),
        (msgpack.packb({}), "a message is"),
        (msgpack.packb([]), "a message is"),
        (msgpack.packb([1, 1, "attach"]), "a message is"),
        (msgpack.packb([1, 1, "attach", {}, 1]), "a message is"),
        (msgpack.packb(msgpack.ExtType(1, b"")), "a message is"),
        (packed(request=-1), "request's number"),
        (packed(request=2**63), "request's number"),
        (packed(request=True), "request's number"),
        (packed(request="1"), "request's number"),
        (packed(request=1.0), "request's number"),
        (packed(protocol=99), f"protocol 99 met {wire.PROTOCOL}: install the same mapcell"),
        (packed(protocol=True), f"protocol True met {wire.PROTOCOL}"),
        (packed(protocol=None), f"protocol None met {wire.PROTOCOL}"),
        (packed(protocol=["x" * 1000] * 4), "protocol ['xxx"),
        (packed(op=3), "operation is no string"),
        (packed(op=b"attach"), "operation is no string"),
        (packed(op="nothing"), "unknown operation 'nothing'"),
        (packed(op="x" * 10_000), "unknown operation 'xxx"),
        (packed(fields=[]), "fields of Attach are no map"),
        (packed(fields=3), "fields of Attach are no map"),
        (packed(fields={}), "missing fields ['hold', 'name', 'sealed', 'selection']"),
        (attach(name=...), "missing fields ['name']"),
        (attach(more=1), "unknown fields ['more']"),
        (attach(**{"x" * 10_000: 1}), "unknown fields ['xxx"),
        (attach(**{f"{n}" + "\1" * 9_000: 1 for n in range(50)}), "unknown fields ['0"),
        (attach(name=3), "field 'name': is no string"),
        (attach(name=b"m"), "field 'name': is no string"),
        (attach(name=None), "field 'name': is no string"),
        (attach(name=["m"]), "field 'name': is no string"),
        (attach(name=msgpack.ExtType(4, b"")), "field 'name': is no string"),
        (attach(name="x" * (wire.MAX_TEXT + 1)), "not msgpack within the limits"),
        (attach(name=msgpack.ExtType(4, b"abc")), "not msgpack within the limits"),
        (attach(name=msgpack.Timestamp(1, 1)), "not msgpack within the limits"),
        (attach(selection=[]), "fields of Selection are no map"),
        (attach(selection=SELECTION | {"keys": "abc"}), "field 'keys': is no list and is not nil"),
        (attach(selection=SELECTION | {"keys": [1]}), "field 'keys': is no string and is not nil"),
        (attach(selection=SELECTION | {"keys": {"a": 1}}), "field 'keys': is no list"),
        (attach(selection=SELECTION | {"keys": ["k"] * (wire.MAX_ITEMS + 1)}), "not msgpack within the limits"),
        (attach(**{str(n): n for n in range(65)}), "not msgpack within the limits"),
        (packed(fields={1: 2}), "not msgpack within the limits"),
        (packed("redeem", {"ticket": "text"}), "field 'ticket': is no byte string"),
        (packed("redeem", {"ticket": bytes(wire.MAX_TEXT + 1)}), "not msgpack within the limits"),
        (packed("progress", {"step": "", "done": True, "total": 1}), "field 'done': is no integer"),
        (packed("progress", {"step": "", "done": 1.0, "total": 1}), "field 'done': is no integer"),
        (packed("progress", {"step": "", "done": 2**63, "total": 1}), "field 'done': is outside"),
        (packed("unload", {"name": "\ud800".encode("utf-8", "surrogatepass")}), "field 'name': is no string"),
        (b"\x94\x01\x01\xa6unload\x81\xa4name\xa3\xed\xa0\x80", "not msgpack within the limits"),
        (packed("refused", {"code": "", "message": "", "details": {"a": 1.5}}), "field 'details'"),
        (packed("refused", {"code": "", "message": "", "details": {b"a": 1}}), "field 'details': is no string"),
    ],
)  # fmt: skip
def test_refused(payload: bytes, says: str) -> None:
    """What is wrong with a message is named, in a few words, by operation and field."""
    assert says in refused(payload)


@given(data=st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    """Random bytes bring ProtocolError and nothing else."""
    refused(data)


@given(message=ANY, data=st.data())
def test_mutated(message: Any, data: st.DataObject) -> None:
    """A message with bytes changed, cut off or added is refused, or is another valid message."""
    payload = bytearray(wire.encode(message, 5))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        _, other = wire.decode(bytes(payload), EVERY)
    except ProtocolError:
        return
    again = wire.encode(other, 5)
    assert wire.encode(wire.decode(again, EVERY)[1], 5) == again


@given(message=ANY)
def test_truncated(message: Any) -> None:
    """Cut off at any byte it is refused."""
    payload = wire.encode(message, 5)
    for nbytes in range(0, len(payload), max(1, len(payload) // 50)):
        refused(payload[:nbytes])


MIB = 1 << 20


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\1",
        b"\xdc\x10\x00" * (MIB // 3),
        b"\x91" * MIB,
        b"\x81\xa0" * (MIB // 2),
        (b"\x9f" + b"\x90" * 15) * (MIB // 16),
        b"\xdc\x10\x00" + (b"\xdc\x01\x00" + b"\x90" * 256) * 4000,
        b"\xdc\x10\x00" + (b"\xdc\x01\x00" + b"\x80" * 256) * 4000,
        b"\xdc\x10\x00" + (b"\x81\xa0" * 100 + b"\xc0") * 4096,
        b"\xdc\x10\x00" + (b"\xdc\x00\x40" + b"\xa3\xe6\x9d\x83" * 64) * 4000,
        b"\xdc\x10\x00" + (b"\xdc\x00\x40" + b"\xcd\xff\xff" * 64) * 4000,
    ],
    ids=[
        "announced list", "announced map", "announced text", "announced bytes", "announced extension", "nested lists",
        "deep lists", "deep maps", "sprouting lists", "empty lists", "empty maps", "chains of maps", "texts", "numbers",
    ],
)  # fmt: skip
def test_memory(payload: bytes) -> None:
    """A mebibyte of whatever costs its receiver less than 64."""
    tracemalloc.start()
    try:
        refused(payload)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [0, 1, wire.MAX_ITEMS])
def test_longest_request(count: int) -> None:
    """As many names as a request may hold go through, and one less than a row may be refused at a lower limit."""
    message = Attach("m", Selection(keys=tuple(map(str, range(count)))))
    assert wire.decode(wire.encode(message), EVERY) == (0, message)
    if count:
        assert "not msgpack within the limits" in refused(wire.encode(message), max_items=count - 1)


def test_many_rows() -> None:
    """A client takes as many rows from its daemon as it says, each with lists of its own."""
    row = messages.ModelRow("m", "v", ("a", "b"), "READY", "sealed", "F32", 1, 1, 0, False, True, "x", "/m")
    message = messages.Models((row,) * 20_000)
    assert wire.decode(wire.encode(message, 3), messages.REPLIES, wire.MAX_ROWS) == (3, message)
    assert "not msgpack" in refused(wire.encode(message))


@pytest.mark.parametrize("message", [Attach("\udcff"), GetStatus(), Grant("n", "v", 1, (1, 2)), Redeem(b"")], ids=repr)
def test_unwritable_text(message: Any) -> None:
    """A string that UTF-8 cannot hold is the sender's fault, and told to the sender."""
    if isinstance(message, Attach):
        with pytest.raises(ProtocolError, match=r"attach: .*is not UTF-8"):
            wire.encode(message)
    else:
        assert wire.decode(wire.encode(message), EVERY) == (0, message)
