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
from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple, NoReturn

from .checkpoint import Checkpoint, Extent, SourceTensor
from .checks import brief, name_fault, shape_fault
from .dtypes import ITEMSIZE
from .errors import FormatError, UnsupportedFormat
from .gguf_cursor import MAGIC, Cursor
from .layout import align
from .limits import MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS
from .source import ByteSource, read

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


def weights_shape(shape: Sequence[int], type_name: str) -> tuple[int, ...]:
    """The shape in weights of a quantised tensor, whose blocks of `type_name` ("Q4_0") have `shape` in bytes."""
    blocks = next(blocks for blocks in QUANTISED.values() if blocks.name == type_name)
    return (*shape[:-1], shape[-1] // blocks.nbytes * blocks.elements)


class GGUFReader:
    """Reads one GGUF file."""

    format = "gguf"

    def accepts(self, head: bytes, size: int) -> bool:
        """Whether it begins as GGUF does, of whatever version."""
        return head.startswith(MAGIC)

    def parse(self, source: ByteSource) -> Checkpoint:
        """The checkpoint in `source`, tensors in the order of the file. FormatError as the module says."""
        cursor = Cursor(source)
        tensor_count, pair_count = cursor.opening()
        walk = _Walk(cursor)
        walk.pairs(pair_count)
        infos = walk.infos(tensor_count)
        tensors = _place(infos, source, align(cursor.offset, walk.alignment), walk.alignment)
        types = {type_key(name): form.blocks for _, name, form, _ in infos if form.blocks}
        return Checkpoint(self.format, tensors, (source,), walk.metadata | types)


READER = GGUFReader()


class _Form(NamedTuple):
    """What an info's dims and type make: the tensor's own dtype, shape and bytes, and its type if it is quantised."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    blocks: str


# Where the info is, name, form, offset. A bare tuple: a named one takes three times as long to make.
_Info = tuple[int, str, _Form, int]


class _Walk:
    """Pairs and infos; `metadata` and `alignment` hold what the pairs said."""

    def __init__(self, cursor: Cursor) -> None:
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
        forms: dict[bytes, _Form] = {}
        return [self._info(seen, forms) for _ in range(count)]

    def _pair(self) -> None:
        cursor, at = self._cursor, self._cursor.offset
        key, kind = cursor.text_and_u32(MAX_KEY_BYTES, "a key")
        if key in self.metadata:
            cursor.fail(f"key {brief(key)} is listed twice", at, "each key once")
        if parse_type_key(key) is not None:
            cursor.fail(f"key {brief(key)} is one that mapcell uses itself", at, "another key")
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

    def _info(self, seen: set[str], forms: dict[bytes, _Form]) -> _Info:
        cursor, at = self._cursor, self._cursor.offset
        cursor.tensor = None
        name, rank = cursor.text_and_u32(MAX_NAME_BYTES, "a name")
        cursor.tensor = name
        if fault := name_fault(name):
            cursor.fail(fault.message, at, fault.expected)
        if name in seen:
            cursor.fail("is listed twice", at, "each name once")
        seen.add(name)
        if rank > MAX_RANK:
            cursor.fail(f"{rank} dimensions", at, f"at most {MAX_RANK}")
        raw = cursor.take(rank * cursor.count_bytes + 12, "its dimensions, type and offset")
        # A model has few different shapes, each many times.
        form = forms.get(raw[:-8])
        if form is None:
            form = forms[raw[:-8]] = self._form(raw[:-8], rank, at)
        return at, name, form, int.from_bytes(raw[-8:], "little")

    def _form(self, raw: bytes, rank: int, at: int) -> _Form:
        cursor, width = self._cursor, self._cursor.count_bytes
        dims = [int.from_bytes(raw[start : start + width], "little") for start in range(0, rank * width, width)]
        kind = int.from_bytes(raw[rank * width :], "little")
        if fault := shape_fault(dims):
            cursor.fail(fault.message, at, fault.expected)
        shape = tuple(reversed(dims))
        if kind in DTYPES:
            return _Form(DTYPES[kind], shape, prod(shape) * ITEMSIZE[DTYPES[kind]], "")
        if kind not in QUANTISED:
            self._unknown(kind, at)
        name, elements, nbytes = QUANTISED[kind]
        row = shape[-1] if shape else 1
        if row % elements:
            cursor.fail(f"a row of {row} weights in {name}", at, f"a multiple of {elements}")
        shape = (*shape[:-1], row // elements * nbytes)
        return _Form("U8", shape, prod(shape), name)

    def _unknown(self, kind: int, at: int) -> NoReturn:
        path, tensor = self._cursor.source.path, self._cursor.tensor
        known = ", ".join([*DTYPES.values(), *(blocks.name for blocks in QUANTISED.values())])
        raise UnsupportedFormat(f"tensor type {kind}", path=path, tensor=tensor, offset=at, expected=f"one of {known}")


def _place(infos: list[_Info], source: ByteSource, start: int, alignment: int) -> tuple[SourceTensor, ...]:
    """The tensors, whose bytes have to follow one another from `start`, each at a multiple of `alignment`."""
    position = 0
    tensors = []
    for at, name, (dtype, shape, nbytes, _), offset in infos:
        if offset != position:
            message, expected = f"its bytes begin at {offset}", f"{position}, where the tensor before it ends"
            raise FormatError(message, path=source.path, tensor=name, offset=at, expected=expected)
        begin = start + position
        if nbytes and begin + nbytes > source.size:
            message, expected = "the file ends before its tensors do", f"at least {begin + nbytes} bytes"
            raise FormatError(message, path=source.path, tensor=name, offset=at, expected=expected)
        tensors.append(SourceTensor(name, dtype, shape, (Extent(0, begin, nbytes),) if nbytes else ()))
        position = align(position + nbytes, alignment)
    return tuple(tensors)


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
