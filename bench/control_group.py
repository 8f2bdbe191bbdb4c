"""A memory control group that counts what a benchmark's processes are charged, where this machine lets us make one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A group below our own."""

    path: Path
    counter: str

    def add(self, *pids: int) -> None:
        """Moves processes into it: what they allocate from here on counts."""
        for pid in pids:
            (self.path / "cgroup.procs").write_text(str(pid))

    def usage(self) -> int:
        """Bytes charged now, page cache included."""
        return int((self.path / self.counter).read_text())


def _own() -> tuple[Path, str] | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _V1 / path.lstrip("/"), "memory.usage_in_bytes"
        if not controllers and (_V2 / path.lstrip("/") / "memory.current").exists():
            return _V2 / path.lstrip("/"), "memory.current"
    return None


@contextlib.contextmanager
def control_group() -> Iterator[ControlGroup | None]:
    """A new group, removed at the end when its processes are gone; None where none can be made."""
    own = _own()
    group = None
    if own is not None:
        group = ControlGroup(own[0] / f"mapcell-bench-{os.getpid()}", own[1])
        try:
            group.path.mkdir()
            # In version 2 a group below one that has processes counts nothing.
            group.usage()
        except OSError:
            with contextlib.suppress(OSError):
                group.path.rmdir()
            group = None
    try:
        yield group
    finally:
        if group is not None:
            _remove(group.path)


def _remove(path: Path) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            path.rmdir()
            return
        time.sleep(0.02)
