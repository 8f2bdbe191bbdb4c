"""Where tensors lie on the device, and in which pieces they travel."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapcell.cuda.plan import Item, plan

CHUNK = 1024


def items(*sizes: int) -> list[Item]:
    """One item of each size, no two in the same place."""
    return [Item(f"t{i}", size, i) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "nbytes", "offsets", "chunks"),
    [
        ((), 0, [], 0),
        ((0,), 0, [0], 0),
        ((1,), 256, [0], 1),
        ((256, 256), 512, [0, 256], 1),
        ((1, 1, 0, 1), 768, [0, 256, 0, 512], 1),
        ((1024, 1), 1280, [0, 1024], 2),
        ((3000, 100), 3328, [0, 3072], 4),
    ],
)
def test_layout(sizes: tuple[int, ...], nbytes: int, offsets: list[int], chunks: int) -> None:
    """In order, each on 256 bytes; a tensor without bytes takes no room."""
    made = plan(items(*sizes), CHUNK)
    assert (made.nbytes, [p.offset for p in made.placed.values()], len(made.chunks)) == (nbytes, offsets, chunks)


def test_ties() -> None:
    """What lies in one place on the host has one place on the device and travels once."""
    made = plan([Item("a", 300, "x"), Item("b", 300, "y"), Item("c", 300, "x")], CHUNK)
    assert made.placed["a"] == made.placed["c"] != made.placed["b"]
    assert sum(piece.nbytes for chunk in made.chunks for piece in chunk.pieces) == 600


@given(st.lists(st.integers(0, 5000), max_size=30))
def test_every_byte_travels_once(sizes: list[int]) -> None:
    """Pieces cover each tensor without gap or overlap, lie within their chunk, and chunks follow one another."""
    made = plan(items(*sizes), CHUNK)
    end = 0
    for chunk in made.chunks:
        assert chunk.offset == end
        end += chunk.nbytes
        assert 0 < chunk.nbytes <= CHUNK
        for piece in chunk.pieces:
            assert chunk.offset <= piece.offset
            assert piece.offset + piece.nbytes <= end
    pieces = sorted(piece for chunk in made.chunks for piece in chunk.pieces)
    for number, own in itertools.groupby(pieces, lambda p: p.item):
        start = 0
        for piece in own:
            assert (piece.start, piece.offset) == (start, made.placed[f"t{number}"].offset + start)
            start += piece.nbytes
        assert start == sizes[number]
    assert sum(p.nbytes for p in pieces) == sum(sizes)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30))
def test_first_and_last_chunk(sizes: list[int]) -> None:
    """A tensor has arrived with its last chunk: exactly the chunks in between hold pieces of it."""
    made = plan(items(*sizes), CHUNK)
    for number, placed in enumerate(made.placed.values()):
        holding = [k for k, chunk in enumerate(made.chunks) if any(p.item == number for p in chunk.pieces)]
        assert holding == list(range(placed.first, placed.last + 1))
