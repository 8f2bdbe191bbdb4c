"""Memory is counted before it is taken, given back when nobody maps it, and refused in figures that /proc confirms."""

from __future__ import annotations

import gc
import mmap
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mapcell
from mapcell.connection import daemon_status
from mapcell_formats.errors import BudgetExceeded, StagingFailed
from mapcell_formats.messages import Pin, Unload
from support.cgroup import memory_group, needs_memory_cgroup
from support.daemon import DaemonProcess
from support.models import MIB, load, looked_at, number_of, rested, rows, tell, write_model
from support.proc import children, eventually, locked, memory_files, shared_memory
from support.raw import raw_attach
from support.staging import staging_stopped

MODEL = 4 * MIB


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon with room for three models of 4 MiB, and this process pointed at it."""
    with DaemonProcess("--budget", "13MiB") as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield running


def names() -> set[str]:
    """The models that are there."""
    return {r.name for r in rows()}


def put(folder: Path, name: str, number: int) -> None:
    """Loads a model of 4 MiB and lets go of it."""
    before = daemon_status().leases
    load(write_model(folder / f"{name}.safetensors", number), name).close()
    gc.collect()
    eventually(lambda: daemon_status().leases == before)


def agrees(daemon: DaemonProcess) -> bool:
    """Whether what status says is what /proc shows: bytes of shared memory, and open descriptors."""
    status = daemon_status()
    opened = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    return status.sealed == sum(memory_files([daemon.pid]).values()) and status.descriptors == opened


def test_the_longest_unused_goes(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Loading a fourth model evicts the one whose last lease is longest ago, and says so in status and in /proc."""
    for number, name in enumerate("abc"):
        put(tmp_path, name, number)
    mapcell.attach("a").close()
    gc.collect()
    put(tmp_path, "d", 3)
    assert names() == {"a", "c", "d"}
    assert daemon_status().sealed == 3 * MODEL
    eventually(lambda: agrees(daemon))


def test_pinned_and_leased_stay(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A pin and a lease keep a model from eviction; with nothing else to drop the refusal names all holders."""
    for number, name in enumerate("abc"):
        put(tmp_path, name, number)
    tell(Pin("a", True))
    held = mapcell.attach("b")
    put(tmp_path, "d", 3)
    assert names() == {"a", "b", "d"}
    also = mapcell.attach("d")
    looked_at()
    before = rested()
    with pytest.raises(BudgetExceeded) as caught:
        load(write_model(tmp_path / "e.safetensors", 4), "e")
    error = caught.value
    assert isinstance(error, MemoryError)
    assert error.details | {"needed": MODEL, "budget": 13 * MIB, "in_use": 3 * MODEL} == error.details
    for word in (
        str(MODEL),
        str(13 * MIB),
        str(3 * MODEL),
        f"{MODEL + 3 * MODEL - 13 * MIB} too many",
        "a (",
        "b (",
        "d (",
    ):
        assert word in error.message
    after = rested()
    assert (after.sealed, after.stagers, after.descriptors) == (before.sealed, 0, before.descriptors)
    assert shared_memory(daemon.pid) == 3 * MODEL
    assert names() == {"a", "b", "d"}
    assert [number_of(held), number_of(also)] == [1, 3]


def test_too_big_for_any_eviction_drops_nothing(daemon: DaemonProcess, tmp_path: Path) -> None:
    """What would not fit an empty daemon is refused before anything is dropped or allocated for it."""
    put(tmp_path, "a", 1)
    with pytest.raises(BudgetExceeded, match="too many"):
        load(write_model(tmp_path / "big.safetensors", 2, tensors=4, mib=4), "big")
    assert names() == {"a"}
    assert shared_memory(daemon.pid) == MODEL


def test_what_is_still_mapped_still_counts(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Memory of a closed lease counts, and stands in the way, until the kernel says that nobody maps it."""
    put(tmp_path, "a", 1)
    with raw_attach(daemon.runtime, "a") as granted:
        kept = mmap.mmap(granted.fds[1], granted.grant.segments[0], prot=mmap.PROT_READ)
    eventually(lambda: daemon_status().leases == 0)
    tell(Unload("a"))
    assert names() == set()
    try:
        assert daemon_status().sealed == MODEL
        put(tmp_path, "b", 2)
        put(tmp_path, "c", 3)
        mine = [mapcell.attach(n) for n in "bc"]
        with pytest.raises(BudgetExceeded):
            load(write_model(tmp_path / "d.safetensors", 4), "d")
        assert daemon_status().sealed == 3 * MODEL
        assert np.frombuffer(kept, np.float32)[-1] == 1
    finally:
        kept.close()
    eventually(lambda: daemon_status().sealed == 2 * MODEL)
    assert number_of(load(tmp_path / "d.safetensors", "d")) == 4
    assert [number_of(w) for w in mine] == [2, 3]


def test_a_killed_stager_is_a_clean_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stager that is killed midway costs its client a StagingFailed, and its memory comes back at once."""
    path = write_model(tmp_path / "big.safetensors", 5, tensors=48, mib=4)
    with DaemonProcess() as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        before = daemon_status()
        with staging_stopped(daemon.pid, path, "big") as (pid, result):
            assert shared_memory(daemon.pid) > 0
            assert daemon_status().stagers == 1
            os.kill(pid, signal.SIGKILL)
            error = result()
        assert isinstance(error, StagingFailed)
        assert "want of memory" in error.message
        eventually(lambda: daemon_status().descriptors == before.descriptors)
        assert (daemon_status().sealed, daemon_status().stagers, shared_memory(daemon.pid)) == (0, 0, 0)
        assert rows() == []
        assert number_of(load(path, "big")) == 5


@needs_memory_cgroup
def test_a_control_groups_limit_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the service's control group has no room for is refused, and the kernel kills nobody."""
    path = write_model(tmp_path / "big.safetensors", 5, tensors=32, mib=4)
    small = write_model(tmp_path / "small.safetensors", 6)
    with memory_group() as group, DaemonProcess() as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        group.add(daemon.pid, *children(daemon.pid))
        group.limit(group.usage() + 64 * MIB)
        with pytest.raises(BudgetExceeded, match="control group") as caught:
            load(path, "big")
        assert caught.value.details["needed"] == 128 * MIB
        assert group.kills() == 0
        assert number_of(load(small, "small")) == 6
        # What it refused it can hold once the limit allows it.
        group.limit(group.usage() + 512 * MIB)
        assert number_of(load(path, "big")) == 5
        assert group.kills() == 0


@needs_memory_cgroup
def test_the_kernel_kills_the_stager_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When memory runs out all the same, the kernel takes the stager, not the daemon, however much that has locked."""
    path = write_model(tmp_path / "big.safetensors", 5, tensors=64, mib=4)
    small = write_model(tmp_path / "small.safetensors", 6, tensors=32, mib=4)
    config = tmp_path / "mapcelld.toml"
    config.write_text(f'[[model]]\nname = "small"\nsource = "{small}"\nresidence = "sealed"\nlock = true\n')
    with memory_group() as group, DaemonProcess("--config", str(config)) as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        (spawner,) = children(daemon.pid)
        group.add(daemon.pid, spawner)
        held = mapcell.attach("small")
        eventually(lambda: locked(daemon.pid) >= 128 * MIB)
        with staging_stopped(daemon.pid, path, "big") as (pid, result):
            # Somebody else in the group takes what was free when the daemon looked.
            group.limit(group.usage() + 16 * MIB)
            os.kill(pid, signal.SIGCONT)
            error = result()
        assert isinstance(error, StagingFailed)
        assert group.kills() == 1
        assert daemon.alive()
        assert children(daemon.pid) == [spawner]
        eventually(lambda: shared_memory(daemon.pid) == daemon_status().sealed == 128 * MIB)
        assert number_of(held) == 6
        assert number_of(mapcell.attach("small")) == 6
        del held
        group.limit(group.usage() + 512 * MIB)
        assert number_of(load(path, "big")) == 5


def test_figures_agree_with_proc(daemon: DaemonProcess, tmp_path: Path) -> None:
    """After loads, a cast, a mapped file, leases and evictions status still says what /proc shows."""
    for number, name in enumerate("abcd"):
        put(tmp_path, name, number)
    cast = mapcell.attach("d", dtype="float16")
    mapped = load(write_model(tmp_path / "m.safetensors", 9), "m", residence="mapped")
    eventually(lambda: agrees(daemon))
    status = daemon_status()
    assert status.sealed == sum({r.version: r.nbytes for r in rows() if r.residence == "sealed"}.values())
    assert status.mapped == (tmp_path / "m.safetensors").stat().st_size
    assert status.leases == status.connections == 2
    assert (number_of(cast), number_of(mapped)) == (3, 9)
    cast.close()
    mapped.close()
    gc.collect()
    for name in names():
        tell(Unload(name))
    eventually(lambda: agrees(daemon) and daemon_status().sealed == 0)
