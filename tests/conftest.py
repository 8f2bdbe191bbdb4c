"""What every test has to leave as it found it: descriptors, processes, threads and folders."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy with other work makes a sound example slow.
settings.register_profile("mapcell", deadline=None)
settings.load_profile("mapcell")

# What a test let go may take a moment to end: a thread on its way out, a child that was just killed.
GRACE_SECONDS = 3.0
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds at one moment, each thing under a name that tells a reader what it is."""

    descriptors: frozenset[str]
    children: frozenset[str]
    threads: frozenset[str]

    @classmethod
    def now(cls) -> Held:
        """A snapshot."""
        return cls(_descriptors(), _children(), frozenset(map(repr, threading.enumerate())))

    def beyond(self, before: Held) -> list[str]:
        """What is held now and was not before."""
        return [
            *(f"descriptor {d}" for d in sorted(self.descriptors - before.descriptors)),
            *(f"process {c}" for c in sorted(self.children - before.children)),
            *(f"thread {t}" for t in sorted(self.threads - before.threads)),
        ]


@dataclass(slots=True)
class Folders:
    """Every temporary folder that was made in this process, until it was asked for."""

    made: list[str] = field(default_factory=list)

    def left(self) -> list[str]:
        """Those that are still there, each reported once."""
        made, self.made = self.made, []
        return [f"folder {path}" for path in made if os.path.exists(path)]


def _descriptors() -> frozenset[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            # The one that listed the folder.
            continue
    return frozenset(found)


def _children() -> frozenset[str]:
    """Living and dead children; Python's own helper for multiprocessing lives as long as this process."""
    helper = getattr(resource_tracker._resource_tracker, "_pid", None)
    found = set()
    for task in os.listdir("/proc/self/task"):
        try:
            pids = Path(f"/proc/self/task/{task}/children").read_text().split()
        except FileNotFoundError:
            continue
        found.update(_described(int(pid)) for pid in pids if int(pid) != helper)
    return frozenset(found)


def _described(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return str(pid)
    # Not the state letter: a child that sleeps now and runs later is the same one.
    return f"{pid} {stat[stat.index('(') : stat.rindex(')') + 1]}"


def _disconnect() -> None:
    """Ends the SDK's cached control connections, which outlive a test by design."""
    connection = sys.modules.get("mapcell.connection")
    if connection is not None:
        connection.disconnect()


@pytest.fixture(scope="session", autouse=True)
def _temporary_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folders]:
    """Records folders that are made here, and gives child processes one of their own to leave empty.

    No test may find a daemon of this host by accident: whoever wants one says which.
    """
    tmp_path_factory.getbasetemp()
    folders = Folders()
    for_children = tempfile.mkdtemp(prefix="mc", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", _recording(tempfile.mkdtemp, folders))
        patch.setenv("TMPDIR", for_children)
        patch.setenv("MAPCELL_RUNTIME", f"{for_children}-no-daemon")
        yield folders
    left = os.listdir(for_children)
    if not left:
        os.rmdir(for_children)
    assert not left, f"child processes left {left} in {for_children}"


def _recording(make: Callable[..., str], folders: Folders) -> Callable[..., str]:
    def made(*args: object, **kwargs: object) -> str:
        path = make(*args, **kwargs)
        folders.made.append(path)
        return path

    return made


@pytest.fixture(autouse=True)
def _nothing_leaks(_temporary_folders: Folders) -> Iterator[None]:
    """Fails a test that leaves a descriptor, a process, a zombie, a thread or a temporary folder behind."""
    # What fixtures of a wider scope made belongs to them.
    _temporary_folders.made.clear()
    before = Held.now()
    yield
    _disconnect()
    left = _leaked(before)
    left += _temporary_folders.left()
    assert not left, "the test left behind: " + "; ".join(left)


def _leaked(before: Held) -> list[str]:
    left = Held.now().beyond(before)
    if not left:
        return []
    # Cycles through tracebacks keep what they hold until the collector comes by.
    gc.collect()
    until = time.monotonic() + GRACE_SECONDS
    while (left := Held.now().beyond(before)) and time.monotonic() < until:
        time.sleep(_PAUSE_SECONDS)
    return left
