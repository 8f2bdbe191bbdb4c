"""MindSpore's .ckpt: a stream of protobuf records, each one tensor, one slice of a tensor, or one string.

    file         = record... [trailer]
    Checkpoint   { repeated Value value = 1 }            a record is one Checkpoint message with one value
    Value        { string tag = 1; TensorProto tensor = 2; MapTensorProto maptensor = 3 }
    TensorProto  { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }
    trailer      = "crc_num", then 10 bytes big-endian: zlib.crc32 of everything before it

* Contents are little-endian, C order, at whatever offset they happen to fall.
* Adjacent records with one tag are slices of one tensor, cut at 512 MiB: each holds the full dims and the next piece of
  the bytes. The last one's dims and type count. Of equal tags that are not adjacent the later replaces the earlier.
* A scalar has no dims, or dims [0]. (mapcell writes an empty tensor of shape (0,) as dims [0] without contents.)
* tensor_type "str": a string in UTF-32LE, padded with NULs.
* Fields may come in any order; of a field that comes twice the last counts; unknown fields are skipped, which is how a
  writer aligns contents.

Source: mindspore/ccsrc/utils/checkpoint.proto and mindspore/train/serialization.py of MindSpore 2.10, and what that
version reads from forged files. It differs where MindSpore guesses: contents shorter or longer than the dims say are
refused here.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from .checkpoint import Checkpoint, Extent, SourceTensor
from .checks import name_fault, shape_fault
from .ckpt_usual import LOOK_AHEAD, Usual
from .dtypes import ITEMSIZE
from .errors import FormatError, UnsupportedFormat
from .limits import MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS
from .protobuf import BYTES, VARINT, Field, WireReader
from .source import ByteSource, read

# MindSpore's spelling of each dtype. Int4 holds two nibbles in a byte and counts bytes in its dims.
DTYPES: Mapping[str, str] = {
    "Bool": "BOOL",
    "Int4": "I8",
    "Int8": "I8",
    "UInt8": "U8",
    "Int16": "I16",
    "UInt16": "U16",
    "Int32": "I32",
    "UInt32": "U32",
    "Int64": "I64",
    "UInt64": "U64",
    "Float16": "F16",
    "BFloat16": "BF16",
    "Float32": "F32",
    "Float64": "F64",
}
STRING_TYPE = "str"
SLICE_BYTES = 512 * 1024 * 1024
TRAILER_MAGIC = b"crc_num"
TRAILER_BYTES = len(TRAILER_MAGIC) + 10
MAX_DIM = (1 << 31) - 1
# append_dict holds words and settings. All of a file's strings together, as UTF-32.
MAX_STRING_BYTES = 4 * 1024 * 1024

_VALUE, _TAG, _TENSOR, _MAP, _DIMS, _TYPE, _CONTENT = 1, 1, 2, 3, 1, 2, 3
_INT4 = "Int4"
_STRING_PREFIX = "ckpt.string"
_INT4_PREFIX = "ckpt.int4"
_CHUNK = 1 << 20
# A tensor has at most MAX_RANK dims and two more fields; the rest is room for what is unknown or comes twice.
_MAX_FIELDS = 256
# Unknown fields may stand between the records.
_MAX_FILE_FIELDS = 2 * MAX_TENSORS


def string_key(position: int, name: str) -> str:
    """The key in `Checkpoint.metadata` of the string `name` that stands after `position` tensors."""
    return f"{_STRING_PREFIX}:{position}:{name}"


def parse_string_key(key: str) -> tuple[int, str] | None:
    """`(position, name)` when `key` is one that `string_key` made, else None."""
    prefix, _, rest = key.partition(":")
    position, colon, name = rest.partition(":")
    if prefix != _STRING_PREFIX or not colon or not re.fullmatch("[0-9]{1,9}", position):
        return None
    return int(position), name


def int4_key(name: str) -> str:
    """The key in `Checkpoint.metadata` that marks the I8 tensor `name` as MindSpore's Int4."""
    return f"{_INT4_PREFIX}:{name}"


def parse_int4_key(key: str) -> str | None:
    """The tensor's name when `key` is one that `int4_key` made, else None."""
    prefix, colon, name = key.partition(":")
    return name if prefix == _INT4_PREFIX and colon else None


@dataclass(slots=True)
class _Record:
    """What one Value message says, or what adjacent ones with the same tag say together."""

    at: int
    tag: str | None = None
    dims: list[int] = field(default_factory=list)
    type_name: str | None = None
    content: Extent | None = None
    has_tensor: bool = False
    is_map: bool = False


class MindSporeReader:
    """Reads one plain .ckpt file. `accepts` does not see encrypted ones: `encrypted_ckpt` does."""

    format = "mindspore"

    def accepts(self, head: bytes, size: int) -> bool:
        """Whether a record opens: a length, and in it a field that a Value has."""
        length, pos = 0, 1
        while head[:1] == b"\n" and pos < min(len(head), 11):
            length |= (head[pos] & 0x7F) << 7 * (pos - 1)
            pos += 1
            if head[pos - 1] < 0x80:
                return length > 0 and head[pos : pos + 1] in (b"\n", b"\x12", b"\x1a", b"")
        return size <= pos and head[:1] == b"\n"

    def parse(self, source: ByteSource) -> Checkpoint:
        """The checkpoint in `source`, tensors in the order of the file. FormatError as the module says.

        Strings and the Int4 mark are in `metadata`, under `string_key` and `int4_key`.
        """
        end = source.size - (TRAILER_BYTES if has_trailer(source) else 0)
        walk = _Walk(WireReader(source, end))
        walk.run(end)
        return _checkpoint(self.format, source, walk.found)


READER = MindSporeReader()


class _Walk:
    """One pass over the records. `found` maps names to tensors or strings, in order."""

    def __init__(self, wire: WireReader) -> None:
        self.found: dict[str, SourceTensor | _Int4 | str] = {}
        self._wire = wire
        self._path = wire.source.path
        self._string_bytes = 0
        self._usual = Usual({name: code for name, code in DTYPES.items() if name != _INT4}, MAX_DIM)
        self._count = 0
        # The tag of the record before, and where it is; those of it and before it that wait for the last of the tensor.
        self._tag = ""
        self._last = 0
        self._group: list[_Record] = []

    def run(self, end: int) -> None:
        """Reads all records up to `end`; FormatError at the first that is wrong."""
        at = 0
        for _ in range(_MAX_FILE_FIELDS):
            if at >= end:
                break
            at = self._usual_record(at, end) or self._any_record(at, end)
        if at < end:
            raise self._too_many("a message with too many fields", at, _MAX_FILE_FIELDS)
        if not self._count:
            raise FormatError("holds no record", path=self._path, offset=0, expected="at least one tensor")
        self._finish()

    def _usual_record(self, at: int, end: int) -> int:
        """Reads the record at `at` if it looks as usual -> where it ends, else 0."""
        window, base = self._wire.window(at, LOOK_AHEAD)
        found = self._usual.record(window, base, at, end)
        # A piece of a tensor, which has pieces of any number of bytes, is told by the tag before it.
        if found is None or found.tensor.name == self._tag:
            return 0
        self._finish()
        self._next(at)
        self._tag, self._last = found.tensor.name, at
        self.found[found.tensor.name] = found.tensor
        return found.stop

    def _any_record(self, at: int, end: int) -> int:
        """Reads the field at `at`, which may be a record -> where it ends."""
        item = next(self._wire.fields(at, end, 2))
        if item.number == _VALUE and item.wire == BYTES:
            self._next(at)
            record = self._record(item)
            if record.tag != self._tag or self._count == 1:
                self._finish()
            elif not self._group:
                before = next(self._wire.fields(self._last, end, 2))
                self._group = [self._record(before)]
            self._tag = record.tag or ""
            self._group.append(record)
        return item.stop

    def _next(self, at: int) -> None:
        self._count += 1
        if self._count > MAX_TENSORS:
            raise self._too_many("too many records", at, MAX_TENSORS)

    def _too_many(self, message: str, at: int, limit: int) -> FormatError:
        return FormatError(message, path=self._path, offset=at, expected=f"at most {limit}")

    def _record(self, item: Field) -> _Record:
        record = _Record(item.at)
        for part in self._wire.fields(item.start, item.stop, _MAX_FIELDS):
            if part.wire != BYTES:
                continue
            if part.number == _TAG:
                self._wire.tensor = record.tag = self._wire.text(part, MAX_NAME_BYTES, "a name")
            elif part.number == _TENSOR:
                record.has_tensor, record.is_map = True, False
                self._tensor(record, part)
            elif part.number == _MAP:
                record.has_tensor, record.is_map = False, True
        self._check(record)
        self._wire.tensor = None
        return record

    def _tensor(self, record: _Record, item: Field) -> None:
        for part in self._wire.fields(item.start, item.stop, _MAX_FIELDS):
            if part.number == _DIMS and part.wire in (VARINT, BYTES):
                self._dims(record, part)
            elif part.number == _TYPE and part.wire == BYTES:
                record.type_name = self._wire.text(part, MAX_NAME_BYTES, "a type")
            elif part.number == _CONTENT and part.wire == BYTES:
                record.content = Extent(0, part.start, part.stop - part.start)

    def _dims(self, record: _Record, part: Field) -> None:
        values = [part.value] if part.wire == VARINT else self._wire.varints(part.start, part.stop)
        for value in values:
            # int64 in two's complement: what a writer meant as -1 has to be shown as -1.
            record.dims.append(value - (1 << 64) if value >> 63 else value)
            # At once: what is packed may go on for gigabytes.
            if len(record.dims) > MAX_RANK:
                break
        if fault := shape_fault(record.dims, MAX_DIM):
            raise self._error(record, fault.message, part.at, fault.expected)

    def _check(self, record: _Record) -> None:
        if record.tag is None:
            raise self._error(record, "a record without a name", record.at, "a tag")
        if fault := name_fault(record.tag):
            raise self._error(record, fault.message, record.at, fault.expected)
        if record.is_map:
            message = "a map parameter"
            raise UnsupportedFormat(
                message, path=self._path, tensor=record.tag, offset=record.at, expected="a dense tensor"
            )
        if not record.has_tensor:
            raise self._error(record, "a record without a tensor", record.at, "one")
        if record.type_name is None:
            raise self._error(record, "no tensor_type", record.at, "one of " + ", ".join(DTYPES))
        if record.content is None:
            raise self._error(record, "no tensor_content", record.at, "the tensor's bytes")

    def _finish(self) -> None:
        group, self._group = self._group, []
        if not group:
            return
        last = group[-1]
        name, type_name = last.tag or "", last.type_name or ""
        extents = tuple(record.content for record in group if record.content and record.content.nbytes)
        if type_name == STRING_TYPE:
            self.found[name] = self._string(last, extents)
        elif type_name in DTYPES:
            tensor = self._sized(last, name, DTYPES[type_name], extents)
            self.found[name] = _Int4(tensor) if type_name == _INT4 else tensor
        else:
            message, known = f"tensor_type {type_name[:40]!r}", ", ".join(DTYPES)
            raise UnsupportedFormat(message, path=self._path, tensor=name, offset=last.at, expected=known)

    def _sized(self, record: _Record, name: str, dtype: str, extents: tuple[Extent, ...]) -> SourceTensor:
        nbytes = sum(extent.nbytes for extent in extents)
        shape = () if record.dims == [0] and nbytes else tuple(record.dims)
        expected = prod(shape) * ITEMSIZE[dtype]
        if nbytes != expected:
            message = f"{nbytes} bytes of content for shape {list(shape)}"
            raise self._error(record, message, record.at, f"{expected} bytes")
        return SourceTensor(name, dtype, shape, extents)

    def _string(self, record: _Record, extents: tuple[Extent, ...]) -> str:
        nbytes = sum(extent.nbytes for extent in extents)
        self._string_bytes += nbytes
        if self._string_bytes > MAX_STRING_BYTES:
            raise self._error(
                record, f"strings of {self._string_bytes} bytes", record.at, f"at most {MAX_STRING_BYTES}"
            )
        raw = b"".join(read(self._wire.source, extent.offset, extent.nbytes) for extent in extents)
        try:
            return raw.decode("utf-32-le").rstrip("\0")
        except UnicodeDecodeError as exc:
            raise self._error(record, "a broken string", record.at, "UTF-32LE") from exc

    def _error(self, record: _Record, message: str, offset: int, expected: str) -> FormatError:
        tensor = record.tag[:80] if record.tag is not None else None
        return FormatError(message, path=self._path, tensor=tensor, offset=offset, expected=expected)


@dataclass(frozen=True, slots=True)
class _Int4:
    tensor: SourceTensor


def _checkpoint(format_name: str, source: ByteSource, found: Mapping[str, SourceTensor | _Int4 | str]) -> Checkpoint:
    tensors: list[SourceTensor] = []
    metadata: dict[str, str] = {}
    for name, item in found.items():
        if isinstance(item, str):
            metadata[string_key(len(tensors), name)] = item
        elif isinstance(item, _Int4):
            metadata[int4_key(name)] = "1"
            tensors.append(item.tensor)
        else:
            tensors.append(item)
    return Checkpoint(format_name, tuple(tensors), (source,), metadata)


def has_trailer(source: ByteSource) -> bool:
    """Whether the file ends in a CRC trailer."""
    start = source.size - TRAILER_BYTES
    return start >= 0 and read(source, start, len(TRAILER_MAGIC)) == TRAILER_MAGIC


def verify_crc(source: ByteSource) -> int | None:
    """The CRC-32 of `source`, compared with its trailer; None when it has none. Reads the whole file.

    FormatError when they differ.
    """
    if not has_trailer(source):
        return None
    end = source.size - TRAILER_BYTES
    stored = int.from_bytes(read(source, end + len(TRAILER_MAGIC), 10), "big")
    buffer = memoryview(bytearray(min(_CHUNK, max(end, 1))))
    crc = 0
    for offset in range(0, end, _CHUNK):
        piece = buffer[: min(_CHUNK, end - offset)]
        source.read_into(offset, piece)
        crc = zlib.crc32(piece, crc)
    if crc != stored:
        message = f"the CRC-32 of the contents is {crc:#010x}"
        raise FormatError(message, path=source.path, offset=end, expected=f"{stored:#x}, as the trailer says")
    return crc
