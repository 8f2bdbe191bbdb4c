"""The runtime folder: where the sockets lie, and the lock that keeps a second daemon out of it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from mapcell_formats.errors import AccessDenied, MapcellError

CONTROL = "control.sock"
HANDLES = "handles.sock"
LOCK = "lock"
# sun_path holds 108 bytes with its terminating zero, and the longer of the names has to fit behind the folder.
_MAX_SOCKET_PATH = 107


def choose(argument: str | None, environment: Mapping[str, str], uid: int) -> Path:
    """The folder that the daemon uses: the argument, MAPCELL_RUNTIME, systemd's, the user's own, else one in /tmp."""
    systemd = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    named = argument or environment.get("MAPCELL_RUNTIME") or systemd
    if named:
        return Path(named).absolute()
    session = environment.get("XDG_RUNTIME_DIR")
    return Path(session) / "mapcell" if session else Path(f"/tmp/mapcell-{uid}")


class RuntimeFolder:
    """An open runtime folder. Owns the lock's descriptor until `close`, which also removes the sockets."""

    def __init__(self, path: Path) -> None:
        """Makes the folder (0700) if need be and takes its lock.

        AccessDenied when others could write in it, MapcellError when another daemon holds it (its pid is named) or its
        path is too long for a socket.
        """
        if len(os.fsencode(path / CONTROL)) > _MAX_SOCKET_PATH:
            raise MapcellError(f"{path}: too long for a UNIX socket; choose a shorter --runtime", path=str(path))
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(path)
            self._lock = _take_lock(path / LOCK)
        except MapcellError:
            raise
        except OSError as exc:
            raise MapcellError(
                f"{path} cannot be used: {exc.strerror}; choose another --runtime", path=str(path)
            ) from exc
        self.path = path
        # Sockets that the service manager bound are its own, and outlive the daemon.
        self.keeps_sockets = False

    @property
    def control(self) -> Path:
        """Where the control channel listens."""
        return self.path / CONTROL

    @property
    def handles(self) -> Path:
        """Where the handle channel listens."""
        return self.path / HANDLES

    def close(self) -> None:
        """Removes the sockets, then gives the lock back. A second call does nothing."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            if not self.keeps_sockets:
                self.control.unlink(missing_ok=True)
                self.handles.unlink(missing_ok=True)
            os.close(lock)


def _check_owner(path: Path) -> None:
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise AccessDenied(f"{path} is no folder; choose another --runtime", path=str(path))
    if info.st_uid not in (0, os.geteuid()) or info.st_mode & stat.S_IWOTH:
        raise AccessDenied(
            f"{path} belongs to uid {info.st_uid} with mode {info.st_mode & 0o7777:o}, so others could put sockets in "
            "it; remove it or choose another --runtime",
            path=str(path),
        )


def _take_lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise MapcellError(
            f"a mapcelld with pid {holder} already serves {path.parent}; stop it, or give this one another --runtime",
            path=str(path.parent),
            pid=int(holder) if holder.isdigit() else None,
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
