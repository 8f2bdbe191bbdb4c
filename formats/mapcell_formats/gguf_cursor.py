"""Goes through a GGUF header piece by piece; `gguf` has the layout.

Nothing is allocated by a length that the file announces before that length is known to fit what the file has left.
"""

from __future__ import annotations

import struct
from typing import NoReturn

from .errors import FormatError, UnsupportedFormat
from .limits import MAX_HEADER_BYTES
from .source import ByteSource, read

MAGIC = b"GGUF"
VERSIONS = (1, 2, 3)

_READ_AHEAD = 1 << 18


class Cursor:
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

    def text_and_u32(self, limit: int, what: str) -> tuple[str, int]:
        """A string of at most `limit` bytes, which has to be UTF-8, and the u32 that follows it."""
        width, start = self._count.size, self._pos
        if start + width > len(self._window):
            self._refill(width, what)
            start = 0
        (nbytes,) = self._count.unpack_from(self._window, start)
        if nbytes > limit:
            self.fail(f"{what} of {nbytes} bytes", self.offset, f"at most {limit}")
        self._pos = start + width
        raw = self.take(nbytes + 4, what)
        try:
            return raw[:-4].decode(), int.from_bytes(raw[-4:], "little")
        except UnicodeDecodeError as exc:
            offset = self.offset - len(raw) + exc.start
            raise FormatError(f"{what} is no UTF-8", path=self.source.path, offset=offset, expected="UTF-8") from exc

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
