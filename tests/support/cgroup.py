"""A real memory control group with a limit, where the machine lets the tests make one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_BASE = Path("/sys/fs/cgroup/memory")


def _own() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _BASE / path.lstrip("/")
    return _BASE


needs_memory_cgroup = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(_own() / "memory.limit_in_bytes", os.W_OK),
    reason="limiting memory takes root and a memory control group of version 1",
)


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A control group below the one of the tests."""

    path: Path

    def add(self, *pids: int) -> None:
        """Moves processes into the group; what they allocate from here on counts."""
        for pid in pids:
            (self.path / "cgroup.procs").write_text(str(pid))

    def usage(self) -> int:
        """Bytes charged now."""
        return int((self.path / "memory.usage_in_bytes").read_text())

    def limit(self, nbytes: int) -> None:
        """Allows so many bytes in all; the kernel kills whoever is over it and can give nothing back."""
        (self.path / "memory.limit_in_bytes").write_text(str(nbytes))

    def kills(self) -> int:
        """How many processes the kernel has killed here."""
        lines = (self.path / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A new group, which has to be empty again at the end."""
    group = MemoryGroup(_own() / f"mapcell-test-{os.getpid()}")
    group.path.mkdir()
    try:
        yield group
    finally:
        for _ in range(200):
            with contextlib.suppress(OSError):
                group.path.rmdir()
                break
            time.sleep(0.02)
