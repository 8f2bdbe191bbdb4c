"""Reads the few opcodes of a Python pickle that plain data is made of, and executes nothing.

    pickle      PROTO 2 to 5, opcodes, STOP; all integers little-endian
    read        numbers, text, None, tuples, lists, dicts with text or integers for keys, the memo, and three opcodes
                that name things outside: GLOBAL (or STACK_GLOBAL), REDUCE and BINPERSID
    refused     every other opcode: those that make classes (INST, OBJ, NEWOBJ), extensions, sets, bytes, the text
                opcodes of protocol 0, and POP, which only recursive tuples need

What is outside is not imported: a `Vocabulary` says which names there are and what a call of one means, and both are
looked up in tables. BUILD sets attributes of a dict, as torch does with `_metadata`; they are walked and dropped.

A byte of a pickle can make an object of 64 bytes. What is made is counted, and may be at most ALLOWANCE bytes and
ALLOWANCE_FACTOR times the pickle, and never more than MAX_OBJECT_BYTES. By this count, which supposes more than CPython
takes, real state dicts make 9 to 18 times their pickle.

Tensors that look as torch has always written them are read at once (`pickle_usual.py`).

Source: CPython's Lib/pickletools.py, which describes each opcode; PEP 307, PEP 3154, PEP 574.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import NoReturn

from .checks import brief
from .errors import FormatError, UnsupportedFormat
from .pickle_opcodes import REFUSED
from .pickle_usual import CONTAINER_BYTES, TEXT_BYTES, Usual
from .pickle_vocabulary import Vocabulary

# 250,000 tensors and more: 120 bytes each is usual.
MAX_PICKLE_BYTES = 32 * 1024 * 1024
MAX_NAME_BYTES = 256
ALLOWANCE = 256 * 1024
ALLOWANCE_FACTOR = 24
MAX_OBJECT_BYTES = 384 * 1024 * 1024

_PLAIN = "plain data and tensors: save model.state_dict(), or convert it to safetensors"


class Walk:
    """One pass over the pickle in `data`, which begins at byte `start` of the file `path`.

    With `in_file` it lies there as it is; else errors can only say where its member begins.
    """

    def __init__(self, data: bytes, vocabulary: Vocabulary, path: str, start: int, *, in_file: bool = True) -> None:
        self._data = data
        self._vocabulary = vocabulary
        self._path = path
        self._start = start
        self._in_file = in_file
        self._pos = 0
        self._at = 0
        self._left = min(ALLOWANCE + ALLOWANCE_FACTOR * len(data), MAX_OBJECT_BYTES)
        self._stack: list[object] = []
        self._marks: list[list[object]] = []
        self._memo: list[object] = []
        self._usual = Usual(data, vocabulary, start, in_file=in_file)

    def run(self) -> object:
        """The value that the pickle holds. FormatError where it is broken, UnsupportedFormat where it is more."""
        data, handlers = self._data, _HANDLERS
        if data[:1] != b"\x80" or data[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05"):
            self.unsupported("begins with no PROTO from 2 to 5")
        self._pos = 2
        try:
            while (code := data[self._pos]) != _STOP:
                self._at = self._pos
                self._pos += 1
                handler = handlers.get(code)
                if handler is None:
                    self._refuse(code)
                handler(self)
        except IndexError:
            self.broken("the pickle ends without STOP")
        self._at = self._pos
        self._pos += 1
        return self._end()

    def broken(self, message: str, expected: str = "a whole pickle, as torch.save writes it") -> NoReturn:
        """Raises FormatError about the opcode at hand."""
        raise FormatError(message, path=self._path, offset=self._offset(), expected=expected)

    def unsupported(self, message: str) -> NoReturn:
        """Raises UnsupportedFormat about the opcode at hand."""
        raise UnsupportedFormat(
            f"the pickle {message}; it is not executed", path=self._path, offset=self._offset(), expected=_PLAIN
        )

    def _offset(self) -> int:
        return self._start + self._at if self._in_file else self._start

    def _end(self) -> object:
        if self._marks or len(self._stack) != 1:
            self.broken("STOP with an unfinished value")
        if self._pos != len(self._data):
            self.broken("bytes follow STOP")
        return self._stack[0]

    def _refuse(self, code: int) -> NoReturn:
        if code in REFUSED:
            self.unsupported(f"has the opcode {REFUSED[code]}")
        self.broken(f"{code:#04x} is no opcode of a pickle")

    # --- bytes and the stack ---

    def _take(self, nbytes: int) -> bytes:
        end = self._pos + nbytes
        if end > len(self._data):
            self.broken(f"an opcode claims {nbytes} bytes, of which {len(self._data) - self._pos} are left")
        piece = self._data[self._pos : end]
        self._pos = end
        return piece

    def _number(self, nbytes: int) -> int:
        return int.from_bytes(self._take(nbytes), "little")

    def _byte(self) -> int:
        # Of the usual opcodes most have one. At the end `run` meets the IndexError.
        value = self._data[self._pos]
        self._pos += 1
        return value

    def _pop(self) -> object:
        if not self._stack:
            self.broken("takes a value from an empty stack")
        return self._stack.pop()

    def _pop_mark(self) -> list[object]:
        if not self._marks:
            self.broken("ends what no MARK began")
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _top(self) -> object:
        if not self._stack:
            self.broken("uses a value of an empty stack")
        return self._stack[-1]

    def _charge(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._left < 0:
            self.broken("makes more objects than its bytes can be meant to")

    # --- plain values ---

    def _none(self) -> None:
        self._stack.append(None)

    def _true(self) -> None:
        self._stack.append(True)

    def _false(self) -> None:
        self._stack.append(False)

    def _int1(self) -> None:
        self._stack.append(self._byte())

    def _int2(self) -> None:
        self._stack.append(self._number(2))

    def _int4(self) -> None:
        self._stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._byte()), "little", signed=True))

    def _float(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def _text1(self) -> None:
        self._text(self._byte())

    def _text4(self) -> None:
        self._text(self._number(4))

    def _text(self, nbytes: int) -> None:
        raw = self._take(nbytes)
        # A character is at most 4 bytes in memory, and at least 1 here.
        self._charge(TEXT_BYTES + (nbytes if raw.isascii() else 4 * nbytes))
        try:
            self._stack.append(raw.decode())
        except UnicodeDecodeError:
            self.broken("text that is no UTF-8")

    # --- containers ---

    def _mark(self) -> None:
        self._charge(CONTAINER_BYTES)
        self._marks.append(self._stack)
        self._stack = []

    def _empty_dict(self) -> None:
        self._charge(CONTAINER_BYTES)
        self._stack.append({})

    def _empty_list(self) -> None:
        self._charge(CONTAINER_BYTES)
        self._stack.append([])

    def _empty_tuple(self) -> None:
        self._stack.append(())

    def _tuple(self) -> None:
        self._push_tuple(self._pop_mark())

    def _tuple1(self) -> None:
        self._push_tuple([self._pop()])

    def _tuple2(self) -> None:
        last = self._pop()
        self._push_tuple([self._pop(), last])

    def _tuple3(self) -> None:
        last, middle = self._pop(), self._pop()
        self._push_tuple([self._pop(), middle, last])

    def _push_tuple(self, items: list[object]) -> None:
        self._charge(CONTAINER_BYTES + 8 * len(items))
        self._stack.append(tuple(items))

    def _append(self) -> None:
        item = self._pop()
        self._extend([item])

    def _appends(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, list):
            self.broken("appends to what is no list")
        target.extend(items)

    def _set_item(self) -> None:
        value = self._pop()
        self._update([self._pop(), value])

    def _set_items(self) -> None:
        self._update(self._pop_mark())

    def _update(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            self.broken("sets items of what is no dict, or a key without its value")
        # A dict of one item has room for seven.
        self._charge(32 * len(items) + (0 if target else 3 * CONTAINER_BYTES))
        for key, value in zip(items[::2], items[1::2], strict=True):
            # As text: integers could be picked so that a dict of them takes for ever.
            name = str(key) if type(key) is int and 0 <= key < 1 << 63 else key
            if not isinstance(name, str):
                self.unsupported(f"has {_show(key)} for a key")
            if name in target:
                self.broken(f"the key {brief(name)} comes twice")
            target[name] = value

    # --- the memo, and names of what is outside ---

    def _put1(self) -> None:
        self._put(self._byte())

    def _put4(self) -> None:
        self._put(self._number(4))

    def _memoize(self) -> None:
        self._put(len(self._memo))

    def _put(self, number: int) -> None:
        value = self._top()
        # Every pickler counts up from 0; anything else would let a few bytes claim gigabytes.
        if number > len(self._memo):
            self.broken(f"memo {number} after {len(self._memo)}")
        if number == len(self._memo):
            self._memo.append(value)
        else:
            self._memo[number] = value

    def _get1(self) -> None:
        if not self._tensor():
            self._get(self._byte())

    def _get4(self) -> None:
        if not self._tensor():
            self._get(self._number(4))

    def _tensor(self) -> bool:
        """Reads a usual tensor, if there is one."""
        made = self._usual.make(self._at, self._memo)
        if made is not None:
            self._charge(made.nbytes)
            self._stack.append(self._memo[-1])
            self._pos = made.end
        return made is not None

    def _get(self, number: int) -> None:
        if number >= len(self._memo):
            self.broken(f"memo {number} of {len(self._memo)}")
        self._stack.append(self._memo[number])

    def _global(self) -> None:
        names = []
        for _ in range(2):
            end = self._data.find(b"\n", self._pos, self._pos + MAX_NAME_BYTES + 1)
            if end < 0:
                self.broken("a GLOBAL without its names")
            names.append(self._take(end - self._pos).decode("utf-8", "replace"))
            self._pos += 1
        self._find(names[0], names[1])

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self.broken("a STACK_GLOBAL without names")
        self._find(module, name)

    def _find(self, module: str, name: str) -> None:
        wanted = f"{module}.{name}"
        try:
            self._stack.append(self._vocabulary.find(wanted))
        except KeyError:
            self.unsupported(f"names {brief(wanted)}")

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            self.broken("calls with what is no tuple")
        self._charge(2 * CONTAINER_BYTES)
        try:
            self._stack.append(self._vocabulary.call(function, arguments, self._offset()))
        except KeyError:
            self.unsupported(f"calls {_show(function)} with ({', '.join(map(_show, arguments[:8]))})")

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if not isinstance(target, dict) or not isinstance(state, dict):
            self.unsupported("sets the state of an object")

    def _persistent(self) -> None:
        identity = self._pop()
        self._charge(2 * CONTAINER_BYTES)
        try:
            self._stack.append(self._vocabulary.persistent(identity, self._offset()))
        except KeyError:
            self.unsupported(f"refers to {_show(identity)}")

    def _frame(self) -> None:
        if self._number(8) > len(self._data) - self._pos:
            self.broken("a frame that is longer than the pickle")


def _show(value: object) -> str:
    """`value` for an error. Never the inside of a container: a few bytes can make one whose text has no end."""
    return brief(value) if isinstance(value, str | int | float | None) else getattr(value, "name", type(value).__name__)


_STOP = ord(".")
_HANDLERS: Mapping[int, Callable[[Walk], None]] = {
    ord("N"): Walk._none,
    0x88: Walk._true,
    0x89: Walk._false,
    ord("K"): Walk._int1,
    ord("M"): Walk._int2,
    ord("J"): Walk._int4,
    0x8A: Walk._long,
    ord("G"): Walk._float,
    0x8C: Walk._text1,
    ord("X"): Walk._text4,
    ord("("): Walk._mark,
    ord("}"): Walk._empty_dict,
    ord("]"): Walk._empty_list,
    ord(")"): Walk._empty_tuple,
    ord("t"): Walk._tuple,
    0x85: Walk._tuple1,
    0x86: Walk._tuple2,
    0x87: Walk._tuple3,
    ord("a"): Walk._append,
    ord("e"): Walk._appends,
    ord("s"): Walk._set_item,
    ord("u"): Walk._set_items,
    ord("q"): Walk._put1,
    ord("r"): Walk._put4,
    0x94: Walk._memoize,
    ord("h"): Walk._get1,
    ord("j"): Walk._get4,
    ord("c"): Walk._global,
    0x93: Walk._stack_global,
    ord("R"): Walk._reduce,
    ord("b"): Walk._build,
    ord("Q"): Walk._persistent,
    0x95: Walk._frame,
}
