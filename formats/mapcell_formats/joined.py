"""Several byte sources behind one another, as one: the parts of a file that have to be decoded first.

A checkpoint then has two sources for a file however many of its members are compressed: the file itself, and this.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from .checkpoint import Extent
from .errors import StagingFailed
from .source import ByteSource


class JoinedSource:
    """`parts`, each beginning where the one before it ends. As thread-safe as they are."""

    def __init__(self, path: str, parts: Sequence[ByteSource]) -> None:
        self.path = path
        self._parts = tuple(parts)
        *self._starts, self.size = accumulate((part.size for part in parts), initial=0)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` from `offset`; raises what the parts raise, StagingFailed beyond the last."""
        done = 0
        while done < len(buffer):
            position = offset + done
            if not 0 <= position < self.size:
                raise StagingFailed(f"{self.path}: ended at byte {position} while it was being read")
            # Of equal starts, which empty parts have, the last one's part is the one with bytes.
            number = bisect_right(self._starts, position) - 1
            skip = position - self._starts[number]
            take = min(len(buffer) - done, self._parts[number].size - skip)
            self._parts[number].read_into(skip, buffer[done : done + take])
            done += take


class Joiner:
    """Collects what has to be decoded of the file `path`, to be a checkpoint's source number `number`."""

    def __init__(self, path: str, number: int) -> None:
        self._path = path
        self._number = number
        self._parts: list[ByteSource] = []
        self._end = 0

    def add(self, part: ByteSource, offset: int, nbytes: int) -> Extent:
        """Where `nbytes` at `offset` of `part` will lie."""
        self._parts.append(part)
        start, self._end = self._end, self._end + part.size
        return Extent(self._number, start + offset, nbytes)

    def sources(self) -> tuple[ByteSource, ...]:
        """The one source that holds everything added; none when nothing was."""
        return (JoinedSource(self._path, self._parts),) if self._parts else ()
