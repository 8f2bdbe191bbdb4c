"""A FUSE file system that lets its one file be opened and then never answers again: `hanging`.

The protocol is spoken by hand. Source: linux/fuse.h of the kernel, mount(8) "fuse".
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

SIZE = 1 << 20
_HEADER = struct.Struct("<IIQQIIIHH")
_LOOKUP, _GETATTR, _OPEN, _INIT = 1, 3, 14, 26
# These expect no answer.
_FORGET, _BATCH_FORGET, _INTERRUPT = 2, 42, 36
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MNT_DETACH = 2
_FILE = 2

needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="mounting FUSE takes root and /dev/fuse"
)


@contextlib.contextmanager
def hanging(folder: Path, apart: str = "") -> Iterator[int]:
    """A read-only descriptor of a regular file whose file system in `folder` answers nothing from now on.

    With `apart` this process has mounts of its own from then on: "private" ones, which nobody else sees, or "copied"
    ones, made after the file was mounted, as a service has whose mounts follow the host's.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if apart == "private":
        _check(libc.unshare(_CLONE_NEWNS))
        _check(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    _check(libc.mount(b"hanging", os.fsencode(folder), b"fuse", 0, options))
    if apart == "copied":
        _check(libc.unshare(_CLONE_NEWNS))
    server = _Server(device)
    server.start()
    try:
        fd = os.open(folder / "file", os.O_RDONLY)
        server.silent = True
        try:
            yield fd
        finally:
            # Whoever waits for an answer is told that none will come.
            server.end()
            os.close(device)
            with contextlib.suppress(OSError):
                os.close(fd)
    finally:
        server.end()
        unmount(folder)


def unmount(folder: Path) -> None:
    """Unmounts what this process sees mounted on `folder`, if anything: whoever looks after a process of `apart`."""
    ctypes.CDLL(None).umount2(os.fsencode(folder), _MNT_DETACH)


class _Server(threading.Thread):
    """Answers what opening a file takes, and nothing once it is `silent`."""

    def __init__(self, device: int) -> None:
        super().__init__()
        self._device = device
        self._over = threading.Event()
        self.silent = False

    def run(self) -> None:
        """Serves until `end`."""
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        while not self._over.is_set():
            if poll.poll(20):
                self._serve(os.read(self._device, 1 << 17))

    def end(self) -> None:
        """Stops serving. A second call does nothing."""
        self._over.set()
        self.join()

    def _serve(self, request: bytes) -> None:
        _, op, unique, node, *_ = _HEADER.unpack_from(request)
        if self.silent or op in (_FORGET, _BATCH_FORGET, _INTERRUPT):
            return
        answers = {
            _INIT: struct.pack("<IIIIHHIIHH8I", 7, 31, 0, 0, 12, 9, 1 << 16, 1, 0, 0, *[0] * 8),
            _LOOKUP: struct.pack("<QQQQII", _FILE, 0, 0, 0, 0, 0) + _attributes(_FILE),
            _GETATTR: struct.pack("<QII", 0, 0, 0) + _attributes(node),
            _OPEN: struct.pack("<QII", 1, 0, 0),
        }
        body = answers.get(op)
        error = 0 if body is not None else -errno.ENOSYS
        os.write(self._device, struct.pack("<IiQ", 16 + len(body or b""), error, unique) + (body or b""))


def _attributes(node: int) -> bytes:
    mode = 0o100444 if node == _FILE else 0o040555
    return struct.pack("<6Q10I", node, SIZE, SIZE // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
