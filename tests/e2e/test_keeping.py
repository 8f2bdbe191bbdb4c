"""How memory is kept: preloaded, locked, warm, in huge pages, and not twice."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import mapcell
from mapcell.connection import daemon_status
from mapcell_formats.errors import BudgetExceeded, StagingFailed
from mapcell_formats.messages import Retire
from support.cgroup import memory_group, needs_memory_cgroup
from support.configured import Configured, model
from support.models import MIB, number_of, rows, tell, write_model
from support.proc import children, eventually, locked, shared_memory

MODEL = 4 * MIB


def cached(path: Path) -> int:
    """Bytes of a file that the page cache holds, as cachestat and mincore tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    fd = os.open(path, os.O_RDONLY)
    try:
        address = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
        flags = (ctypes.c_ubyte * pages)()
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), flags) == 0
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
        return sum(f & 1 for f in flags) * mmap.PAGESIZE
    finally:
        os.close(fd)


def forget(path: Path) -> None:
    """Has the kernel drop a file from its page cache."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def test_preload_pin_lock_and_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preloaded models are there unasked; pins show; `lock` locks their pages; `warm` brings a mapped file's."""
    sealed, mapped = write_model(tmp_path / "s.safetensors", 1), write_model(tmp_path / "m.safetensors", 2)
    forget(mapped)
    text = model("s", sealed, "preload = true", "pin = true", "lock = true", 'residence = "sealed"')
    text += model("m", mapped, "preload = true", "warm = true", 'residence = "mapped"')
    with Configured(tmp_path, text, monkeypatch) as daemon:
        eventually(
            lambda: {(r.name, r.state, r.pinned) for r in rows()} == {("s", "READY", True), ("m", "READY", False)}
        )
        eventually(lambda: locked(daemon.pid) >= MODEL)
        assert cached(mapped) >= MODEL
        # Wanted locked later, what is there is locked then.
        assert daemon.reload(text + "lock = true\n").endswith("reloaded")
        eventually(lambda: locked(daemon.pid) >= 2 * MODEL)
        tell(Retire("s"))
        tell(Retire("m"))
        eventually(lambda: locked(daemon.pid) == 0)
        eventually(lambda: daemon_status().sealed == shared_memory(daemon.pid) == 0)


def test_drop_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With drop_cache the page cache does not hold a second copy of what was sealed; without it may."""
    for choice, left in (("true", 0), ("false", MODEL)):
        path = write_model(tmp_path / f"{choice}.safetensors", 1)
        # Only clean pages can be dropped, and these were just written.
        forget(path)
        with Configured(tmp_path, f"drop_cache = {choice}\n" + model("m", path, 'residence = "sealed"'), monkeypatch):
            assert number_of(mapcell.attach("m")) == 1
            assert cached(path) // MODEL == left // MODEL
            mapcell.disconnect()


@pytest.fixture
def huge_pages() -> Iterator[int]:
    """16 huge pages of 2 MiB more for the test; as many as before afterwards."""
    path = Path("/proc/sys/vm/nr_hugepages")
    with path.open() as setting:
        # Of two test runs at once the later would take the earlier one's pages for the host's.
        fcntl.flock(setting, fcntl.LOCK_EX)
        before = setting.read()
        try:
            path.write_text(str(int(before) + 16))
        except OSError:
            pytest.skip("setting huge pages aside takes root")
        try:
            free = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
            if free < 16:
                pytest.skip("this host has no 32 MiB in one piece each of 2 MiB left")
            yield free
        finally:
            path.write_text(before)


def test_huge_pages(huge_pages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`on` lays a model into huge pages, which come back; what they cannot hold is refused, or `try` does without."""
    free = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    small = write_model(tmp_path / "small.safetensors", 1, tensors=3)
    big = write_model(tmp_path / "big.safetensors", 2, tensors=huge_pages + 2, mib=2)
    for choice in ("on", "try"):
        text = f'huge_pages = "{choice}"\nresidence = "sealed"\n' + model("small", small) + model("big", big)
        with Configured(tmp_path, text, monkeypatch):
            weights = mapcell.attach("small")
            assert number_of(weights) == 1
            assert int(free.read_text()) == huge_pages - 2
            if choice == "on":
                with pytest.raises(StagingFailed, match=r"raise vm\.nr_hugepages"):
                    mapcell.attach("big")
            else:
                assert number_of(mapcell.attach("big")) == 2
            del weights
            mapcell.disconnect()
        eventually(lambda: int(free.read_text()) == huge_pages)


@needs_memory_cgroup
def test_huge_pages_need_no_free_memory(huge_pages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that were set aside are there for a model when the service's control group has no other memory left."""
    path = write_model(tmp_path / "m.safetensors", 1, tensors=huge_pages - 1, mib=2)
    text = 'budget = "1GiB"\nhuge_pages = "try"\nresidence = "sealed"\n' + model("m", path)
    with memory_group() as group, Configured(tmp_path, text, monkeypatch) as daemon:
        group.add(daemon.pid, *children(daemon.pid))
        group.limit(group.usage() + 24 * MIB)
        assert number_of(mapcell.attach("m")) == 1
        daemon.reload(text.replace("try", "off"))
        tell(Retire("m"))
        with pytest.raises(BudgetExceeded, match="control group"):
            mapcell.attach("m")


def small_maps() -> dict[str, int]:
    """What smaps says of this process's maps of lent memory: bytes by field."""
    sums: Counter[str] = Counter()
    lent = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name:
            lent = "mapcell-segment" in line
        elif lent and rest.endswith(" kB"):
            sums[name] += int(rest.split()[0]) * 1024
    return sums


def test_huge_pages_that_nobody_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`try` lays a model into huge pages that the kernel makes, and workers map them as such; `off` does not."""
    if int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text()):
        pytest.skip("this host has set huge pages aside, which are taken first")
    path = write_model(tmp_path / "m.safetensors", 1, tensors=9, mib=2)
    for choice in ("off", "try"):
        text = f'huge_pages = "{choice}"\nresidence = "sealed"\n' + model("m", path)
        with Configured(tmp_path, text, monkeypatch):
            weights = mapcell.attach("m")
            assert number_of(weights) == 1
            touched = sum(float(array.sum()) for array in weights.values())
            shown = small_maps()
            assert shown["Rss"] >= 18 * MIB
            if choice == "off":
                assert shown["ShmemPmdMapped"] == 0
                expected = touched
                continue
            if not shown["ShmemPmdMapped"]:
                pytest.skip("this kernel, or what memory this host has left, makes no huge pages")
            assert shown["ShmemPmdMapped"] <= 18 * MIB
            assert touched == expected
            with mapcell.attach("m", mode="c") as own:
                name = next(iter(own))
                own[name].flat[0] = -1
            assert number_of(mapcell.attach("m")) == 1
        del weights
