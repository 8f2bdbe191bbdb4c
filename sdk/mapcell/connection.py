"""This process's connections to daemons: where to look, one control connection each, and the leases.

A ZeroMQ socket belongs to the process that made it and to one thread at a time: the control connection is made anew
after a fork and used under a lock. A lease is its own connection; forked children inherit it and keep it alive.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from mapcell_formats.errors import DaemonUnavailable, ProtocolError

if TYPE_CHECKING:
    import zmq

CONTROL = "control.sock"
HANDLES = "handles.sock"
# After a restart the daemon has forgotten what it was asked: a question without an answer is put again.
_ASK_AGAIN_SECONDS = 0.2
_RECONNECT_MS = 10
_LOOK_AGAIN_SECONDS = 0.02


def runtime_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Where daemons are sought: MAPCELL_RUNTIME alone when set, else the user's, the system's, and the one in /tmp."""
    if environment.get("MAPCELL_RUNTIME"):
        return [Path(environment["MAPCELL_RUNTIME"]).absolute()]
    session = environment.get("XDG_RUNTIME_DIR")
    user = [Path(session) / "mapcell"] if session else []
    return [*user, Path("/run/mapcell"), _in_tmp()]


def _in_tmp() -> Path:
    return Path(f"/tmp/mapcell-{os.getuid()}")


class ControlClient:
    """The control connection to one daemon. Owns a ZeroMQ context until `close`; safe to use from any thread."""

    def __init__(self, folder: Path) -> None:
        import zmq

        self.folder = folder
        self._lock = Lock()
        self._request = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self._socket.connect(f"ipc://{folder / CONTROL}")

    def ask(self, message: object, timeout: float, repeat: bool = True) -> Any:
        """The reply to `message`. DaemonUnavailable after `timeout` seconds; the error that the daemon refused with.

        A question that may be put twice is put again when no answer comes, in case the daemon was restarted.
        """
        from mapcell_formats import messages, wire

        until = time.monotonic() + timeout
        with self._lock:
            if self._socket.closed:
                raise DaemonUnavailable(f"the connection to the daemon at {self.folder} was ended meanwhile; ask again")
            self._request += 1
            payload = wire.encode(message, self._request)
            if len(payload) > messages.MAX_CONTROL_BYTES:
                # The daemon would end the connection without an answer, each time it was asked.
                raise ProtocolError(f"a request of {len(payload)} bytes; ask for fewer tensors by name, or use prefix=")
            self._socket.send(payload)
            while (left := until - time.monotonic()) > 0:
                if not self._socket.poll(int(min(left, _ASK_AGAIN_SECONDS) * 1000) + 1):
                    if repeat:
                        self._socket.send(payload)
                    continue
                number, reply = wire.decode(self._socket.recv(), messages.REPLIES, wire.MAX_ROWS)
                # What the daemon could not read so far as to its number it refuses under none.
                if number == self._request or (number == 0 and isinstance(reply, messages.Refused)):
                    break
            else:
                raise DaemonUnavailable(
                    f"the daemon at {self.folder} gave no answer within {timeout:.0f} s; see its log, or start it again"
                )
        if isinstance(reply, messages.Refused):
            raise reply.error()
        return reply

    def close(self) -> None:
        """Ends the connection. A second call does nothing."""
        with self._lock:
            if not self._socket.closed:
                self._socket.close(0)
                self._context.term()


class Connections:
    """The control connections of this process, one for each daemon that was found."""

    def __init__(self) -> None:
        self._clients: dict[Path, ControlClient] = {}
        self._lock = Lock()
        self._pid = os.getpid()

    def client(self, until: float = 0.0) -> ControlClient:
        """The connection to the first daemon that answers. DaemonUnavailable says where it was sought.

        A daemon that this process spoke with before is waited for until `until` (of time.monotonic): it restarts.
        """
        folders = runtime_folders()
        while True:
            found, known = self._look(folders)
            if found is not None:
                return found
            if not known or time.monotonic() + _LOOK_AGAIN_SECONDS >= until:
                break
            time.sleep(_LOOK_AGAIN_SECONDS)
        raise DaemonUnavailable(
            f"no mapcell daemon answers in {' or '.join(map(str, folders))}; start one with `mapcelld`, or set "
            "MAPCELL_RUNTIME to its folder"
        )

    def _look(self, folders: list[Path]) -> tuple[ControlClient | None, bool]:
        """The connection to a daemon that answers, and whether any of the folders had one before."""
        with self._lock:
            self._forget_parents()
            for folder in folders:
                if planted(folder):
                    continue
                client = self._clients.get(folder)
                if (client is not None and (folder / HANDLES).exists()) or listens(folder):
                    return self._clients.setdefault(folder, client or ControlClient(folder)), True
            return None, any(folder in self._clients for folder in folders)

    def close(self) -> None:
        """Ends every connection; the next question makes new ones."""
        with self._lock:
            self._forget_parents()
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def _forget_parents(self) -> None:
        # A child may neither use nor end the sockets that it inherited: they are its parent's.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._clients = {}

    def after_fork(self) -> None:
        """Replaces a lock that another thread of the parent may have held at the fork."""
        self._lock = Lock()


CONNECTIONS = Connections()
os.register_at_fork(after_in_child=CONNECTIONS.after_fork)
atexit.register(CONNECTIONS.close)


def left(until: float) -> float:
    """Seconds left until `until` (of time.monotonic), at least a hundredth."""
    return max(until - time.monotonic(), 0.01)


def planted(folder: Path) -> bool:
    """Whether `folder` is the one in /tmp that only this user's daemon makes, and somebody else made it first.

    A daemon in it would be theirs: it would see which files this process opens, and lend it weights of their choice.
    """
    try:
        return folder == _in_tmp() and folder.lstat().st_uid not in (0, os.getuid())
    except OSError:
        return False


def listens(folder: Path) -> bool:
    """Whether a daemon accepts connections in `folder`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        with contextlib.suppress(OSError):
            probe.connect(str(folder / HANDLES))
            return True
        return False


def daemon_status(timeout: float = 5.0) -> Any:
    """The daemon's figures (messages.Status: pid, version, budget, leases ...), or None when no daemon answers."""
    from mapcell_formats import messages

    try:
        return CONNECTIONS.client().ask(messages.GetStatus(), timeout)
    except DaemonUnavailable:
        return None


def disconnect() -> None:
    """Ends this process's control connections. Weights stay valid, and the next attach connects again."""
    CONNECTIONS.close()
