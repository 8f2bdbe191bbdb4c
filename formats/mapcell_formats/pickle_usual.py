"""A tensor in a torch pickle, recognised as a whole: 40 opcodes that torch puts down alike for each one.

    h FUNCTION ( ( h "storage" h CLASS X KEY r 0 h "cpu" ELEMENTS t r 1 Q OFFSET SHAPE r 2 STRIDES r 3
    NEWFALSE h ORDEREDDICT ) R r 4 t r 5 R r 6

where `h`, or `j` with a longer number, fetches from the memo and `r` puts into it, with numbers that count up from what
it holds; the numbers are K, M or J; SHAPE and STRIDES are tuples of at least one number. What looks otherwise is
walked opcode by opcode (`pickle_walk.py`), and so are the first tensors of each file, which are written with shorter
numbers.

Source: CPython's Lib/pickletools.py, and what torch 1.6 to 2.13 write.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from .pickle_vocabulary import Vocabulary

# What objects are charged with.
CONTAINER_BYTES = 64
TEXT_BYTES = 56
# Numbers from here on are put down as `r` with four bytes.
FIRST_MEMO = 256
# Objects that are put into the memo.
MEMO_ITEMS = 7

_NUMBER = rb"(?:K.|M..|J....)"
_GET = rb"(h.|j....)"
_TUPLE = rb"(\(" + _NUMBER + rb"++t|" + _NUMBER + rb"++[\x85-\x87])"
_CALL = re.compile(
    _GET + rb"\(\(" + _GET + _GET + rb"X(.)\0\0\0([0-9]++)r(....)" + _GET + rb"(" + _NUMBER + rb")tr(....)Q"
    rb"(" + _NUMBER + rb")" + _TUPLE + rb"r(....)" + _TUPLE + rb"r(....)"
    rb"\x89" + _GET + rb"\)Rr(....)tr(....)Rr(....)",
    re.DOTALL,
)
_MEMO_NUMBERS = struct.Struct(f"<{MEMO_ITEMS}I")
_WIDTHS = {ord("K"): 1, ord("M"): 2, ord("J"): 4}


# As its opcodes are charged one by one: two marks, four tuples, three calls, a text, and room in them.
_CALL_BYTES = 12 * CONTAINER_BYTES + TEXT_BYTES + 8 * 11
# Different tuples that are remembered: a model has few shapes, each many times.
MAX_KNOWN = 4096
# From the last REDUCE to the end.
_REDUCED = 6


class Call(NamedTuple):
    """One such tensor; `function`, `storage`, `kind`, `device` and `hooks` are numbers in the memo."""

    end: int
    function: int
    storage: int
    kind: int
    device: int
    hooks: int
    key: str
    elements: bytes
    offset: bytes
    shape: bytes
    strides: bytes


def usual_call(data: bytes, pos: int, held: int) -> Call | None:
    """The tensor at `pos`, when it is as usual; the memo holds `held` objects."""
    found = _CALL.match(data, pos) if held >= FIRST_MEMO else None
    if found is None:
        return None
    f, s, k, length, key, m0, d, elements, m1, offset, shape, m2, strides, m3, h, m4, m5, m6 = found.groups()
    in_turn = b"".join((m0, m1, m2, m3, m4, m5, m6)) == _MEMO_NUMBERS.pack(*range(held, held + MEMO_ITEMS))
    function, storage, kind, device, hooks = (int.from_bytes(get[1:], "little") for get in (f, s, k, d, h))
    if not in_turn or length[0] != len(key) or max(function, storage, kind, device, hooks) >= held:
        return None
    text = key.decode("ascii")
    return Call(found.end(), function, storage, kind, device, hooks, text, elements, offset, shape, strides)


def numbers(raw: bytes) -> tuple[int, ...] | None:
    """The numbers in the opcodes `raw`, of a tuple or a single one; None when the tuple is not of as many."""
    end = raw[-1] if raw[0] != ord("(") else 0
    pos = int(raw[0] == ord("("))
    found = []
    while raw[pos : pos + 1] in (b"K", b"M", b"J"):
        width = _WIDTHS[raw[pos]]
        found.append(int.from_bytes(raw[pos + 1 : pos + 1 + width], "little", signed=width == 4))
        pos += 1 + width
    is_tuple = pos < len(raw)
    return None if is_tuple and end and len(found) != end - 0x84 else tuple(found)


class Made(NamedTuple):
    """A tensor was made, and is the memo's last object; its opcodes end at `end`, and are charged with `nbytes`."""

    end: int
    nbytes: int


class Usual:
    """Makes the usual tensors of the pickle in `data`, which begins at byte `start` of its file, if it lies there."""

    def __init__(self, data: bytes, vocabulary: Vocabulary, start: int, *, in_file: bool) -> None:
        self._data = data
        self._vocabulary = vocabulary
        self._start = start
        self._in_file = in_file
        self._tuples: dict[bytes, tuple[int, ...] | None] = {}

    def make(self, pos: int, memo: list[object]) -> Made | None:
        """Adds to the memo what the tensor at `pos` adds; None, with nothing done, when it has to be walked."""
        call = usual_call(self._data, pos, len(memo))
        if call is None:
            return None
        size, offset = self._numbers(call.elements), self._numbers(call.offset)
        shape, strides = self._numbers(call.shape), self._numbers(call.strides)
        if size is None or offset is None or shape is None or strides is None:
            return None
        at = self._start + call.end - _REDUCED if self._in_file else self._start
        try:
            tensor = self._tensor(call, size[0], offset[0], shape, strides, memo, at)
        except KeyError:
            return None
        memo += (call.key, _SPENT, shape, strides, _SPENT, _SPENT, tensor)
        return Made(call.end, _CALL_BYTES + len(call.key) + 16 * len(shape))

    def _tensor(
        self,
        call: Call,
        size: int,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        memo: list[object],
        at: int,
    ) -> object:
        known = self._vocabulary
        identity = (memo[call.storage], memo[call.kind], call.key, memo[call.device], size)
        hooks = known.call(memo[call.hooks], (), at)
        arguments = (known.persistent(identity, at), offset, shape, strides, False, hooks)
        return known.call(memo[call.function], arguments, at)

    def _numbers(self, raw: bytes) -> tuple[int, ...] | None:
        known = self._tuples.get(raw)
        if known is None:
            known = numbers(raw)
            if len(self._tuples) < MAX_KNOWN:
                self._tuples[raw] = known
        return known


class _Spent:
    """Stands in the memo for what only made one tensor. No pickler fetches it again, and nothing comes of it."""

    name = "what made a tensor"


_SPENT = _Spent()
