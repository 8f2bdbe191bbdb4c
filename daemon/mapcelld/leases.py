"""Who holds which version. Pure: a lease is a value, and the connection that is the lease belongs to handles.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mapcelld.channel import Credentials
from mapcelld.registry import Version


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """One process's right to use `version` under the name it asked for. `since` in seconds since the epoch."""

    holder: Credentials
    name: str
    version: Version
    since: float


@dataclass(slots=True)
class Leases:
    """Every lease in force, in the order in which they began."""

    _held: dict[Lease, None] = field(default_factory=dict)

    def begin(self, lease: Lease, now: float) -> None:
        """Takes `lease` in and counts it on its version."""
        self._held[lease] = None
        lease.version.leases += 1
        lease.version.used = now

    def end(self, lease: Lease, now: float) -> None:
        """Takes `lease` out; a second call does nothing."""
        if lease in self._held:
            del self._held[lease]
            lease.version.leases -= 1
            lease.version.used = now

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)
