"""What the kernel says of processes: their descendants, and the anonymous memory files that they hold."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_BLOCK = 512


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until `condition()` holds; AssertionError when it never does."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    """The children of `pid`, whichever thread of it made them."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def stagers(daemon: int) -> list[int]:
    """The stagers under way in the daemon with pid `daemon`: what its spawner forked."""
    return [stager for spawner in children(daemon) for stager in children(spawner)]


def memory_files(pids: Iterable[int]) -> dict[int, int]:
    """Bytes that each memory file of segments held by `pids` really occupies, by inode."""
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    path = f"/proc/{pid}/fd/{fd}"
                    if os.readlink(path).startswith("/memfd:mapcell-segment"):
                        info = os.stat(path)
                        found[info.st_ino] = info.st_blocks * _BLOCK
    return found


def shared_memory(daemon: int) -> int:
    """Bytes of segments that the daemon with pid `daemon` and its stagers hold."""
    return sum(memory_files([daemon, *stagers(daemon)]).values())


def locked(pid: int) -> int:
    """Bytes that a process has locked in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmLck:"))


class Peak(threading.Thread):
    """Samples `figure` until the block ends; `value` is the highest that was seen."""

    def __init__(self, figure: Callable[[], int]) -> None:
        super().__init__()
        self._figure = figure
        self._over = threading.Event()
        self.value = 0

    def run(self) -> None:
        """Samples every other millisecond."""
        while not self._over.wait(0.002):
            self.value = max(self.value, self._figure())

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self.join()
