"""Deflated bytes, inflated as they are read and never further than their declared size.

    zip's method 8: a raw deflate stream (RFC 1951) of `packed` bytes that makes `size` bytes, whose CRC-32 is known

Reading goes best from beginning to end, as staging does: a stream has no places to enter it by. Going back starts it
anew. Nothing is kept between readings but the state of the last one, 50 KiB, and that only until the end.
"""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from .errors import FormatError
from .source import ByteSource, read

if TYPE_CHECKING:
    from zlib import _Decompress

# A stream cannot grow by more: 258 bytes for every 2 bits. One that claims to is a lie, and never started.
MAX_RATIO = 1032
_PIECE = 64 * 1024


@dataclass(slots=True)
class _State:
    """A stream that was read up to byte `done`, and the file up to byte `at`."""

    stream: _Decompress
    at: int
    done: int = 0
    crc: int = 0


class InflatedSource:
    """The `size` bytes that the `packed` bytes at `start` of `inner` inflate to. Thread-safe, one reading at a time.

    Reading raises FormatError for a broken stream, for one that makes more or fewer bytes, and, when it was read from
    beginning to end, for one whose bytes do not have the checksum `crc`. `member` is what to call it in errors.
    """

    def __init__(self, inner: ByteSource, start: int, packed: int, size: int, crc: int, member: str) -> None:
        self.path = inner.path
        self.size = size
        self._inner, self._start, self._end = inner, start, start + packed
        self._crc, self._member = crc, member
        self._lock = threading.Lock()
        self._state: _State | None = None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` from `offset` of the inflated bytes. FormatError as the class says."""
        with self._lock:
            state, self._state = self._state, None
            if state is None or state.done > offset:
                state = _State(zlib.decompressobj(-zlib.MAX_WBITS), self._start)
            while state.done < offset:
                self._inflate(state, min(_PIECE, offset - state.done))
            done = 0
            while done < len(buffer):
                piece = self._inflate(state, min(_PIECE, len(buffer) - done))
                buffer[done : done + len(piece)] = piece
                done += len(piece)
            # Not kept at the end: a checkpoint may have 100,000 of these.
            if state.done < self.size:
                self._state = state

    def head(self, nbytes: int) -> bytes:
        """The first bytes, at most `nbytes`, without keeping anything."""
        out = bytearray(min(nbytes, self.size))
        self.read_into(0, memoryview(out))
        with self._lock:
            self._state = None
        return bytes(out)

    def _inflate(self, state: _State, limit: int) -> bytes:
        """The next 1 to `limit` bytes, of which there must be as many."""
        piece = b""
        while not piece:
            if state.stream.eof or state.done == self.size:
                self._fail(f"inflates to {state.done} bytes", f"{self.size}, as its entry says")
            piece = self._more(state, limit)
        state.done += len(piece)
        state.crc = zlib.crc32(piece, state.crc)
        if state.done == self.size:
            self._finish(state)
        return piece

    def _more(self, state: _State, limit: int) -> bytes:
        packed: bytes | bytearray = state.stream.unconsumed_tail
        if not packed:
            packed = read(self._inner, state.at, min(_PIECE, self._end - state.at))
            state.at += len(packed)
        before = len(packed)
        try:
            piece = state.stream.decompress(packed, limit)
        except zlib.error as exc:
            self._fail(f"is no deflated data ({exc})", "what its entry says", exc)
        if not piece and not before and not state.stream.eof:
            self._fail(f"ends after {state.done} bytes", f"{self.size}, as its entry says")
        return piece

    def _finish(self, state: _State) -> None:
        while not state.stream.eof:
            if self._more(state, 1):
                self._fail(f"inflates to more than {self.size} bytes", f"{self.size}, as its entry says")
        if state.crc != self._crc:
            self._fail(f"has the CRC-32 {state.crc:#010x}", f"{self._crc:#010x}, as its entry says")

    def _fail(self, message: str, expected: str, cause: Exception | None = None) -> NoReturn:
        raise FormatError(
            f"member {self._member[:80]!r} {message}", path=self.path, offset=self._start, expected=expected
        ) from cause
