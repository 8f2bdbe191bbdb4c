"""How many descriptors are left. With too few, listening stops: libzmq ends the process when accept says EMFILE.

The handle channel stops first: who waits there loses nothing, while libzmq lets every peer go when it stops listening.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

# An eighth of the limit, and never fewer than these, stays free for stagers, grants and what libzmq accepts before the
# next look.
_MIN_RESERVE = 128
_RESERVE_SHARE = 8
LOOK_SECONDS = 0.05
# Connections that may come without a look: few against any reserve, since they can come faster than the clock ticks.
_UNSEEN = 16


def descriptors() -> int:
    """How many descriptors this process has open."""
    # Since Linux 6.2 the folder's size tells, without a walk through it.
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))


class Headroom:
    """Whether there is room for another connection; with some distance between its yes and its no.

    `limit` counts descriptors, this process's own when None; `share` of the reserve is kept free.
    """

    def __init__(self, limit: int | None = None, share: float = 1.0) -> None:
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
        self._reserve = int(max(_MIN_RESERVE, self._limit // _RESERVE_SHARE) * share)
        self.open = True

    def look(self, used: int) -> bool:
        """Whether to listen, now that `used` descriptors are open: no below the reserve, yes again well above it."""
        left = self._limit - used
        self.open = left > self._reserve if self.open else left > self._reserve + self._reserve // 2
        return self.open


class Growth:
    """Calls `look` when enough connections were counted that one is due."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._unseen = 0

    def count(self) -> None:
        """Another connection was taken."""
        self._unseen += 1
        if self._unseen >= _UNSEEN:
            self._unseen = 0
            self._look()
