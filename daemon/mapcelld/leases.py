"""Who holds which version. Pure: a lease is a value, and the connection that is the lease belongs to handles.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

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
    """Every lease in force, in the order in which they began; `begun` counts all that ever did."""

    begun: int = 0
    _held: dict[Lease, None] = field(default_factory=dict)
    _per_uid: Counter[int] = field(default_factory=Counter)

    def begin(self, lease: Lease, now: float) -> None:
        """Takes `lease` in and counts it on its version."""
        self.begun += 1
        self._held[lease] = None
        self._per_uid[lease.holder.uid] += 1
        lease.version.leases += 1
        lease.version.used = now

    def end(self, lease: Lease, now: float) -> None:
        """Takes `lease` out; a second call does nothing."""
        if lease in self._held:
            del self._held[lease]
            self._per_uid[lease.holder.uid] -= 1
            if not self._per_uid[lease.holder.uid]:
                del self._per_uid[lease.holder.uid]
            lease.version.leases -= 1
            lease.version.used = now

    def pass_on(self, lease: Lease, pid: int) -> Lease:
        """`lease` as another process of the same user holds it; as it is when it ended."""
        if lease not in self._held:
            return lease
        del self._held[lease]
        passed = replace(lease, holder=lease.holder._replace(pid=pid))
        self._held[passed] = None
        return passed

    def of(self, uid: int) -> int:
        """How many `uid` has."""
        return self._per_uid[uid]

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)
