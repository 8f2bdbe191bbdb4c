"""A version is immutable, a name moves: old ones live on under their leases, and switching shows in no answer."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import mapcell
from mapcell.connection import daemon_status
from mapcell_formats.errors import MapcellError, NotFound
from mapcell_formats.messages import Event, Evict, Pin, Retire, Tag, Unload
from support.daemon import DaemonProcess
from support.models import MIB, load, number_of, rows, tell, write_model
from support.proc import Peak, eventually, memory_files, shared_memory

WORKERS = 4
SIZE = 4 * MIB


def versions(name: str = "m") -> list[str]:
    """The ids of a model's versions, newest first."""
    return [r.version for r in rows(name)]


def two(tmp_path: Path) -> tuple[mapcell.Weights, mapcell.Weights]:
    """Weights of both versions of "m": its source was changed between the two loads."""
    path = tmp_path / "m.safetensors"
    return load(write_model(path, 1), "m"), load(write_model(path, 2), "m")


def test_changed_source_is_a_version_beside_the_old(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The name means the newest; who holds the old one keeps it, is told of the new one, and takes it along at last."""
    old, new = two(tmp_path)
    assert [number_of(old), number_of(new), number_of(mapcell.attach("m"))] == [1, 2, 2]
    assert old.newer() == new.version
    assert new.newer() is None
    assert versions() == [new.version, old.version]
    assert [r.tags for r in rows("m")] == [("latest",), ()]
    assert number_of(mapcell.attach(f"m@{old.version[:15]}")) == 1
    old.close()
    gc.collect()
    eventually(lambda: versions() == [new.version])
    eventually(lambda: daemon_status().sealed == SIZE)
    with pytest.raises(NotFound):
        mapcell.attach(f"m@{old.version}")


def test_tags_and_pins_keep_a_version(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A tagged or pinned version outlives its last lease, and goes when tag and pin go elsewhere."""
    old, new = two(tmp_path)
    ids = old.version, new.version
    tell(Tag("m", ids[0], "stable"))
    tell(Pin(f"m@{ids[0]}", True))
    old.close()
    new.close()
    gc.collect()
    eventually(lambda: daemon_status().leases == 0)
    assert [(r.version, r.tags, r.pinned) for r in rows("m")] == [
        (ids[1], ("latest",), False),
        (ids[0], ("stable",), True),
    ]
    assert number_of(mapcell.attach("m:stable")) == 1
    assert number_of(mapcell.attach("m:latest")) == 2
    gc.collect()
    tell(Tag("m", ids[1], "stable"))
    assert number_of(mapcell.attach("m:stable")) == 2
    assert versions() == [ids[1], ids[0]]
    tell(Pin(f"m@{ids[0]}", False))
    eventually(lambda: versions() == [ids[1]])
    assert rows("m")[0].tags == ("stable", "latest")


def test_watch_tells_of_the_switch(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Who watches a name hears that the new version is ready, and then that the old one is gone."""
    path = write_model(tmp_path / "m.safetensors", 1)
    ids = [load(path, "m").version]
    gc.collect()
    seen: list[Event] = []
    snapshot = threading.Event()

    def listen() -> None:
        for event in mapcell.watch("m", timeout=20):
            seen.append(event)
            snapshot.set()
            if event.kind == "retired":
                return

    listener = threading.Thread(target=listen)
    listener.start()
    assert snapshot.wait(10)
    ids.append(load(write_model(path, 2), "m").version)
    listener.join()
    assert [(e.kind, e.version) for e in seen if e.kind in ("ready", "retired")] == [
        ("ready", ids[0]),
        ("ready", ids[1]),
        ("retired", ids[0]),
    ]
    assert [e.number for e in seen] == list(range(len(seen)))


WORKER = """
import sys, time
import mapcell
from support.models import number_of
weights = mapcell.attach("m")
print("ready", flush=True)
answers, versions = [], {weights.version: number_of(weights)}
while True:
    # One request: everything that it reads comes from the weights that it began with.
    answers.append(number_of(weights))
    print(answers[-1], flush=True)
    if weights.newer():
        weights = mapcell.attach("m")
        versions[weights.version] = number_of(weights)
"""


class Answers(threading.Thread):
    """One worker process and what it answered so far."""

    def __init__(self, daemon: DaemonProcess) -> None:
        super().__init__()
        tests = str(Path(__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{WORKER}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=daemon.env(),
        )
        self.lines: list[str] = []
        self.start()

    def run(self) -> None:
        """Reads its answers until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def end(self) -> str:
        """Ends the worker; what it wrote to stderr."""
        self.process.terminate()
        self.join()
        _, error = self.process.communicate()
        return error


def test_switch_under_load(daemon: DaemonProcess, tmp_path: Path) -> None:
    """4 workers answer while a version is staged and taken over: nothing fails, mixes, or takes more than old + new."""
    path, tensors, mib = tmp_path / "m.safetensors", 24, 4
    size = tensors * mib * MIB
    load(write_model(path, 1, tensors, mib), "m").close()
    gc.collect()
    workers = [Answers(daemon) for _ in range(WORKERS)]
    try:
        eventually(lambda: all(len(w.lines) > 3 for w in workers), 30)
        with Peak(lambda: shared_memory(daemon.pid)) as peak:
            before = [len(w.lines) for w in workers]
            staged = load(write_model(path, 2, tensors, mib), "m")
            during = [len(w.lines) - n for w, n in zip(workers, before, strict=True)]
            eventually(lambda: all("2" in w.lines for w in workers), 30)
            eventually(lambda: versions() == [staged.version])
            eventually(lambda: daemon_status().sealed == size)
    finally:
        errors = [w.end() for w in workers]
    assert errors == [""] * WORKERS
    for worker in workers:
        # An answer is one number, so there was no mixture; and once there was a 2, no 1 came after it.
        assert worker.lines[1:] == sorted(worker.lines[1:])
        assert set(worker.lines[1:]) == {"1", "2"}
    assert all(n > 0 for n in during), f"answers of each worker while the new version was staged: {during}"
    assert size < peak.value <= 2 * size
    assert sum(memory_files([daemon.pid]).values()) == size


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_equal_bytes_are_held_once(daemon: DaemonProcess, tmp_path: Path, suffix: str) -> None:
    """Two files of equal tensors under two names are one version, which goes with the second name."""
    one = load(write_model(tmp_path / "one.safetensors", 7), "one")
    other = tmp_path / f"other.{suffix}"
    if suffix == "ckpt":
        mapcell.save_checkpoint([{"name": n, "data": mapcell.Tensor(one[n])} for n in one], str(other))
    else:
        write_model(other, 7)
    two = load(other, "two")
    assert one.version == two.version
    assert daemon_status().sealed == SIZE
    # What the second stager made goes a moment later: big memory is freed off the daemon's loop.
    until = time.monotonic() + 5
    while shared_memory(daemon.pid) != SIZE and time.monotonic() < until:
        time.sleep(0.01)
    assert shared_memory(daemon.pid) == SIZE
    one.close()
    two.close()
    gc.collect()
    tell(Unload("one"))
    assert number_of(mapcell.attach("two")) == 7
    gc.collect()
    tell(Unload("two"))
    eventually(lambda: daemon_status().sealed == shared_memory(daemon.pid) == 0)


def test_retire_lets_leases_finish(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A retired version is handed to nobody, stays under its lease, and its memory goes with that."""
    weights = load(write_model(tmp_path / "m.safetensors", 1), "m")
    assert [r.version for r in tell(Retire("m")).rows] == [weights.version]
    with pytest.raises(NotFound):
        mapcell.attach("m")
    assert rows() == []
    assert daemon_status().sealed == SIZE
    assert number_of(weights) == 1
    weights.close()
    gc.collect()
    eventually(lambda: daemon_status().sealed == shared_memory(daemon.pid) == 0)


def test_evict_refuses_what_is_leased(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Evicting names the processes that hold it; without a lease it frees the memory at once."""
    weights = load(write_model(tmp_path / "m.safetensors", 1), "m")
    with pytest.raises(MapcellError, match=rf"held by 1 process \(pid {os.getpid()}\)"):
        tell(Evict("m"))
    weights.close()
    gc.collect()
    eventually(lambda: daemon_status().leases == 0)
    tell(Evict("m"))
    eventually(lambda: daemon_status().sealed == shared_memory(daemon.pid) == 0)
    assert rows() == []


def test_unload_one_version_of_two(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Unloading the newest version makes the name mean the one before it; a pin does not stand in the way."""
    old, new = two(tmp_path)
    tell(Pin(f"m@{new.version}", True))
    tell(Unload(f"m@{new.version}"))
    assert versions() == [old.version]
    assert number_of(mapcell.attach("m")) == 1
    assert number_of(new) == 2
    assert new.newer() == old.version
