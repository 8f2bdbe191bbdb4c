"""GGUF: llama.cpp's format. Typed keys and values, tensor infos, then the tensors' bytes, aligned.

    file    = "GGUF", u32 version, count tensors, count pairs, pair..., info..., padding, the bytes
    pair    = string key, u32 type, value
    value   = u8 (type 0) | i8 (1) | u16 (2) | i16 (3) | u32 (4) | i32 (5) | f32 (6) | bool of one byte (7) | string (8)
            | array (9) | u64 (10) | i64 (11) | f64 (12)
    array   = u32 type, count, values of that type; arrays may hold arrays
    string  = count, that many bytes of UTF-8
    info    = string name, u32 rank, dims, u32 tensor type, u64 offset
    count   = u64, and a dim too; in version 1 both are u32. Versions 2 and 3 differ in that 3 may be big-endian

* Everything is little-endian here. A big-endian file (s390x) shows by its version, and is refused.
* Dims begin with the one whose elements are neighbours: NumPy's shape is the dims reversed.
* The bytes begin at a multiple of `general.alignment` (a u32, a power of two, 32 when not given), and so does each
  tensor in them; its offset counts from there. Tensors follow one another as they are listed, each padded to the
  alignment. What follows the last one belongs to nobody.
* A quantised tensor is rows of blocks: a row of 4096 weights in Q4_0 is 128 blocks of 32 weights, of 18 bytes each.
  It comes as "U8" of shape (rows..., bytes of a row), and its type is in `metadata` under `type_key(name)`.
  `gguf_dequantise` makes floats of it.

Values become text in `metadata`, under their keys: a string as it is, everything else as JSON (NaN and Infinity as
Python spells them). Of an array or string that is longer than a person would look at (a tokenizer's vocabulary) a
summary is kept: {"items": 128256, "of": "string", "sha256": "..."} or {"bytes": 2097152, "sha256": "..."}, hashed as it
is encoded in the file, so that the content digests of two models with different vocabularies still differ.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; version 1 as llama.cpp of August 2023 wrote it. What
that leaves open is as ggml's src/gguf.cpp has it: no key and no name twice, no bytes between tensors but padding.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from math import prod
from typing import NamedTuple, NoReturn

from .checkpoint import MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS, Checkpoint, Extent, SourceTensor
from .checks import brief, name_fault, shape_fault
from .dtypes import ITEMSIZE
from .errors import FormatError, UnsupportedFormat
from .layout import align
from .source import ByteSource, read

MAGIC = b"GGUF"
VERSIONS = (1, 2, 3)
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"
# The specification's own limit for keys.
MAX_KEY_BYTES = 65_535
# Real files have some dozen pairs.
MAX_PAIRS = 65_536
# An array for each layer, or the names of a model's languages, is far below; a vocabulary far beyond.
MAX_ARRAY_BYTES = 16_384
# Chat templates and licences take 100 kB at most. A whole tokenizer.json may be put into one string.
MAX_STRING_BYTES = 1 << 20
# All text that is kept. With the limits above no real model comes near.
MAX_METADATA_CHARS = 16 << 20
# ggml itself reads no arrays of arrays; the specification has them.
MAX_DEPTH = 8
MAX_INNER_ARRAYS = 65_536

_READ_AHEAD = 1 << 18
_HASHED_AT_ONCE = 1 << 20
_TYPE_PREFIX = "gguf.type:"
_STRING, _ARRAY, _F32, _U32 = 8, 9, 6, 4
# What each type of value is called, and its letter in `struct` if it has a fixed size.
_TYPES: Mapping[int, tuple[str, str]] = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "?"),
    8: ("string", ""),
    9: ("array", ""),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}


class Blocks(NamedTuple):
    """A quantised type: its name, and how many weights are packed into a block of how many bytes."""

    name: str
    elements: int
    nbytes: int


# Not among them: Q8_1 and Q8_K, which occur in memory only, and types that llama.cpp has given up.
DTYPES: Mapping[int, str] = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
QUANTISED: Mapping[int, Blocks] = {
    2: Blocks("Q4_0", 32, 18),
    3: Blocks("Q4_1", 32, 20),
    6: Blocks("Q5_0", 32, 22),
    7: Blocks("Q5_1", 32, 24),
    8: Blocks("Q8_0", 32, 34),
    10: Blocks("Q2_K", 256, 84),
    11: Blocks("Q3_K", 256, 110),
    12: Blocks("Q4_K", 256, 144),
    13: Blocks("Q5_K", 256, 176),
    14: Blocks("Q6_K", 256, 210),
    16: Blocks("IQ2_XXS", 256, 66),
    17: Blocks("IQ2_XS", 256, 74),
    18: Blocks("IQ3_XXS", 256, 98),
    19: Blocks("IQ1_S", 256, 50),
    20: Blocks("IQ4_NL", 32, 18),
    21: Blocks("IQ3_S", 256, 110),
    22: Blocks("IQ2_S", 256, 82),
    23: Blocks("IQ4_XS", 256, 136),
    29: Blocks("IQ1_M", 256, 56),
    34: Blocks("TQ1_0", 256, 54),
    35: Blocks("TQ2_0", 256, 66),
    39: Blocks("MXFP4", 32, 17),
    40: Blocks("NVFP4", 64, 36),
    41: Blocks("Q1_0", 128, 18),
}


def type_key(name: str) -> str:
    """The key in `Checkpoint.metadata` under which the type ("Q4_0") of the quantised tensor `name` stands."""
    return _TYPE_PREFIX + name


def parse_type_key(key: str) -> str | None:
    """The tensor's name when `key` is one that `type_key` made, else None."""
    return key[len(_TYPE_PREFIX) :] if key.startswith(_TYPE_PREFIX) else None


class GGUFReader:
    """Reads one GGUF file."""

    format = "gguf"

    def accepts(self, head: bytes, size: int) -> bool:
        """Whether it begins as GGUF does, of whatever version."""
        return head.startswith(MAGIC)

    def parse(self, source: ByteSource) -> Checkpoint:
        """The checkpoint in `source`, tensors in the order of the file. FormatError as the module says."""
        cursor = _Cursor(source)
        tensor_count, pair_count = cursor.opening()
        walk = _Walk(cursor)
        walk.pairs(pair_count)
        infos = walk.infos(tensor_count)
        tensors = _Placing(source, align(cursor.offset, walk.alignment), walk.alignment).run(infos)
        types = {type_key(i.name): QUANTISED[i.kind].name for i in infos if i.kind in QUANTISED}
        return Checkpoint(self.format, tensors, (source,), walk.metadata | types)


READER = GGUFReader()


class _Cursor:
    """Goes once through a header in little-endian pieces, and checks each against what the file has left."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.tensor: str | None = None
        self._end = min(source.size, MAX_HEADER_BYTES)
        self._base = self._pos = 0
        self._window = b""
        self._count = struct.Struct("<Q")

    @property
    def offset(self) -> int:
        """Where in the file it is."""
        return self._base + self._pos

    @property
    def count_bytes(self) -> int:
        """Bytes of a count or a dim."""
        return self._count.size

    @property
    def count_code(self) -> str:
        """A count or a dim in `struct`."""
        return self._count.format[1:]

    def opening(self) -> tuple[int, int]:
        """Reads up to the pairs: how many tensors and how many pairs are announced."""
        if self.take(len(MAGIC), "the magic number") != MAGIC:
            self.fail("is no GGUF", 0, "GGUF")
        version = self.u32("the version")
        if version and not version & 0xFFFF:
            self._unsupported("big-endian GGUF, made for s390x", "a little-endian file")
        if version not in VERSIONS:
            self._unsupported(f"GGUF version {version}", "version 1, 2 or 3")
        self._count = struct.Struct("<I" if version == 1 else "<Q")
        return self.count("the number of tensors"), self.count("the number of pairs")

    def take(self, nbytes: int, what: str) -> bytes:
        """The next `nbytes`. The caller has a limit for them."""
        stop = self._pos + nbytes
        if stop > len(self._window):
            self._refill(nbytes, what)
            stop = nbytes
        start, self._pos = self._pos, stop
        return self._window[start:stop]

    def skip(self, nbytes: int, what: str) -> None:
        """Goes over `nbytes` without reading them."""
        self.check(nbytes, what)
        self._pos += nbytes

    def back(self, offset: int) -> None:
        """Goes back to `offset`."""
        if offset < self._base:
            self._base, self._window = offset, b""
        self._pos = offset - self._base

    def check(self, nbytes: int, what: str) -> None:
        """FormatError unless `nbytes` more can follow."""
        left = self._end - self.offset
        if nbytes > left:
            bound = "the file's end" if self._end == self.source.size else f"byte {self._end}, where headers end"
            self.fail(f"{what} claims {nbytes} bytes", self.offset, f"at most {left} up to {bound}")

    def u32(self, what: str) -> int:
        """A u32."""
        return int.from_bytes(self.take(4, what), "little")

    def count(self, what: str) -> int:
        """A count."""
        return int.from_bytes(self.take(self._count.size, what), "little")

    def text(self, limit: int, what: str) -> str:
        """A string of at most `limit` bytes, which has to be UTF-8."""
        at, nbytes = self.offset, self.count(f"{what}'s length")
        if nbytes > limit:
            self.fail(f"{what} of {nbytes} bytes", at, f"at most {limit}")
        try:
            return self.take(nbytes, what).decode()
        except UnicodeDecodeError as exc:
            offset = at + self._count.size + exc.start
            expected = "UTF-8"
            raise FormatError(f"{what} is no UTF-8", path=self.source.path, offset=offset, expected=expected) from exc

    def skip_strings(self, count: int) -> None:
        """Goes over `count` strings: hundreds of thousands in a vocabulary."""
        width, length = self._count.size, self._count.unpack_from
        self.check(count * width, f"an array of {count} strings")
        while count:
            if self._pos + width > len(self._window):
                self._refill(width, "a string's length")
            window, last = self._window, len(self._window) - width
            start = pos = self._pos
            while count and pos <= last:
                start, pos = pos, pos + width + length(window, pos)[0]
                count -= 1
            self._pos = start
            self.skip(pos - start, "a string")

    def fail(self, message: str, offset: int, expected: str) -> NoReturn:
        """Raises FormatError about what stands at `offset`."""
        raise FormatError(message, path=self.source.path, tensor=self.tensor, offset=offset, expected=expected)

    def _unsupported(self, message: str, expected: str) -> NoReturn:
        raise UnsupportedFormat(message, path=self.source.path, offset=len(MAGIC), expected=expected)

    def _refill(self, nbytes: int, what: str) -> None:
        self.check(nbytes, what)
        at = self.offset
        self._window = bytes(read(self.source, at, max(nbytes, min(_READ_AHEAD, self._end - at))))
        self._base, self._pos = at, 0


class _Info(NamedTuple):
    at: int
    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int


class _Walk:
    """Pairs and infos; `metadata` and `alignment` hold what the pairs said."""

    def __init__(self, cursor: _Cursor) -> None:
        self.metadata: dict[str, str] = {}
        self.alignment = DEFAULT_ALIGNMENT
        self._cursor = cursor
        self._chars = 0
        self._inner_arrays = 0

    def pairs(self, count: int) -> None:
        """Reads `count` pairs."""
        cursor = self._cursor
        # The shortest pair: an empty key and a byte.
        cursor.check(count * (cursor.count_bytes + 5), f"{count} pairs")
        if count > MAX_PAIRS:
            cursor.fail(f"{count} pairs", cursor.offset, f"at most {MAX_PAIRS}")
        for _ in range(count):
            self._pair()

    def infos(self, count: int) -> list[_Info]:
        """Reads `count` infos."""
        cursor = self._cursor
        cursor.check(count * (cursor.count_bytes + 16), f"{count} tensors")
        if count > MAX_TENSORS:
            cursor.fail(f"{count} tensors", cursor.offset, f"at most {MAX_TENSORS}")
        seen: set[str] = set()
        shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        return [self._info(seen, shapes) for _ in range(count)]

    def _pair(self) -> None:
        cursor, at = self._cursor, self._cursor.offset
        key = cursor.text(MAX_KEY_BYTES, "a key")
        if key in self.metadata:
            cursor.fail(f"key {brief(key)} is listed twice", at, "each key once")
        if parse_type_key(key) is not None:
            cursor.fail(f"key {brief(key)} is one that mapcell uses itself", at, "another key")
        kind = cursor.u32("a value's type")
        if key == ALIGNMENT_KEY:
            self._check_alignment(kind)
        self.metadata[key] = text = self._value(kind)
        self._chars += len(key) + len(text)
        if self._chars > MAX_METADATA_CHARS:
            cursor.fail("metadata without measure", at, f"at most {MAX_METADATA_CHARS} characters")

    def _check_alignment(self, kind: int) -> None:
        cursor, at = self._cursor, self._cursor.offset
        if kind != _U32:
            cursor.fail(f"{ALIGNMENT_KEY} is of type {kind}", at, f"{_U32}, uint32")
        value = cursor.u32(ALIGNMENT_KEY)
        if not value or value & (value - 1):
            cursor.fail(f"{ALIGNMENT_KEY} is {value}", at, "a power of two")
        self.alignment = value
        cursor.back(at)

    def _value(self, kind: int) -> str:
        cursor, at = self._cursor, self._cursor.offset
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return json.dumps(self._scalars(kind, 1)[0])
        self._skip_array(0)
        end = cursor.offset
        cursor.back(at)
        if end - at > MAX_ARRAY_BYTES:
            of, items = _TYPES[cursor.u32("a type")][0], cursor.count("a length")
            cursor.skip(end - cursor.offset, "an array")
            return json.dumps({"items": items, "of": of, "sha256": _sha256(cursor.source, at, end)})
        return json.dumps(self._items(), ensure_ascii=False)

    def _string(self) -> str:
        cursor = self._cursor
        nbytes = cursor.count("a string's length")
        if nbytes > MAX_STRING_BYTES:
            start = cursor.offset
            cursor.skip(nbytes, "a string")
            return json.dumps({"bytes": nbytes, "sha256": _sha256(cursor.source, start, start + nbytes)})
        # Licences cut within a letter and tokens of single bytes occur; the model is sound all the same.
        return cursor.take(nbytes, "a string").decode(errors="backslashreplace")

    def _skip_array(self, depth: int) -> None:
        cursor, at = self._cursor, self._cursor.offset
        kind, count = cursor.u32("an array's type"), cursor.count("an array's length")
        if kind == _STRING:
            cursor.skip_strings(count)
        elif kind != _ARRAY:
            cursor.skip(count * struct.calcsize("<" + self._code(kind, at)), f"an array of {count} values")
        else:
            cursor.check(count * (cursor.count_bytes + 4), f"an array of {count} arrays")
            self._inner_arrays += count
            if depth == MAX_DEPTH or self._inner_arrays > MAX_INNER_ARRAYS:
                expected = f"at most {MAX_DEPTH} levels and {MAX_INNER_ARRAYS} arrays"
                cursor.fail("too many arrays within arrays", at, expected)
            for _ in range(count):
                self._skip_array(depth + 1)

    def _items(self) -> list[object]:
        """An array that `_skip_array` has gone over."""
        kind, count = self._cursor.u32("an array's type"), self._cursor.count("an array's length")
        if kind == _STRING:
            return [self._string() for _ in range(count)]
        if kind == _ARRAY:
            return [self._items() for _ in range(count)]
        return self._scalars(kind, count)

    def _scalars(self, kind: int, count: int) -> list[object]:
        form = f"<{count}{self._code(kind, self._cursor.offset)}"
        values = struct.unpack(form, self._cursor.take(struct.calcsize(form), "a value"))
        return list(map(_shortest, values)) if kind == _F32 else list(values)

    def _code(self, kind: int, at: int) -> str:
        if kind not in _TYPES:
            self._cursor.fail(f"there is no type {kind}", at, f"a type from 0 to {max(_TYPES)}")
        return _TYPES[kind][1]

    def _info(self, seen: set[str], shapes: dict[tuple[int, ...], tuple[int, ...]]) -> _Info:
        cursor, at = self._cursor, self._cursor.offset
        cursor.tensor = None
        name = cursor.tensor = cursor.text(MAX_NAME_BYTES, "a name")
        if fault := name_fault(name):
            cursor.fail(fault.message, at, fault.expected)
        if name in seen:
            cursor.fail("is listed twice", at, "each name once")
        seen.add(name)
        rank = cursor.u32("its number of dimensions")
        if rank > MAX_RANK:
            cursor.fail(f"{rank} dimensions", at, f"at most {MAX_RANK}")
        raw = cursor.take(rank * cursor.count_bytes + 12, "its dimensions, type and offset")
        *dims, kind, offset = struct.unpack(f"<{rank}{cursor.count_code}IQ", raw)
        shape = shapes.get(tuple(dims))
        if shape is None:
            if fault := shape_fault(dims):
                cursor.fail(fault.message, at, fault.expected)
            shape = shapes[tuple(dims)] = tuple(reversed(dims))
        return _Info(at, name, kind, shape, offset)


class _Placing:
    """Where the tensors' bytes lie, which follow one another from `start`."""

    def __init__(self, source: ByteSource, start: int, alignment: int) -> None:
        self._source, self._start, self._alignment = source, start, alignment

    def run(self, infos: list[_Info]) -> tuple[SourceTensor, ...]:
        """The tensors in order. FormatError at the first that is not where it has to be."""
        position = 0
        tensors = []
        for info in infos:
            dtype, shape = self._kind(info)
            nbytes = prod(shape) * ITEMSIZE[dtype]
            if info.offset != position:
                self._fail(info, f"its bytes begin at {info.offset}", f"{position}, where the tensor before it ends")
            offset = self._start + position
            if nbytes and offset + nbytes > self._source.size:
                self._fail(info, "the file ends before its tensors do", f"at least {offset + nbytes} bytes")
            extents = (Extent(0, offset, nbytes),) if nbytes else ()
            tensors.append(SourceTensor(info.name, dtype, shape, extents))
            position = align(position + nbytes, self._alignment)
        return tuple(tensors)

    def _kind(self, info: _Info) -> tuple[str, tuple[int, ...]]:
        if info.kind in DTYPES:
            return DTYPES[info.kind], info.shape
        if info.kind not in QUANTISED:
            known = ", ".join([*DTYPES.values(), *(blocks.name for blocks in QUANTISED.values())])
            message = f"tensor type {info.kind}"
            raise UnsupportedFormat(
                message, path=self._source.path, tensor=info.name, offset=info.at, expected=f"one of {known}"
            )
        name, elements, nbytes = QUANTISED[info.kind]
        row = info.shape[-1] if info.shape else 1
        if row % elements:
            self._fail(info, f"a row of {row} weights in {name}", f"a multiple of {elements}")
        return "U8", (*info.shape[:-1], row // elements * nbytes)

    def _fail(self, info: _Info, message: str, expected: str) -> NoReturn:
        raise FormatError(message, path=self._source.path, tensor=info.name, offset=info.at, expected=expected)


def _shortest(value: float) -> float:
    """The float of the fewest digits that is `value` in 32 bits: 1e-05 rather than 9.999999747378752e-06."""
    for digits in range(6, 9):
        candidate = float(f"{value:.{digits}g}")
        if struct.unpack("<f", struct.pack("<f", candidate))[0] == value:
            return candidate
    return value


def _sha256(source: ByteSource, start: int, stop: int) -> str:
    hasher = hashlib.sha256()
    for offset in range(start, stop, _HASHED_AT_ONCE):
        hasher.update(read(source, offset, min(_HASHED_AT_ONCE, stop - offset)))
    return hasher.hexdigest()
