"""Builds zip archives by hand, right and wrong ones."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

FULL = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Part:
    """One member: `data` as it lies in the file. What is None is as it should be; `local_` is what its header says."""

    name: str | bytes
    data: bytes = b""
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    method: int = 0
    flags: int = 0
    at: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_extra: bytes = b""
    magic: bytes = b"PK\x01\x02"

    def raw_name(self) -> bytes:
        """The name's bytes."""
        return self.name if isinstance(self.name, bytes) else self.name.encode()

    def local(self) -> bytes:
        """The local header and the data."""
        name = self.raw_name() if self.local_name is None else self.local_name
        method = self.method if self.local_method is None else self.local_method
        flags = self.flags if self.local_flags is None else self.local_flags
        head = struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 20, flags, method, 0, 0, 0, 0, 0, len(name), len(self.local_extra)
        )
        return head + name + self.local_extra + self.data

    def entry(self, at: int) -> bytes:
        """The directory's entry for the member at `at`."""
        name = self.raw_name()
        packed = len(self.data) if self.packed is None else self.packed
        size = packed if self.size is None else self.size
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        head = struct.pack(
            "<4s6H3I5H2I", self.magic, 20, 20, self.flags, self.method, 0, 0, crc, packed, size,
            len(name), len(self.extra), len(self.comment), 0, 0, 0, at if self.at is None else self.at,
        )  # fmt: skip
        return head + name + self.extra + self.comment


@dataclass(frozen=True, slots=True)
class End:
    """What the end says; what is None is as it should be. `wide` puts a zip64 end before it."""

    count: int | None = None
    nbytes: int | None = None
    start: int | None = None
    disk: int = 0
    comment: bytes = b""
    comment_length: int | None = None
    wide: bool = False
    wide_at: int | None = None
    wide_count: int | None = None
    between: bytes = b""

    def bytes(self, count: int, start: int, nbytes: int) -> bytes:
        """The bytes after the directory."""
        out = self.between
        at = start + nbytes + len(out)
        if self.wide:
            members = count if self.wide_count is None else self.wide_count
            out += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, members, members, nbytes, start)
            out += struct.pack("<4sIQI", b"PK\x06\x07", 0, at if self.wide_at is None else self.wide_at, 1)
        count = count if self.count is None else self.count
        length = len(self.comment) if self.comment_length is None else self.comment_length
        nbytes = nbytes if self.nbytes is None else self.nbytes
        start = start if self.start is None else self.start
        numbers = (self.disk, self.disk, min(count, 0xFFFF), min(count, 0xFFFF), min(nbytes, FULL), min(start, FULL))
        return out + struct.pack("<4s4H2IH", b"PK\x05\x06", *numbers, length) + self.comment


def zip_file(parts: Sequence[Part], end: End | None = None, before: bytes = b"") -> bytes:
    """An archive of `parts` behind `before`, with the end that `end` describes."""
    body, entries = before, b""
    for part in parts:
        entries += part.entry(len(body))
        body += part.local()
    return body + entries + (end or End()).bytes(len(parts), len(body), len(entries))
