"""Memory that was given back here but is still mapped by somebody.

A lease that ended does not prove that its memory is free: a mapping outlives the connection that it came with. Until
the kernel says that nobody else holds a segment, it counts against the budget and its descriptor is kept for asking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mapcelld.segment import Segment


class Lingering:
    """Sealed segments that were dropped. `close` gets each one that turned out to be free, and then owns it."""

    def __init__(self, close: Callable[[Segment], None]) -> None:
        self._close = close
        self._held: list[Segment] = []

    def add(self, segments: Iterable[Segment]) -> None:
        """Takes dropped segments over; those that nobody maps go at once."""
        self._held += segments
        self.sweep()

    def sweep(self) -> None:
        """Asks the kernel about each, and lets the free ones go."""
        held, self._held = self._held, []
        for segment in held:
            if segment.unused():
                self._close(segment)
            else:
                self._held.append(segment)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Bytes that are still mapped by somebody."""
        return sum(s.nbytes for s in self._held)

    def close(self) -> None:
        """Lets go of all, mapped or not."""
        held, self._held = self._held, []
        for segment in held:
            self._close(segment)
