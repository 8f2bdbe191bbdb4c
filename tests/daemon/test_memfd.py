"""Sealed memory: nobody changes it any more, by any of the ways there are, root included."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator

import pytest

from mapcell_formats.errors import StagingFailed
from mapcelld import memfd
from mapcelld.segment import Segment

DATA = bytes(range(256)) * 32
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
PROT_READ, PROT_WRITE = mmap.PROT_READ, mmap.PROT_WRITE
_MAP_FAILED = ctypes.c_void_p(-1).value


@pytest.fixture
def sealed() -> Iterator[int]:
    """A descriptor of sealed memory that holds DATA, as its maker has it."""
    fd = memfd.sealed_copy("test", DATA)
    yield fd
    assert os.pread(fd, len(DATA), 0) == DATA
    os.close(fd)


@pytest.fixture
def lent(sealed: int) -> Iterator[int]:
    """The description of it that a client gets."""
    fd = Segment(sealed, len(DATA)).reopen()
    yield fd
    with contextlib.suppress(OSError):
        os.close(fd)


def raw_map(fd: int, prot: int, flags: int) -> int:
    """The address of a map; OSError as mmap(2) fails."""
    address = LIBC.mmap(None, ctypes.c_size_t(len(DATA)), prot, flags, fd, ctypes.c_long(0))
    if address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    assert isinstance(address, int)
    return address


def unmap(address: int) -> None:
    """Unmaps what raw_map made."""
    assert LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(len(DATA))) == 0


def protect(fd: int) -> None:
    """Maps read-only and asks for writing afterwards."""
    address = raw_map(fd, PROT_READ, mmap.MAP_SHARED)
    try:
        if LIBC.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(len(DATA)), PROT_READ | PROT_WRITE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    finally:
        unmap(address)


def reopened_write(fd: int) -> None:
    """Opens it anew for writing, as root and the owner may, and writes."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        os.pwrite(again, b"X", 0)
    finally:
        os.close(again)


def reopened_truncate(fd: int) -> None:
    """Opens it anew with O_TRUNC."""
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_TRUNC))


def truncate_through_proc(fd: int) -> None:
    """Truncates by name, without any description of its own."""
    os.truncate(f"/proc/self/fd/{fd}", 0)


def reopened_map(fd: int) -> None:
    """Maps for writing over a description that was opened for writing."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        unmap(raw_map(again, PROT_READ | PROT_WRITE, mmap.MAP_SHARED))
    finally:
        os.close(again)


def unseal(fd: int) -> None:
    """Adds a seal, which F_SEAL_SEAL forbids."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


WAYS: list[Callable[[int], object]] = [
    lambda fd: os.pwrite(fd, b"X", 0),
    lambda fd: os.write(fd, b"X"),
    lambda fd: os.ftruncate(fd, 0),
    lambda fd: os.ftruncate(fd, len(DATA) + 1),
    lambda fd: os.posix_fallocate(fd, 0, 2 * len(DATA)),
    lambda fd: unmap(raw_map(fd, PROT_READ | PROT_WRITE, mmap.MAP_SHARED)),
    lambda fd: unmap(raw_map(fd, PROT_WRITE, mmap.MAP_SHARED)),
    lambda fd: LIBC.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096)) == 0 or _raise(),
    protect,
    reopened_write,
    reopened_truncate,
    truncate_through_proc,
    reopened_map,
    unseal,
]
IDS = [
    "pwrite", "write", "shrink", "grow", "allocate", "writable map", "write-only map", "punch a hole", "mprotect",
    "reopened, pwrite", "reopened, truncated", "truncate by name", "reopened, writable map", "unseal",
]  # fmt: skip


def _raise() -> None:
    raise OSError(ctypes.get_errno(), "fallocate")


@pytest.mark.parametrize("change", WAYS, ids=IDS)
@pytest.mark.parametrize("whose", ["sealed", "lent"])
def test_no_way_to_change_it(request: pytest.FixtureRequest, whose: str, change: Callable[[int], object]) -> None:
    """Through the maker's description and through a client's: the kernel refuses."""
    with pytest.raises(OSError) as caught:
        change(request.getfixturevalue(whose))
    assert caught.value.errno in (errno.EPERM, errno.EACCES, errno.EBADF, errno.EINVAL, errno.ETXTBSY)


def test_mode(sealed: int) -> None:
    """Everybody may read it, nobody may run it, and an owner who makes it writable has won nothing."""
    assert os.fstat(sealed).st_mode & 0o7777 == 0o444
    os.fchmod(sealed, 0o644)
    with pytest.raises(PermissionError):
        reopened_write(sealed)


@pytest.mark.parametrize(
    ("prot", "flags"),
    [(PROT_READ, mmap.MAP_SHARED), (PROT_READ, mmap.MAP_PRIVATE), (PROT_READ | PROT_WRITE, mmap.MAP_PRIVATE)],
    ids=["shared", "private", "copy-on-write"],
)
def test_what_is_left(lent: int, prot: int, flags: int) -> None:
    """It can be read, mapped to be read, and mapped privately to be written by one process for itself."""
    assert os.pread(lent, len(DATA), 0) == DATA
    address = raw_map(lent, prot, flags)
    assert ctypes.string_at(address, len(DATA)) == DATA
    if prot & PROT_WRITE:
        ctypes.memset(address, 7, 8)
    unmap(address)


def test_is_sealed(sealed: int) -> None:
    """Only memory of exactly that size that is sealed in full counts."""
    assert memfd.is_sealed(sealed, len(DATA))
    assert not memfd.is_sealed(sealed, len(DATA) - 1)
    fd = memfd.create("test", len(DATA))
    try:
        assert not memfd.is_sealed(fd, len(DATA))
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        assert not memfd.is_sealed(fd, len(DATA))
    finally:
        os.close(fd)
    with open("/proc/self/exe", "rb") as file:
        assert not memfd.is_sealed(file.fileno(), os.fstat(file.fileno()).st_size)


def test_not_while_mapped_for_writing() -> None:
    """Memory that somebody still maps for writing cannot be sealed: whoever fills it has to let go first."""
    fd = memfd.create("test", len(DATA))
    try:
        address = raw_map(fd, PROT_READ | PROT_WRITE, mmap.MAP_SHARED)
        with pytest.raises(OSError) as caught:
            memfd.seal(fd)
        assert caught.value.errno == errno.EBUSY
        unmap(address)
        memfd.seal(fd)
        assert memfd.is_sealed(fd, len(DATA))
    finally:
        os.close(fd)


@pytest.mark.parametrize("nbytes", [1 << 64, 1 << 63, -1])
def test_no_room(nbytes: int) -> None:
    """A size that cannot be had is refused, and leaves no descriptor."""
    with pytest.raises(StagingFailed, match="no room"):
        memfd.create("test", nbytes)


def test_write() -> None:
    """Writes all, also at an offset, and says when it cannot."""
    fd = memfd.create("test", 10)
    try:
        memfd.write(fd, 4, memoryview(b"abc"))
        assert os.pread(fd, 10, 0) == b"\0\0\0\0abc\0\0\0"
        memfd.seal(fd)
        with pytest.raises(StagingFailed, match="writing 1 bytes of shared memory failed"):
            memfd.write(fd, 0, b"x")
    finally:
        os.close(fd)
