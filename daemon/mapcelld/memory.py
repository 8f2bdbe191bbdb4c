"""What memory there is: the host's, and that of every control group above this process.

In a full memory cgroup an allocation does not fail, it gets the process killed: whoever wants to allocate asks here
first. Source: cgroups(7), the kernel's cgroup-v1 and cgroup-v2 documents, proc_meminfo(5).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_HUGE_PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
# cgroup v1 says "no limit" with a number near 2^63.
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class _Names:
    """What one version of cgroups calls the limit, the usage, and the page cache within it."""

    limit: str
    usage: str
    cache: tuple[str, ...]


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Names("memory.max", "memory.current", ("inactive_file", "active_file"))


def total() -> int:
    """Bytes of memory that this process could ever use: the host's, or the lowest limit above it."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([host, *(limit for _, _, limit in _limits())])


def available() -> int:
    """Bytes that could be allocated now: the kernel's estimate for the host, or what the tightest limit leaves.

    Page cache counts as room, since the kernel gives it up; shared memory does not.
    """
    rooms = [_host_available()]
    for folder, names, limit in _limits():
        rooms.append(limit - _number(folder / names.usage) + _cache(folder, names))
    return max(min(rooms), 0)


def free_huge_pages() -> int:
    """Bytes of 2 MiB pages that were set aside and that nobody uses or was promised. They count as no free memory."""
    return (_number(_HUGE_PAGES / "free_hugepages") - _number(_HUGE_PAGES / "resv_hugepages")) * (2 << 20)


def _host_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize


def _limits() -> Iterator[tuple[Path, _Names, int]]:
    for line in _MEMBERSHIP.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        names, base = (_V1, _CGROUP / "memory") if controllers else (_V2, _CGROUP)
        folder = base / path.lstrip("/")
        for place in [folder, *folder.parents]:
            if place.is_relative_to(base) and 0 < (limit := _number(place / names.limit)) < _NO_LIMIT:
                yield place, names, limit


def _cache(folder: Path, names: _Names) -> int:
    try:
        lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(value) for key, value in lines if key in names.cache)


def _number(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0
