"""Where a checkpoint's bytes come from: random access to one file, or to something decoded from it.

A reader sees only `ByteSource`. `FileSource` is the one that can be mapped in place; a decrypted or inflated
member is another implementation, whose bytes have to be staged.
"""

from __future__ import annotations

import os
import stat
from typing import NoReturn, Protocol, Self

from .errors import FormatError, StagingFailed


class ByteSource(Protocol):
    """Random access to `size` bytes. `path` is what to call it in an error."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` with the bytes at `offset`; StagingFailed when they cannot all be had. Thread-safe."""
        ...


def read(source: ByteSource, offset: int, nbytes: int) -> bytearray:
    """`nbytes` of `source` at `offset`. The caller has checked both against a limit and `source.size`."""
    out = bytearray(nbytes)
    source.read_into(offset, memoryview(out))
    return out


def opens_with_brace(head: bytes) -> bool:
    """Whether a file that begins with `head` is text whose first character is a brace, as JSON's objects are."""
    return head.lstrip(b" \t\r\n").startswith(b"{") and b"\0" not in head[:8]


class FileSource:
    """A regular file, read with pread. Owns its descriptor: close it, or use it as a context manager.

    Weights that were never closed, and decrypted sources around this one, leave closing to the garbage collector.
    Raises FormatError when the descriptor is no regular file.
    """

    _fd: int = -1

    def __init__(self, fd: int, path: str) -> None:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            kind = "a directory" if stat.S_ISDIR(info.st_mode) else "not a regular file"
            os.close(fd)
            raise FormatError(f"is {kind}", path=path, expected="a checkpoint file")
        self._fd = fd
        self.path = path
        self.size = info.st_size

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens `path` read-only; OSError as `os.open` raises it."""
        # O_NONBLOCK: opening a fifo that nobody writes to would hang before it could be refused.
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), os.fspath(path))

    def fileno(self) -> int:
        """The descriptor, still owned by this object. ValueError once closed."""
        if self._fd < 0:
            raise ValueError(f"{self.path}: source is closed")
        return self._fd

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` from `offset`; StagingFailed when the file ends early or cannot be read."""
        done = 0
        while done < len(buffer):
            try:
                got = os.preadv(self.fileno(), [buffer[done:]], offset + done)
            except OSError as exc:
                raise StagingFailed(f"{self.path}: reading at byte {offset + done} failed: {exc.strerror}") from exc
            if got == 0:
                raise StagingFailed(f"{self.path}: ended at byte {offset + done} while it was being read")
            done += got

    def close(self) -> None:
        """Closes the descriptor; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __reduce__(self) -> NoReturn:
        # A copy would close the same descriptor a second time, which may be somebody else's by then.
        raise TypeError(f"{self.path}: an open file cannot be copied or pickled")

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
