"""Where each tensor will lie on the device, and in which pieces it travels. Pure: no array and no device is touched.

Tensors are laid one after another in the order in which they are wanted, each on a 256-byte boundary. What lies in the
same bytes on the host (tied weights) is laid once. The whole is cut into chunks of one size, so that a chunk is one
copy for the device however many small tensors it holds.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mapcell_formats.layout import ALIGNMENT, align


class Item(NamedTuple):
    """A tensor to lay out. Items of equal `place` are the same bytes."""

    name: str
    nbytes: int
    place: Hashable


class Piece(NamedTuple):
    """`nbytes` of item number `item`, from its byte `start`, to lie at `offset` of the device memory."""

    item: int
    start: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """`nbytes` of device memory from `offset` on, and what is to lie there; between pieces lies padding."""

    offset: int
    nbytes: int
    pieces: tuple[Piece, ...]


class Placed(NamedTuple):
    """A tensor's place in device memory, and the first and last chunk that bring it; (0, -1) when it has no bytes."""

    offset: int
    nbytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Plan:
    """`nbytes` of device memory, each tensor's place in it by name, and the chunks in the order of travel."""

    nbytes: int
    placed: Mapping[str, Placed]
    chunks: tuple[Chunk, ...]

    def end_of(self, chunks: int) -> int:
        """Bytes from the beginning to the end of the first `chunks` chunks."""
        return self.chunks[chunks - 1].offset + self.chunks[chunks - 1].nbytes if chunks else 0


def plan(items: Sequence[Item], chunk_bytes: int) -> Plan:
    """Lays out `items` in their order. `chunk_bytes` is a multiple of the alignment."""
    offsets: dict[Hashable, int] = {}
    laid: list[tuple[int, int]] = []
    placed: dict[str, Placed] = {}
    end = 0
    for number, item in enumerate(items):
        if not item.nbytes:
            placed[item.name] = Placed(0, 0, 0, -1)
            continue
        offset = offsets.get(item.place)
        if offset is None:
            offset = offsets[item.place] = align(end, ALIGNMENT)
            end = offset + item.nbytes
            laid.append((number, offset))
        last = (offset + item.nbytes - 1) // chunk_bytes
        placed[item.name] = Placed(offset, item.nbytes, offset // chunk_bytes, last)
    return Plan(align(end, ALIGNMENT), placed, tuple(_chunks(items, laid, end, chunk_bytes)))


def _chunks(items: Sequence[Item], laid: Sequence[tuple[int, int]], end: int, chunk_bytes: int) -> list[Chunk]:
    pieces: list[list[Piece]] = [[] for _ in range(-(-end // chunk_bytes))]
    for number, offset in laid:
        start = 0
        while start < items[number].nbytes:
            at = offset + start
            room = chunk_bytes - at % chunk_bytes
            nbytes = min(room, items[number].nbytes - start)
            pieces[at // chunk_bytes].append(Piece(number, start, at, nbytes))
            start += nbytes
    return [
        Chunk(k * chunk_bytes, min(chunk_bytes, end - k * chunk_bytes), tuple(held)) for k, held in enumerate(pieces)
    ]
