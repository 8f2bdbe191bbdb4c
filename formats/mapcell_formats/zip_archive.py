"""The members of a zip archive, and where their bytes lie. NumPy's .npz and torch's files are such archives.

    file        = [local header, name, extra, bytes, [descriptor]]... directory [zip64 end, zip64 locator] end
    local       "PK\\3\\4"  u16 version, flags, method, time, date; u32 crc, packed, size; u16 name, extra lengths
    directory   one for each member:
                "PK\\1\\2"  u16 made by, version, flags, method, time, date; u32 crc, packed, size;
                          u16 name, extra, comment lengths; 8 bytes; u32 offset of the local header
    extra       u16 id, u16 length, data; id 1: size, packed, offset as u64, those of them that are 2^32 - 1 above
    zip64 end   "PK\\6\\6"  u64 its length; 12 bytes; u64 0, members, bytes and offset of the directory
    locator     "PK\\6\\7"  u32 0; u64 offset of the zip64 end; u32 1
    end         "PK\\5\\6"  u16 0, 0, members, members; u32 bytes and offset of the directory; u16 comment length

The directory alone is believed; each local header has to agree in name, method and encryption, since readers differ in
which of the two they trust. Refused are members that overlap one another or the directory, sizes that deflate cannot
reach, names listed twice or that would lead out of a folder, and archives with bytes before the first member. What a
member inflates to is bound by its declared size (`inflate.py`). Bytes between members are let be: writers align so.

Source: PKWARE's APPNOTE.TXT 6.3.10; and how zipfile, NumPy 2.4 and torch 2.13 write it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, Protocol

from .checkpoint import Checkpoint, Extent, Reader
from .checks import brief, name_fault
from .errors import FormatError, UnsupportedFormat
from .inflate import MAX_RATIO, InflatedSource
from .joined import Joiner
from .limits import MAX_TENSORS
from .source import ByteSource, read
from .window import Window

MAGIC = b"PK\x03\x04"
STORED, DEFLATED = 0, 8
# One member for each tensor, and a few that describe.
MAX_MEMBERS = MAX_TENSORS + 100
# 100,000 members take 10 MB.
MAX_DIRECTORY_BYTES = 100_000_000
MAX_COMMENT_BYTES = 65_535

# What is not looked at is left out: magic, flags, method, lengths of name and extra.
_LOCAL = struct.Struct("<4s2x2H16x2H")
# Magic, flags, method, crc, packed, size, lengths of name, extra and comment, offset.
_CENTRAL = struct.Struct("<4s4x2H4x3I3H8xI")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_PATCHED = 0x0020
_UTF8 = 0x0800
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64 = 1
# A name that needs no further look, provided that it has no "..".
_USUAL_NAME = re.compile(rb"[A-Za-z0-9_.\- ][A-Za-z0-9_.\- /]{0,1023}")


# A named tuple, as an Extent is one.
class Member(NamedTuple):
    """One member: `packed` bytes of the file at `start`, which hold `size` bytes once inflated."""

    name: str
    at: int
    start: int
    packed: int
    size: int
    crc: int
    stored: bool


@dataclass(frozen=True, slots=True)
class Archive:
    """The members of the archive in `source` by name, in the directory's order; folders are left out."""

    source: ByteSource
    members: Mapping[str, Member]
    window: Window

    def content(self, member: Member) -> InflatedSource | None:
        """The member's inflated bytes; None when it is stored, so that they lie in the file."""
        if member.stored:
            return None
        return InflatedSource(self.source, member.start, member.packed, member.size, member.crc, member.name)

    def head(self, member: Member, nbytes: int) -> bytes:
        """The first bytes of the member, at most `nbytes`, which is the caller's limit."""
        if content := self.content(member):
            return content.head(nbytes)
        return self.window.take(member.start, min(nbytes, member.size))

    def extent(self, member: Member, offset: int, nbytes: int, joiner: Joiner) -> Extent:
        """Where `nbytes` at `offset` of the member lie: in the file (source 0), or in what `joiner` collects."""
        if content := self.content(member):
            return joiner.add(content, offset, nbytes)
        return Extent(0, member.start + offset, nbytes)


class ArchiveReader(Reader, Protocol):
    """A format whose files are zip archives."""

    def holds(self, archive: Archive) -> bool:
        """Whether the archive's members are those of this format."""
        ...

    def parse_archive(self, archive: Archive) -> Checkpoint:
        """The checkpoint in `archive`. Errors as `parse`."""
        ...


def read_archive(source: ByteSource) -> Archive:
    """The archive in `source`. FormatError as the module says; UnsupportedFormat for encryption and odd methods."""
    directory, window = _find(source), Window(source)
    raw = bytes(read(source, directory.start, directory.nbytes))
    members: dict[str, Member] = {}
    for entry in _entries(source, directory, raw):
        if entry.name in members:
            raise _error(source, f"two members are called {brief(entry.name)}", entry.at, "each name once")
        members[entry.name] = _located(source, window, entry)
    _check_overlaps(source, members.values(), directory.start)
    if any(map(_is_folder, members)):
        members = {name: member for name, member in members.items() if not _is_folder(name)}
    return Archive(source, members, window)


def _is_folder(name: str) -> bool:
    return name.endswith("/")


@dataclass(frozen=True, slots=True)
class _Directory:
    start: int
    nbytes: int
    count: int


def _find(source: ByteSource) -> _Directory:
    at = _find_end(source)
    _, disk, first_disk, here, count, nbytes, start, _ = _END.unpack(read(source, at, _END.size))
    if disk not in (0, _FULL16) or first_disk not in (0, _FULL16) or here != count:
        raise UnsupportedFormat("is one of several disks", path=source.path, offset=at, expected="one zip archive")
    end = at
    if start + nbytes != at:
        end, count, nbytes, start = _find_end64(source, at, (count, nbytes, start))
    if nbytes > MAX_DIRECTORY_BYTES or count > MAX_MEMBERS:
        message = f"a directory of {count} members in {nbytes} bytes"
        expected = f"at most {MAX_MEMBERS} in {MAX_DIRECTORY_BYTES}"
        raise _error(source, message, at, expected)
    if start + nbytes != end or count * _CENTRAL.size > nbytes:
        message = f"a directory of {count} members in {nbytes} bytes at {start}"
        raise _error(source, message, at, f"one that ends at {end}")
    return _Directory(start, nbytes, count)


def _find_end(source: ByteSource) -> int:
    """Where the end record is. Its magic may not be in its comment, where readers would differ about which counts."""
    at = source.size - _END.size
    if at >= 0 and (end := read(source, at, _END.size)).startswith(b"PK\x05\x06") and not any(end[-2:]):
        return at
    start = max(0, at - MAX_COMMENT_BYTES)
    tail = bytes(read(source, start, source.size - start))
    at = tail.rfind(b"PK\x05\x06", 0, len(tail) - _END.size + 4)
    if at >= 0 and at + _END.size + int.from_bytes(tail[at + _END.size - 2 : at + _END.size], "little") == len(tail):
        return start + at
    message = "a zip archive without its end, perhaps half downloaded"
    raise _error(source, message, source.size, "the directory at its end")


def _find_end64(source: ByteSource, at: int, short: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """(where the zip64 end is, members, bytes and offset of the directory); `short` is what the end at `at` says."""
    locator = at - _LOCATOR.size
    magic, _, where, _ = _LOCATOR.unpack(read(source, locator, _LOCATOR.size)) if locator >= 0 else (b"", 0, 0, 0)
    if magic != b"PK\x06\x07":
        message = f"a directory of {short[1]} bytes at {short[2]}"
        raise _error(source, message, at, f"one that ends at {at}")
    if where + _END64.size != locator:
        raise _error(source, f"the zip64 end is said to be at {where}", locator, f"it at {locator - _END64.size}")
    magic, _, _, _, disk, first_disk, here, *full = _END64.unpack(read(source, where, _END64.size))
    if magic != b"PK\x06\x06" or disk or first_disk or here != full[0]:
        raise _error(source, "a broken zip64 end", where, "one, on one disk")
    for value, long, unknown in zip(short, full, (_FULL16, _FULL32, _FULL32), strict=True):
        if value not in (long, unknown):
            raise _error(source, f"the end says {value}, the zip64 end {long}", where, "the same in both")
    return where, full[0], full[1], full[2]


class _Entry(NamedTuple):
    """What the directory says of one member; `at` is where it says so, `local` where its header is."""

    name: str
    raw_name: bytes
    at: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    local: int


def _entries(source: ByteSource, directory: _Directory, raw: bytes) -> Iterator[_Entry]:
    unpack, width, last = _CENTRAL.unpack_from, _CENTRAL.size, len(raw) - _CENTRAL.size
    pos = 0
    for _ in range(directory.count):
        at, name_at = directory.start + pos, pos + width
        if pos > last:
            raise _error(source, "the directory ends early", at, f"{directory.count} members")
        magic, flags, method, crc, packed, size, name_bytes, extra_bytes, comment_bytes, local = unpack(raw, pos)
        extra_at = name_at + name_bytes
        pos = extra_at + extra_bytes + comment_bytes
        if magic != b"PK\x01\x02" or pos > len(raw):
            raise _error(source, "a broken entry in the directory", at, "one member")
        raw_name = raw[name_at:extra_at]
        name = _name(source, raw_name, flags, at)
        if _FULL32 in (size, packed, local):
            extra = raw[extra_at : extra_at + extra_bytes]
            size, packed, local = _wide(source, (size, packed, local), extra, at)
        yield _Entry(name, raw_name, at, flags, method, crc, packed, size, local)
    if pos != len(raw):
        raise _error(source, "bytes follow the last entry of the directory", directory.start + pos, "none")


def _wide(source: ByteSource, sizes: tuple[int, int, int], extra: bytes, at: int) -> tuple[int, int, int]:
    """(size, packed, offset of the local header), from the extra field where they did not fit."""
    pos = 0
    while pos + 4 <= len(extra):
        kind, nbytes = struct.unpack_from("<HH", extra, pos)
        pos += 4 + nbytes
        if kind == _ZIP64 and 8 * sizes.count(_FULL32) <= nbytes and pos <= len(extra):
            full = iter(struct.unpack_from(f"<{sizes.count(_FULL32)}Q", extra, pos - nbytes))
            size, packed, local = [next(full) if value == _FULL32 else value for value in sizes]
            return size, packed, local
    raise _error(source, "a member without its zip64 sizes", at, "its size, packed size and offset")


def _name(source: ByteSource, raw: bytes, flags: int, at: int) -> str:
    if _USUAL_NAME.fullmatch(raw) and b".." not in raw:
        return raw.decode("ascii")
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as exc:
        raise _error(source, "a member's name is no UTF-8", at, "one that is, as its flags say") from exc
    if fault := name_fault(name):
        raise _error(source, f"a member: {fault.message}", at, fault.expected)
    if not name or name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
        raise _error(source, f"a member called {brief(name)}", at, "a name beneath the archive's own folder")
    return name


def _located(source: ByteSource, window: Window, entry: _Entry) -> Member:
    """The member that `entry` and its local header describe alike."""
    name, raw_name, at, flags, method, crc, packed, size, local = entry
    if method != STORED or flags & (_ENCRYPTED | _PATCHED) or size != packed:
        _check_kind(source, entry)
    nbytes = _LOCAL.size + len(raw_name)
    if local + nbytes > source.size:
        raise _error(source, f"member {name[:80]!r} is said to be at {local}", at, f"up to {source.size}")
    raw = window.take(local, nbytes)
    magic, local_flags, local_method, name_bytes, extra = _LOCAL.unpack_from(raw)
    names = name_bytes == len(raw_name) and raw.endswith(raw_name)
    if magic != MAGIC or not names or method != local_method or (flags ^ local_flags) & _ENCRYPTED:
        message = f"member {name[:80]!r} and its header disagree"
        raise _error(source, message, local, "the same name and method in both")
    start = local + nbytes + extra
    if start + packed > source.size:
        message = f"member {name[:80]!r} claims {packed} bytes"
        raise _error(source, message, at, f"at most {max(0, source.size - start)}")
    return Member(name, local, start, packed, size, crc, method == STORED)


def _check_kind(source: ByteSource, entry: _Entry) -> None:
    what = f"member {entry.name[:80]!r}"
    if entry.flags & (_ENCRYPTED | _PATCHED):
        expected = "a plain archive: unpack it with its password and zip it again"
        raise UnsupportedFormat(f"{what} is encrypted or a patch", path=source.path, offset=entry.at, expected=expected)
    if entry.method not in (STORED, DEFLATED):
        message, expected = f"{what} is packed by method {entry.method}", "stored or deflated members"
        raise UnsupportedFormat(message, path=source.path, offset=entry.at, expected=expected)
    if entry.method == STORED and entry.size != entry.packed:
        message = f"{what} is stored, {entry.size} bytes in {entry.packed}"
        raise _error(source, message, entry.at, "the same number")
    if entry.size > entry.packed * MAX_RATIO:
        message = f"{what} claims to inflate from {entry.packed} to {entry.size} bytes"
        raise _error(source, message, entry.at, f"at most {entry.packed * MAX_RATIO}")


def _check_overlaps(source: ByteSource, members: Iterable[Member], directory: int) -> None:
    end = 0
    for member in sorted(members, key=attrgetter("at")):
        if member.at < end or (end == 0 and member.at):
            message, expected = f"member {member.name[:80]!r} begins at {member.at}", f"it at {end} or later"
            raise _error(source, message, member.at, expected if end else "the first at 0")
        end = member.start + member.packed
    if end > directory:
        raise _error(source, "the last member overlaps the directory", directory, f"a directory from {end} on")


def _error(source: ByteSource, message: str, offset: int, expected: str) -> FormatError:
    return FormatError(message, path=source.path, offset=min(offset, source.size), expected=expected)
