"""The rules that all formats share."""

from __future__ import annotations

import pytest

from mapcell_formats.checks import MAX_ELEMENTS, brief, name_fault, shape_fault

SHAPES: list[tuple[list[object], str | None]] = [
    ([], None),
    ([0], None),
    ([1] * 32, None),
    ([MAX_ELEMENTS], None),
    ([0, MAX_ELEMENTS], None),
    ([1] * 33, "33 dimensions"),
    ([-1], "-1 is no dimension"),
    ([MAX_ELEMENTS + 1], "is no dimension"),
    ([MAX_ELEMENTS, 2], "shape"),
    ([0, MAX_ELEMENTS, 2], "shape"),
    ([True], "True is no dimension"),
    ([1.0], "1.0 is no dimension"),
    (["1"], "'1' is no dimension"),
    ([None], "None is no dimension"),
    ([10**5000], "an integer of 16610 bits"),
]


@pytest.mark.parametrize(("shape", "says"), SHAPES, ids=range(len(SHAPES)))
def test_shapes(shape: list[object], says: str | None) -> None:
    """A shape is a few integers whose product an array can have."""
    fault = shape_fault(shape)
    assert (fault is None) == (says is None)
    assert fault is None or says in fault.message


NAMES = [
    ("", None),
    ("a.b/c", None),
    ("n" * 4096, None),
    ("ö" * 2048, None),
    ("n" * 4097, "4097 bytes"),
    ("ö" * 2049, "4098 bytes"),
    ("a\0", "NUL"),
    ("\udcff", "surrogate"),
]


@pytest.mark.parametrize(("name", "says"), NAMES)
def test_names(name: str, says: str | None) -> None:
    """A name is short text without NULs."""
    fault = name_fault(name)
    assert (fault is None) == (says is None)
    assert fault is None or (says is not None and says in fault.message)


@pytest.mark.parametrize(
    "value", ["x" * 10_000, [0] * 10_000, 10**5000, {"a": "b" * 100}], ids=["text", "list", "integer", "dict"]
)
def test_brief_is_brief(value: object) -> None:
    """Whatever a file claims, an error shows little of it."""
    assert len(brief(value)) <= 60
