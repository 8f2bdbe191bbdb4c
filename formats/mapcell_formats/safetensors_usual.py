"""The header of a safetensors file as the known writers put it down, read at once; `safetensors` has the layout.

A piece of it is cut into its entries' fields, and then each field is looked at in all of them before the next one is,
by functions that are written in C. Whatever is otherwise, broken or merely unusual, is left to the walk from entry to
entry, which alone knows errors. A piece at a time, so that a text which breaks costs no more than what stands before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from math import prod
from operator import itemgetter

from .checks import shape_fault
from .dtypes import ITEMSIZE
from .json_text import BLANKS
from .table import Kind, TensorTable

# Characters that are cut at once: fields that stay in the cache are a sixth faster.
_PIECE = 1 << 16
# No usual entry is longer: where none ends within so many characters more, nothing is as usual.
_LONGEST = 1 << 14
# What cutting gives for each entry: what stands before it, its name, dtype with dimensions, beginning and end.
_FIELDS = 5
_SHAPE = re.compile(r"(?:(?:0|[1-9][0-9]{0,17})(?:, ?(?:0|[1-9][0-9]{0,17})){0,31})?")


def kind_of(dtype: str, dims: str) -> Kind | None:
    """The kind of tensor whose entry has these texts as its dtype and within its shape's brackets; None for none."""
    if dtype not in ITEMSIZE or not _SHAPE.fullmatch(dims):
        return None
    shape = tuple(map(int, dims.split(","))) if dims else ()
    return None if shape_fault(shape) else Kind(dtype, shape, prod(shape) * ITEMSIZE[dtype])


def usual_tensors(text: str, pos: int, start: int, nbytes: int, most: int) -> TensorTable | None:
    """The tensors that the header `text` lists from `pos` to its end, and whose `nbytes` bytes begin at byte `start`.

    None unless there are 1 to `most` of them and everything is as usual, which means that it is sound.
    """
    # Python's json puts a blank behind each colon and comma, safetensors' own writer none.
    blank = " " if text.startswith(" ", text.find('":', pos) + 2) else ""
    between = f'}},{blank}"'
    columns = _Columns()
    more = True
    while more:
        found = text.find(between, pos + _PIECE, pos + _PIECE + _LONGEST)
        more = found >= 0
        if not more and len(text) - pos > _PIECE + _LONGEST:
            return None
        stop = found + len(between) if more else len(text)
        parts = _entry(blank).split(text[pos:stop])
        whole = not parts[0] and parts[-1].rstrip(BLANKS) == ('"' if more else "}")
        if not (whole and columns.add(parts) and len(columns.names) <= most):
            return None
        pos = stop - 1
    return columns.table(start, nbytes)


@cache
def _entry(blank: str) -> re.Pattern[str]:
    # 1,024 characters are at most MAX_NAME_BYTES. A comma is taken only when an entry follows, a brace stays.
    number = "(0|[1-9][0-9]{0,18})"
    return re.compile(
        rf'"(?!__metadata__")([^"\\\x00-\x1f]{{0,1024}})":{blank}\{{"dtype":{blank}"'
        rf'([A-Z0-9_]+",{blank}"shape":{blank}\[[0-9, ]*)\],{blank}'
        rf'"data_offsets":{blank}\[{number},{blank}{number}\]\}}(?:,{blank}(?=")|(?=\}}))'
    )


class _Columns:
    """What entries say, field by field."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._kinds: list[Kind] = []
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._known: dict[str, Kind] = {}

    def add(self, parts: Sequence[str]) -> bool:
        """Whether the fields of more entries are sound; they are kept then."""
        names, specs, begins, ends = (parts[field::_FIELDS] for field in range(1, _FIELDS))
        if any(parts[_FIELDS:-1:_FIELDS]) or not all(map(self._learn, set(specs).difference(self._known))):
            return False
        self.names += names
        self._kinds += map(self._known.__getitem__, specs)
        self._begins += map(int, begins)
        self._ends += map(int, ends)
        return True

    def _learn(self, spec: str) -> bool:
        kind = kind_of(spec[: spec.index('"')], spec[spec.index("[") + 1 :])
        if kind is not None:
            self._known[spec] = kind
        return kind is not None

    def table(self, start: int, nbytes: int) -> TensorTable | None:
        """The tensors in the order of their bytes; None unless these are `nbytes` without gaps and the names differ."""
        adjoin = self._adjoin() or self._sort()
        ends = list(accumulate(map(itemgetter(2), self._kinds)))
        numbers = dict(zip(self.names, range(len(ends)), strict=True))
        sound = adjoin and self._begins[0] == 0 and self._ends == ends and ends[-1] == nbytes
        return TensorTable(start, numbers, self._kinds, ends) if sound and len(numbers) == len(ends) else None

    def _adjoin(self) -> bool:
        return self._begins[1:] == self._ends[:-1]

    def _sort(self) -> bool:
        places = list(zip(self._begins, self._ends, strict=True))
        order = sorted(range(len(places)), key=places.__getitem__)
        self.names = [self.names[number] for number in order]
        self._kinds = [self._kinds[number] for number in order]
        self._begins = [self._begins[number] for number in order]
        self._ends = [self._ends[number] for number in order]
        return self._adjoin()
