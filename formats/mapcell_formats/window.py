"""Short pieces of a source that lie near one another, of which several come with one read."""

from __future__ import annotations

from .source import ByteSource, read

# A page: it costs what a shorter read would, and holds a dozen small headers.
READ_AHEAD = 4096


class Window:
    """Reads `source` READ_AHEAD bytes at a time, and again when something else is asked for. Not thread-safe."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._held = b""
        self._base = 0

    def take(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` at `offset`. The caller has checked both against a limit and the source's size."""
        # Not kept: it may be a pickle of megabytes.
        if nbytes > READ_AHEAD:
            return bytes(read(self._source, offset, nbytes))
        begin = offset - self._base
        if begin < 0 or begin + nbytes > len(self._held):
            ahead = min(READ_AHEAD, self._source.size - offset)
            self._held = bytes(read(self._source, offset, max(nbytes, ahead)))
            self._base, begin = offset, 0
        return self._held[begin : begin + nbytes]
