"""The guard: a read lease of the kernel's on a mapped file, under which a writer waits until the bytes are safe.

Whoever opens the file for writing, or truncates it, is held in the kernel, and the holder of the description gets a
signal. The lease belongs to the open file description: it outlives the process while the service manager keeps a
descriptor of it. Source: fcntl(2), "Leases"; proc_sys_fs(5), lease-break-time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

from mapcelld import filesystems

# A real-time signal: the kernel queues one for each break. When the queue is full it sends SIGIO instead.
SIGNAL = signal.SIGRTMIN + 4
# Bytes per second at which a file is copied even when none of it is in the page cache. Measured on two cores that ten
# other processes kept busy (bench/guard_delay.py): 0.4 to 0.7 GB/s cold, 0.6 to 1.4 GB/s warm.
COPY_RATE = 400_000_000
# Of the time that a writer can be held: the rest is for a busy host, and for workers to answer.
_SHARE = 0.5
# The kernel lets a writer go after its own time: we have to be done before.
_KERNEL_SHARE = 0.9
_BREAK_TIME = Path("/proc/sys/fs/lease-break-time")
_REASONS = {
    errno.EAGAIN: "it is open for writing",
    errno.EACCES: "it is another user's, and the daemon lacks CAP_LEASE",
    errno.EINVAL: "its file system grants no file leases",
    errno.EOPNOTSUPP: "its file system grants no file leases",
}


def expect() -> None:
    """Has this process survive what tells of writers, before anybody takes it in. In the main thread only."""
    for number in (SIGNAL, signal.SIGIO):
        signal.signal(number, signal.SIG_IGN)


def limit(deadline: float) -> float:
    """Seconds that a writer is held at most: `deadline`, or less where the kernel lets it go earlier."""
    try:
        kernel = int(_BREAK_TIME.read_text())
    except (OSError, ValueError):
        return 0.0
    # 0 says that the kernel waits for ever.
    return min(deadline, kernel * _KERNEL_SHARE) if kernel else deadline


def largest(deadline: float) -> int:
    """Bytes of the largest version whose copy fits into the time of a writer that waits `deadline` seconds."""
    return int(limit(deadline) * _SHARE * COPY_RATE)


def refusal(fd: int) -> str:
    """Why the file of `fd`, a description of the caller's own, cannot be guarded now; "" when it can."""
    if obstacle := filesystems.guarding_obstacle(filesystems.kind_of(fd)):
        return obstacle
    # A signal that nobody minds: a writer may come right now, and whoever only asks has no handler.
    if reason := _lease(fd, signal.SIGURG):
        return reason
    release(fd)
    return ""


def take(fd: int) -> str:
    """Guards the file of `fd`: "" when a writer waits from now on and SIGNAL tells of it, else why not."""
    return filesystems.guarding_obstacle(filesystems.kind_of(fd)) or _lease(fd, SIGNAL)


def renew(fd: int) -> bool:
    """Has the guard of an inherited description tell this process. Whether it is in force and no writer waits."""
    fcntl.fcntl(fd, fcntl.F_SETSIG, SIGNAL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    return not broken(fd)


def broken(fd: int) -> bool:
    """Whether a writer waits, or the guard is gone."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK


def release(fd: int) -> bool:
    """Lets writers go on. Whether the guard was in force until now."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def stamp(fd: int) -> str:
    """Size and time of the last change of the bytes: renaming and chmod, which no guard hinders, leave it as it is."""
    info = os.fstat(fd)
    return f"{info.st_size:x}.{info.st_mtime_ns:x}"


def _lease(fd: int, number: int) -> str:
    try:
        # Before the lease: the kernel's own choice, SIGIO, ends a process that does not expect it.
        fcntl.fcntl(fd, fcntl.F_SETSIG, number)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as exc:
        return _REASONS.get(exc.errno or 0, f"the kernel refused: {exc.strerror}")
    return ""
