"""The manifest: an immutable description of one version, found by name without decoding the rest.

It travels as a sealed memfd, and has to answer "where is tensor X" among 100,000 in some microseconds. Layout,
little-endian, in this order, nothing between the parts:

    offset  size        what
    0       8           magic "MAPCELLM"
    8       4           schema version, 2
    12      4           n, number of tensors
    16      4           s, number of segments
    20      4           zero
    24      8           r, bytes of records
    32      8           t, bytes of the description
    40      24          zero
    64      1024        fan-out: for each first (highest) byte of a checksum how many names have that one or a lower one
    1088    8 * s       each segment's size in bytes
            8 * n       index: u32 CRC-32 of a name, u32 where its record begins among the records, in units of 8
                        bytes; ascending by checksum, equal ones by the names' bytes
            r           records in the checkpoint's order, each padded to a multiple of 8: u64 offset, u64 nbytes,
                        u32 its number, u32 bytes of its name, u16 segment, u8 dtype (position in dtypes.CODES),
                        u8 rank, u32 zero, u64 dimension ..., name in UTF-8
            t           description: msgpack map (Description)
            32 * n      blake3 of each tensor's bytes, or zeros where not hashed yet

Whoever asks for one tensor reads two places: its record, and that part of the index where its checksum lies, since
the index is sorted and checksums are spread evenly. When it lies elsewhere the index is halved instead, and names of
equal checksum are told apart by halving as well: so no set of names that an attacker picks makes it slow, neither to
build nor to search.

Source: the fan-out is that of Git's pack index, https://git-scm.com/docs/gitformat-pack.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import isqrt, prod
from types import MappingProxyType
from typing import NamedTuple, Protocol

from .dtypes import CODES, ITEMSIZE, POSITION
from .errors import FormatError, NotFound
from .limits import MAX_RANK, MAX_TENSORS
from .record import Record

MAGIC = b"MAPCELLM"
SCHEMA = 2
# Metadata of real checkpoints is a few lines; the safetensors header that holds it ends at 100 MB anyway.
MAX_DESCRIPTION_BYTES = 100_000_000
DIGEST_BYTES = 32
NO_DIGEST = bytes(DIGEST_BYTES)

_HEADER = struct.Struct("<8sIII4xQQ24x")
_FAN = struct.Struct("<256I")
_HEAD_BYTES = _HEADER.size + _FAN.size
_INDEX = struct.Struct("<II")
_RECORD = struct.Struct("<QQIIHBB4x")
_UNIT = 8
_DIMENSIONS = tuple(struct.Struct(f"<{rank}Q") for rank in range(MAX_RANK + 1))
_ITEMSIZES = tuple(ITEMSIZE[code] for code in CODES)
# So many places of the index are looked through without guessing where among them.
_FEW = 64
# What a record of an ordinary name is read with at once.
_RECORD_BYTES = 192
# Up to here the whole is read at once: it costs less than a few looks into it.
_SMALL_BYTES = 1 << 16


# A tuple, because 100,000 of them are made at once: a frozen dataclass takes three times as long to make.
class TensorEntry(NamedTuple):
    """Where one tensor lies: `nbytes` bytes at `offset` of segment number `segment`.

    `dtype` is spelled as safetensors spells it ("F32"), `shape` in elements.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    segment: int
    offset: int
    nbytes: int


# The fields of a record, and its bytes.
_Found = tuple[tuple[int, int, int, int, int, int, int], bytes]
# TensorEntry(...) without the call in between.
_new = tuple.__new__


class Description(Record):
    """What the manifest says about the version as a whole.

    `version` is its id: "blake3:..." once every byte was hashed (`verified`), else the provisional "file-...".
    `residence` is "mapped" or "sealed"; `format` the reader's name; `metadata` the checkpoint's own strings.
    `identity` is the provisional id of a mapped version's files, however the version is called.
    """

    version: str
    residence: str
    format: str
    verified: bool
    metadata: Mapping[str, str] = MappingProxyType({})
    identity: str = ""


class Readable(Protocol):
    """Where a manifest is read from: a sealed memfd, or bytes that are there already."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` at `offset`, fewer where it ends before."""
        ...


class _Held:
    """Bytes that are there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, nbytes: int) -> bytes:
        """As Readable has it."""
        return self._data[offset : offset + nbytes]


def encode_manifest(
    description: Description,
    segments: Sequence[int],
    entries: Sequence[TensorEntry],
    digests: Sequence[bytes] | None = None,
) -> bytes:
    """The manifest's bytes. `segments` are sizes in bytes, `digests` 32 bytes for each entry or None.

    Raises FormatError when the checkpoint exceeds what a manifest can hold.
    """
    import msgpack

    if len(entries) > MAX_TENSORS:
        raise FormatError(f"has {len(entries)} tensors", expected=f"at most {MAX_TENSORS}")
    names = [e.name.encode() for e in entries]
    records = [_record(i, entry, name) for i, (entry, name) in enumerate(zip(entries, names, strict=True))]
    places = list(accumulate(map(len, records), initial=0))
    if places[-1] >= _UNIT << 32:
        raise FormatError(f"names take {sum(map(len, names))} bytes", expected="less than 32 GiB")
    text = msgpack.packb(
        {
            "version": description.version,
            "residence": description.residence,
            "format": description.format,
            "verified": description.verified,
            "metadata": dict(description.metadata),
            "identity": description.identity,
        }
    )
    checksums = list(map(zlib.crc32, names))
    first = Counter(checksum >> 24 for checksum in checksums)
    order = sorted(range(len(names)), key=lambda i: (checksums[i], names[i]))
    return b"".join(
        [
            _HEADER.pack(MAGIC, SCHEMA, len(entries), len(segments), places[-1], len(text)),
            _FAN.pack(*accumulate(first[byte] for byte in range(256))),
            struct.pack(f"<{len(segments)}Q", *segments),
            b"".join(_INDEX.pack(checksums[i], places[i] // _UNIT) for i in order),
            *records,
            text,
            b"".join(digests) if digests is not None else bytes(DIGEST_BYTES * len(entries)),
        ]
    )


def _record(number: int, entry: TensorEntry, name: bytes) -> bytes:
    rank = len(entry.shape)
    dtype = POSITION[entry.dtype]
    head = _RECORD.pack(entry.offset, entry.nbytes, number, len(name), entry.segment, dtype, rank)
    return head + _DIMENSIONS[rank].pack(*entry.shape) + name + bytes(-len(name) % _UNIT)


class Manifest:
    """A manifest that is read where it lies: entry by entry, unless it is small.

    Raises FormatError when it is no manifest of this schema or its parts do not fit its size. An entry is checked when
    it is decoded, so that opening costs the same for 10 tensors and for 100,000.
    """

    def __init__(self, source: bytes | Readable) -> None:
        held: Readable = _Held(source) if isinstance(source, bytes) else source
        if held.size <= _SMALL_BYTES and not isinstance(held, _Held):
            held = _Held(held.read(0, held.size))
        head = held.read(0, _HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            raise FormatError(f"manifest of {held.size} bytes", offset=0, expected=f"at least {_HEAD_BYTES}")
        magic, schema, n, s, records, text = _HEADER.unpack_from(head)
        if magic != MAGIC or schema != SCHEMA:
            raise FormatError(f"manifest schema {magic!r} {schema}", offset=0, expected=f"{MAGIC!r} {SCHEMA}")
        # One zero more in front, so that each byte has a count before it.
        self._fan = bytes(4) + head[_HEADER.size :]
        self._index = _HEAD_BYTES + 8 * s
        self._records = self._index + _INDEX.size * n
        self._text = self._records + records
        self._digests = self._text + text
        end = self._digests + DIGEST_BYTES * n
        if n > MAX_TENSORS or end > held.size:
            raise FormatError(
                f"manifest of {held.size} bytes announces {end} and {n} tensors", offset=12, expected="less"
            )
        self._count: int = n
        self._read: Callable[[int, int], bytes] = held.read

    def __len__(self) -> int:
        return self._count

    @property
    def segments(self) -> tuple[int, ...]:
        """Each segment's size in bytes."""
        return struct.unpack(f"<{(self._index - _HEAD_BYTES) // 8}Q", self._part(_HEAD_BYTES, self._index))

    def description(self) -> Description:
        """What the manifest says about the version as a whole. FormatError when that part is malformed."""
        import msgpack

        nbytes = self._digests - self._text
        if nbytes > MAX_DESCRIPTION_BYTES:
            raise FormatError(f"description of {nbytes} bytes", expected=f"at most {MAX_DESCRIPTION_BYTES}")
        try:
            # Of lists it holds none, and msgpack would allocate what a list's header announces.
            raw = msgpack.unpackb(self._part(self._text, self._digests), max_array_len=0, max_ext_len=0)
            return Description(
                version=str(raw["version"]),
                residence=str(raw["residence"]),
                format=str(raw["format"]),
                verified=bool(raw["verified"]),
                metadata={str(k): str(v) for k, v in raw["metadata"].items()},
                identity=str(raw["identity"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise FormatError(f"manifest's description is malformed: {exc}") from exc

    def names(self) -> list[str]:
        """All names in the checkpoint's order. FormatError as `entries`."""
        return [entry.name for entry in self.entries()]

    def digest(self, number: int) -> bytes:
        """blake3 of the bytes of entry `number`; NO_DIGEST when they were not hashed."""
        return self._read(self._digests + DIGEST_BYTES * number, DIGEST_BYTES)

    def find(self, name: str) -> int:
        """The number of the entry called `name`; -1 when there is none."""
        found = self._find(_encoded(name))
        return -1 if found is None else found[0][2]

    def get(self, name: str) -> TensorEntry | None:
        """The entry called `name`; None when there is none. FormatError when it contradicts itself."""
        found = self._find(_encoded(name))
        if found is None:
            return None
        (offset, nbytes, _, _, segment, code, rank), record = found
        shape = _shape(code, nbytes, record[_RECORD.size : _RECORD.size + _UNIT * rank])
        return _new(TensorEntry, (name, CODES[code], shape, segment, offset, nbytes))

    def __getitem__(self, name: str) -> TensorEntry:
        """The entry called `name`; NotFound with near names when there is none."""
        entry = self.get(name)
        if entry is None:
            raise NotFound(f"no tensor {name!r}{near(name, self.names())}", tensor=name)
        return entry

    def entries(self) -> list[TensorEntry]:
        """All entries in the checkpoint's order. FormatError at one that contradicts itself."""
        data = self._part(self._records, self._text)
        unpack, size, codes, end_of_all = _RECORD.unpack_from, _RECORD.size, CODES, len(data)
        # A checkpoint has few shapes: each is checked, and made, once.
        shapes: dict[tuple[int, int, bytes], tuple[int, ...]] = {}
        entries, at = [], 0
        for wanted in range(self._count):
            if at + size > end_of_all:
                raise FormatError(f"manifest ends within record {wanted}", offset=self._records + at)
            offset, nbytes, number, length, segment, code, rank = unpack(data, at)
            at += size
            start = at + _UNIT * rank
            end = start + length
            if number != wanted or end > end_of_all:
                raise FormatError(f"manifest's record {wanted} is malformed", offset=self._records + at - size)
            key = code, nbytes, data[at:start]
            if (shape := shapes.get(key)) is None:
                shape = shapes[key] = _shape(*key)
            try:
                name = data[start:end].decode()
            except UnicodeDecodeError as exc:
                raise FormatError(f"manifest holds a name that is no UTF-8: {data[start:end][:32]!r}") from exc
            entries.append(_new(TensorEntry, (name, codes[code], shape, segment, offset, nbytes)))
            at = end + -end % _UNIT
        return entries

    def _part(self, begin: int, end: int) -> bytes:
        part = self._read(begin, end - begin)
        if len(part) != end - begin:
            raise FormatError("manifest ends early", offset=begin + len(part), expected=f"{end - begin} bytes")
        return part

    # --- one name ---------------------------------------------------------------------------------------------------

    def _find(self, name: bytes) -> _Found | None:
        """The record of `name`."""
        checksum = zlib.crc32(name)
        place = self._guess(checksum)
        found = self._named(place, name) if place >= 0 else None
        if found is None and (place := self._search(checksum, name)) >= 0:
            found = self._named(place, name)
        return found

    def _guess(self, checksum: int) -> int:
        """Where a record with that checksum begins, if one lies where the checksum tells; else -1."""
        first, last = _INDEX.unpack_from(self._fan, checksum >> 24 << 2)
        last = min(last, self._count)
        if (count := last - first) > _FEW:
            middle = first + ((checksum & 0xFFFFFF) * count >> 24)
            # Three times the standard deviation of where the middle one of so many evenly spread checksums lies.
            spread = 3 * isqrt(count) // 2 + 1
            first, last = max(middle - spread, first), min(middle + spread, last)
        if last <= first:
            return -1
        window = self._read(self._index + _INDEX.size * first, _INDEX.size * (last - first))
        wanted = checksum.to_bytes(4, "little")
        at = window.find(wanted)
        while at % _INDEX.size and at >= 0:
            at = window.find(wanted, at + 1)
        return -1 if at < 0 else _UNIT * int.from_bytes(window[at + 4 : at + 8], "little")

    def _search(self, checksum: int, name: bytes) -> int:
        """Where the record of `name` would begin, by halving; -1 when its checksum is not there."""
        low, high = 0, self._count
        found = -1
        while low < high:
            middle = (low + high) // 2
            held, place = _INDEX.unpack(self._part(at := self._index + _INDEX.size * middle, at + _INDEX.size))
            if held < checksum or (held == checksum and self._name(_UNIT * place) < name):
                low = middle + 1
            else:
                high = middle
                if held == checksum:
                    found = _UNIT * place
        return found

    def _named(self, place: int, name: bytes) -> _Found | None:
        """The record that begins at `place`, if it is the one of `name`."""
        fields, record = found = self._record_at(place)
        start = _RECORD.size + _UNIT * fields[6]
        return found if fields[3] == len(name) and record.startswith(name, start) else None

    def _name(self, place: int) -> bytes:
        fields, record = self._record_at(place)
        start = _RECORD.size + _UNIT * fields[6]
        return record[start : start + fields[3]]

    def _record_at(self, place: int) -> _Found:
        """The record that begins at `place` among the records: its fields; itself, and perhaps what follows it."""
        at = self._records + place
        record = self._read(at, _RECORD_BYTES)
        if len(record) < _RECORD.size:
            raise FormatError("manifest has no record there", offset=at)
        fields = _RECORD.unpack_from(record)
        end = at + _RECORD.size + _UNIT * fields[6] + fields[3]
        if end > self._text:
            raise FormatError("manifest's record ends beyond the others", offset=at, expected=f"before {self._text}")
        return fields, (record if end - at <= len(record) else self._part(at, end))


def _encoded(name: str) -> bytes:
    # Half a surrogate pair is in no manifest, and asking for it is no error.
    return name.encode("utf-8", "surrogatepass")


def _shape(code: int, nbytes: int, dimensions: bytes) -> tuple[int, ...]:
    """The shape that `dimensions` hold. FormatError unless it fits the dtype of that `code` and `nbytes`."""
    rank = len(dimensions) // _UNIT
    if rank > MAX_RANK or code >= len(CODES):
        raise FormatError(f"manifest entry has {rank} dimensions and dtype number {code}")
    shape = _DIMENSIONS[rank].unpack(dimensions)
    if prod(shape) * _ITEMSIZES[code] != nbytes:
        raise FormatError(f"manifest entry of {nbytes} bytes has shape {shape}")
    return shape


# Comparing with every name of a huge checkpoint would take seconds for a hint.
_MAX_COMPARED = 5_000


def near(name: str, known: Sequence[str]) -> str:
    """A hint such as "; did you mean 'a.weight'?", or "" when nothing known resembles `name`."""
    from difflib import get_close_matches

    close = get_close_matches(name, known[:_MAX_COMPARED], n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
