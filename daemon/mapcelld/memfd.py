"""Anonymous memory that is filled once and then sealed, so that the kernel refuses every later change.

Source: memfd_create(2), fcntl(2) "File Sealing". MFD_NOEXEC_SEAL and F_SEAL_EXEC exist since Linux 6.3 and are used
where the kernel knows them.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

from mapcell_formats.errors import StagingFailed

_MFD_NOEXEC_SEAL = 0x0008
_F_SEAL_EXEC = 0x0020
HUGE_PAGE = 2 << 20
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create(name: str, nbytes: int) -> int:
    """A new memfd of `nbytes` zero bytes, which the caller owns. StagingFailed when the kernel has no room for it."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)
    try:
        os.ftruncate(fd, nbytes)
    # What does not fit the kernel's file sizes is refused by Python itself.
    except (OSError, OverflowError) as exc:
        os.close(fd)
        raise StagingFailed(f"no room for {nbytes} bytes of memory: {exc}") from exc
    return fd


class HugeMemory:
    """A new memfd of huge pages, filled through a map since they take no pwrite. Owns both until `finish` or `close`.

    StagingFailed when the host has too few huge pages to give.
    """

    def __init__(self, name: str, nbytes: int) -> None:
        self.nbytes = -(-nbytes // HUGE_PAGE) * HUGE_PAGE
        try:
            self._fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
        except OSError as exc:
            raise StagingFailed(f"this kernel gives no huge pages: {exc.strerror}") from exc
        try:
            os.ftruncate(self._fd, self.nbytes)
            # Mapping reserves the pages: from here on there is room for every byte.
            self._map = mmap.mmap(self._fd, self.nbytes)
        except OSError as exc:
            os.close(self._fd)
            raise StagingFailed(
                f"{self.nbytes} bytes of huge pages cannot be had: {exc.strerror}; raise vm.nr_hugepages"
            ) from exc

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Copies `data` to `offset`."""
        self._map[offset : offset + len(data)] = data

    def finish(self) -> int:
        """The filled memfd, which the caller then owns; nothing maps it for writing any more."""
        self._map.close()
        fd, self._fd = self._fd, -1
        return fd

    def close(self) -> None:
        """Gives the pages back. A second call, or one after `finish`, does nothing."""
        self._map.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def write(fd: int, offset: int, data: memoryview | bytes) -> None:
    """Writes all of `data` at `offset`. StagingFailed when the memory runs out."""
    view, done = memoryview(data), 0
    while done < len(view):
        try:
            done += os.pwrite(fd, view[done:], offset + done)
        except OSError as exc:
            raise StagingFailed(f"writing {len(view)} bytes of shared memory failed: {exc.strerror}") from exc


def seal(fd: int) -> None:
    """Makes the bytes of `fd` immutable for ever and for everyone, its owner and root included."""
    os.fchmod(fd, 0o444)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS | _F_SEAL_EXEC)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.EPERM):
            raise
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def is_sealed(fd: int, nbytes: int) -> bool:
    """Whether `fd` is a memfd of exactly `nbytes` whose content nobody can change any more."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return seals & _SEALS == _SEALS and os.fstat(fd).st_size == nbytes


def sealed_copy(name: str, data: bytes) -> int:
    """A sealed memfd that holds `data`, which the caller owns."""
    fd = create(name, len(data))
    try:
        write(fd, 0, data)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd
