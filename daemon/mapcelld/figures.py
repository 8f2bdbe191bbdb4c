"""What the daemon counts, as values: durations in buckets, and one snapshot of everything. metrics.py renders them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

# From an attach without staging (a tenth of a millisecond) to what takes longer than any client waits.
_BOUNDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Durations:
    """How many events took how long. `counts` has one entry for each of `bounds` (in seconds) and one for longer."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    seconds: float


@dataclass(slots=True)
class Histogram:
    """Counts durations."""

    _counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    _seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one event that took `seconds`."""
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def statistics(self) -> Durations:
        """What was counted so far."""
        return Durations(_BOUNDS, tuple(self._counts), self._seconds)


@dataclass(frozen=True, slots=True)
class Statistics:
    """The daemon at one moment. Sizes in bytes, times in seconds.

    `versions` counts by (residence, state), `held` bytes by residence, `leases` by (model, uid); `refusals` by the
    code of the error, `sources` by the state of a model's source (messages.ModelRow). Models that are not everybody's
    have no name here: whoever may read figures may not know it.
    """

    version: str
    started: float
    budget: int
    models: int
    versions: Mapping[tuple[str, str], int]
    held: Mapping[str, int]
    lingering: int
    leases: Mapping[tuple[str, int], int]
    connections: int
    subscriptions: int
    descriptors: int
    descriptor_limit: int
    staging: int
    attaches: Durations
    stagings: Durations
    read: int
    published: int
    evictions: int
    refusals: Mapping[str, int]
    restarts: int
    adopted: int
    stored: int
    store_limit: int
    sources: Mapping[str, int]
    watches: int
    followed: int
    unverified: int
    hashed: int
