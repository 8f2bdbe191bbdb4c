"""safetensors: a JSON header, then the tensors' bytes without gaps.

    offset 0      u64 little-endian     N, bytes of the header
    offset 8      N bytes               UTF-8 JSON, one object, padded with blanks:
                    "__metadata__":  {str: str}                                      optional
                    NAME:            {"dtype": "F32", "shape": [2, 3], "data_offsets": [BEGIN, END]}
    offset 8 + N  the bytes             BEGIN and END count from here; little-endian, C order

Source: https://huggingface.co/docs/safetensors (format), and the safetensors library 0.8, which also refuses a file
whose tensors, put in order, leave a gap, overlap, or do not end where the file ends. So does this reader. It differs
where the library is silent: a name listed twice, or one with a NUL, is refused; so is a tensor written as an array.

The header is walked piece by piece or entry by entry, so that a broken one is refused where it breaks and costs no more
memory than what was read before it: `json.loads` would build objects worth 20 times the text first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from operator import itemgetter
from typing import NoReturn

from .checkpoint import Checkpoint, Extent, SourceTensor
from .checks import brief, name_fault, shape_fault
from .dtypes import ITEMSIZE
from .errors import FormatError, UnsupportedFormat
from .json_text import BLANKS, JsonText
from .limits import MAX_HEADER_BYTES, MAX_TENSORS
from .safetensors_usual import kind_of, usual_tensors
from .source import ByteSource, read
from .table import Kind

METADATA_KEY = "__metadata__"
LENGTH_BYTES = 8
# The text of one tensor's entry. 32 dimensions of 20 digits and generous blanks stay far below.
MAX_ENTRY_CHARS = 16_384
# MindSpore marks tensors there by name. A header full of keys of three letters would take 20 times its size.
MAX_METADATA_KEYS = MAX_TENSORS

_WS = r"[ \t\r\n]*"
# An entry as every known writer puts it down. Whatever does not match is read slowly, and there gets its error.
_USUAL = re.compile(
    rf'{_WS}"(?!{METADATA_KEY}")([^"\\\x00-\x1f]*)"{_WS}:{_WS}\{{{_WS}"dtype"{_WS}:{_WS}"([A-Z0-9_]+)"{_WS},'
    rf'{_WS}"shape"{_WS}:{_WS}\[([0-9, ]*)\]{_WS},'
    rf'{_WS}"data_offsets"{_WS}:{_WS}\[(0|[1-9][0-9]{{0,18}}), ?(0|[1-9][0-9]{{0,18}})\]{_WS}\}}{_WS}([,}}])'
)


# begin, end, position in the header's text, name, dtype, shape, bytes that dtype and shape make. A bare tuple: a named
# one takes three times as long to build, and 100,000 of them keep the garbage collector busy.
_Entry = tuple[int, int, int, str, str, tuple[int, ...], int]


class SafetensorsReader:
    """Reads one safetensors file."""

    format = "safetensors"

    def accepts(self, head: bytes, size: int) -> bool:
        """Whether an object opens where the header has to. A wrong length is left for `parse` to name."""
        if not head[LENGTH_BYTES:].lstrip(BLANKS.encode()).startswith(b"{"):
            return False
        length = head[:LENGTH_BYTES]
        # Text may have a brace there, and so may the first name in a .ckpt, which starts with a line feed.
        is_other = length[:1] == b"\n" or all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in length)
        return int.from_bytes(length, "little") <= MAX_HEADER_BYTES or not is_other

    def parse(self, source: ByteSource) -> Checkpoint:
        """The checkpoint in `source`, tensors in the order of their bytes. FormatError as the module says."""
        text, start = _read_header(source)
        walk = _Walk(text, source.path)
        pos, more = walk.begin()
        tensors: Sequence[SourceTensor] | None = None
        if more:
            tensors = usual_tensors(text, walk.blanks(pos), start, source.size - start, MAX_TENSORS)
        if tensors is None:
            walk.run(pos, more)
            tensors = _place(walk.entries, start, source, walk)
        return Checkpoint(self.format, tensors, (source,), walk.metadata)


READER = SafetensorsReader()


def _read_header(source: ByteSource) -> tuple[str, int]:
    path, size = source.path, source.size
    if size < LENGTH_BYTES:
        raise FormatError("ends within the header's length", path=path, offset=size, expected="8 bytes")
    nbytes = int.from_bytes(read(source, 0, LENGTH_BYTES), "little")
    if nbytes > MAX_HEADER_BYTES:
        expected = f"at most {MAX_HEADER_BYTES}"
        raise FormatError(f"the header claims {nbytes} bytes", path=path, offset=0, expected=expected)
    if nbytes > size - LENGTH_BYTES:
        expected = f"at most {size - LENGTH_BYTES}, as the file has {size}"
        raise FormatError(f"the header claims {nbytes} bytes", path=path, offset=0, expected=expected)
    try:
        return read(source, LENGTH_BYTES, nbytes).decode(), LENGTH_BYTES + nbytes
    except UnicodeDecodeError as exc:
        offset = LENGTH_BYTES + exc.start
        raise FormatError("the header is no UTF-8", path=path, offset=offset, expected="JSON in UTF-8") from exc


class _Walk(JsonText):
    """One pass over the header's text; `entries` and `metadata` hold what it found."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text, path, LENGTH_BYTES)
        self.entries: list[_Entry] = []
        self.metadata: dict[str, str] = {}
        self._had_metadata = False
        self._kinds: dict[tuple[str, str], Kind] = {}

    def begin(self) -> tuple[int, bool]:
        """Reads what stands before the tensors -> (where it stopped, whether the object goes on there)."""
        pos = self.expect("{", 0, "a JSON object")
        more = self.peek(pos) != "}"
        if not more:
            return self.expect("}", pos, "an entry"), False
        return self._unusual(pos) if self.text.startswith(f'"{METADATA_KEY}"', pos) else (pos, True)

    def run(self, pos: int, more: bool) -> None:
        """Reads every entry from where `begin` stopped; FormatError at the first that is wrong."""
        while more:
            pos, more = self._usual(pos)
            if more:
                pos, more = self._unusual(pos)
        if self.blanks(pos) != len(self.text):
            self.fail("text after the header's object", self.blanks(pos), "blanks only")

    def _usual(self, pos: int) -> tuple[int, bool]:
        """Reads entries while they look as usual -> (where it stopped, whether the object goes on there)."""
        match, text = _USUAL.match, self.text
        add, kinds = self.entries.append, self._kinds
        while found := match(text, pos):
            name, dtype, dims, begin, end, after = found.groups()
            kind = kinds.get((dtype, dims))
            if kind is None:
                if (kind := kind_of(dtype, dims)) is None:
                    return pos, True
                kinds[dtype, dims] = kind
            add((int(begin), int(end), pos, name, kind[0], kind[1], kind[2]))
            pos = found.end()
            if after == "}":
                return pos, False
        return pos, True

    def _unusual(self, pos: int) -> tuple[int, bool]:
        """Reads one entry however it is written -> (position after it, whether more follow)."""
        at = self.blanks(pos)
        name, pos = self.string(at)
        pos = self.expect(":", pos, "':' after a name")
        if name != METADATA_KEY:
            pos = self._tensor(name, at, pos)
        elif self._had_metadata:
            self.fail(f"{METADATA_KEY} is listed twice", at, "one")
        else:
            self._had_metadata = True
            pos = self._metadata(pos)
        return self.separator(pos)

    def _tensor(self, name: str, at: int, pos: int) -> int:
        value, pos = self._object(name, pos)
        fields = dict(value)
        if len(fields) != len(value):
            self.fail("a field is listed twice", at, "each once", name)
        dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
        if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list)):
            self.fail("an entry without dtype, shape and data_offsets", at, "all three", name)
        if dtype not in ITEMSIZE:
            message, known = f"dtype {brief(dtype)}", ", ".join(ITEMSIZE)
            raise UnsupportedFormat(message, path=self.path, tensor=name, offset=self.byte(at), expected=known)
        if fault := shape_fault(shape):
            self.fail(fault.message, at, fault.expected, name)
        if len(offsets) != 2 or not all(type(offset) is int and 0 <= offset < 1 << 63 for offset in offsets):
            self.fail(f"data_offsets {brief(offsets)}", at, "two integers from 0 up", name)
        self.entries.append((offsets[0], offsets[1], at, name, dtype, tuple(shape), prod(shape) * ITEMSIZE[dtype]))
        return pos

    def _object(self, name: str, pos: int) -> tuple[tuple[tuple[str, object], ...], int]:
        pos = self.blanks(pos)
        close = self.text.find("}", pos, pos + MAX_ENTRY_CHARS)
        if self.peek(pos) != "{" or close < 0:
            self.fail("an entry is no short JSON object", pos, '{"dtype", "shape", "data_offsets"}', name)
        return self.value(pos, close + 1, "a flat object", name)

    def _metadata(self, pos: int) -> int:
        if self.text.startswith("null", self.blanks(pos)):
            return self.blanks(pos) + 4
        pos = self.expect("{", pos, f"an object for {METADATA_KEY}")
        more = self.peek(pos) != "}"
        if not more:
            return self.expect("}", pos, "'}'")
        while more:
            at = self.blanks(pos)
            key, pos = self.string(at)
            if key in self.metadata:
                self.fail(f"{METADATA_KEY} lists {brief(key)} twice", at, "each key once")
            if len(self.metadata) == MAX_METADATA_KEYS:
                self.fail(f"{METADATA_KEY} has too many keys", at, f"at most {MAX_METADATA_KEYS}")
            self.metadata[key], pos = self.string(self.expect(":", pos, "':' after a key"))
            pos, more = self.separator(pos)
        return pos


def _place(entries: list[_Entry], start: int, source: ByteSource, walk: _Walk) -> tuple[SourceTensor, ...]:
    """The tensors in the order of their bytes, which have to follow one another from `start` to the file's end."""
    if len(entries) > MAX_TENSORS:
        walk.fail(f"{len(entries)} tensors", 0, f"at most {MAX_TENSORS}")
    _check_names(entries, walk)
    entries.sort()
    position = 0
    tensors = []
    for begin, end, at, name, dtype, shape, nbytes in entries:
        if begin != position or end - begin != nbytes:
            _misplaced(begin, end, name, nbytes, position, walk.byte(at), source.path)
        extents = (Extent(0, start + begin, nbytes),) if nbytes else ()
        tensors.append(SourceTensor(name, dtype, shape, extents))
        position = end
    if start + position != source.size:
        missing = start + position > source.size
        message = "the file ends before its tensors do" if missing else "bytes follow the last tensor"
        last = entries[-1][3] if entries else None
        raise FormatError(
            message,
            path=source.path,
            tensor=last,
            offset=min(start + position, source.size),
            expected=f"{start + position} bytes, not {source.size}",
        )
    return tuple(tensors)


def _check_names(entries: list[_Entry], walk: _Walk) -> None:
    for entry in entries:
        # 256 characters cannot exceed the limit in bytes, and a printable name has neither NULs nor half surrogates.
        ordinary = len(entry[3]) <= 256 and entry[3].isprintable()
        if not ordinary and (fault := name_fault(entry[3])):
            walk.fail(fault.message, entry[2], fault.expected, entry[3][:80])
    if len({entry[3] for entry in entries}) == len(entries):
        return
    seen: set[str] = set()
    for _, _, at, name, _, _, _ in sorted(entries, key=itemgetter(2)):
        if name in seen:
            walk.fail("is listed twice", at, "each name once", name)
        seen.add(name)


def _misplaced(begin: int, end: int, name: str, nbytes: int, position: int, offset: int, path: str) -> NoReturn:
    if begin > end:
        message, expected = f"its bytes end at {end}, before they begin at {begin}", "an end after the beginning"
    elif end - begin != nbytes:
        message, expected = f"{end - begin} bytes listed", f"{nbytes}, as dtype and shape say"
    elif begin < position:
        message, expected = f"overlaps the tensor before it, which ends at {position}", f"a beginning at {position}"
    else:
        message, expected = f"{begin - position} bytes before it belong to no tensor", f"a beginning at {position}"
    raise FormatError(message, path=path, tensor=name, offset=offset, expected=expected)
