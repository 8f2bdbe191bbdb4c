"""The kernel's word that names in a folder changed: a small wrapper of inotify(7), which Python has none of.

An instance is a descriptor like any other: the daemon reads it, and stagers, which alone look up foreign paths, add
watches to it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
OVERFLOW = 0x4000
IGNORED = 0x8000
_ONLYDIR = 0x1000000
# One mask for every watch: a second one on the same folder would replace the first's.
MASK = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF | _ONLYDIR
_EVENT = struct.Struct("@iIII")
# Hundreds of events; the queue holds the others.
READ_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened to `name` in the folder of `watch`, or to the folder itself when the name is "".

    `name` as `printable` writes it.
    """

    watch: int
    mask: int
    name: str


def create() -> int:
    """A new instance, which the caller owns. OSError when this user has too many of them."""
    fd = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    return int(_checked(fd))


def add(fd: int, folder: str) -> int:
    """Watches `folder`: the number of the watch. OSError as inotify_add_watch(2) has it."""
    return int(_checked(_libc().inotify_add_watch(fd, os.fsencode(folder), MASK)))


def remove(fd: int, watch: int) -> None:
    """Ends a watch; nothing when it ended by itself."""
    _libc().inotify_rm_watch(fd, watch)


def parse(data: bytes) -> Iterator[Change]:
    """The changes in what was read from an instance."""
    at = 0
    while at + _EVENT.size <= len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield Change(watch, mask, printable(os.fsdecode(data[at : at + length].rstrip(b"\0"))))
        at += length


def printable(name: str) -> str:
    """`name`, which may hold any bytes, as a message can hold it."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
