"""Sealed memory is immutable for everybody, root included, and one client's descriptor is nobody else's business."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mapcell.attaching import attach
from mapcell.daemon_backend import attach_path
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.raw import RawGrant, raw_attach

VALUES = np.arange(1 << 16, dtype=np.float32)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon that holds the sealed model "m", and this process pointed at it."""
    path = write_safetensors(tmp_path / "m.safetensors", {"a": VALUES})
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        attach_path(str(path), dtype=None, keys=None, prefix="", mode="r", timeout=30, name="m", residence="sealed")
        yield running


@pytest.fixture
def grant(daemon: DaemonProcess) -> Iterator[RawGrant]:
    """The bare descriptors of one lease, as a client without the SDK would have them."""
    with raw_attach(daemon.runtime, "m") as granted:
        yield granted


def reopened_for_writing(fd: int) -> None:
    """Opens the memory anew for writing, as its owner may, and writes: the seal has to refuse."""
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        os.pwrite(own, b"x", 0)
    finally:
        os.close(own)


def reopened_and_truncated(fd: int) -> None:
    """Opens the memory anew for writing and truncates it."""
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        os.ftruncate(own, 0)
    finally:
        os.close(own)


def made_writable(fd: int) -> None:
    """Maps the memory shared and read-only, then asks mprotect for more."""
    libc = ctypes.CDLL(None, use_errno=True)
    mapped = mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    array = np.frombuffer(mapped, np.uint8)
    try:
        address = ctypes.c_void_p(array.ctypes.data)
        if libc.mprotect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    finally:
        del array
        mapped.close()


def mapped_shared_for_writing(fd: int) -> None:
    """Maps the memory shared and writable."""
    mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()


ATTACKS: dict[str, Callable[[int], object]] = {
    "pwrite": lambda fd: os.pwrite(fd, b"x", 0),
    "ftruncate": lambda fd: os.ftruncate(fd, 0),
    "grow": lambda fd: os.posix_fallocate(fd, 0, 1 << 24),
    "shared writable map": mapped_shared_for_writing,
    "mprotect": made_writable,
    "reopen and write": reopened_for_writing,
    "reopen and truncate": reopened_and_truncated,
    "unseal": lambda fd: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_kernel_refuses_every_change(grant: RawGrant, attack: str) -> None:
    """Manifest and segment alike refuse the attack, and a second worker still reads the right bytes."""
    for fd in grant.fds:
        with pytest.raises(OSError):
            ATTACKS[attack](fd)
    assert np.array_equal(attach("m")["a"], VALUES)


def test_views_are_read_only(daemon: DaemonProcess) -> None:
    """NumPy raises on a write through a shared view, whatever way the write takes."""
    view = attach("m")["a"]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    with pytest.raises(ValueError, match="read-only"):
        view += 1
    assert np.array_equal(attach("m")["a"], VALUES)


def test_copy_on_write_stays_private(daemon: DaemonProcess) -> None:
    """mode="c" takes writes, and nobody else sees them."""
    mine = attach("m", mode="c")["a"]
    mine[:] = -1
    assert np.array_equal(attach("m")["a"], VALUES)
    assert mine.sum() == -VALUES.size


def test_descriptors_are_nobody_elses(daemon: DaemonProcess) -> None:
    """Moving the offset, O_NONBLOCK, O_DIRECT and signals on one client's descriptor show on no other's."""
    with raw_attach(daemon.runtime, "m") as one, raw_attach(daemon.runtime, "m") as two:
        for mine, other in zip(one.fds, two.fds, strict=True):
            before = fcntl.fcntl(other, fcntl.F_GETFL)
            os.lseek(mine, 17, os.SEEK_SET)
            fcntl.fcntl(mine, fcntl.F_SETFL, before | os.O_NONBLOCK | os.O_APPEND)
            try:
                fcntl.fcntl(mine, fcntl.F_SETFL, before | os.O_DIRECT)
            except OSError:
                # Memory files of some kernels know no O_DIRECT: then there is nothing that could spill over.
                assert not fcntl.fcntl(mine, fcntl.F_GETFL) & os.O_DIRECT
            fcntl.fcntl(mine, fcntl.F_SETOWN, os.getpid())
            assert os.lseek(other, 0, os.SEEK_CUR) == 0
            assert fcntl.fcntl(other, fcntl.F_GETFL) == before
            assert fcntl.fcntl(other, fcntl.F_GETOWN) == 0
        with raw_attach(daemon.runtime, "m") as late:
            assert [os.lseek(fd, 0, os.SEEK_CUR) for fd in late.fds] == [0] * len(late.fds)
    assert np.array_equal(attach("m")["a"], VALUES)
