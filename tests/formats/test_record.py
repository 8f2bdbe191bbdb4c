"""Records: they behave as the frozen, slotted dataclasses that they stand in for."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import pytest

from mapcell_formats.record import Record, fields_of, values_of


class Point(Record):
    """Two numbers and a word."""

    KIND: ClassVar[str] = "point"
    x: int
    y: int = 2
    word: str = ""

    def sum(self) -> int:
        """Both numbers together."""
        return self.x + self.y


class Other(Record):
    """The same fields under another name."""

    x: int
    y: int = 2
    word: str = ""


class Named(Point):
    """A Point with something more."""

    name: str = "origin"


class Renamed(Named):
    """One with nothing more."""

    def sum(self) -> int:
        """Both numbers together, and one."""
        return super().sum() + 1


class Nothing(Record):
    """No fields at all."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What a Point is compared with."""

    KIND: ClassVar[str] = "point"
    x: int
    y: int = 2
    word: str = ""


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((1,), {}),
        ((1, 3), {}),
        ((1, 3, "a"), {}),
        ((), {"x": 1}),
        ((1,), {"word": "a"}),
        ((), {"word": "a", "y": 5, "x": 1}),
    ],
)
def test_made_as_a_dataclass_is(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Values by position, by name and by default end in the fields where a dataclass has them."""
    made, peer = Point(*values, **named), Peer(*values, **named)
    assert (made.x, made.y, made.word) == (peer.x, peer.y, peer.word)
    assert repr(made) == repr(peer).replace("Peer", "Point")
    assert dataclasses.asdict(made) == dataclasses.asdict(peer) == fields_of(made)
    assert [f.name for f in dataclasses.fields(made)] == [f.name for f in dataclasses.fields(peer)]
    assert [f.default for f in dataclasses.fields(Point)] == [f.default for f in dataclasses.fields(Peer)]
    assert values_of(dataclasses.replace(made, y=9)) == (made.x, 9, made.word)
    assert Point.__match_args__ == Peer.__match_args__


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        ((), {"y": 1}),
        ((1, 2, "a", 4), {}),
        ((1,), {"x": 1}),
        ((1,), {"more": 1}),
        ((1, 2, "a"), {"more": 1}),
        ((1, 2, "a"), {"word": "b"}),
    ],
)
def test_refused_as_a_dataclass_refuses(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Too few, too many, twice or unknown: a TypeError."""
    for cls in (Point, Peer):
        with pytest.raises(TypeError):
            cls(*values, **named)


def test_frozen() -> None:
    """No field is set, deleted or added."""
    point = Point(1)
    for name in ("x", "more"):
        with pytest.raises(FrozenInstanceError):
            setattr(point, name, 2)
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert not hasattr(point, "__dict__")


def test_equal_by_value_and_class() -> None:
    """Equal fields of one class are equal and hash alike; another class is another value."""
    assert Point(1) == Point(1, 2, "")
    assert hash(Point(1)) == hash(Point(1, 2, ""))
    assert Point(1) != Point(2)
    assert Point(1) != Other(1)
    assert Point(1) != (1, 2, "")
    assert Nothing() == Nothing()
    assert {Point(1): "a"}[Point(1)] == "a"


def test_methods_and_class_variables() -> None:
    """A Record has methods, constants and patterns as any class."""
    match Point(3, 4, "a"):
        case Point(x, word="a") as point:
            assert (x, point.sum(), point.KIND, Point.KIND) == (3, 7, "point", "point")
        case _:
            pytest.fail("no match")


def test_inherited() -> None:
    """The fields of a base come first, and what was said of them holds."""
    assert values_of(Named(1)) == values_of(Renamed(1)) == (1, 2, "", "origin")
    assert (Named(1, name="a").sum(), Renamed(1).sum()) == (3, 4)
    assert Named(1) != Renamed(1)
    assert dataclasses.asdict(Renamed(1)) == {"x": 1, "y": 2, "word": "", "name": "origin"}
    assert not hasattr(Renamed(1), "__dict__")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies(again: Any) -> None:
    """A copy equals what it was copied from."""
    assert again(Point(1, 2, "a")) == Point(1, 2, "a")


CHEAP = """
import sys
from mapcell_formats import messages, wire
payload = wire.encode(messages.Attach("m"), 1)
assert wire.decode(payload, messages.REQUESTS)[1] == messages.Attach("m")
print(*sorted({"dataclasses", "inspect", "typing_extensions", "pathlib"} & sys.modules.keys()))
"""


def test_messages_need_no_dataclasses() -> None:
    """Importing, encoding and decoding messages compiles no dataclass."""
    ran = subprocess.run([sys.executable, "-c", CHEAP], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == ""


class Mapped(Record):
    """A default that has no hash before Python 3.12."""

    table: Mapping[str, str] = MappingProxyType({})
    x: int = 0


def test_defaults_without_a_hash() -> None:
    """An empty mapping as a default hinders no `replace`."""
    assert dataclasses.replace(Mapped(), x=1) == Mapped(x=1)
    assert dataclasses.replace(Mapped(x=1), table={"a": "b"}).table == {"a": "b"}
    assert [f.name for f in dataclasses.fields(Mapped)] == ["table", "x"]
