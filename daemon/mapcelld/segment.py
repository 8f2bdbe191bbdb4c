"""`Segment`: the only owner of a descriptor whose bytes are lent."""

from __future__ import annotations

import fcntl
import os


class Segment:
    """One region of memory or file, `nbytes` long. Owns its descriptor until `close`.

    The owned description is never handed out: a client that shares a description could move its offset, set O_DIRECT
    on it or redirect the signals of a guard. `reopen` gives each client one of its own, read-only.
    """

    def __init__(self, fd: int, nbytes: int) -> None:
        self._fd = fd
        self.nbytes = nbytes

    def fileno(self) -> int:
        """The descriptor, still owned by this object. ValueError once closed."""
        if self._fd < 0:
            raise ValueError("segment is closed")
        return self._fd

    def reopen(self) -> int:
        """A fresh read-only description of the same bytes, which the caller owns."""
        return os.open(f"/proc/self/fd/{self.fileno()}", os.O_RDONLY | os.O_CLOEXEC)

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

    def close(self) -> None:
        """Closes the descriptor; a second call does nothing. The last close of a big memfd frees it and takes long."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
