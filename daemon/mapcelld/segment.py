"""`Segment`: the only owner of a descriptor whose bytes are lent."""

from __future__ import annotations

import fcntl
import os

from mapcelld import guard

_READ_ONLY = os.O_RDONLY | os.O_CLOEXEC


class Segment:
    """One region of memory or file, `nbytes` long. Owns its descriptor until `close`.

    The owned description is never handed out: a client that shares a description could move its offset, set O_DIRECT
    on it or redirect the signals of a guard. `reopen` gives each client one of its own, read-only.
    """

    def __init__(self, fd: int, nbytes: int, sealed: bool = False) -> None:
        """Takes `fd` over. `sealed` for the copy of a file that was mapped until somebody wrote to it."""
        self._fd = fd
        self.nbytes = nbytes
        self.sealed = sealed
        self.guarded = False
        self.stamp = ""

    def fileno(self) -> int:
        """The descriptor, still owned by this object. ValueError once closed."""
        if self._fd < 0:
            raise ValueError("segment is closed")
        return self._fd

    def reopen(self) -> int:
        """A fresh read-only description of the same bytes, which the caller owns."""
        return os.open(f"/proc/self/fd/{self.fileno()}", _READ_ONLY)

    def unused(self) -> bool:
        """Whether nobody else has the bytes open or mapped, as far as the kernel tells.

        A write lease is only granted on a file's sole description (fcntl(2), F_SETLEASE); a mapping holds one too.
        """
        try:
            fcntl.fcntl(self.fileno(), fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except BlockingIOError:
            return False
        except OSError:
            # This kind of file has no leases, so nothing can be learnt: waiting for ever would help nobody.
            return True
        fcntl.fcntl(self.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True

    def guard(self) -> str:
        """Has writers to the file wait from now on: "" when they do, else why not."""
        reason = guard.take(self.fileno())
        self.guarded = not reason
        self.stamp = guard.stamp(self.fileno())
        return reason

    def regard(self, stamp: str) -> None:
        """Goes on with the guard that an earlier daemon took, when the file looked like `stamp`."""
        guard.renew(self.fileno())
        self.guarded, self.stamp = True, stamp

    def broken(self) -> bool:
        """Whether somebody waits to write to the guarded file, or its guard is gone."""
        return self.guarded and guard.broken(self.fileno())

    def changed(self) -> bool:
        """Whether the bytes of the file were written to since it was guarded, as far as its times tell."""
        return guard.stamp(self.fileno()) != self.stamp

    def let_go(self) -> bool:
        """Lets writers go on. Whether the guard held them until now; a second call does nothing."""
        guarded, self.guarded = self.guarded, False
        return guarded and guard.release(self.fileno())

    def close(self) -> None:
        """Closes the descriptor; a second call does nothing. The last close of a big memfd frees it and takes long."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
