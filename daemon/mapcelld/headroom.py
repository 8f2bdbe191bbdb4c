"""How many descriptors are left. With too few, listening stops: libzmq ends the process when accept says EMFILE."""

from __future__ import annotations

import os
import resource

# An eighth of the limit, and never fewer than these, stays free for stagers, grants and what libzmq accepts before the
# next look.
_MIN_RESERVE = 128
_RESERVE_SHARE = 8
LOOK_SECONDS = 0.05


def descriptors() -> int:
    """How many descriptors this process has open."""
    # Since Linux 6.2 the folder's size tells, without a walk through it.
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))


class Headroom:
    """Whether there is room for another connection; with some distance between its yes and its no."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
        self._reserve = max(_MIN_RESERVE, self._limit // _RESERVE_SHARE)
        self.open = True

    def look(self, used: int) -> bool:
        """Whether to listen, now that `used` descriptors are open: no below the reserve, yes again well above it."""
        left = self._limit - used
        self.open = left > self._reserve if self.open else left > self._reserve + self._reserve // 2
        return self.open
