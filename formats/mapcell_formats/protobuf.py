"""The protobuf wire format, walked over a ByteSource without reading what fields hold.

    message  = field...
    field    = tag payload,  tag = varint of (number << 3 | wire type)
    varint   = 7 bits a byte, lowest first, top bit set on all but the last; at most 10 bytes, overlong ones allowed
    payload  = varint (type 0) | 8 bytes (1) | varint length, that many bytes (2) | 4 bytes (5)

Source: https://protobuf.dev/programming-guides/encoding. Groups (types 3 and 4) are refused: no checkpoint has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .errors import FormatError
from .source import ByteSource, read

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10
MAX_FIELD_NUMBER = (1 << 29) - 1
# Holds the small fields of one tensor, or some dozen small tensors; a page, so that it costs one read.
READ_AHEAD = 4096

_FIXED = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """One field: its bytes are `start` to `stop` of the source; `value` is set for varints only."""

    number: int
    wire: int
    at: int
    start: int
    stop: int
    value: int


class WireReader:
    """Reads tags, lengths and small values through a window of READ_AHEAD bytes. Not thread-safe.

    `tensor` is what its errors name, once the caller knows it.
    """

    def __init__(self, source: ByteSource, end: int) -> None:
        self.source = source
        self.end = end
        self.tensor: str | None = None
        self._window = b""
        self._base = 0

    def fields(self, start: int, stop: int, limit: int) -> Iterator[Field]:
        """The fields of the message from `start` to `stop`, unknown ones included; FormatError after `limit`."""
        for _ in range(limit):
            if start >= stop:
                return
            field = self._field(start, stop)
            yield field
            start = field.stop
        if start < stop:
            raise self._error("a message with too many fields", start, f"at most {limit}")

    def window(self, at: int, nbytes: int) -> tuple[bytes, int]:
        """Bytes that begin before `at` and hold `nbytes` from there, or all up to the end, and where they begin."""
        self._look(at, min(nbytes, self.end - at))
        return self._window, self._base

    def varints(self, start: int, stop: int) -> Iterator[int]:
        """The numbers of a packed field from `start` to `stop`."""
        while start < stop:
            value, start = self._varint(start, stop)
            yield value

    def text(self, field: Field, limit: int, what: str) -> str:
        """The string in `field`; FormatError when it is longer than `limit` bytes or no UTF-8."""
        nbytes = field.stop - field.start
        if nbytes > limit:
            raise self._error(f"{what} of {nbytes} bytes", field.at, f"at most {limit}")
        try:
            return self._bytes(field.start, nbytes).decode()
        except UnicodeDecodeError as exc:
            raise self._error(f"{what} is no UTF-8", field.start + exc.start, "UTF-8") from exc

    def _field(self, at: int, stop: int) -> Field:
        tag, start = self._varint(at, stop)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= MAX_FIELD_NUMBER:
            raise self._error(f"field number {number}", at, f"1 to {MAX_FIELD_NUMBER}")
        if wire == VARINT:
            value, end = self._varint(start, stop)
            return Field(number, wire, at, start, end, value)
        if wire == BYTES:
            nbytes, start = self._varint(start, stop)
        elif wire in _FIXED:
            nbytes = _FIXED[wire]
        else:
            raise self._error(f"wire type {wire}", at, "0, 1, 2 or 5")
        if nbytes > stop - start:
            raise self._error(f"field {number} claims {nbytes} bytes", at, f"at most {stop - start}")
        return Field(number, wire, at, start, start + nbytes, 0)

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        offset = at - self._base
        # Nearly all are of one byte within the window.
        if 0 <= offset < len(self._window) and at < stop and self._window[offset] < 0x80:
            return self._window[offset], at + 1
        raw = self._bytes(at, min(MAX_VARINT_BYTES, stop - at))
        value = 0
        for i, byte in enumerate(raw):
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at + i + 1
        if len(raw) == MAX_VARINT_BYTES:
            raise self._error("a number without an end", at, f"at most {MAX_VARINT_BYTES} bytes")
        raise self._error("ends within a number", at, "a complete message")

    def _bytes(self, at: int, nbytes: int) -> bytes:
        """`nbytes`, no more than fit the window, at `at`; the caller has checked that they exist."""
        offset = self._look(at, nbytes)
        return self._window[offset : offset + nbytes]

    def _look(self, at: int, nbytes: int) -> int:
        """Where in the window the byte `at` is, once the window holds `nbytes` from there."""
        offset = at - self._base
        if offset < 0 or offset + nbytes > len(self._window):
            self._window = bytes(read(self.source, at, max(nbytes, min(READ_AHEAD, self.end - at))))
            self._base, offset = at, 0
        return offset

    def _error(self, message: str, offset: int, expected: str) -> FormatError:
        return FormatError(message, path=self.source.path, tensor=self.tensor, offset=offset, expected=expected)
