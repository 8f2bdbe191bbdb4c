"""Replaces a file by a complete one, or leaves it as it was."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


_BUFFER_BYTES = 1 << 20
# A checkpoint may be a secret, and its owner can widen this later; narrowing it later would come too late. The umask
# narrows it further.
FILE_MODE = 0o600


def write_atomically(path: str | os.PathLike[str], chunks: Iterable[Buffer]) -> int:
    """Writes `chunks` one after another to `path` -> bytes written.

    They go to a sibling file that is flushed to disk and then renamed, so that nobody ever sees half of it, and a
    process that maps the old file keeps the old bytes. On any failure the old file stays and the sibling goes. A
    symlink is followed. The new file has FILE_MODE, whatever the old one had. OSError as the system raises it.
    """
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{os.fspath(path)} is a directory: name a file in it")
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _replace(folder, os.path.basename(target), chunks)
    finally:
        os.close(folder)


def _replace(folder: int, name: str, chunks: Iterable[Buffer]) -> int:
    # Not derived from the name, which may be as long as names can be.
    sibling = f".mapcell-{secrets.token_hex(8)}.tmp"
    fd = os.open(sibling, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE, dir_fd=folder)
    try:
        written = _write(fd, chunks)
        os.rename(sibling, name, src_dir_fd=folder, dst_dir_fd=folder)
    # Whatever went wrong, an interrupt included, the half-written sibling has to go.
    except BaseException:
        os.unlink(sibling, dir_fd=folder)
        raise
    os.fsync(folder)
    return written


def _write(fd: int, chunks: Iterable[Buffer]) -> int:
    with open(fd, "wb", buffering=_BUFFER_BYTES) as file:
        written = sum(file.write(chunk) for chunk in chunks)
        file.flush()
        os.fsync(fd)
    return written
