"""A table of tensors is the sequence that it stands for."""

from __future__ import annotations

import pytest

from mapcell_formats.checkpoint import Extent, SourceTensor
from mapcell_formats.table import Kind, TensorTable

KINDS = [Kind("F32", (2,), 8), Kind("I8", (0, 3), 0), Kind("F16", (), 2)]
TENSORS = (
    SourceTensor("a", "F32", (2,), (Extent(0, 100, 8),)),
    SourceTensor("b", "I8", (0, 3), ()),
    SourceTensor("c", "F16", (), (Extent(0, 108, 2),)),
)


def table() -> TensorTable:
    """Three tensors from byte 100, the second without bytes."""
    return TensorTable(100, {"a": 0, "b": 1, "c": 2}, KINDS, [8, 8, 10])


def test_is_a_sequence() -> None:
    """It has a length, and tensors in order, by number, from the end and in slices."""
    assert len(table()) == 3
    assert tuple(table()) == TENSORS
    assert [table()[number] for number in range(-3, 3)] == [*TENSORS, *TENSORS]
    assert table()[1:] == TENSORS[1:]
    assert TENSORS[2] in table()
    with pytest.raises(IndexError):
        table()[3]


def test_rows() -> None:
    """Rows are what the tensors say, one by one and all at once."""
    rows = [("a", "F32", (2,), 0, 100, 8), ("b", "I8", (0, 3), 0, 0, 0), ("c", "F16", (), 0, 108, 2)]
    assert list(table().rows()) == rows
    assert [table().row(number) for number in range(3)] == rows


def test_without_empty_tensors() -> None:
    """The same where every tensor has bytes."""
    full = TensorTable(100, {"a": 0, "c": 1}, [KINDS[0], KINDS[2]], [8, 10])
    assert tuple(full) == (TENSORS[0], TENSORS[2])
    assert [full[0], full[1]] == list(full)


def test_tensors_are_made_once() -> None:
    """Who walks through all of them twice finds the same ones."""
    one = table()
    assert all(left is right for left, right in zip(one, one, strict=True))
