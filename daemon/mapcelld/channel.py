"""Messages with descriptors over a SEQPACKET socket: whole or not at all, and no descriptor is ever leaked.

Source: unix(7), recvmsg(2). Every receive sets MSG_CMSG_CLOEXEC, so that a stager forked at that moment inherits none.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from mapcell_formats.errors import ProtocolError

_UCRED = struct.Struct("iII")
# As plain numbers: each & of an enum's members takes longer than the call that it is about.
_TRUNCATED, _CUT = int(socket.MSG_TRUNC), int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_PEEK, _NO_SIGNAL = int(socket.MSG_PEEK), int(socket.MSG_NOSIGNAL)
_SOL_SOCKET, _SCM_RIGHTS, _SO_PEERCRED = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS), int(socket.SO_PEERCRED)
_SO_PEERGROUPS = 59
# More supplementary groups than this are cut off by no system in use (NGROUPS_MAX is 65,536).
_MAX_GROUPS = 65_536
# socket.getsockopt asks for no longer answers: enough for 256 groups.
_PYTHONS_LIMIT = 1024


# A tuple, because one is made for every client that comes: a frozen dataclass takes three times as long to make.
class Credentials(NamedTuple):
    """Who is at the other end of a UNIX socket, as the kernel saw it when the connection was made."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


def credentials(sock: socket.socket) -> Credentials:
    """Who connected `sock`, supplementary groups included."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED.size))
    return Credentials(pid, uid, gid, _peer_groups(sock, gid))


def _peer_groups(sock: socket.socket, gid: int) -> frozenset[int]:
    try:
        return _groups(sock.getsockopt(_SOL_SOCKET, _SO_PEERGROUPS, _PYTHONS_LIMIT), gid)
    except OSError as exc:
        if exc.errno != errno.ERANGE:
            return frozenset({gid})
    many = array.array("I", bytes(4 * _MAX_GROUPS))
    length = ctypes.c_uint(4 * _MAX_GROUPS)
    address, _ = many.buffer_info()
    status = ctypes.CDLL(None).getsockopt(
        sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, ctypes.c_void_p(address), ctypes.byref(length)
    )
    return frozenset({gid, *many[: length.value // 4]}) if status == 0 else frozenset({gid})


# Those of a host's workers are a few, and the same each time.
@lru_cache(maxsize=64)
def _groups(raw: bytes, gid: int) -> frozenset[int]:
    return frozenset({gid, *array.array("I", raw)})


def supplementary_groups(pid: int, uid: int) -> frozenset[int]:
    """The groups of process `pid` while it still is `uid`'s; none when it is gone.

    For the control channel, whose credentials lack them. Whoever asks could have ended and left its pid to another
    process of the same uid meanwhile, which is why the handle channel asks the kernel again (SO_PEERGROUPS).
    """
    try:
        with open(f"/proc/{pid}/status") as lines:
            status = dict(line.rstrip("\n").partition(":")[::2] for line in lines)
    except OSError:
        return frozenset()
    owner = status.get("Uid", "").split()
    return frozenset(map(int, status.get("Groups", "").split())) if owner and int(owner[0]) == uid else frozenset()


def send(sock: socket.socket, payload: bytes, fds: Sequence[int] = ()) -> None:
    """Sends one message with descriptors, which stay the caller's. OSError as sendmsg raises it."""
    rights = [(_SOL_SOCKET, _SCM_RIGHTS, array.array("i", fds))] if fds else ()
    sock.sendmsg((payload,), rights, _NO_SIGNAL)


def receive(sock: socket.socket, max_bytes: int, max_fds: int) -> tuple[bytes, list[int]]:
    """One message and its descriptors, which the caller then owns; (b"", []) at the end of the stream.

    ProtocolError when the message or its descriptors were cut off; those that came are closed.
    """
    # Not socket.recv_fds: it ignores the flags that it is given.
    payload, ancillary, flags, _ = sock.recvmsg(max_bytes, _room(max_fds), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) // fds.itemsize * fds.itemsize])
    if flags & _CUT:
        close_all(fds)
        raise ProtocolError(f"message of more than {max_bytes} bytes or {max_fds} descriptors")
    return payload, list(fds)


def _room(max_fds: int) -> int:
    return socket.CMSG_LEN(max_fds * array.array("i").itemsize) if max_fds else 0


def peek(sock: socket.socket, max_bytes: int) -> bytes:
    """The next message, left in the queue, its descriptors not installed here. ProtocolError when it is longer."""
    payload, _, flags, _ = sock.recvmsg(max_bytes, 0, _PEEK)
    if flags & _TRUNCATED:
        raise ProtocolError(f"message of more than {max_bytes} bytes")
    return payload


def discard(sock: socket.socket) -> bool:
    """Takes the next message out of the queue; the kernel drops its descriptors without installing them.

    False at the end of the stream.
    """
    return bool(sock.recvmsg(1, 0)[0])


def sender(sock: socket.socket) -> int | None:
    """Takes the next message out of the queue: the pid of who sent it, where SO_PASSCRED is set. As `discard` else."""
    # Room for the credentials alone, which come first: the kernel drops any descriptor.
    _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_LEN(_UCRED.size))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) == _UCRED.size:
            pid: int = _UCRED.unpack(data)[0]
            return pid
    return None


def unread(sock: socket.socket) -> int:
    """Bytes that were sent and that the other side has not received yet (SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def reopened(fd: int) -> int:
    """A fresh read-only description of what `fd` is open on, which the caller owns."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def close_all(fds: Sequence[int]) -> None:
    """Closes every descriptor of `fds`, whatever becomes of the others."""
    for fd in fds:
        # Not contextlib.suppress, which takes longer than the call: this is done for every client.
        try:  # noqa: SIM105
            os.close(fd)
        except OSError:
            pass


@contextlib.contextmanager
def owned(fds: Sequence[int]) -> Iterator[Sequence[int]]:
    """Closes `fds` when the block ends, however it ends."""
    try:
        yield fds
    finally:
        close_all(fds)
