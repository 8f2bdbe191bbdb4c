"""What the kernel can do, found out by doing it on memory, sockets and a file of our own.

Source: memfd_create(2), fcntl(2), openat2(2), unix(7), mmap(2). A sandbox may refuse what the kernel knows, so no
version number is asked.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .findings import Finding

_MFD_NOEXEC_SEAL = 0x0008
_SO_PEERGROUPS = 59
# Python asks for no longer answers.
_GROUPS_BYTES = 1024
_SYS_OPENAT2 = 437
_RESOLVE_BENEATH = 0x08
_HUGE_PAGE = 2 << 20
_HUGE_FOLDER = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
# A guard may hold a writer for its deadline, 5 s, which has to fit in half of what the kernel grants.
_GUARD_SECONDS = 10
_ANOTHER_KERNEL = "use a newer kernel, or a sandbox (seccomp profile) that allows it"


def kernel_findings() -> list[Finding]:
    """Every check of the kernel, in the order of the report."""
    return [
        _kernel(),
        _sealing(),
        _noexec_seal(),
        _descriptor_passing(),
        _peer_groups(),
        _openat2(),
        _memory_lease(),
        _file_lease(),
        _lease_break_time(),
        _huge_pages(),
    ]


def _kernel() -> Finding:
    name = os.uname()
    ok = name.sysname == "Linux"
    return Finding("kernel", ok, f"{name.sysname} {name.release} {name.machine}", "" if ok else "run it on Linux", True)


@contextmanager
def _memory(flags: int = 0) -> Iterator[int]:
    fd = os.memfd_create("mapcell-doctor", os.MFD_CLOEXEC | flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _sealing() -> Finding:
    try:
        with _memory(os.MFD_ALLOW_SEALING) as fd:
            os.write(fd, b"sealed")
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            obstacle = _changeable(fd)
    except OSError as exc:
        obstacle = str(exc.strerror)
    detail = obstacle or "a sealed memfd refuses writing, truncating and writable maps"
    return Finding("memfd sealing", not obstacle, detail, _ANOTHER_KERNEL if obstacle else "", True)


def _changeable(fd: int) -> str:
    """How the sealed memory of `fd` can be changed after all, "" when it cannot."""
    attempts: dict[str, Callable[[], object]] = {
        "write": lambda: os.pwrite(fd, b"x", 0),
        "truncation": lambda: os.ftruncate(fd, 0),
        "writable map": lambda: mmap.mmap(fd, 6),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except PermissionError:
            continue
        return f"a {what} went through the seals"
    return ""


def _noexec_seal() -> Finding:
    try:
        with _memory(_MFD_NOEXEC_SEAL) as fd:
            ok = not stat.S_IMODE(os.fstat(fd).st_mode) & 0o111
        detail = "shared memory can never be made executable"
    except OSError as exc:
        ok, detail = False, f"not known here ({exc.strerror}); sealed memory is used without it"
    return Finding("MFD_NOEXEC_SEAL", ok, detail, "" if ok else "Linux 6.3 and later have it")


def _descriptor_passing() -> Finding:
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, _memory() as fd:
            socket.send_fds(ours, [b"x"], [fd])
            _, received, _, _ = socket.recv_fds(theirs, 1, 1, socket.MSG_CMSG_CLOEXEC)
            same = os.path.sameopenfile(fd, received[0])
            os.close(received[0])
        detail = "descriptors travel over SEQPACKET sockets" if same else "another descriptor arrived"
    except OSError as exc:
        same, detail = False, str(exc.strerror)
    return Finding("descriptor passing", same, detail, "" if same else _ANOTHER_KERNEL, True)


def _peer_groups() -> Finding:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        try:
            raw = ours.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
        except OSError as exc:
            detail = f"refused: {exc.strerror}"
            return Finding(
                "SO_PEERGROUPS", False, detail, "list users, not groups, in [allow]: groups go unnoticed here"
            )
    groups = struct.unpack(f"{len(raw) // 4}I", raw)
    ok = set(groups) == set(os.getgroups())
    detail = (
        f"names a peer's supplementary groups ({len(groups)} here)" if ok else f"names {groups}, not os.getgroups()"
    )
    return Finding("SO_PEERGROUPS", ok, detail, "" if ok else _ANOTHER_KERNEL)


def _openat2() -> Finding:
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory() as name:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            inside, outside = (_open_beneath(libc, folder, path) for path in (b".", b".."))
        finally:
            os.close(folder)
    ok = inside == 0 and outside == errno.EXDEV
    detail = "paths are kept beneath their root" if ok else os.strerror(inside) if inside else "a path left its root"
    advice = "" if ok else f"{_ANOTHER_KERNEL}; until then models are loaded by path, not from the configuration"
    return Finding("openat2", ok, detail, advice)


def _open_beneath(libc: ctypes.CDLL, folder: int, path: bytes) -> int:
    """The error number of opening `path` beneath `folder`, 0 for none."""
    how = struct.pack("QQQ", os.O_RDONLY | os.O_CLOEXEC, 0, _RESOLVE_BENEATH)
    fd = libc.syscall(ctypes.c_long(_SYS_OPENAT2), folder, path, how, ctypes.c_size_t(len(how)))
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


def _memory_lease() -> Finding:
    """Whether the kernel tells that memory is in use: it leases for writing to a sole description alone (fcntl(2))."""
    with _memory() as writable:
        os.write(writable, b"x")
        ours, theirs = (os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC) for _ in range(2))
    try:
        shared = _leases(ours)
        os.close(theirs)
        alone = _leases(ours)
    finally:
        os.close(ours)
    detail = "" if alone and not shared else "granted to all" if shared else "granted to nobody"
    advice = "memory that closed leases still map is counted as free; leave room in the budget" if detail else ""
    return Finding("leases on memory", not detail, detail or "granted only when nobody else uses the memory", advice)


def _leases(fd: int) -> bool:
    """Whether the kernel grants a write lease; it is given back at once."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _file_lease() -> Finding:
    with tempfile.TemporaryDirectory(prefix="mapcell-doctor-") as folder:
        path = Path(folder, "file")
        path.write_bytes(b"x")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            obstacle = ""
        except OSError as exc:
            obstacle = str(exc.strerror)
        finally:
            os.close(fd)
    place = tempfile.gettempdir()
    detail = f"refused in {place}: {obstacle}" if obstacle else f"granted in {place}: a mapped file can be guarded"
    advice = "files of such a file system are copied (residence sealed) instead of mapped in place" if obstacle else ""
    return Finding("leases on files", not obstacle, detail, advice)


def _lease_break_time() -> Finding:
    try:
        seconds = int(Path("/proc/sys/fs/lease-break-time").read_text())
    except (OSError, ValueError) as exc:
        return Finding("fs.lease-break-time", False, f"unknown: {exc}", "mapped files are not guarded without it")
    ok = seconds >= _GUARD_SECONDS
    advice = "" if ok else f"sysctl fs.lease-break-time={_GUARD_SECONDS} or more, so that large files can be guarded"
    return Finding("fs.lease-break-time", ok, f"{seconds} s to copy a guarded file before a writer goes on", advice)


def _huge_pages() -> Finding:
    try:
        with _memory(os.MFD_HUGETLB | os.MFD_HUGE_2MB) as fd:
            os.ftruncate(fd, _HUGE_PAGE)
            free, total = _huge_count("free_hugepages"), _huge_count("nr_hugepages")
    except OSError as exc:
        return Finding("huge pages", False, f"no memory of 2 MiB pages: {exc.strerror}", 'leave huge_pages = "off"')
    detail = f"{free} of {total} pages of 2 MiB free ({free * 2} MiB)"
    advice = (
        ""
        if free
        else 'huge_pages = "try" has the kernel make some for each model; sysctl vm.nr_hugepages=N before "on"; '
        "nothing needs them"
    )
    return Finding("huge pages", free > 0, detail, advice)


def _huge_count(name: str) -> int:
    return int((_HUGE_FOLDER / name).read_text())
