"""The manifest: an immutable description of one version, found by name without decoding the rest.

It travels as a sealed memfd, is mapped by every client, and has to answer "where is tensor X" among 100,000 in
about a microsecond. Layout, little-endian, in this order, nothing between the parts but the padding of names:

    offset  size        what
    0       8           magic "MAPCELLM"
    8       4           schema version, 1
    12      4           n, number of tensors
    16      4           s, number of segments
    20      4           d, number of dimensions of all tensors together
    24      8           bytes of names, padded to a multiple of 8
    32      8           bytes of the description
    40      24          zero
    64      8 * s       each segment's size in bytes
            32 * n      entries in the checkpoint's order: u64 offset, u64 nbytes, u32 name offset, u32 name length,
                        u32 first dimension, u16 segment, u8 dtype (position in dtypes.CODES), u8 rank
            32 * n      blake3 of each tensor's bytes, or zeros where not hashed yet
            4 * n       CRC-32 of the names, ascending; equal ones ordered by the names' bytes
            4 * n       for each of these the entry's number
            8 * d       dimensions
                        names, UTF-8, one after another
                        description: msgpack map (Description)

A checksum-sorted table instead of a hash table: building it costs a sort whatever names an attacker picks, and
looking up stays a binary search even when all checksums collide.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from math import prod
from types import MappingProxyType
from typing import NamedTuple

from .dtypes import CODES, ITEMSIZE, POSITION
from .errors import FormatError, NotFound
from .limits import MAX_RANK, MAX_TENSORS
from .record import Record

MAGIC = b"MAPCELLM"
SCHEMA = 1
# Metadata of real checkpoints is a few lines; the safetensors header that holds it ends at 100 MB anyway.
MAX_DESCRIPTION_BYTES = 100_000_000
DIGEST_BYTES = 32
NO_DIGEST = bytes(DIGEST_BYTES)

_HEADER = struct.Struct("<8sIIIIQQ24x")
_ENTRY = struct.Struct("<QQIIIHBB")
_ITEMSIZES = tuple(ITEMSIZE[code] for code in CODES)


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
    starts = list(accumulate(map(len, names), initial=0))
    dims = [0, *accumulate(len(e.shape) for e in entries)]
    order = sorted(range(len(names)), key=lambda i: (zlib.crc32(names[i]), names[i]))
    heap = b"".join(names)
    heap += bytes(-len(heap) % 8)
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
    if len(heap) >= 2**32:
        raise FormatError(f"names take {len(heap)} bytes", expected="less than 4 GiB")
    lookup = struct.pack(f"<{2 * len(order)}I", *(zlib.crc32(names[i]) for i in order), *order)
    return b"".join(
        [
            _HEADER.pack(MAGIC, SCHEMA, len(entries), len(segments), dims[-1], len(heap), len(text)),
            struct.pack(f"<{len(segments)}Q", *segments),
            b"".join(
                _ENTRY.pack(
                    e.offset, e.nbytes, starts[i], len(names[i]), dims[i], e.segment, POSITION[e.dtype], len(e.shape)
                )
                for i, e in enumerate(entries)
            ),
            b"".join(digests) if digests is not None else bytes(DIGEST_BYTES * len(entries)),
            lookup,
            struct.pack(f"<{dims[-1]}Q", *(n for e in entries for n in e.shape)),
            heap,
            text,
        ]
    )


class Manifest:
    """A manifest over `buffer`, decoded entry by entry. Keeps `buffer` alive and never copies it.

    Raises FormatError when the buffer is no manifest of this schema or its parts do not fit its size. An entry is
    checked when it is decoded, so that opening costs the same for 10 tensors and for 100,000.
    """

    def __init__(self, buffer: bytes | memoryview) -> None:
        view = memoryview(buffer).cast("B")
        if len(view) < _HEADER.size:
            raise FormatError(f"manifest of {len(view)} bytes", offset=0, expected=f"at least {_HEADER.size}")
        magic, schema, n, s, d, heap, text = _HEADER.unpack_from(view)
        if magic != MAGIC or schema != SCHEMA:
            raise FormatError(f"manifest schema {magic!r} {schema}", offset=0, expected=f"{MAGIC!r} {SCHEMA}")
        sizes = (_HEADER.size, 8 * s, _ENTRY.size * n, DIGEST_BYTES * n, 4 * n, 4 * n, 8 * d, heap, text)
        bounds = list(accumulate(sizes))
        if n > MAX_TENSORS or bounds[-1] > len(view):
            raise FormatError(
                f"manifest of {len(view)} bytes announces {bounds[-1]} and {n} tensors", offset=12, expected="less"
            )
        parts = [view[a:b] for a, b in pairwise(bounds)]
        self._segments, self._entries, self._digests = parts[0], parts[1], parts[2]
        self._checksums = parts[3].cast("I")
        self._order = parts[4].cast("I")
        self._dims, self._names, self._text = parts[5], parts[6], parts[7]
        self._count: int = n

    def __len__(self) -> int:
        return self._count

    @property
    def segments(self) -> tuple[int, ...]:
        """Each segment's size in bytes."""
        return struct.unpack(f"<{len(self._segments) // 8}Q", self._segments)

    def description(self) -> Description:
        """What the manifest says about the version as a whole. FormatError when that part is malformed."""
        import msgpack

        if len(self._text) > MAX_DESCRIPTION_BYTES:
            raise FormatError(f"description of {len(self._text)} bytes", expected=f"at most {MAX_DESCRIPTION_BYTES}")
        try:
            # Of lists it holds none, and msgpack would allocate what a list's header announces.
            raw = msgpack.unpackb(self._text, max_array_len=0, max_ext_len=0)
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

    def name(self, number: int) -> str:
        """The name of entry `number`. FormatError when it is no UTF-8."""
        return _text(self._name_bytes(number))

    def names(self) -> Iterator[str]:
        """All names in the checkpoint's order. FormatError at one that is no UTF-8."""
        text = self._names
        for entry in _ENTRY.iter_unpack(self._entries):
            yield _text(text[entry[2] : entry[2] + entry[3]])

    def digest(self, number: int) -> bytes:
        """blake3 of the bytes of entry `number`; NO_DIGEST when they were not hashed."""
        return bytes(self._digests[DIGEST_BYTES * number : DIGEST_BYTES * (number + 1)])

    def find(self, name: str) -> int:
        """The number of the entry called `name`; -1 when there is none."""
        # Half a surrogate pair is in no manifest, and asking for it is no error.
        wanted = name.encode("utf-8", "surrogatepass")
        checksum = zlib.crc32(wanted)
        table = self._checksums
        low = bisect_left(table, checksum)
        if low == len(table) or table[low] != checksum:
            return -1
        if self._name_bytes(self._order[low]) == wanted:
            return int(self._order[low])
        high = bisect_right(table, checksum, low)
        low = bisect_left(self._order, wanted, low, high, key=self._name_bytes)
        found = low < high and self._name_bytes(self._order[low]) == wanted
        return int(self._order[low]) if found else -1

    def entry(self, number: int) -> TensorEntry:
        """Entry `number`. FormatError when it contradicts itself."""
        offset, nbytes, start, length, first, segment, code, rank = _ENTRY.unpack_from(
            self._entries, _ENTRY.size * number
        )
        if rank > MAX_RANK or code >= len(CODES) or 8 * (first + rank) > len(self._dims):
            raise FormatError("manifest entry is malformed", offset=_ENTRY.size * number)
        shape = struct.unpack_from(f"<{rank}Q", self._dims, 8 * first)
        if prod(shape) * ITEMSIZE[CODES[code]] != nbytes:
            raise FormatError(f"manifest entry of {nbytes} bytes has shape {shape}", offset=_ENTRY.size * number)
        name = _text(self._names[start : start + length])
        return TensorEntry(name, CODES[code], shape, segment, offset, nbytes)

    def __getitem__(self, name: str) -> TensorEntry:
        """The entry called `name`; NotFound with near names when there is none."""
        number = self.find(name)
        if number < 0:
            raise NotFound(f"no tensor {name!r}{near(name, list(self.names()))}", tensor=name)
        return self.entry(number)

    def entries(self) -> Iterator[TensorEntry]:
        """All entries in the checkpoint's order. FormatError at one that contradicts itself."""
        names = bytes(self._names)
        # Almost all are ASCII, and a slice of a str costs half of what decoding a slice of bytes does.
        text = names.decode("ascii") if names.isascii() else None
        dims = struct.unpack(f"<{len(self._dims) // 8}Q", self._dims)
        for number, row in enumerate(_ENTRY.iter_unpack(self._entries)):
            offset, nbytes, start, length, first, segment, code, rank = row
            shape = dims[first : first + rank]
            sound = rank <= MAX_RANK and code < len(CODES) and first + rank <= len(dims)
            if not sound or prod(shape) * _ITEMSIZES[code] != nbytes:
                # Raises, and says what is wrong.
                self.entry(number)
            end = start + length
            name = _text(names[start:end]) if text is None else text[start:end]
            yield _new(TensorEntry, (name, CODES[code], shape, segment, offset, nbytes))

    def _name_bytes(self, number: int) -> bytes:
        try:
            _, _, start, length, _, _, _, _ = _ENTRY.unpack_from(self._entries, _ENTRY.size * number)
        except struct.error:
            raise FormatError(f"manifest has no entry {number}", expected=f"less than {self._count}") from None
        return bytes(self._names[start : start + length])


def _text(raw: bytes | memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as exc:
        raise FormatError(f"manifest holds a name that is no UTF-8: {bytes(raw[:32])!r}") from exc


# Comparing with every name of a huge checkpoint would take seconds for a hint.
_MAX_COMPARED = 5_000


def near(name: str, known: Sequence[str]) -> str:
    """A hint such as "; did you mean 'a.weight'?", or "" when nothing known resembles `name`."""
    from difflib import get_close_matches

    close = get_close_matches(name, known[:_MAX_COMPARED], n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
