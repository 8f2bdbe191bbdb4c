"""The service manager as this process sees it: notifications, inherited descriptors, the watchdog.

Everything here does nothing when no systemd started the process. Source: sd_notify(3), sd_listen_fds(3),
sd_watchdog_enabled(3), systemd.service(5) "FileDescriptorStoreMax=".
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapcelld.config import ConfigError

log = logging.getLogger("mapcelld.manager")

_FIRST = 3
# Long enough for a busy manager; a daemon that cannot tell it anything starts all the same.
_BARRIER_SECONDS = 10.0
_SEND_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Inherited:
    """One descriptor that the manager handed over at the start, under the name that it was given."""

    name: str
    fd: int


class Manager:
    """What systemd told this process at its start, and how to tell it something."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        """ConfigError when one of its variables is no number."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._inherited = _inherited(environment, pid)
        self.watchdog_seconds = _watchdog(environment, pid)
        # systemd tells the store's size since version 254; before that the unit has to.
        self.store_limit = _number(environment, "FDSTORE") or _number(environment, "MAPCELL_FDSTORE")

    def take(self) -> list[Inherited]:
        """The inherited descriptors, which the caller then owns. Once; then none."""
        inherited, self._inherited = self._inherited, []
        for one in inherited:
            os.set_inheritable(one.fd, False)
        return inherited

    def tell(self, state: str, fds: Sequence[int] = ()) -> None:
        """Sends `state` ("READY=1", lines) with descriptors, which stay the caller's."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_SEND_SECONDS)
            try:
                sock.connect(self._address)
                socket.send_fds(sock, [state.encode()], list(fds))
            except OSError as exc:
                log.warning("the service manager was not told: state=%r error=%r", state[:64], str(exc))

    def keep(self, name: str, fd: int) -> None:
        """Puts a descriptor into the manager's store under `name`."""
        self.tell(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [fd])

    def forget(self, name: str) -> None:
        """Takes every descriptor of that name out of the manager's store."""
        self.tell(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def barrier(self) -> None:
        """Waits until the manager has read all that it was told, descriptors included."""
        if not self._address:
            return
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            self.tell("BARRIER=1", [write])
        finally:
            os.close(write)
        with contextlib.closing(open(read, "rb", buffering=0)) as pipe:
            # Not select: adopted descriptors may have taken the first 1,024 numbers.
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            # The end of the pipe is the answer: the manager closed its copy.
            if not poll.poll(_BARRIER_SECONDS * 1000):
                log.warning("the service manager did not answer: seconds=%.1f", _BARRIER_SECONDS)


def _inherited(environment: Mapping[str, str], pid: int) -> list[Inherited]:
    if environment.get("LISTEN_PID") != str(pid):
        return []
    count = _number(environment, "LISTEN_FDS")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    return [Inherited(name, _FIRST + i) for i, name in enumerate(names[:count])]


def _watchdog(environment: Mapping[str, str], pid: int) -> float | None:
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return _number(environment, "WATCHDOG_USEC") / 1e6 or None


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name) or "0"
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"{name}={text!r} in the environment is no number")
    return int(text)
