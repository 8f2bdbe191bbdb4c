"""This process's connections to daemons: where to look, one control connection each, and the leases.

A connection answers one question at a time: the control connection is made anew after a fork and used under a lock. A
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import time
from collections.abc import Mapping
from threading import Lock
from typing import Any

from mapcell_formats.errors import DaemonUnavailable, ProtocolError

from .zmtp import Dealer

CONTROL = "control.sock"
HANDLES = "handles.sock"
# After a restart the daemon has forgotten what it was asked: a question without an answer is put again.
_ASK_AGAIN_SECONDS = 0.2
_RECONNECT_SECONDS = 0.01
_LOOK_AGAIN_SECONDS = 0.02
_TMP = "/tmp/"


def runtime_folders(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Where daemons are sought: MAPCELL_RUNTIME alone when set, else the user's, the system's, and the one in /tmp."""
    if runtime := environment.get("MAPCELL_RUNTIME"):
        return [os.path.abspath(runtime)]
    session = environment.get("XDG_RUNTIME_DIR")
    user = [os.path.join(session, "mapcell")] if session else []
    return [*user, "/run/mapcell", _in_tmp()]


def _in_tmp() -> str:
    return f"{_TMP}mapcell-{os.getuid()}"


class ControlClient:
    """The control connection to one daemon. Owns a descriptor until `close`; safe to use from any thread."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._lock = Lock()
        self._request = 0
        self._dealer: Dealer | None = Dealer(os.path.join(folder, CONTROL))

    def ask(self, message: object, timeout: float, repeat: bool = True) -> Any:
        """The reply to `message`. DaemonUnavailable after `timeout` seconds; the error that the daemon refused with.

        A question that may be put twice is put again when no answer comes, in case the daemon was restarted.
        """
        from mapcell_formats import messages, wire

        until = time.monotonic() + timeout
        with self._lock:
            if self._dealer is None:
                raise DaemonUnavailable(f"the connection to the daemon at {self.folder} was ended meanwhile; ask again")
            self._request += 1
            payload = wire.encode(message, self._request)
            if len(payload) > messages.MAX_CONTROL_BYTES:
                # The daemon would end the connection without an answer, each time it was asked.
                raise ProtocolError(f"a request of {len(payload)} bytes; ask for fewer tensors by name, or use prefix=")
            reply = self._answer(self._dealer, payload, until, repeat)
        if reply is None:
            raise DaemonUnavailable(
                f"the daemon at {self.folder} gave no answer within {timeout:.0f} s; see its log, or start it again"
            )
        if isinstance(reply, messages.Refused):
            raise reply.error()
        return reply

    def _answer(self, dealer: Dealer, payload: bytes, until: float, repeat: bool) -> Any:
        """The answer under this request's number; None when there is none until then."""
        asked, again = False, 0.0
        while (now := time.monotonic()) < until:
            try:
                if not asked or (repeat and now >= again):
                    dealer.send(payload, _ASK_AGAIN_SECONDS)
                    asked, again = True, now + _ASK_AGAIN_SECONDS
                for raw in dealer.receive(min(_ASK_AGAIN_SECONDS, until - now)):
                    if (reply := self._meant(raw)) is not None:
                        return reply
            except OSError:
                if asked and not repeat:
                    raise DaemonUnavailable(f"the daemon at {self.folder} went away before it answered") from None
                asked = False
                time.sleep(_RECONNECT_SECONDS)
        return None

    def _meant(self, raw: bytes) -> Any:
        """What `raw` says if it answers the question under way, else None."""
        from mapcell_formats import messages, wire

        number, reply = wire.decode(raw, messages.REPLIES, wire.MAX_ROWS)
        # What the daemon could not read so far as to its number it refuses under none.
        if number == self._request or (number == 0 and isinstance(reply, messages.Refused)):
            return reply
        return None

    def close(self) -> None:
        """Ends the connection. A second call does nothing."""
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """As `close`, in a child whose parent may have held the lock; the parent's connection goes on."""
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            dealer.close()


class Connections:
    """The control connections of this process, one for each daemon that was found."""

    def __init__(self) -> None:
        self._clients: dict[str, ControlClient] = {}
        self._lock = Lock()

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

    def latest(self) -> ControlClient | None:
        """The connection to the daemon that is sought first, if it was found before. It may be gone by now.

        For those who find out by themselves, and then ask for `client`.
        """
        client = self._clients.get(folder := runtime_folders()[0])
        return None if client is None or planted(folder) else client

    def _look(self, folders: list[str]) -> tuple[ControlClient | None, bool]:
        """The connection to a daemon that answers, and whether any of the folders had one before."""
        with self._lock:
            for folder in folders:
                if planted(folder):
                    continue
                client = self._clients.get(folder)
                if (client is not None and os.path.exists(os.path.join(folder, HANDLES))) or listens(folder):
                    return self._clients.setdefault(folder, client or ControlClient(folder)), True
            return None, any(folder in self._clients for folder in folders)

    def close(self) -> None:
        """Ends every connection; the next question makes new ones."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def after_fork(self) -> None:
        """Lets go of the parent's connections, and of a lock that another thread of it may have held at the fork."""
        self._lock = Lock()
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.abandon()


CONNECTIONS = Connections()
os.register_at_fork(after_in_child=CONNECTIONS.after_fork)
atexit.register(CONNECTIONS.close)


def left(until: float) -> float:
    """Seconds left until `until` (of time.monotonic), at least a hundredth."""
    return max(until - time.monotonic(), 0.01)


def planted(folder: str) -> bool:
    """Whether `folder` is the one in /tmp that only this user's daemon makes, and somebody else made it first.

    A daemon in it would be theirs: it would see which files this process opens, and lend it weights of their choice.
    """
    try:
        return folder.startswith(_TMP) and folder == _in_tmp() and os.lstat(folder).st_uid not in (0, os.getuid())
    except OSError:
        return False


def listens(folder: str) -> bool:
    """Whether a daemon accepts connections in `folder`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        with contextlib.suppress(OSError):
            probe.connect(os.path.join(folder, HANDLES))
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
