"""Plain data in pickles is read as Python would read it; whatever else is in them is not even looked up."""

from __future__ import annotations

import collections
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile.torch_building import pickled
from mapcell_formats import pickle_walk
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.pickle_walk import Walk


class Nothing:
    """A vocabulary without a word."""

    def find(self, name: str) -> object:
        raise KeyError(name)

    def call(self, function: object, arguments: tuple[object, ...], at: int) -> object:
        raise KeyError(function)

    def persistent(self, identity: object, at: int) -> object:
        raise KeyError(identity)


class Recorder(Nothing):
    """Knows every word, and keeps what it was asked."""

    def find(self, name: str) -> object:
        return name

    def call(self, function: object, arguments: tuple[object, ...], at: int) -> object:
        return [function, arguments, at]

    def persistent(self, identity: object, at: int) -> object:
        return ("outside", identity, at)


def walk(data: bytes) -> object:
    """What the pickle holds, when it names nothing outside."""
    return Walk(data, Nothing(), "/m/x", 100).run()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 2000), 1 << 2000) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(PLAIN, st.integers(2, 5))
def test_plain_data(value: object, protocol: int) -> None:
    """Numbers, text and containers of them, as Python pickles them in every binary protocol."""
    assert walk(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("count", [1, 5000], ids=["one", "many"])
def test_batches_and_shared_objects(protocol: int, count: int) -> None:
    """Lists and dicts of more than a batch, and values that occur twice and come from the memo."""
    shared = {"a": [1.5] * 3}
    value = {
        "list": [str(i) for i in range(count)],
        "dict": {f"k{i}": (i, shared) for i in range(count)},
        "same": shared,
    }
    found: Any = walk(pickle.dumps(value, protocol))
    assert found == value
    assert found["same"] is found["dict"]["k0"][1]


def test_integer_keys_become_text() -> None:
    """An optimizer's state has parameters' numbers for keys."""
    assert walk(pickle.dumps({0: "a", 1 << 40: "b"})) == {"0": "a", str(1 << 40): "b"}


@pytest.mark.parametrize("protocol", [2, 4])
def test_names_and_calls(protocol: int) -> None:
    """Names, calls and persistent ids go to the vocabulary with the offset of their opcode; attributes are dropped."""
    value = collections.OrderedDict(a=1)
    value.note = "dropped"  # type: ignore[attr-defined]
    data = pickle.dumps(value, protocol)
    with pytest.raises(UnsupportedFormat, match=r"names 'collections\.OrderedDict'"):
        walk(data)
    body = b"cmodule\nname\n)R" + b"X\x02\0\0\0id" + b"Q\x86"
    assert Walk(pickled(body), Recorder(), "/m/x", 100).run() == (
        ["module.name", (), 100 + body.index(b"R") + 2],
        ("outside", "id", 100 + body.index(b"Q") + 2),
    )


def test_offsets() -> None:
    """Errors name the file and the offset of the opcode in it, or where its member begins when it was compressed."""
    data = pickled(b"NN" + b"\xff")
    for in_file, offset in ((True, 104), (False, 100)):
        with pytest.raises(FormatError, match="0xff is no opcode") as caught:
            Walk(data, Nothing(), "/m/x", 100, in_file=in_file).run()
        assert (caught.value.path, caught.value.offset) == ("/m/x", offset)


def test_errors_show_no_containers() -> None:
    """An error about a call does not print its arguments, of which a few bytes can make gigabytes."""
    laughs = b"]\x94" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(60))
    with pytest.raises(UnsupportedFormat, match=r"calls None with \(tuple, 5\)") as caught:
        walk(pickled(b"(" + laughs + b"tN" + b"h\x3cK\x05\x86R", 4))
    assert len(str(caught.value)) < 500


def test_objects_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a pickle is, what it makes has a limit of its own."""
    body = b"](" + b"}" * 200 + b"e"
    assert walk(pickled(body)) == [{}] * 200
    monkeypatch.setattr(pickle_walk, "MAX_OBJECT_BYTES", 10_000)
    with pytest.raises(FormatError, match="more objects than"):
        walk(pickled(body))
