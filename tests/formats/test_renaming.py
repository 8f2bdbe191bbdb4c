"""Rules that rename tensors."""

from __future__ import annotations

import re

import pytest

from mapcell_formats.renaming import Rename, renamer

CASES: dict[str, tuple[Rename | None, str, str, str | None]] = {
    "nothing": (None, "", "a.b", "a.b"),
    "prefix": (None, "model.", "model.a", "a"),
    "prefix of another": (None, "model.", "head.a", None),
    "function": (str.upper, "", "a", "A"),
    "function after the prefix": (str.upper, "x.", "x.a", "A"),
    "function that leaves out": (lambda name: None, "", "a", None),
    "dict": ({"a": "b"}, "", "a", "b"),
    "dict without it": ({"a": "b"}, "", "c", "c"),
    "dict that leaves out": ({"a": None}, "", "a", None),
    "expression": ([(r"layers\.(\d+)", r"blk.\1")], "", "layers.12.w", "blk.12.w"),
    "expressions in order": ([("a", "b"), ("b", "c")], "", "ab", "cc"),
    "expression that does not match": ([("^x", "y")], "", "ax", "ax"),
    "expression after the prefix": ([("^a", "b")], "m.", "m.a", "b"),
}


@pytest.mark.parametrize("case", CASES)
def test_rules(case: str) -> None:
    """Each kind of rule gives the name that it has to, or none."""
    rename, prefix, name, expected = CASES[case]
    assert renamer(rename, prefix)(name) == expected


def test_wrong_rules() -> None:
    """A str, which is a sequence too, is no rule, nor is a broken expression."""
    with pytest.raises(TypeError, match="list of pairs, not str"):
        renamer("a=b")  # type: ignore[arg-type]
    with pytest.raises(re.error):
        renamer([("(", "x")])
