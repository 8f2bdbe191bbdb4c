"""Foreign descriptors and configured paths: what a stager opens or is sent, and what it refuses. Runs in stagers only.

A descriptor from a client may be anything. One of FUSE can hang read, fstat and even close for ever, which is why the
daemon never holds one; here it costs a stager that is abandoned at its deadline. Source: openat2(2), fstatfs(2),
statx(2), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from mapcell_formats import locate
from mapcell_formats.errors import AccessDenied, FormatError, NotFound, ProtocolError, StagingFailed
from mapcell_formats.messages import MAX_DESCRIPTORS, MAX_HANDLE_BYTES
from mapcell_formats.source import FileSource
from mapcelld import channel, filesystems

_O_PATH = 0o10000000
_FUSE = 0x65735546
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_AT_EMPTY_PATH = 0x1000
_AT_STATX_DONT_SYNC = 0x4000
# Where stx_dev_major and stx_dev_minor lie in struct statx.
_STX_DEV = 136


def receive_offer(connection: socket.socket, paths: Sequence[str]) -> list[FileSource]:
    """The checkpoint's files that the client sends next on `connection`, checked. The caller owns the sources.

    ProtocolError when their number is not that of `paths`; AccessDenied or FormatError for a descriptor that is no
    regular file opened read-only on a file system that answers.
    """
    _, fds = channel.receive(connection, MAX_HANDLE_BYTES, MAX_DESCRIPTORS)
    if len(fds) != len(paths):
        _let_go(fds)
        raise ProtocolError(f"{len(fds)} descriptors came for {len(paths)} files")
    sources: list[FileSource] = []
    try:
        while fds:
            _check_foreign(fds[0], paths[len(sources)])
            sources.append(FileSource(_own_description(fds.pop(0)), paths[len(sources)]))
    except BaseException:
        _let_go(fds)
        close_sources(sources)
        raise
    return sources


def open_configured(paths: Sequence[str], roots: Sequence[str]) -> list[FileSource]:
    """The files of what the operator named, opened beneath one of `roots`. The caller owns the sources.

    A path leads to a file, a folder or an index (`locate`). Symbolic links are followed as long as they stay beneath
    the root. NotFound, AccessDenied or FormatError else.
    """
    sources: list[FileSource] = []
    try:
        for path in paths:
            sources += _open_named(path, roots)
    except BaseException:
        close_sources(sources)
        raise
    return sources


@dataclass(frozen=True, slots=True)
class _FolderBeneath:
    """A folder beneath one of `roots`, whose files are opened as `_open_beneath` does."""

    path: str
    roots: Sequence[str]

    def names(self) -> Iterable[str]:
        with channel.owned([_open_beneath(self.path, self.roots)]) as (fd,):
            return os.listdir(fd)

    def open(self, name: str) -> FileSource:
        path = str(PurePath(self.path, name))
        return FileSource(_open_beneath(path, self.roots), path)


def _open_named(path: str, roots: Sequence[str]) -> list[FileSource]:
    fd = _open_beneath(path, roots)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        return locate.open_folder(_FolderBeneath(path, roots))
    return locate.with_neighbours(FileSource(fd, path), _FolderBeneath(str(PurePath(path).parent), roots))


def close_sources(sources: Sequence[FileSource]) -> None:
    """Closes them all."""
    for source in sources:
        source.close()


def _check_foreign(fd: int, path: str) -> None:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & _O_PATH or flags & os.O_ACCMODE != os.O_RDONLY:
        raise AccessDenied(f"{path}: the descriptor has to be open for reading only", path=path)
    # The mount table first: a FUSE server is asked by fstatfs, and may never answer.
    kind = _FUSE if _is_fuse(fd) else filesystems.kind_of(fd)
    if kind not in filesystems.ANSWERING:
        raise AccessDenied(
            f"{path} lies on a file system of type {kind:#x}, which may answer late or never; copy the file to a local "
            "one, or attach with daemon='never'",
            path=path,
        )
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        raise FormatError(
            "is a directory" if stat.S_ISDIR(mode) else "is not a regular file", path=path, expected="a checkpoint file"
        )


def _own_description(fd: int) -> int:
    """The same file in a description of our own, where we may open it; consumes `fd`.

    Over a shared one the client could turn O_DIRECT on in the middle, and fail everybody who waits for this file.
    """
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return fd
    os.close(fd)
    return own


def _is_fuse(fd: int) -> bool:
    """Whether `fd` lies on a FUSE file system that is mounted where this process sees it. Asks no FUSE server."""
    device = _device(fd)
    with open("/proc/self/mountinfo", errors="surrogateescape") as lines:
        mounts = (line.partition(" - ") for line in lines)
        return any(kind.startswith("fuse") and about.split()[2] == device for about, _, kind in mounts)


def _device(fd: int) -> str:
    """What file system `fd` lies on, as the mount table writes it: "major:minor". Not fstat: that asks the server."""
    buffer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statx(fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, 0, buffer) != 0:
        raise StagingFailed(f"statx failed: {os.strerror(ctypes.get_errno())}")
    major, minor = struct.unpack_from("=II", buffer, _STX_DEV)
    return f"{major}:{minor}"


def _let_go(fds: Sequence[int]) -> None:
    # Closing can hang as well, before the client was told anything: those of FUSE are left to the end of the process.
    channel.close_all([fd for fd in fds if not _is_fuse(fd)])


def _open_beneath(path: str, roots: Sequence[str]) -> int:
    for root in roots or ("/",):
        if PurePath(path).is_relative_to(root):
            break
    else:
        raise AccessDenied(f"{path} lies beneath none of the configured roots {list(roots)}", path=path)
    try:
        folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        with channel.owned([folder]):
            return _openat2(folder, str(PurePath(path).relative_to(root)))
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file", path=path) from None
    except OSError as exc:
        raise AccessDenied(f"{path}: {exc.strerror}; links may not lead out of {root}", path=path) from None


def _openat2(folder: int, relative: str) -> int:
    how = struct.pack(
        "<QQQ", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS
    )
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(_SYS_OPENAT2, folder, os.fsencode(relative), how, len(how))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(fd)
